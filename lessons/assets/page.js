// What the theme leaves undone for readers who listen to a page, go by keyboard, print, or open it as a file.
document.addEventListener("DOMContentLoaded", () => {
  const all = (selector) => document.querySelectorAll(selector);
  const root = document.documentElement;

  // A name that hides the words on the control is worse than none.
  for (const control of all("summary[aria-label], .search-button-field")) control.removeAttribute("aria-label");

  // The button of the theme says which one is on.
  const modes = { light: "Light", dark: "Dark", auto: "System Settings" };
  const say = () => {
    for (const button of all(".theme-switch-button")) button.ariaLabel = `Colour theme: ${modes[root.dataset.mode]}`;
  };
  new MutationObserver(say).observe(root, { attributes: true, attributeFilter: ["data-mode"] });
  say();

  // A list of references is a list of list items.
  for (const entry of all(".citation-list > .citation")) entry.setAttribute("role", "listitem");

  // The title above the menu belongs to it, and an empty corner of a table is no heading.
  for (const brand of all(".bd-sidebar-primary .navbar-brand")) brand.parentElement.setAttribute("role", "banner");
  for (const corner of all("th")) if (!corner.textContent.trim()) corner.setAttribute("role", "cell");

  // What scrolls sideways can be reached by Tab, also when it was folded or the window wider at first.
  const sizes = new ResizeObserver((seen) => {
    for (const { target } of seen) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
  });
  for (const box of all("article :is(pre, .pst-scrollable-table-container, .cell_output .output)")) sizes.observe(box);

  // Ink on white, whatever the screen shows; and what is folded because it lies beyond the core path, unfolded.
  let theme, opened;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    opened = [...all(".tag_beyond details:not([open]), details.sd-dropdown:not([open])")];
    opened = opened.filter((fold) => !/^\s*solution/i.test(fold.querySelector("summary").textContent));
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    for (const fold of opened) fold.open = false;
  });

  // From a file, a browser lets no page read another one.
  const results = document.getElementById("search-results");
  if (results && location.protocol === "file:") {
    const note = document.createElement("p");
    note.className = "opened-as-a-file";
    note.textContent = "These pages were opened as files, so the search finds pages and headings but cannot show the " +
      "lines around a word. For those run “make serve” in the folder of the course and open the address that it names.";
    results.before(note);
  }
});

// The plain words of a glossary entry beside a link to it, and the reference beside a citation: on hover and on focus,
// gone with Escape (recipes/glossary_hover.py).
(() => {
  "use strict";
  const known = window.courseGlossary;
  if (!known) return;
  const LATER = 200;
  let open = null;
  let timer = 0;

  const hide = () => {
    clearTimeout(timer);
    if (open) open.tip.hidden = true;
    open = null;
  };

  // Beside the link, within the window; fixed to the page, so that nothing else moves.
  const place = (link, tip) => {
    const box = link.getClientRects()[0];
    if (!box) return;
    const width = Math.min(352, document.documentElement.clientWidth - 16);
    tip.style.width = `${width}px`;
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
    const above = box.top - tip.offsetHeight - 6;
    const below = box.bottom + 6;
    const top = below + tip.offsetHeight > window.innerHeight && above > 0 ? above : below;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${top + window.scrollY}px`;
  };

  const show = (link, tip) => {
    clearTimeout(timer);
    if (open && open.tip !== tip) hide();
    tip.hidden = false;
    open = { link, tip };
    place(link, tip);
  };

  const soon = (what) => {
    clearTimeout(timer);
    timer = setTimeout(what, LATER);
  };

  const tips = new Map();
  const tipFor = (anchor, [head, words]) => {
    if (!tips.has(anchor)) {
      const tip = document.createElement("div");
      tip.id = `glossary-tip-${anchor}`;
      tip.className = "glossary-tip";
      tip.setAttribute("role", "tooltip");
      tip.hidden = true;
      const term = document.createElement("strong");
      term.textContent = head;
      tip.append(term, words);
      tip.addEventListener("pointerenter", () => clearTimeout(timer));
      tip.addEventListener("pointerleave", () => soon(hide));
      document.body.append(tip);
      tips.set(anchor, tip);
    }
    return tips.get(anchor);
  };

  // Head and words of what a link leads to; sphinxcontrib-bibtex has put the reference into its title.
  const told = (link, anchor) => {
    if (link.matches('[href*="references.html#id"]')) return link.title && ["", link.title];
    return Object.hasOwn(known, anchor) && [`${known[anchor][0]}: `, known[anchor][1]];
  };

  for (const link of document.querySelectorAll('.bd-article a:is([href*="#term-"], [href*="references.html#id"])')) {
    const anchor = decodeURIComponent(link.hash.slice(1));
    const said = told(link, anchor);
    if (link.classList.contains("headerlink") || !said) continue;
    const tip = tipFor(anchor, said);
    link.classList.add("glossary-link");
    link.removeAttribute("title");
    link.setAttribute("aria-describedby", tip.id);
    link.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "touch") soon(() => show(link, tip));
    });
    link.addEventListener("pointerleave", () => soon(hide));
    link.addEventListener("focus", () => show(link, tip));
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && open) {
      event.stopPropagation();
      hide();
    }
  });
})();

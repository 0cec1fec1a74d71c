// What a reader answered in the quizzes: kept in this browser's localStorage, shown on "Your progress", sent nowhere.
//
//     localStorage["medimgen-progress"] = {"version": 1, "answers": {"00-q1": {"first": "b", "right": true, "when": "2026-11-22"}}}
//
// The first option opened counts. Opening another one later is reading, and changes nothing.
{
  const KEY = "medimgen-progress";
  const LETTERS = "abcdefgh";
  const page = new URL("../lessons/your-progress.html", document.currentScript.src);

  const empty = () => ({ version: 1, answers: {} });

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      return kept?.version === 1 && kept.answers && typeof kept.answers === "object" ? kept : empty();
    } catch {
      return empty(); // nothing kept, not readable, or storage is switched off
    }
  }

  function save(progress) {
    try {
      localStorage.setItem(KEY, JSON.stringify(progress));
      return true;
    } catch {
      return false;
    }
  }

  const tally = (answers, ids) => {
    const done = ids.filter((id) => answers[id]);
    return { of: ids.length, done: done.length, right: done.filter((id) => answers[id].right).length };
  };

  function today() {
    const now = new Date();
    return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((n) => String(n).padStart(2, "0")).join("-");
  }

  // On a page with a quiz: note the first option opened, and say so below the quiz.
  function watch(quiz) {
    const questions = [...quiz.querySelectorAll("fieldset[data-item]")];
    const ids = questions.map((question) => question.dataset.item);
    const said = document.createElement("p");
    said.className = "medimgen-quiz-progress";
    said.setAttribute("role", "status");
    quiz.append(said);

    function tell(kept) {
      const { of, done, right } = tally(load().answers, ids);
      if (!kept) said.textContent = "This browser keeps nothing for this site, so your answers are not counted.";
      else if (done) {
        const link = Object.assign(document.createElement("a"), { href: page.href, textContent: "your progress" });
        said.replaceChildren(`${done} of ${of} answered, ${right} right at once; kept in this browser alone, see `, link, ".");
      }
    }

    for (const question of questions) {
      const options = [...question.querySelectorAll("details")];
      options.forEach((option, number) => option.addEventListener("toggle", () => {
        const progress = load();
        if (!option.open || Object.hasOwn(progress.answers, question.dataset.item)) return;
        const right = option.querySelector("strong").textContent.startsWith("Right");
        progress.answers[question.dataset.item] = { first: LETTERS[number], right, when: today() };
        tell(save(progress));
      }));
    }
    tell(true);
  }

  // On "Your progress": fill the table, and its buttons.
  function report(table) {
    const find = (name) => document.getElementById(`progress-${name}`);
    const dates = { timeZone: "UTC", day: "numeric", month: "long", year: "numeric" };
    const spelt = (iso) => new Date(`${iso}T00:00Z`).toLocaleDateString("en-GB", dates);

    function fill() {
      const { answers } = load();
      const total = { of: 0, done: 0, right: 0 };
      for (const row of table.querySelectorAll("tbody tr")) {
        const ids = row.dataset.items.split(" ");
        const one = tally(answers, ids);
        row.querySelector(".done").textContent = `${one.done} of ${one.of}`;
        row.querySelector(".right").textContent = one.done ? `${one.right} of ${one.done}` : "–";
        const days = ids.map((id) => answers[id]?.when).filter((day) => /^\d{4}-\d\d-\d\d$/.test(day)).sort();
        row.querySelector(".when").textContent = days.length ? spelt(days.at(-1)) : "–";
        for (const key in total) total[key] += one[key];
      }
      find("sum").textContent = total.done
        ? `${total.done} of ${total.of} questions answered, ${total.right} of them right at once.`
        : "No question has been answered in this browser yet.";
      find("save").disabled = find("forget").disabled = !total.done;
    }

    find("print").addEventListener("click", () => print());
    find("save").addEventListener("click", () => {
      const file = new Blob([`${JSON.stringify(load(), null, 1)}\n`], { type: "application/json" });
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: "medimgen-progress.json" });
      link.click();
      URL.revokeObjectURL(link.href);
    });
    find("forget").addEventListener("click", () => find("sure").showModal());
    find("sure").addEventListener("close", () => {
      if (find("sure").returnValue !== "forget") return;
      localStorage.removeItem(KEY);
      fill();
    });
    addEventListener("storage", fill);
    find("day").textContent = spelt(today());
    if (location.protocol === "file:") find("file").hidden = false;
    find("tools").hidden = false;
    fill();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("section.medimgen-quiz").forEach(watch);
    const table = document.getElementById("progress-table");
    if (table) report(table);
  });
}

// The blinded reader study: one anonymous answer, and its errors counted by marking cells.

import { activate, chip, commentBox, el, findingHeading, reportSection } from "/static/dom.js";

const WORDS = { "": "no error", missed: "missed", hallucinated: "hallucinated", wrong_certainty: "wrong certainty" };

export function render(main, { item, config, judge, undo, say }) {
  const readable = item.answer !== null;
  const previous = item.previous || {};
  const marks = [...(previous.marks || config.findings.map(() => ""))];
  let format = !readable || Boolean(previous.format);
  let active = -1;
  // Absent can only have missed something; a mentioned finding is invented or has the wrong certainty.
  const choices = (index) => (item.answer[index] === "absent" ? ["", "missed"] : ["", "hallucinated", "wrong_certainty"]);

  const buttons = [];
  const rows = readable ? config.findings.map((name, index) => {
    const button = el("button", { type: "button", class: "mark", onclick: () => cycle(index) });
    buttons.push(button);
    return el("tr", { tabindex: "-1", onfocusin: () => { active = index; activate(index); }, onmouseenter: () => activate(index) },
      findingHeading(item, config.findings, index), el("td", {}, chip(item.answer[index])), el("td", {}, button));
  }) : [];
  const counts = el("p", { class: "counts" });

  function draw() {
    buttons.forEach((button, index) => {
      button.textContent = marks[index] ? WORDS[marks[index]] : "–";
      button.dataset.mark = marks[index];
      button.setAttribute("aria-label", `${config.findings[index]}: ${WORDS[marks[index]]}; press to change`);
    });
    const count = (mark) => marks.filter((m) => m === mark).length;
    const parts = ["missed", "hallucinated", "wrong_certainty"].map((mark) => `${count(mark)} ${WORDS[mark]}`);
    counts.textContent = `${parts.join(" · ")}${format ? " · format error" : ""}`;
  }
  function set(index, mark) {
    if (index < 0) return say("Choose a finding first: ↑ and ↓ move.", true);
    if (!choices(index).includes(mark)) {
      const why = item.answer[index] === "absent" ? "is absent here, it can only be missed" : "is mentioned here, it cannot be missed";
      return say(`${config.findings[index]} ${why}.`, true);
    }
    marks[index] = marks[index] === mark ? "" : mark;
    draw();
    say(`${config.findings[index]}: ${WORDS[marks[index]]}. ${counts.textContent}`);
  }
  function cycle(index) {
    if (index < 0) return;
    const options = choices(index);
    marks[index] = options[(options.indexOf(marks[index]) + 1) % options.length];
    draw();
    say(`${config.findings[index]}: ${WORDS[marks[index]]}. ${counts.textContent}`);
  }
  function move(step) {
    if (!readable) return;
    active = active < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(active + step, 0), rows.length - 1);
    rows[active].focus();
  }
  function toggleFormat() {
    if (!readable) return;
    format = !format;
    draw();
    say(counts.textContent);
  }

  const hot = new Set(readable ? config.findings.map((_, i) => i).filter((i) => item.answer[i] !== "absent") : []);
  main.replaceChildren(
    reportSection(item, config.findings, hot),
    el("section", { class: "work", "aria-labelledby": "work-title" },
      el("h2", { id: "work-title" }, "Mark every error of this answer"),
      readable
        ? el("table", { class: "answers" },
          el("thead", {}, el("tr", {}, ...["Finding", "Answer", "Error"].map((text) => el("th", { scope: "col" }, text)))),
          el("tbody", { onmouseleave: () => activate(null) }, ...rows))
        : el("p", { class: "notice" }, "No readable answer was given for this report. It counts as a format error: save to go on."),
      counts, commentBox(previous.comment)),
  );
  draw();
  const save = () => judge("done", { marks, format });
  return [
    { key: "Enter", text: "Save", help: "Save and go on (Ctrl+Enter works everywhere)", style: "primary", run: save },
    { key: "f", text: "Format", help: "Format error: the answer as a whole is unusable", run: toggleFormat },
    { key: "s", text: "Skip", run: () => judge("skip", { marks, format }) },
    { key: "u", also: ["z"], text: "Undo", run: undo },
    { key: "ArrowDown", help: "Next finding", repeats: true, run: () => move(1) },
    { key: "ArrowUp", help: "Previous finding", repeats: true, run: () => move(-1) },
    { key: "m", help: "This finding was missed", run: () => set(active, "missed") },
    { key: "h", help: "This finding is hallucinated", run: () => set(active, "hallucinated") },
    { key: "w", help: "This finding has the wrong certainty", run: () => set(active, "wrong_certainty") },
    { key: " ", help: "Next possible error of this finding", run: () => cycle(active) },
  ];
}

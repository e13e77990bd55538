// Two answers side by side: which is better, and, where wanted, what would be right.

import { activate, byId, chip, commentBox, el, findingHeading, hidden, reportSection } from "/static/dom.js";

let onlyDifferent = matchMedia("(max-width: 700px)").matches;
let correcting = false;

function correction(item, index, config) {
  const select = el("select", { "aria-label": `Correct label of ${config.findings[index]}`, onfocus: () => activate(index) });
  select.append(el("option", { value: "" }, "–"));
  config.allowed[index].forEach((word) => select.append(el("option", { value: word }, word)));
  select.value = ((item.previous || {}).corrections || {})[config.findings[index]] || "";
  return select;
}

function row(item, index, config) {
  const differs = item.left[index] !== item.right[index];
  return el(
    "tr",
    { class: differs ? "differs" : "equal", onmouseenter: () => activate(index) },
    findingHeading(item, config.findings, index),
    el("td", {}, differs ? hidden("differs: ") : null, chip(item.left[index])),
    el("td", {}, chip(item.right[index])),
    el("td", { class: "correct" }, correction(item, index, config)),
  );
}

export function render(main, { item, config, judge, undo }) {
  const indices = config.findings.map((_, index) => index);
  const different = indices.filter((index) => item.left[index] !== item.right[index]);
  const table = el(
    "table",
    { class: "answers" },
    el("caption", {}, `${different.length} of ${indices.length} findings differ`),
    el("thead", {}, el("tr", {}, ...["Finding", "Left", "Right"].map((text) => el("th", { scope: "col" }, text)),
      el("th", { scope: "col", class: "correct" }, "Correct"))),
    el("tbody", { onmouseleave: () => activate(null) }, ...indices.map((index) => row(item, index, config))),
  );
  const agreed = el("input", { type: "checkbox", id: "agreed", checked: (item.previous || {}).agreed_right });
  const agreedLine = el("p", { class: "correct" }, el("label", { class: "check" }, agreed,
    " Where both answers agree and nothing is corrected, they are right (makes those cells gold)"));
  const differing = el("button", { type: "button", "aria-keyshortcuts": "d", onclick: () => toggleRows() });
  const correct = el("button", { type: "button", "aria-keyshortcuts": "e", onclick: () => toggleCorrecting() });

  function draw() {
    table.classList.toggle("only-different", onlyDifferent);
    differing.textContent = onlyDifferent ? `Show all ${indices.length} findings (D)` : "Show differences only (D)";
    main.classList.toggle("correcting", correcting);
    correct.textContent = correcting ? "Stop correcting (E)" : "Correct cells (E)";
    correct.setAttribute("aria-expanded", String(correcting));
  }
  function toggleRows() {
    onlyDifferent = !onlyDifferent;
    draw();
  }
  function toggleCorrecting() {
    correcting = !correcting;
    draw();
    if (correcting) table.querySelector("tr.differs select").focus();
  }
  function verdict(name) {
    const selects = [...table.querySelectorAll("select")];
    const chosen = indices.filter((index) => selects[index].value).map((index) => [config.findings[index], selects[index].value]);
    judge(name, { shown: item.shown, corrections: Object.fromEntries(chosen), agreed_right: byId("agreed").checked });
  }

  main.replaceChildren(
    reportSection(item, config.findings, new Set(different)),
    el("section", { class: "work", "aria-labelledby": "work-title" },
      el("h2", { id: "work-title" }, "Which answer is better?"),
      el("div", { class: "row" }, differing, correct), table, agreedLine, commentBox((item.previous || {}).comment)),
  );
  correcting = correcting || Object.keys((item.previous || {}).corrections || {}).length > 0;
  draw();
  return [
    { key: "ArrowLeft", also: ["1"], text: "Left", help: "Left is better", style: "primary", run: () => verdict("left") },
    { key: "ArrowRight", also: ["2"], text: "Right", help: "Right is better", style: "primary", run: () => verdict("right") },
    { key: "t", also: ["3"], text: "Tie", help: "Equally good", run: () => verdict("tie") },
    { key: "b", also: ["4"], text: "Both wrong", run: () => verdict("both_wrong") },
    { key: "s", text: "Skip", run: () => verdict("skip") },
    { key: "u", also: ["z"], text: "Undo", run: undo },
    { key: "e", help: "Correct cells; in a list a letter chooses, Tab goes on, Escape leaves", run: toggleCorrecting },
    { key: "d", help: "Show differing findings only, or all", run: toggleRows },
  ];
}

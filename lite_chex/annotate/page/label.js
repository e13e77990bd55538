// Gold labels at four certainties, with the model's draft and the guideline beside them.
// Adjudication is the same page: where two annotators agree the label is filled in, the rest is open.

import { activate, commentBox, el, findingHeading, hidden, reportSection } from "/static/dom.js";

const LETTERS = { positive: "p", negative: "n", uncertain: "u", absent: "a", x: "x" };

export function render(main, { item, config, judge, undo, say }) {
  const names = config.findings;
  const last = names.length - 1;
  const hasNoFinding = names[last] === "No Finding";
  const labels = [...((item.previous || {}).labels || item.draft || names.map(() => null))];
  let active = 0;

  const inputs = names.map(() => ({}));
  const rows = names.map((name, index) => {
    const cells = ["positive", "negative", "uncertain", "absent", "x"].map((word) => {
      if (word !== "x" && !config.allowed[index].includes(word)) return el("td", { class: "choice" });
      const input = el("input", { type: "radio", name: `f${index}`, value: word, onchange: () => choose(index, word, false) });
      inputs[index][word] = input;
      const probability = item.probabilities && word !== "x" ? item.probabilities[index][config.words.indexOf(word)] : null;
      const opinions = (item.opinions || []).filter((o) => o.labels[index] === word).map((o) => o.name).join(" ");
      const shown = probability !== null ? `${Math.round(100 * probability)}%` : opinions;
      const spoken = opinions ? `, chosen by ${opinions}` : probability !== null ? `, draft ${shown}` : "";
      return el("td", { class: "choice" }, el("label", {}, input, hidden(`${name}: ${word === "x" ? "do not score" : word}${spoken}`),
        el("span", { class: opinions ? "opinion" : "probability", "aria-hidden": "true" }, shown)));
    });
    const open = item.opinions && item.opinions[0].labels[index] !== item.opinions[1].labels[index];
    return el("tr", {
      class: open ? "differs" : null,
      onfocusin: () => setActive(index), onmouseenter: () => activate(index),
    }, findingHeading(item, names, index), ...cells);
  });
  const guide = el("section", { class: "guide", "aria-labelledby": "guide-title" });

  function vetoed() {
    return names.some((name, i) => i < last && name !== "Support Devices" && ["positive", "uncertain"].includes(labels[i]));
  }
  function draw() {
    if (hasNoFinding && vetoed() && labels[last] !== "x") labels[last] = "absent";
    names.forEach((_, index) => {
      for (const [word, input] of Object.entries(inputs[index])) input.checked = labels[index] === word;
      rows[index].classList.toggle("open", labels[index] === null);
    });
    if (hasNoFinding) inputs[last].positive.disabled = vetoed();
  }
  function setActive(index) {
    active = index;
    rows.forEach((row, i) => row.classList.toggle("active", i === index));
    activate(index);
    const rule = config.guideline.findings[names[index]] || "";
    guide.replaceChildren(
      el("h2", { id: "guide-title" }, "Guideline"),
      el("h3", {}, names[index]), el("p", {}, rule),
      el("h3", {}, "Certainty"),
      el("dl", {}, ...Object.entries(config.guideline.certainties).flatMap(([word, text]) => [
        el("dt", {}, `${word === "x" ? "do not score" : word} (${LETTERS[word].toUpperCase()})`), el("dd", {}, text)])),
      el("h3", {}, "In general"),
      el("ul", {}, ...config.guideline.rules.map((text) => el("li", {}, text))),
    );
  }
  function focusRow(index) {
    const target = inputs[index][labels[index]] || Object.values(inputs[index]).find((input) => !input.disabled);
    target.focus({ preventScroll: true });
    rows[index].scrollIntoView({ block: "nearest" });
    setActive(index);
  }
  function choose(index, word, advance = true) {
    const input = inputs[index][word];
    if (!input || input.disabled) return say(`${names[index]} cannot be ${word} here.`, true);
    labels[index] = word;
    draw();
    if (advance) focusRow(Math.min(index + 1, last));
  }
  function move(step) {
    focusRow(Math.min(Math.max(active + step, 0), last));
  }
  function restAbsent() {
    labels.forEach((label, index) => { if (label === null) labels[index] = "absent"; });
    draw();
    say("All open findings are absent now.");
  }
  function save() {
    const open = names.filter((_, index) => labels[index] === null);
    if (open.length === 0) return judge("done", { labels });
    focusRow(names.indexOf(open[0]));
    return say(`Still open: ${open.join(", ")}. R sets what is open to absent.`, true);
  }

  const heads = [["Finding", ""], ["Pos", "P"], ["Neg", "N"], ["Unc", "U"], ["Abs", "A"], ["x", "X: do not score"]];
  const hot = new Set(names.map((_, index) => index).filter((index) => item.opinions && rows[index].className === "differs"));
  main.replaceChildren(
    reportSection(item, names, hot),
    el("section", { class: "work", "aria-labelledby": "work-title" },
      el("h2", { id: "work-title" }, item.opinions ? "Decide what is right" : "What does the report say?"),
      el("table", { class: "answers labels" },
        el("caption", {}, item.opinions ? "A and B are the two annotators"
          : item.probabilities ? "Percentages: the model's draft" : item.draft ? "Filled in: the model's draft" : "No draft"),
        el("thead", {}, el("tr", {}, ...heads.map(([text, key]) =>
          el("th", { scope: "col", title: key ? `Key ${key}` : null }, text)))),
        el("tbody", {}, ...rows)),
      commentBox((item.previous || {}).comment)),
    guide,
  );
  draw();
  const firstOpen = labels.indexOf(null);
  setActive(firstOpen < 0 ? 0 : firstOpen);
  const set = (word, help) => ({ key: LETTERS[word], help, run: () => choose(active, word) });
  return [
    { key: "Enter", text: "Save", help: "Save and go on (Ctrl+Enter works everywhere)", style: "primary", run: save },
    { key: "r", text: "Rest absent", help: "Set what is open to absent", run: restAbsent },
    { key: "s", text: "Skip", run: () => judge("skip") },
    { key: "z", text: "Undo", run: undo },
    { key: "ArrowDown", help: "Next finding", repeats: true, run: () => move(1) },
    { key: "ArrowUp", help: "Previous finding", repeats: true, run: () => move(-1) },
    set("positive", "Positive: said to be there"), set("negative", "Negative: said not to be there"),
    set("uncertain", "Uncertain: hedged"), set("absent", "Absent: not mentioned"), set("x", "Do not score this cell"),
  ];
}

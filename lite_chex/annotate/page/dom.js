// Building the page. Text only ever goes in as text nodes: a report with HTML in it shows as written.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children (strings become text nodes; null is left out). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const hidden = (text) => el("span", { class: "hidden" }, text);

const GLYPHS = { positive: "+", negative: "−", uncertain: "?", absent: "·", x: "×" };

/** A certainty as a chip: a sign, a word and a colour, so that no one of them carries the meaning alone. */
export function chip(word) {
  return el("span", { class: `chip ${word}` }, el("span", { "aria-hidden": "true" }, `${GLYPHS[word]} `), word);
}

/** The report, its supporting sentences marked; `hot` are the findings (indices) that matter here. */
export function reportSection(item, findings, hot) {
  // It scrolls, so it can have the focus: then arrow keys scroll it.
  const text = el("div", { class: "report-text", tabindex: "0", role: "region", "aria-labelledby": "report-title" });
  for (const segment of item.report) {
    const about = segment.findings.map((index) => findings[index]);
    if (about.length === 0) {
      text.append(segment.text);
      continue;
    }
    const isHot = segment.findings.some((index) => hot.has(index));
    const mark = el("mark", { class: isHot ? "hot" : "cold", title: about.join(", ") }, segment.text);
    mark.dataset.findings = ` ${segment.findings.join(" ")} `;
    text.append(mark);
  }
  const title = el("h2", { id: "report-title", tabindex: "-1" }, "Report ", el("span", { class: "id" }, item.study_id));
  return el("section", { class: "report" }, title, text);
}

/** What the report says about a finding, for screen readers; empty where no sentence was found. */
export function support(item, index) {
  return item.report
    .filter((segment) => segment.findings.includes(index))
    .map((segment) => segment.text.trim())
    .join(" … ");
}

/** Emphasise the sentences of one finding (null: of none) and bring the first into view. */
export function activate(index) {
  let first = null;
  for (const mark of document.querySelectorAll(".report-text mark")) {
    const active = index !== null && mark.dataset.findings.includes(` ${index} `);
    mark.classList.toggle("active", active);
    if (active && first === null) first = mark;
  }
  const box = document.querySelector(".report-text");
  if (first && box.scrollHeight > box.clientHeight) box.scrollTop = first.offsetTop - box.offsetTop - 40;
}

/** A row's heading: the finding as a button that shows its sentence. */
export function findingHeading(item, findings, index) {
  const said = support(item, index);
  const button = el(
    "button",
    {
      type: "button",
      class: "finding",
      "aria-description": said ? `The report says: ${said}` : "No sentence found",
      onfocus: () => activate(index),
      onclick: () => activate(index),
    },
    findings[index].replace("Cardiomediastinum", "Cardio\u00admediastinum"), // a soft hyphen, for narrow pages
  );
  return el("th", { scope: "row" }, button);
}

export function commentBox(value) {
  const box = el("textarea", { id: "comment", rows: "2", maxlength: "2000", "aria-keyshortcuts": "c" });
  box.value = value || "";
  return el("div", { class: "comment" }, el("label", { for: "comment" }, "Comment ", kbd("C")), box);
}

export const kbd = (key) => el("kbd", { "aria-hidden": "true" }, key);

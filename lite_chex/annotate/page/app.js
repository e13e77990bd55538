// One page for three tasks: who judges, what comes next, sending, progress, keys.
// A judgement counts when the server has answered; until then it is kept in this browser and sent again.

import * as compare from "/static/compare.js";
import { byId, el, kbd } from "/static/dom.js";
import * as label from "/static/label.js";
import * as review from "/static/review.js";

const TASKS = { compare, review, label, adjudicate: label };
const TITLES = { compare: "compare", review: "reader study", label: "gold labels", adjudicate: "adjudication" };
const state = { config: null, task: null, item: null, annotator: "", actions: [], busy: false, seen: 0, since: 0 };

const stored = (name) => localStorage.getItem(`litechex-${name}`);
const keep = (name, value) =>
  value === null ? localStorage.removeItem(`litechex-${name}`) : localStorage.setItem(`litechex-${name}`, value);
const pendingName = () => `pending-${state.config.task}-${state.annotator}`;
// Refusals of the way in (no token, another origin, another host), not of what was sent.
const KEPT = [401, 403, 421];

export function say(text, problem = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("problem", problem);
}

function requestId() {
  // crypto.randomUUID is missing on plain http outside localhost.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Send until the server has answered; only a refusal (4xx) is an error. */
async function send(path, body) {
  for (let attempt = 0; ; attempt++) {
    try {
      const options = body && {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      };
      const response = await fetch(path, options || {});
      const answer = await response.json();
      if (response.ok) return answer;
      const { status } = response;
      if (status < 500) throw Object.assign(new Error(answer.error), { refused: true, kept: KEPT.includes(status) });
    } catch (error) {
      if (error.refused) throw error;
    }
    say("The server does not answer. Your judgement is kept in this browser and sent again.", true);
    await pause(Math.min(500 * 2 ** attempt, 4000));
  }
}

/** One request at a time; every answer of the server carries the next item. Returns why it was refused, or "". */
async function exchange(path, body, spoken) {
  if (state.busy) return "";
  state.busy = true;
  document.body.classList.add("busy");
  try {
    const answer = await send(path, body);
    if (body) keep(pendingName(), null);
    show(answer, spoken);
    return "";
  } catch (error) {
    const kept = body && error.kept;
    if (body && !kept) keep(pendingName(), null);
    const later = "Your judgement is kept in this browser and sent again when the page is next opened.";
    const problem = kept ? `${error.message} ${later}` : error.message;
    say(problem, true);
    return problem;
  } finally {
    state.busy = false;
    document.body.classList.remove("busy");
  }
}

function post(kind, body, spoken) {
  const full = { ...body, annotator: state.annotator, request: requestId() };
  keep(pendingName(), JSON.stringify({ kind, full }));
  return exchange(`/api/${kind}`, full, spoken);
}

const screenSeconds = () => (state.seen + (document.hidden ? 0 : Date.now() - state.since)) / 1000;

function judge(verdict, detail = {}) {
  if (!state.item || state.busy) return;
  const comment = byId("comment") ? byId("comment").value.trim() : "";
  post("judge", { item: state.item.key, verdict, comment, seconds: screenSeconds(), ...detail }, "Saved.");
}

function undo() {
  if (!state.busy) post("undo", {}, "Taken back.");
}

function minutes(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function showProgress(progress) {
  byId("bar").max = Math.max(progress.total, 1);
  byId("bar").value = progress.done;
  const parts = [`${progress.done} of ${progress.total}`];
  if (progress.pace !== null) {
    parts.push(`${minutes(progress.pace)} each`);
    const left = progress.total - progress.done;
    if (left > 0) parts.push(`about ${minutes(progress.pace * left)} left`);
  }
  byId("pace").textContent = parts.join(" · ");
}

function show(answer, spoken = "") {
  showProgress(answer.progress);
  state.item = answer.item;
  state.seen = 0;
  state.since = Date.now();
  const main = byId("main");
  const context = { item: answer.item, config: state.config, judge, undo, say };
  if (answer.item === null) {
    const { done } = answer.progress;
    main.className = "";
    main.replaceChildren(
      el("section", { class: "finished" }, el("h2", { id: "report-title", tabindex: "-1" }, "All done"),
        el("p", {}, done ? `Thank you. Your ${done} judgements are stored.` : "There is nothing to judge here."),
        el("p", {}, "Close this page whenever you like. ", el("code", {}, "litechex annotate export"), " reads them.")),
    );
    state.actions = done ? [{ key: "u", also: ["z"], text: "Undo", run: undo }] : [];
  } else {
    main.className = state.config.task;
    state.actions = state.task.render(main, context);
  }
  showActions();
  window.scrollTo(0, 0);
  byId("report-title").focus({ preventScroll: true });
  const position = answer.item ? `Item ${answer.progress.done + 1} of ${answer.progress.total}.` : "All done.";
  say(answer.message || `${spoken} ${position}`.trim());
}

function showActions() {
  const buttons = state.actions.filter((action) => action.text).map((action) =>
    el("button", { type: "button", class: action.style, "aria-keyshortcuts": action.key, onclick: action.run },
      el("span", {}, action.text), " ", kbd(keyName(action.key))));
  byId("actions").replaceChildren(...buttons);
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space" };
const keyName = (key) => NAMES[key] || (key.length === 1 ? key.toUpperCase() : key);

function showHelp() {
  const rows = [...state.actions, { key: "c", help: "Write a comment; Escape leaves it" }, { key: "?", help: "This list" }];
  byId("help-keys").replaceChildren(
    ...rows.flatMap((action) => [
      el("dt", {}, [action.key, ...(action.also || [])].map(keyName).join(" or ")),
      el("dd", {}, action.help || action.text),
    ]),
  );
  byId("help-dialog").showModal();
}

function onKey(event) {
  const field = event.target.closest("textarea, select, input:not([type=radio]):not([type=checkbox])");
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.activeElement) document.activeElement.blur();
    return;
  }
  const saves = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (!saves && (field || event.ctrlKey || event.metaKey || event.altKey || !byId("hotkeys").checked)) return;
  // Enter on a button presses that button; elsewhere it saves.
  if (event.key === "Enter" && !saves && event.target.closest("button, summary, a")) return;
  if (event.key === " " && event.target.closest("button, summary, a, input")) return;
  if (["ArrowUp", "ArrowDown"].includes(event.key) && event.target.closest(".report-text")) return; // they scroll it
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = state.actions.find((a) => a.key === key || (a.also || []).includes(key));
  if (key === "?") showHelp();
  else if (key === "c" && byId("comment")) byId("comment").focus();
  else if (action) {
    if (event.repeat && !action.repeats) return;
    action.run();
  } else return;
  event.preventDefault();
}

function setTheme(theme) {
  keep("theme", theme);
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function askName() {
  // A judgement on its way is the old name's, and so is the item that its answer brings.
  if (state.busy) return say("Wait until the server has answered, then change the name.", true);
  byId("who-name").value = state.annotator;
  byId("who-dialog").returnValue = "";
  byId("who-dialog").showModal();
}

async function begin() {
  byId("who").textContent = `You: ${state.annotator}`;
  const pending = JSON.parse(stored(pendingName()) || "null");
  const problem = pending && await exchange(`/api/${pending.kind}`, pending.full, "Sent what was kept from before.");
  if (state.item === null) await exchange(`/api/next?annotator=${encodeURIComponent(state.annotator)}`, null, "");
  if (problem) say(`What was kept from before was refused: ${problem}`, true);
}

async function start() {
  setTheme(stored("theme") || "auto");
  byId("theme").addEventListener("click", () =>
    setTheme({ auto: "dark", dark: "light", light: "auto" }[stored("theme") || "auto"]));
  byId("hotkeys").checked = stored("hotkeys") !== "off";
  byId("hotkeys").addEventListener("change", () => keep("hotkeys", byId("hotkeys").checked ? "on" : "off"));
  byId("help").addEventListener("click", showHelp);
  byId("who").addEventListener("click", askName);
  byId("who-dialog").addEventListener("cancel", (event) => state.annotator || event.preventDefault());
  byId("who-dialog").addEventListener("close", () => {
    const name = byId("who-dialog").returnValue === "ok" ? byId("who-name").value.trim() : "";
    if (!name && !state.annotator) return askName();
    if (!name || name === state.annotator) return;
    state.annotator = name;
    state.item = null;
    keep("annotator", name);
    begin();
  });
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) state.seen += Date.now() - state.since;
    state.since = Date.now();
  });
  state.config = await send("/api/config");
  state.task = TASKS[state.config.task];
  byId("task-name").textContent = TITLES[state.config.task];
  document.title = `LiteChex: ${TITLES[state.config.task]}`;
  state.annotator = (stored("annotator") || "").trim();
  if (state.annotator) begin();
  else askName();
}

start();

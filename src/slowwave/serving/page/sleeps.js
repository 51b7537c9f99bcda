// The time line of sleeps, and what one of them did to the fast weights.

import { bytes, clock, count, duration, find, hue, make, percent, shorten, show } from "./dom.js";

const TRIGGERS = {
  full: "the window was full",
  asked: "it was asked to",
  idle: "nobody had said anything for a while",
  turn: "the next turn had no room in the window",
  system: "a system prompt, all of which stays",
  dream: "it dreamt of what it was told",
};
const MOST_ENTRIES = 12;
const MOMENT = 100; // milliseconds

export class SleepsView {
  #memory;
  #chosen = null;
  #timer = null;

  constructor(memory) {
    this.#memory = memory;
    memory.addEventListener("load", () => this.#render());
    memory.addEventListener("sleep", () => this.#renderSoon());
    find("nights").addEventListener("keydown", (event) => this.#move(event));
  }

  /** Shows a sleep by its number. */
  choose(number) {
    this.#choose(String(number));
  }

  #choose(id) {
    this.#chosen = id;
    this.#render();
    find("nights").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Once for all the sleeps of a moment: a small model may have dozens a second. */
  #renderSoon() {
    this.#timer ??= setTimeout(() => this.#render(), MOMENT);
  }

  #render() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const { info, sleeps, name } = this.#memory;
    if (this.name !== name) this.#chosen = null;
    this.name = name;
    const list = find("nights");
    const follows = list.scrollWidth - list.scrollLeft - list.clientWidth < 60;
    const chosen = this.#find();
    const most = Math.max(...sleeps.flatMap((sleep) => sleep.changes), 1e-9);
    show(
      list,
      sleeps,
      (sleep) => JSON.stringify([sleep, most, sleep === chosen]),
      (sleep) => this.#column(sleep, most, sleep === chosen, info?.window),
    );
    if (follows && this.#chosen === null) list.scrollLeft = list.scrollWidth;
    find("slept").textContent = info ? count(info.num_sleeps, "sleep") : "";
    const report = chosen ? describe(chosen, this.#memory.ledger) : [empty(info)];
    const places = taken(chosen, this.#memory.ledger).map(({ place }) => place);
    const signature = JSON.stringify([chosen, places, !info]);
    show(find("report"), [report], () => signature, () => make("div", {}, ...report));
    explain(sleeps);
  }

  /** The chosen sleep, or the last. */
  #find() {
    const { sleeps } = this.#memory;
    return sleeps.findLast((sleep) => identify(sleep) === this.#chosen) ?? sleeps.at(-1) ?? null;
  }

  #column(sleep, most, isChosen, window) {
    const cells = sleep.changes.map((change) => heat(make("span", { className: "cell" }), change, most));
    const bar = make("span", { className: "bar" });
    bar.style.height = `${Math.max(8, (100 * sleep.tokens) / (window || sleep.tokens))}%`;
    const label = summarise(sleep);
    const button = make(
      "button",
      {
        type: "button",
        className: `night-of ${sleep.trigger} ${isRejected(sleep) ? "rejected" : ""}`,
        title: label,
        "aria-label": label,
        "aria-current": String(isChosen),
        tabIndex: isChosen ? 0 : -1,
        onclick: () => this.#choose(identify(sleep)),
      },
      make("span", { className: "height" }, bar),
      ...cells,
    );
    return make("li", {}, button);
  }

  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const buttons = [...find("nights").querySelectorAll("button")];
    const i = buttons.indexOf(document.activeElement);
    if (step === undefined || i < 0) return;
    event.preventDefault();
    const next = Math.min(buttons.length - 1, Math.max(0, i + step));
    this.#choose(identify(this.#memory.sleeps[next]));
    find("nights").children[next].firstElementChild.focus();
  }
}

const isRejected = (sleep) => sleep.verdict?.outcome === "rejected";

/** Whether it took nothing in, and left its number to the next. */
const isUndone = (sleep) => isRejected(sleep) && sleep.trigger !== "full";

/** Its number, or where it was tried. */
const identify = (sleep) => (isUndone(sleep) ? `${sleep.number} at ${sleep.place}` : `${sleep.number}`);

function summarise(sleep) {
  const outcome = isRejected(sleep) ? ", rejected by the gate" : "";
  return `Sleep ${sleep.number}, ${clock(sleep.time)}, ${count(sleep.tokens, "token")}, ${count(sleep.passes, "pass", "passes")}, ${duration(sleep.milliseconds)}${outcome}`;
}

/** What the columns mean, and when the first and the last of them were. */
function explain(sleeps) {
  find("legend").hidden = !sleeps.length;
  if (!sleeps.length) return;
  const [first, last] = [sleeps[0], sleeps.at(-1)].map(({ time }) => clock(time));
  find("legend-when").textContent = first === last ? `${first}.` : `${first} to ${last}.`;
  const kinds = Object.keys(TRIGGERS).filter((kind) => sleeps.some(({ trigger }) => trigger === kind));
  if (sleeps.some(isRejected)) kinds.push("rejected");
  show(find("kinds"), kinds, String, (kind) =>
    make("li", { className: kind }, make("span", { className: "bar" }), TRIGGERS[kind] ?? "the gate rejected it"),
  );
}

function empty(info) {
  const text = info
    ? "It has not slept yet."
    : "Choose a memory, or make one, to see how it sleeps.";
  return make("p", { className: "muted", textContent: text });
}

/** What is told of a sleep. */
export function describe(sleep, ledger) {
  const texts = [
    `${clock(sleep.time)}, as ${TRIGGERS[sleep.trigger]}. ${count(sleep.tokens, "token")} in ${count(sleep.passes, "pass", "passes")} took ${duration(sleep.milliseconds)}; the state had ${bytes(sleep.bytes_before)} before and ${bytes(sleep.bytes_after)} after.`,
    describeVerdict(sleep.verdict),
  ];
  return [
    make("h3", { textContent: `Sleep ${sleep.number}` }),
    ...texts.filter(Boolean).map((textContent) => make("p", { className: "facts", textContent })),
    make("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Change of the fast weights" }, heatMap(sleep)),
    ...describeTaken(taken(sleep, ledger)),
  ];
}

function describeVerdict(verdict) {
  if (!verdict) return null;
  const outcome = {
    accepted: "accepted",
    rejected: "rejected",
    accepted_unmeasured: "accepted without a measure",
  }[verdict.outcome];
  return `The gate: ${[outcome, ...verdict.reasons].join("; ")}.`;
}

/** How much every pass, and the whole sleep, changed every layer. */
function heatMap({ changes, pass_changes: perPass = [] }) {
  const columns = perPass.map((values, i) => [`pass ${i + 2}`, values]);
  columns.push(["whole sleep", changes]);
  const most = Math.max(...columns.flatMap(([, values]) => values), 1e-9);
  const head = make("tr", {}, make("th", { scope: "col", textContent: "layer" }));
  head.append(...columns.map(([name]) => make("th", { scope: "col", textContent: name })));
  const rows = changes.map((_, layer) => {
    const cells = columns.map(([, values]) =>
      heat(make("td", { textContent: percent(values[layer]) }), values[layer], most),
    );
    return make("tr", {}, make("th", { scope: "row", textContent: layer + 1 }), ...cells);
  });
  return make(
    "table",
    { className: "heat" },
    make("caption", { textContent: "Change of the fast weights, relative to their size" }),
    make("thead", {}, head),
    make("tbody", {}, ...rows),
  );
}

/** Colours a cell; the eye tells small changes apart better by their root. */
function heat(cell, change, most) {
  cell.classList.add("hot");
  cell.style.setProperty("--heat", Math.sqrt(Math.min(1, Math.max(0, change / most))).toFixed(3));
  return cell;
}

function taken(sleep, ledger) {
  return sleep && !isUndone(sleep) ? ledger.filter((entry) => entry.sleeps.includes(sleep.number)) : [];
}

function describeTaken(entries) {
  if (!entries.length) return [];
  const items = entries.slice(0, MOST_ENTRIES).map((entry) =>
    make(
      "li",
      {},
      make("span", { className: `chip ${hue(entry.source)}`, textContent: entry.source }),
      make("span", { textContent: shorten(entry.said, 70) }),
    ),
  );
  const rest = entries.length - items.length;
  if (rest > 0) items.push(make("li", { className: "muted", textContent: `and ${rest} more` }));
  const summary = make("summary", { textContent: `It took in ${count(entries.length, "entry", "entries")}` });
  return [make("details", {}, summary, make("ul", { className: "taken" }, ...items))];
}

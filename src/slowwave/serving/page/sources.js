// What came from which source, what became of it, and forgetting.

import { at, call } from "./api.js";
import { clock, count, find, hue, make, shorten, show } from "./dom.js";
import { ask, say } from "./forms.js";
import { readLedger } from "./memory.js";

const SLEPT = { idle: "slept, as nobody spoke", dream: "dreamt of what it was told" };

export class SourcesView {
  #memory;
  #choose;
  #tell;
  #fail;

  /** choose(number): shows a sleep. */
  constructor(memory, choose, tell, fail) {
    this.#memory = memory;
    this.#choose = choose;
    this.#tell = tell;
    this.#fail = fail;
    memory.addEventListener("load", () => this.#render());
  }

  #render() {
    const { info, sources, ledger } = this.#memory;
    const total = info?.tokens_seen ?? 0;
    find("read-so-far").textContent = info ? count(total, "token") : "";
    show(
      find("sources"),
      sources.length ? sources : [null],
      (source) => JSON.stringify([source, total, !info]),
      (source) => (source ? this.#source(source, total) : nothing("Nothing was read yet.")),
    );
    find("ledger-fold").hidden = !ledger.length;
    const newest = [...ledger].reverse();
    show(find("ledger"), newest, (entry) => JSON.stringify(entry), (entry) => this.#entry(entry));
  }

  #source({ source, num_entries: entries, num_tokens: tokens, last }, total) {
    const share = make("span", { className: `share ${hue(source)}` });
    share.style.width = `${Math.max(2, (100 * tokens) / total)}%`;
    return make(
      "li",
      {},
      make("span", { className: `chip ${hue(source)}`, textContent: source }),
      make("span", { className: "muted grow", textContent: `${count(entries, "entry", "entries")}, ${count(tokens, "token")}, last ${clock(last)}` }),
      make("button", {
        type: "button",
        className: "quiet",
        textContent: "Forget…",
        "aria-label": `Forget source ${source}…`,
        onclick: () => this.#forget(`Forget all from ${source}?`, { sources: [source] }),
      }),
      make("span", { className: "rail", "aria-hidden": "true" }, share),
    );
  }

  #entry(entry) {
    const item = make("li", {}, make("time", { className: "when", textContent: clock(entry.time) }));
    if (entry.kind === "sleep") {
      item.append(make("span", { className: "muted", textContent: SLEPT[entry.source] ?? "slept, as asked" }));
      return item;
    }
    item.append(
      make("span", { className: `chip ${hue(entry.source)}`, textContent: entry.source }),
      make("span", { className: "grow", textContent: shorten(entry.said, 140) }),
    );
    const fate = make("span", { className: "fate" });
    for (const number of entry.sleeps) {
      fate.append(
        make("button", {
          type: "button",
          className: "tag",
          textContent: `sleep ${number}`,
          "aria-label": `Show sleep ${number}`,
          onclick: () => this.#choose(number),
        }),
      );
    }
    if (entry.in_window) fate.append(make("span", { className: "tag now", textContent: "in sight" }));
    fate.append(
      make("button", {
        type: "button",
        className: "tag",
        textContent: "forget…",
        "aria-label": `Forget ${shorten(entry.said, 30)}…`,
        onclick: () => this.#forget("Forget this?", { places: [entry.place] }),
      }),
    );
    item.append(fate);
    return item;
  }

  /** Shows what would go, then does it. what: sources or places. */
  async #forget(title, what) {
    const { name } = this.#memory;
    const keep = new Set();
    try {
      const [plan, entries] = await Promise.all([preview(name, what, keep), readLedger(name, 0)]);
      const rest = make("div", { className: "preview", role: "status" }, ...describeRest(plan));
      const again = async () => {
        try {
          rest.replaceChildren(...describeRest(await preview(name, what, keep)));
        } catch (error) {
          rest.replaceChildren(say(error.message));
        }
      };
      const dropped = plan.dropped.map((place) => entries[place]);
      const body = make("div", { className: "preview" }, ...describeDropped(dropped, keep, what, again), rest);
      const act = () => call(at(name, "forget"), { ...what, keep: [...keep] });
      if (await ask({ title, body: [body], confirm: "Forget", isGrave: true, act })) this.#tell("Forgotten");
    } catch (error) {
      this.#fail(error);
    }
    if (this.#memory.name === name) await this.#memory.load();
  }
}

const preview = (name, what, keep) =>
  call(at(name, "forget"), { ...what, keep: [...keep], dry_run: true });

/** What goes, with replies that can be kept. again: called when it was changed which. */
function describeDropped(entries, keep, what, again) {
  const isNamed = (entry) =>
    (what.sources ?? []).includes(entry.source) || (what.places ?? []).includes(entry.place);
  const named = entries.filter(isNamed);
  const replies = entries.filter((entry) => !isNamed(entry));
  const list = (items) => make("ul", { className: "taken" }, ...items);
  const parts = [
    make("h3", { textContent: `Goes: ${count(named.length, "entry", "entries")}` }),
    list(named.map((entry) => make("li", { textContent: shorten(entry.said, 100) }))),
  ];
  if (!replies.length) return parts;
  return [
    ...parts,
    make("h3", { textContent: `Goes too: ${count(replies.length, "reply", "replies")} that may carry it` }),
    list(replies.map((entry) => keeper(entry, keep, again))),
  ];
}

function describeRest(plan) {
  const rest = `${count(plan.replayed.length, "entry", "entries")}, ${count(plan.replayed_tokens, "token")}`;
  const parts = [say(`The rest is read again: ${rest}. Its memory will be that of one who was told only this.`)];
  if (plan.snapshots.length) parts.push(say(`These snapshots carry it and go: ${plan.snapshots.join(", ")}.`));
  if (plan.also_in.length) parts.push(say(`Other memories carry it still: ${plan.also_in.join(", ")}. Forget it there too.`));
  return parts;
}

function keeper(entry, keep, again) {
  const tick = make("input", { type: "checkbox", checked: keep.has(entry.place) });
  tick.addEventListener("change", () => {
    if (tick.checked) keep.add(entry.place);
    else keep.delete(entry.place);
    again();
  });
  return make("li", {}, make("label", { className: "tick" }, tick, `keep: ${shorten(entry.said, 90) || "(nothing)"}`));
}

const nothing = (textContent) => make("li", { className: "muted", textContent });

// The attention window as it fills, and the moment when it is slept on.

import { call, at } from "./api.js";
import { count, duration, find, hue, make, show } from "./dom.js";
import { areFit, refuse } from "./fields.js";

const DOINGS = {
  read: "Reading",
  sleep: "Falling asleep",
  draw: "Writing",
  record: "Writing down",
  rest: "Awake",
};
const NIGHT = 1600;
const MOST_TOKENS = 400;

export class WindowView {
  #memory;
  #tell;
  #fail;
  #known = [];
  #isLive = false;
  #held = null;
  #until = 0;
  #timer = null;

  constructor(memory, tell, fail) {
    this.#memory = memory;
    this.#tell = tell;
    this.#fail = fail;
    memory.addEventListener("load", () => this.#settle());
    memory.addEventListener("window", ({ detail }) => this.#hear(detail));
    memory.addEventListener("connection", () => (this.#isLive = false));
    memory.addEventListener("sleep", ({ detail }) => this.#fallAsleep(detail));
    find("sleep").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sleep();
    });
  }

  async #sleep() {
    const { name } = this.#memory;
    if (!areFit([find("passes")])) return;
    const passes = find("passes").valueAsNumber;
    const button = find("sleep").querySelector("button");
    button.disabled = true;
    try {
      await call(at(name, "sleep"), passes ? { passes } : {});
    } catch (error) {
      refuse(find("passes"), error, this.#fail);
    }
    if (this.#memory.name === name) await this.#memory.load();
  }

  /** The memory is known anew; amid a turn that is what it was before. */
  #settle() {
    const { info, name, window } = this.#memory;
    if (!info) {
      this.#isLive = false;
      this.#held = null;
      this.#wake();
      this.#known = [];
      this.#draw({ doing: "rest", window_fill: 0, window: 0 }, name === null);
    } else if (!this.#isLive) {
      const unread = Math.max(0, info.window_fill - window.length); // of a long window only the end
      this.#known = [...Array(unread).fill({ text: null, source: "system" }), ...window];
      this.#show({ doing: "rest", window_fill: info.window_fill, window: info.window });
    }
  }

  #hear(state) {
    this.#isLive = state.doing !== "rest";
    const isAsleep = state.doing === "sleep";
    if (isAsleep && !this.#until) this.#dream("Going through the window once more", Infinity);
    else if (!isAsleep && this.#until === Infinity) this.#wake();
    this.#show(state);
  }

  /** At once, or when the night is over. */
  #show(state) {
    if (Date.now() < this.#until) this.#held = state;
    else this.#draw(state);
  }

  /** A sleep has just ended: shows for a moment what it was. */
  #fallAsleep(report) {
    const isRejected = report.verdict?.outcome === "rejected";
    const outcome = isRejected ? "; the gate refused it" : "";
    const what = `${count(report.tokens, "token")}, ${count(report.passes, "pass", "passes")}, ${duration(report.milliseconds)}${outcome}`;
    this.#known = [];
    this.#dream(`Sleep ${report.number}: ${what}`, Date.now() + NIGHT);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#wake();
      this.#memory.refresh();
    }, NIGHT);
  }

  /** It is night until then. */
  #dream(text, until) {
    find("dream").textContent = text;
    if (!this.#until) this.#tell(`Sleeping. ${text}`);
    this.#until = until;
    document.body.classList.add("asleep");
    find("doing").textContent = "Sleeping";
  }

  #wake() {
    clearTimeout(this.#timer);
    this.#until = 0;
    document.body.classList.remove("asleep");
    const held = this.#held;
    this.#held = null;
    if (held) this.#draw(held);
  }

  #draw(state, isNone = false) {
    const { doing, window_fill: fill, window } = state;
    const gauge = find("gauge");
    gauge.setAttribute("aria-valuenow", fill);
    gauge.setAttribute("aria-valuemax", window);
    gauge.setAttribute("aria-valuetext", `${fill} of ${window} tokens`);
    gauge.firstElementChild.style.width = window ? `${(100 * fill) / window}%` : "0";
    find("doing").textContent = isNone ? "" : DOINGS[doing];
    document.body.dataset.doing = doing;
    find("fill").textContent = window
      ? `${fill.toLocaleString()} of ${count(window, "token")}; ${(window - fill).toLocaleString()} more until it sleeps`
      : "";
    find("sleep").querySelector("button").disabled = !fill || doing !== "rest";
    const chips = this.#chips(state);
    drawTokens(chips, window);
    const sources = [...new Set(chips.filter(({ text }) => text !== null).map(({ source }) => source))];
    const name = (source) => make("li", { className: `chip ${hue(source)}`, textContent: source });
    show(find("colours"), sources, String, name);
  }

  /** A chip for every token in the window; those that are new have no text yet. */
  #chips({ doing, window_fill: fill }) {
    const chips = this.#known.slice(0, fill);
    const source = doing === "read" ? "user" : "model";
    const old = find("tokens").children;
    while (chips.length < fill) {
      const shown = old[chips.length]?.token;
      chips.push(shown && !shown.text ? shown : { text: null, source });
    }
    return chips;
  }
}

function drawTokens(chips, window) {
  const list = find("tokens");
  const shown = chips.slice(-MOST_TOKENS);
  const size = window <= MOST_TOKENS ? window : shown.length;
  for (let i = 0; i < size; i += 1) {
    const token = shown[i] ?? null;
    const chip = list.children[i] ?? list.appendChild(make("span"));
    const text = token?.text ?? "";
    if (chip.textContent !== write(text)) chip.textContent = write(text);
    const name = token ? `token ${hue(token.source)}` : "token free";
    if (chip.className !== name) chip.className = name;
    chip.token = token;
  }
  while (list.children.length > size) list.lastElementChild.remove();
}

const write = (text) => text.replace(/\n/g, "↵").replace(/ /g, "\u00a0");

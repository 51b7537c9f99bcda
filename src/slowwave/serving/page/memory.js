// The memory that is looked at: what is known of it, and what happens to it.
//
// Events: load (all of it is known anew), window (detail: how full), sleep (detail: a report),
// connection (detail: whether it is watched), gone (it was deleted), trouble (detail: an error).

import { ApiError, at, call, listen } from "./api.js";

const LEDGER = 200;
const SLEEPS = 120;
const LEDGER_AT_ONCE = 1000;
const LOAD_DELAY = 150;
const LONGEST_WAIT = 15000;

export class Memory extends EventTarget {
  name = null;
  info = null;
  ledger = [];
  sleeps = [];
  sources = [];
  window = [];
  #reach = LEDGER;
  #watching = null;
  #timer = null;
  #load = 0;
  #loading = null;
  #isLive = false;

  /** Looks at another memory; null is none. */
  open(name) {
    clearTimeout(this.#timer);
    Object.assign(this, { name, info: null, ledger: [], sleeps: [], sources: [], window: [] });
    this.#reach = LEDGER;
    this.#isLive = false;
    this.#load += 1;
    this.#tell("load");
    this.watch();
  }

  /** Hears of what happens to it, from now on. */
  watch() {
    this.pause();
    if (this.name === null) return;
    this.#watching = new AbortController();
    this.#watch(this.name, this.#watching.signal);
  }

  /** Hears of nothing until it watches again. Browsers allow only a few streams at a time. */
  pause() {
    this.#watching?.abort();
  }

  /** Asks for all that is shown; where that is asked for anew meanwhile, waits for the newest. */
  async load() {
    this.#loading = this.#loadOnce();
    for (let last = null; last !== this.#loading; ) {
      last = this.#loading;
      await last;
    }
  }

  /** What comes for a memory that was left meanwhile, or after it was asked for anew, is dropped. */
  async #loadOnce() {
    const { name } = this;
    if (name === null) return;
    const number = (this.#load += 1);
    try {
      const info = await call(at(name));
      const start = Math.max(0, info.num_entries - this.#reach);
      const [ledger, sleeps, sources, window] = await Promise.all([
        readLedger(name, start, info.num_entries),
        call(`${at(name, "sleeps")}?last=${SLEEPS}`),
        call(at(name, "sources")),
        call(at(name, "window")),
      ]);
      if (number !== this.#load) return;
      Object.assign(this, {
        info,
        ledger,
        sleeps: sleeps.data,
        sources: sources.data,
        window: window.data,
      });
      this.#tell("load");
    } catch (error) {
      if (number === this.#load) this.#fail(error);
    }
  }

  /** Whether the ledger has more than is shown. */
  get hasEarlier() {
    return this.ledger.length > 0 && this.ledger[0].place > 0 && this.#reach < 1000;
  }

  async loadEarlier() {
    this.#reach = Math.min(1000, this.#reach + LEDGER);
    await this.load();
  }

  /** As load, but not amid a turn, of which the server tells no one before its end. */
  refresh() {
    if (!this.#isLive) this.load();
  }

  #loadSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), LOAD_DELAY);
  }

  async #watch(name, signal) {
    let wait = 500;
    while (!signal.aborted) {
      try {
        for await (const { kind, data } of listen(at(name, "events"), { signal })) {
          if (signal.aborted) return;
          if (kind === "comment" && data === "watching") {
            wait = 500;
            this.#isLive = false;
            this.#tell("connection", true);
            this.load(); // only now, so that nothing happens unseen in between
          }
          this.#hear(kind, data);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && [401, 404].includes(error.status)) {
          this.#fail(error);
          return;
        }
      }
      if (signal.aborted) return;
      this.#tell("connection", false);
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(LONGEST_WAIT, 2 * wait);
    }
  }

  #hear(kind, data) {
    if (kind === "window") {
      this.#isLive = data.doing !== "rest";
      this.#tell("window", data);
      if (!this.#isLive) this.#loadSoon();
    } else if (kind === "sleep") {
      const report = { ...data, time: Date.now() / 1000, place: null };
      this.sleeps = [...this.sleeps, report].slice(-SLEEPS);
      this.#tell("sleep", report);
      this.#loadSoon();
    } else if (kind === "change") {
      this.#loadSoon();
    } else if (kind === "deleted") {
      this.#tell("gone");
    }
  }

  #fail(error) {
    if (error instanceof ApiError && error.status === 404) this.#tell("gone");
    else this.#tell("trouble", error);
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

/** Entries from a place on. Where they are long, the server gives fewer at once than are asked for. */
export async function readLedger(name, start, stop = Infinity) {
  const entries = [];
  while (start + entries.length < stop) {
    const next = start + entries.length;
    const limit = Math.min(LEDGER_AT_ONCE, stop - next);
    const { data } = await call(`${at(name, "ledger")}?start=${next}&limit=${limit}`);
    if (!data.length) break;
    entries.push(...data);
  }
  return entries;
}

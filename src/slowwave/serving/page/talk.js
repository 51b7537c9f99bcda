// The conversation: what the ledger has of it, and the turns that are open.

import { ApiError, at, call, listen } from "./api.js";
import { clock, count, duration, find, hue, make, show, shorten } from "./dom.js";
import { askForText } from "./forms.js";

const ACTIVITIES = {
  waiting: "waiting for its turn…",
  reading: "reading…",
  sleeping: "sleeping on it…",
  writing: "writing…",
};

export class Talk {
  #memory;
  #model = null;
  #turns = new Map();
  #tell;
  #fail;

  /** tell(text): to screen readers. fail(error): shows what went wrong. */
  constructor(memory, tell, fail) {
    this.#memory = memory;
    this.#tell = tell;
    this.#fail = fail;
    memory.addEventListener("load", () => this.#render());
    memory.addEventListener("sleep", ({ detail }) => this.#note(detail));
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#say();
    });
    find("say").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#say();
    });
    find("stop").addEventListener("click", () => this.#turn?.stop.abort());
    find("earlier").addEventListener("click", () => memory.loadEarlier());
    find("read").addEventListener("click", () => this.#read());
  }

  set model(name) {
    this.#model = name;
    this.#enable();
  }

  get #turn() {
    return this.#turns.get(this.#memory.name);
  }

  async #say() {
    const text = find("say").value.trim();
    const { name, info } = this.#memory;
    if (!text || !info || this.#turn || !this.#model) return;
    const turn = {
      start: info.num_entries,
      stop: new AbortController(),
      text: "",
      frame: null,
      said: bubble("user", text),
      reply: bubble("assistant", ""),
      note: make("p", { className: "note", textContent: ACTIVITIES.waiting }),
    };
    turn.reply.append(turn.note);
    this.#turns.set(name, turn);
    find("say").value = "";
    this.#render();
    scrollDown();
    let error = null;
    try {
      await this.#hear(turn, this.#ask(name, text));
    } catch (failure) {
      error = failure;
    }
    await this.#end(name, turn, text, error);
  }

  #ask(name, text) {
    const body = {
      model: this.#model,
      memory: name,
      stream: true,
      messages: [{ role: "user", content: text }],
    };
    const speaker = find("speaker").value.trim();
    if (speaker) body.source = speaker;
    if (find("temperature").value) body.temperature = find("temperature").valueAsNumber;
    if (find("longest").value) body.max_tokens = find("longest").valueAsNumber;
    return body;
  }

  /** Shows the pieces of a reply as they come. */
  async #hear(turn, body) {
    for await (const { kind, data } of listen("/v1/chat/completions", {
      body,
      signal: turn.stop.signal,
    })) {
      if (kind === "comment") turn.note.textContent = ACTIVITIES[data] ?? "";
      else if (data?.error) throw new ApiError(500, data.error.message);
      const piece = data?.choices?.[0]?.delta?.content;
      if (!piece) continue;
      turn.text += piece;
      turn.frame ??= requestAnimationFrame(() => this.#write(turn));
    }
  }

  /** Pieces come faster than a browser draws. */
  #write(turn) {
    const follows = isAtEnd();
    turn.frame = null;
    turn.note.textContent = "";
    turn.reply.querySelector(".text").textContent = turn.text;
    if (follows && this.#turn === turn) scrollDown();
  }

  /** The turn is in the ledger now, or has not been. */
  async #end(name, turn, text, error) {
    const reply = turn.text;
    const isStopped = error?.name === "AbortError";
    if (isStopped && this.#memory.name === name) await new Promise((go) => setTimeout(go, 300));
    this.#turns.delete(name);
    if (this.#memory.name !== name) return;
    await this.#memory.load();
    this.#render();
    if (error && !isStopped) this.#fail(error);
    if (error && !reply && !find("say").value) find("say").value = text; // to be said again
    if (reply) this.#tell(`Reply: ${reply}`);
  }

  /** A sleep in the middle of a turn. */
  #note(report) {
    if (!this.#turn) return;
    this.#turn.note.textContent = `slept on ${count(report.tokens, "token")} in ${duration(report.milliseconds)}`;
  }

  async #read() {
    const { name } = this.#memory;
    const given = await askForText();
    if (!given) return;
    try {
      await call(at(name, "read"), given);
      this.#tell(`Read from ${given.source}`);
    } catch (error) {
      this.#fail(error);
    }
    if (this.#memory.name === name) await this.#memory.load();
  }

  #render() {
    const { ledger, info, sleeps, hasEarlier } = this.#memory;
    const follows = isAtEnd();
    const turn = this.#turn;
    const known = turn ? ledger.filter((entry) => entry.place < turn.start) : ledger;
    const rows = known.flatMap((entry, i) => arrange(entry, known[i - 1], sleeps));
    if (turn) rows.push({ signature: "said", open: turn.said }, { signature: "reply", open: turn.reply });
    const key = (row) => `${row.signature}${row.open ? this.#memory.name : ""}`;
    show(find("said"), rows, key, (row) => row.open ?? row.build());
    find("earlier").hidden = !hasEarlier;
    find("welcome").hidden = !info || rows.length > 0;
    if (info && !rows.length) welcome();
    this.#enable();
    if (follows) scrollDown();
  }

  #enable() {
    const isReady = Boolean(this.#memory.info && this.#model);
    const isOpen = Boolean(this.#turn);
    find("say").disabled = !isReady;
    find("read").disabled = !isReady || isOpen;
    find("send").disabled = !isReady || isOpen;
    find("send").hidden = isOpen;
    find("stop").hidden = !isOpen;
  }
}

/** What is shown of an entry, and of the sleeps that happened in it. before: the one before it. */
function arrange(entry, before, sleeps) {
  const rows = [];
  const where = `${entry.place} ${entry.time}`;
  if (entry.in_window && before && !before.in_window) {
    rows.push({ signature: `${where} horizon`, build: horizon });
  }
  if (entry.kind !== "sleep") {
    const when = before && clock(before.time) === clock(entry.time) ? null : clock(entry.time);
    const signature = JSON.stringify([where, entry.role, entry.said, entry.source, entry.in_window, when]);
    rows.push({ signature, build: () => describe(entry, when) });
  }
  const slept = sleeps.filter((sleep) => sleep.place === entry.place);
  if (slept.length) {
    const signature = `${where} slept ${slept.map((sleep) => sleep.number)}`;
    rows.push({ signature, build: () => marker(slept) });
  }
  return rows;
}

function describe(entry, when) {
  const role = entry.role ?? "text";
  const item = bubble(role, entry.said, entry.source);
  if (when) item.append(make("time", { className: "when", textContent: when }));
  if (!entry.in_window) item.classList.add("out");
  return item;
}

/** Above it is what the model sees no more. */
const horizon = () =>
  make("li", { className: "horizon", textContent: "What is above is out of its sight: only its fast weights carry it." });

function bubble(role, text, source = null) {
  const who = { user: "You", assistant: "Model", system: "System", text: "It read" }[role];
  const named = role === "text" || (source && !["user", "model", "system"].includes(source));
  const item = make("li", { className: `bubble ${role}` });
  item.append(make("span", { className: "unseen", textContent: `${who}: ` }));
  if (named) {
    const label = role === "text" ? `read from ${source}` : source;
    item.append(make("span", { className: `chip ${hue(source)}`, textContent: label }));
  }
  item.append(make("span", { className: "text", textContent: role === "text" ? shorten(text, 600) : text }));
  return item;
}

/** A line for sleeps between two things that were said. */
function marker(sleeps) {
  const taken = sleeps.filter((sleep) => sleep.verdict?.outcome !== "rejected");
  const tokens = sleeps.reduce((sum, sleep) => sum + sleep.tokens, 0);
  const took = sleeps.reduce((sum, sleep) => sum + sleep.milliseconds, 0);
  const often = sleeps.length > 1 ? `slept ${sleeps.length} times` : "slept";
  const [{ passes }] = sleeps;
  const text = taken.length
    ? `${often} on ${count(tokens, "token")}, ${count(passes, "pass", "passes")}, ${duration(took)}`
    : `tried to sleep on ${count(tokens, "token")}; the gate said no`;
  return make("li", { className: "slept" }, make("span", { textContent: text }));
}

function welcome() {
  find("welcome").replaceChildren(
    make("h2", { textContent: "Nothing is remembered yet" }),
    make("p", {
      textContent:
        "Say something. It fills the window on the other side; when that is full, the model sleeps on it, and from then on remembers it without seeing it.",
    }),
  );
}

const isAtEnd = () => {
  const log = find("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
};

function scrollDown() {
  const log = find("log");
  log.scrollTop = log.scrollHeight;
}

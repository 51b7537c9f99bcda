// The conversation: what the ledger has of it, and the turns that are open.

import { ApiError, at, call, listen } from "./api.js";
import { arrange, bubble } from "./bubbles.js";
import { count, duration, find, make, show, shorten } from "./dom.js";
import { areFit, judge, refuse } from "./fields.js";
import { askForText } from "./forms.js";

const ACTIVITIES = {
  waiting: "waiting for its turn…",
  reading: "reading…",
  sleeping: "sleeping on it…",
  writing: "writing…",
};

const OPTIONS = ["speaker", "temperature", "longest"].map(find);
const MOMENT = 50; // milliseconds
const FEW = 6; // words of the user, after which nobody needs to be told what to say

export class Talk {
  #memory;
  #model = null;
  #turns = new Map();
  #isToFocus = false;
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
      this.#say(find("say").value.trim());
    });
    find("say").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#say(find("say").value.trim());
    });
    find("ideas").addEventListener("click", ({ target }) => {
      if (target.matches("button")) this.#say(target.textContent);
    });
    find("more").addEventListener("click", () => showOptions(find("options").hidden));
    find("stop").addEventListener("click", () => this.#turn?.stop.abort());
    find("earlier").addEventListener("click", () => memory.loadEarlier());
    find("read").addEventListener("click", () => this.#read());
  }

  set model(name) {
    this.#model = name;
    this.#enable();
  }

  /** Lets the user type, now or as soon as there is something to talk to. */
  focus() {
    this.#isToFocus = true;
    this.#enable();
  }

  get #turn() {
    return this.#turns.get(this.#memory.name);
  }

  async #say(text) {
    const { name, info } = this.#memory;
    if (!text || !info || this.#turn || !this.#model) return;
    if (OPTIONS.some(judge)) showOptions(true);
    if (!areFit([find("say"), ...OPTIONS])) return;
    const turn = {
      start: info.num_entries,
      stop: new AbortController(),
      text: "",
      timer: null,
      heard: text,
      said: bubble("user", text, find("speaker").value.trim() || "user"),
      reply: bubble("assistant", "", "model"),
      note: make("p", { className: "note", textContent: ACTIVITIES.waiting }),
    };
    turn.reply.append(turn.note);
    this.#turns.set(name, turn);
    if (find("say").value.trim() === text) find("say").value = "";
    find("say").focus();
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
      turn.timer ??= setTimeout(() => this.#write(turn), MOMENT);
    }
  }

  /** Pieces may come faster than a browser draws. */
  #write(turn) {
    const follows = isAtEnd();
    turn.timer = null;
    turn.note.textContent = "";
    turn.reply.querySelector(".text").textContent = turn.text;
    if (follows && this.#turn === turn) scrollDown();
  }

  /** The turn is in the ledger now, or has not been. */
  async #end(name, turn, text, error) {
    const isStopped = error?.name === "AbortError";
    if (isStopped && this.#memory.name === name) await new Promise((go) => setTimeout(go, 300));
    this.#turns.delete(name);
    if (this.#memory.name !== name) {
      if (error && !isStopped) this.#fail(new Error(`“${shorten(text)}”, said to ${name}: ${error.message}`));
      return;
    }
    await this.#memory.load();
    this.#render();
    if (error && !turn.text && !find("say").value) find("say").value = text; // to be said again
    if (error && !isStopped) refuse(find("say"), error, this.#fail);
    if (turn.text) this.#tell(`Reply: ${turn.text}`);
  }

  /** A sleep in the middle of a turn. */
  #note(report) {
    if (!this.#turn) return;
    this.#turn.note.textContent = `slept on ${count(report.tokens, "token")} in ${duration(report.milliseconds)}`;
  }

  async #read() {
    const { name } = this.#memory;
    try {
      const isRead = await askForText((given) => call(at(name, "read"), given));
      if (isRead) this.#tell("The text is read");
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
    if (!isOpen && document.activeElement === find("stop")) this.#isToFocus = true;
    find("say").disabled = !isReady;
    find("read").disabled = !isReady || isOpen;
    find("send").disabled = !isReady || isOpen;
    find("send").hidden = isOpen;
    find("stop").hidden = !isOpen;
    this.#offerIdeas(isReady, isOpen);
    if (isReady && this.#isToFocus) {
      this.#isToFocus = false;
      find("say").focus();
    }
  }

  /** Shows what of the ideas has not been said, while little has. */
  #offerIdeas(isReady, isOpen) {
    const heard = this.#memory.ledger.filter(({ role }) => role === "user").map(({ said }) => said);
    if (this.#turn) heard.push(this.#turn.heard);
    const buttons = [...find("ideas").querySelectorAll("button")];
    for (const button of buttons) {
      button.hidden = heard.includes(button.textContent);
      button.disabled = isOpen;
    }
    find("ideas").hidden = !isReady || heard.length >= FEW || buttons.every(({ hidden }) => hidden);
  }
}

function showOptions(areShown) {
  find("options").hidden = !areShown;
  find("more").setAttribute("aria-expanded", String(areShown));
}

function welcome() {
  find("welcome").replaceChildren(
    make("h2", { textContent: "Nothing is remembered yet" }),
    make("p", {
      textContent:
        "Tell it something, then ask. Your words fill its attention window; when that is full, the model sleeps on it, and from then on remembers it without seeing it.",
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

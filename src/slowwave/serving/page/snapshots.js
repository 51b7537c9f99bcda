// Snapshots: to take, to go back to, to fork from, to drop.

import { at, call, limits } from "./api.js";
import { clock, count, find, findFree, make, show } from "./dom.js";
import { areFit, complain, makeField, refuse } from "./fields.js";
import { ask, askForName, say } from "./forms.js";

export class SnapshotsView {
  #memory;
  #open;
  #tell;
  #fail;

  /** open(name): looks at another memory. */
  constructor(memory, open, tell, fail) {
    this.#memory = memory;
    this.#open = open;
    this.#tell = tell;
    this.#fail = fail;
    memory.addEventListener("load", () => this.#render());
    find("snapshot").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take();
    });
  }

  /** A new memory with the past of this one, or of a snapshot of it. */
  async fork(snapshot = null) {
    const { name } = this.#memory;
    const names = [...find("memories").options].map(({ value }) => value);
    const what = snapshot === null ? `of ${name} as it is now` : `of ${name} as of ${snapshot}`;
    const text = `A new memory with the past ${what}. Both go on by themselves.`;
    const free = findFree(name, names, limits.max_name_length);
    await this.#do(() =>
      askForName("Fork", text, free, "Fork", async (given) => {
        await call(at(name, "fork"), { name: given.name, snapshot });
        await this.#open(given.name);
      }),
    );
  }

  #render() {
    const { info } = this.#memory;
    const snapshots = info?.snapshots ?? [];
    for (const field of find("snapshot").elements) field.disabled = !info;
    show(
      find("snapshots"),
      snapshots.length ? [...snapshots].reverse() : [null],
      (snapshot) => JSON.stringify(snapshot),
      (snapshot) => (snapshot ? this.#row(snapshot) : make("li", { className: "muted", textContent: "None yet. A snapshot is a name to come back to." })),
    );
  }

  #row(snapshot) {
    const { name, time, tokens_seen: tokens, num_sleeps: sleeps } = snapshot;
    const button = (text, label, onclick) =>
      make("button", { type: "button", className: "quiet", textContent: text, "aria-label": label, onclick });
    return make(
      "li",
      {},
      make("strong", { textContent: name }),
      make("span", { className: "muted grow", textContent: `${clock(time)}, ${count(tokens, "token")}, ${count(sleeps, "sleep")}` }),
      make(
        "span",
        { className: "ways" },
        button("Roll back", `Roll back to ${name}`, () => this.#rollBack(name)),
        button("Fork", `Fork from ${name}`, () => this.fork(name)),
        button("Drop", `Drop snapshot ${name}`, () => this.#drop(name)),
      ),
    );
  }

  async #take() {
    const field = find("snapshot-name");
    if (!areFit([field])) return;
    const { info } = this.#memory;
    const taken = info.snapshots.map((each) => each.name);
    const name = field.value.trim() || findFree(`at ${info.tokens_seen} tokens`, taken, limits.max_name_length);
    await this.#do(async () => {
      await call(at(info.name, "snapshots"), { name });
      field.value = "";
      complain(field, "");
      this.#tell(`Snapshot ${name} taken`);
    }, field);
  }

  async #rollBack(snapshot) {
    const { name, info } = this.#memory;
    const to = info.snapshots.find((each) => each.name === snapshot);
    const lost = info.num_entries - to.num_entries;
    const text =
      lost > 0
        ? `${count(lost, "entry", "entries")} came since. Without a snapshot of the present they are gone.`
        : "The memory will be as it was then.";
    const taken = info.snapshots.map((each) => each.name);
    const present = findFree(`before rollback to ${snapshot}`, taken, limits.max_name_length);
    let isKept = false;
    await this.#do(async () => {
      const isBack = await ask({
        title: `Go back to ${snapshot}?`,
        body: [say(text)],
        fields: [makeField({ name: "keep", label: "Take a snapshot of the present first", type: "checkbox" })],
        confirm: "Roll back",
        isGrave: lost > 0,
        act: async ({ keep }) => {
          if (keep && !isKept) await call(at(name, "snapshots"), { name: present });
          isKept ||= keep;
          await call(at(name, "rollback"), { snapshot });
        },
      });
      if (isBack) this.#tell(`Back at ${snapshot}`);
    });
  }

  async #drop(snapshot) {
    const { name } = this.#memory;
    await this.#do(() =>
      ask({
        title: `Drop snapshot ${snapshot}?`,
        body: [say("The memory itself stays as it is; only the way back to this goes.")],
        confirm: "Drop",
        isGrave: true,
        act: () => call(at(name, "snapshots", snapshot), undefined, "DELETE"),
      }),
    );
  }

  /** field: whose content it may be that the server refuses. */
  async #do(work, field = null) {
    try {
      await work();
    } catch (error) {
      if (field) refuse(field, error, this.#fail);
      else this.#fail(error);
    }
    await this.#memory.load();
  }
}

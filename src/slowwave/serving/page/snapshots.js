// Snapshots: to take, to go back to, to fork from, to drop.

import { at, call } from "./api.js";
import { clock, count, find, make, show } from "./dom.js";
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
    const what = snapshot === null ? `of ${name} as it is now` : `of ${name} as of ${snapshot}`;
    const given = await askForName("Fork", `A new memory with the past ${what}. Both go on by themselves.`, "Its name", `${name} 2`, "Fork");
    if (!given) return;
    await this.#do(async () => {
      await call(at(name, "fork"), { name: given.name, snapshot });
      await this.#open(given.name);
    });
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
    const { info } = this.#memory;
    const name = field.value.trim() || `at ${info.tokens_seen} tokens`;
    await this.#do(async () => {
      await call(at(info.name, "snapshots"), { name });
      field.value = "";
      this.#tell(`Snapshot ${name} taken`);
    });
  }

  async #rollBack(snapshot) {
    const { name, info } = this.#memory;
    const to = info.snapshots.find((each) => each.name === snapshot);
    const lost = info.num_entries - to.num_entries;
    const text =
      lost > 0
        ? `${count(lost, "entry", "entries")} came since. Without a snapshot of the present they are gone.`
        : "The memory will be as it was then.";
    const present = `before rollback to ${snapshot}`.slice(0, 128);
    const answer = await ask({
      title: `Go back to ${snapshot}?`,
      body: [say(text)],
      fields: [{ name: "keep", label: "Take a snapshot of the present first", type: "checkbox", value: false }],
      confirm: "Roll back",
      isGrave: lost > 0,
    });
    if (!answer) return;
    await this.#do(async () => {
      if (answer.keep) await call(at(name, "snapshots"), { name: present });
      await call(at(name, "rollback"), { snapshot });
      this.#tell(`Back at ${snapshot}`);
    });
  }

  async #drop(snapshot) {
    const { name } = this.#memory;
    const body = [say("The memory itself stays as it is; only the way back to this goes.")];
    if (!(await ask({ title: `Drop snapshot ${snapshot}?`, body, confirm: "Drop", isGrave: true }))) return;
    await this.#do(() => call(at(name, "snapshots", snapshot), undefined, "DELETE"));
  }

  async #do(work) {
    try {
      await work();
    } catch (error) {
      this.#fail(error);
    }
    await this.#memory.load();
  }
}

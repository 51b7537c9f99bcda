// Puts the page together: which memory is looked at, the key, and what went wrong.

import { ApiError, at, call, download, keepKey } from "./api.js";
import { find, make } from "./dom.js";
import { ask, askForKey, askForName, say } from "./forms.js";
import { Memory } from "./memory.js";
import { SleepsView } from "./sleeps.js";
import { SnapshotsView } from "./snapshots.js";
import { SourcesView } from "./sources.js";
import { Talk } from "./talk.js";
import { WindowView } from "./window.js";

const memory = new Memory();
const talk = new Talk(memory, tell, fail);
new WindowView(memory, tell, fail);
const sleeps = new SleepsView(memory);
new SourcesView(memory, (number) => sleeps.choose(number), tell, fail);
const snapshots = new SnapshotsView(memory, open, tell, fail);
let isAsking = false;
let visits = 0;

/** To those who listen to the page. */
function tell(text) {
  find("news").textContent = text;
}

function fail(error) {
  if (error instanceof ApiError && error.status === 401) return askKey(error.message);
  const close = make("button", { type: "button", className: "quiet", textContent: "Close", onclick: forgive });
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  find("trouble").replaceChildren(make("span", { textContent: text }), close);
  find("trouble").hidden = false;
}

function forgive() {
  find("trouble").hidden = true;
}

async function askKey(why) {
  find("key").hidden = false;
  if (isAsking) return;
  isAsking = true;
  const given = await askForKey(`The server wants one: ${why}.`);
  isAsking = false;
  if (!given) return;
  keepKey(given.key);
  await start();
}

/** Everything anew. */
async function start() {
  forgive();
  try {
    const models = await call("/v1/models");
    talk.model = models.data[0].id;
    await open(nameInAddress());
  } catch (error) {
    fail(error);
  }
}

function nameInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
}

/** Looks at a memory; without a name at the one that changed last. */
async function open(name) {
  const number = (visits += 1);
  try {
    const { data } = await call("/v1/memories");
    if (number !== visits) return; // another was chosen meanwhile
    const names = data.map((each) => each.name);
    const [newest] = data.toSorted((a, b) => b.changed - a.changed);
    const chosen = names.includes(name) ? name : (newest?.name ?? null);
    const options = names.map((each) => make("option", { value: each, textContent: each, selected: each === chosen }));
    find("memories").replaceChildren(...(options.length ? options : [make("option", { textContent: "No memory yet" })]));
    find("memories").disabled = !names.length;
    for (const id of ["fork", "export", "delete"]) find(id).disabled = chosen === null;
    if (chosen !== null) history.replaceState(null, "", `#${encodeURIComponent(chosen)}`);
    document.title = chosen === null ? "slowwave" : `${chosen} · slowwave`;
    memory.open(chosen);
    if (chosen === null) invite();
  } catch (error) {
    fail(error);
  }
}

/** Where there is no memory yet. */
function invite() {
  const field = make("input", { id: "first-name", value: "first", maxLength: 128, required: true });
  const form = make(
    "form",
    { className: "row", autocomplete: "off" },
    make("label", { htmlFor: "first-name", textContent: "Call it" }),
    field,
    make("button", { type: "submit", className: "main", textContent: "Make it" }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    makeMemory(field.value.trim());
  });
  find("welcome").replaceChildren(
    make("h2", { textContent: "There is no memory yet" }),
    make("p", { textContent: "A memory reads what you say, sleeps on it when its window is full, and is here again tomorrow. It stays on this server." }),
    form,
  );
  find("welcome").hidden = false;
}

async function makeMemory(name) {
  try {
    await call("/v1/memories", { name });
    await open(name);
    forgive();
  } catch (error) {
    fail(error);
  }
}

find("memories").addEventListener("change", (event) => open(event.target.value));
find("new").addEventListener("click", async () => {
  const given = await askForName("New memory", "It begins empty, and knows nothing of the others.", "Its name", "", "Make it");
  if (given) await makeMemory(given.name);
});
find("fork").addEventListener("click", () => snapshots.fork());
find("export").addEventListener("click", async () => {
  try {
    const { name } = memory;
    const link = make("a", { href: URL.createObjectURL(await download(at(name, "export"))), download: `${name}.memory` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    tell(`Exported ${name}`);
  } catch (error) {
    fail(error);
  }
});
find("delete").addEventListener("click", async () => {
  const { name } = memory;
  const body = [say("All that it read and learned goes, with its snapshots. Forks stay.")];
  if (!(await ask({ title: `Delete ${name}?`, body, confirm: "Delete", isGrave: true }))) return;
  try {
    await call(at(name), undefined, "DELETE");
    await open(null);
  } catch (error) {
    fail(error);
  }
});
find("key").addEventListener("click", () => askKey("another key, another owner's memories"));
memory.addEventListener("gone", () => open(null));
memory.addEventListener("trouble", ({ detail }) => fail(detail));
memory.addEventListener("connection", ({ detail: isHere }) => {
  find("connection").textContent = isHere ? "" : "The server does not answer; trying again…";
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) memory.pause();
  else memory.watch();
});
window.addEventListener("hashchange", () => open(nameInAddress()));
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.view;
    for (const each of document.querySelectorAll(".views button")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
  });
}

start();

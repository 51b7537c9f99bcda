// Puts the page together: which memory is looked at, the key, and what went wrong.

import { at, call, download, learnLimits, limits, useKey } from "./api.js";
import { find, make, sentence } from "./dom.js";
import { areFit, furnish, makeField, refuse } from "./fields.js";
import { NAMES, ask, askForKey, askForName, say } from "./forms.js";
import { Memory } from "./memory.js";
import { SleepsView } from "./sleeps.js";
import { SnapshotsView } from "./snapshots.js";
import { SourcesView } from "./sources.js";
import { Talk } from "./talk.js";
import { WindowView } from "./window.js";

const LOST = "The server does not answer; trying again…";
const PATIENCE = 2000; // milliseconds
const memory = new Memory();
const talk = new Talk(memory, tell, fail);
new WindowView(memory, tell, fail);
const sleeps = new SleepsView(memory);
new SourcesView(memory, (number) => sleeps.choose(number), tell, fail);
const snapshots = new SnapshotsView(memory, visit, tell, fail);
let isAsking = false;
let isLost = false;
let visits = 0;

/** To those who listen to the page. */
function tell(text) {
  find("news").textContent = text;
}

function fail(error) {
  if (error.status === 401) return; // the key is asked for
  isLost = error.status === 0;
  const close = make("button", { type: "button", className: "quiet", textContent: "Close", onclick: forgive });
  find("trouble").replaceChildren(make("span", { textContent: sentence(error.message) }), close);
  find("trouble").hidden = false;
}

function forgive() {
  const hadFocus = find("trouble").contains(document.activeElement);
  find("trouble").hidden = true;
  if (hadFocus) talk.focus();
}

async function askKey(why) {
  find("key").hidden = false;
  if (isAsking) return;
  isAsking = true;
  try {
    if (await askForKey(why, ({ key }) => useKey(key))) await start();
  } catch (error) {
    fail(error);
  } finally {
    isAsking = false;
  }
}

/** Everything anew. */
async function start() {
  forgive();
  try {
    await learn();
    await open(nameInAddress());
    find("connection").textContent = "";
  } catch (error) {
    if (error.status !== 0) return fail(error);
    find("connection").textContent = LOST;
    setTimeout(start, PATIENCE);
  }
}

/** What the server is and allows, said where it matters. */
async function learn() {
  const models = await call("/v1/models");
  await learnLimits();
  talk.model = models.data[0].id;
  for (const each of document.querySelectorAll("[data-limit]")) {
    each.textContent = limits[each.dataset.limit].toLocaleString();
  }
  for (const input of document.querySelectorAll("[data-most]")) {
    const most = limits[input.dataset.most];
    if (input.type === "number") input.max = most;
    else input.maxLength = most;
  }
  for (const input of document.querySelectorAll("[data-usual]")) input.placeholder = limits[input.dataset.usual];
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
  const { data } = await call("/v1/memories");
  if (number !== visits) return; // another was chosen meanwhile
  const within = data.filter(hasAddress);
  const names = within.map((each) => each.name);
  const [newest] = within.toSorted((a, b) => b.changed - a.changed);
  const chosen = names.includes(name) ? name : (newest?.name ?? null);
  find("memories").replaceChildren(...listOptions(data, chosen));
  find("memories").disabled = !names.length;
  for (const id of ["fork", "export", "delete"]) find(id).disabled = chosen === null;
  history.replaceState(null, "", chosen === null ? location.pathname : `#${encodeURIComponent(chosen)}`);
  document.title = chosen === null ? "slowwave" : `${chosen} · slowwave`;
  memory.open(chosen);
  if (chosen === null) invite();
  if (name !== null && name !== chosen) fail(new Error(`there is no memory “${name}” here, or not any more`));
}

/** As open; what goes wrong is shown. */
async function visit(name) {
  try {
    await open(name);
  } catch (error) {
    find("memories").value = memory.name; // not the one that was chosen and did not come
    fail(error);
  }
}

/** Whether a memory can be asked for; one that the command line made may be called as it likes. */
const hasAddress = ({ name }) => !name.includes("/") && ![".", ".."].includes(name);

function listOptions(data, chosen) {
  if (!data.length) return [make("option", { textContent: "No memory yet" })];
  return data.map((each) => {
    const { name } = each;
    const text = hasAddress(each) ? name : `${name} (by the command line only)`;
    return make("option", { value: name, textContent: text, selected: name === chosen, disabled: !hasAddress(each) });
  });
}

/** Where there is no memory yet. */
function invite() {
  const { input, element } = makeField({ name: "first-name", label: "Call it", value: "first", hint: NAMES });
  const button = make("button", { type: "submit", className: "main", textContent: "Make it" });
  const form = make("form", { noValidate: true }, element, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!areFit([input])) return;
    try {
      await makeMemory(input.value.trim());
      talk.focus();
    } catch (error) {
      refuse(input, error, fail);
    }
  });
  find("welcome").replaceChildren(
    make("h2", { textContent: "There is no memory yet" }),
    make("p", { textContent: "A memory reads what you say, sleeps on it when its window is full, and is here again tomorrow. It stays on this server." }),
    form,
  );
  find("welcome").hidden = false;
}

async function makeMemory(name) {
  await call("/v1/memories", { name });
  forgive();
  await visit(name);
}

for (const field of document.querySelectorAll(".field")) furnish(field);
find("memories").addEventListener("change", (event) => visit(event.target.value));
find("new").addEventListener("click", async () => {
  const text = "It begins empty, and knows nothing of the others.";
  const isMade = await askForName("New memory", text, "", "Make it", ({ name }) => makeMemory(name)).catch(fail);
  if (isMade) talk.focus();
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
find("delete").addEventListener("click", () => {
  const { name } = memory;
  ask({
    title: `Delete ${name}?`,
    body: [say("All that it read and learned goes, with its snapshots. Forks stay.")],
    confirm: "Delete",
    isGrave: true,
    act: () => remove(name),
  }).catch(fail);
});

async function remove(name) {
  memory.pause(); // or it would be told as another's doing
  try {
    await call(at(name), undefined, "DELETE");
  } catch (error) {
    memory.watch();
    throw error;
  }
  await visit(null);
}

find("key").addEventListener("click", () => askKey("Another key opens another owner's memories."));
window.addEventListener("denied", ({ detail }) => askKey(`The server wants one: ${detail.message}.`));
memory.addEventListener("gone", () => visit(memory.name));
memory.addEventListener("trouble", ({ detail }) => fail(detail));
memory.addEventListener("connection", async ({ detail: isHere }) => {
  const wasAway = find("connection").textContent !== "";
  find("connection").textContent = isHere ? "" : LOST;
  if (!isHere || !wasAway) return;
  if (isLost) forgive();
  await learn().catch(fail); // it may be another than before
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) memory.pause();
  else memory.watch();
});
window.addEventListener("hashchange", () => visit(nameInAddress()));
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.view;
    for (const each of document.querySelectorAll(".views button")) {
      each.setAttribute("aria-pressed", String(each === button));
    }
  });
}

start();

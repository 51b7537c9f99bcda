// What the conversation shows of the ledger: what was said, what was read, and sleeps in between.

import { clock, count, duration, hue, make, shorten } from "./dom.js";

/** What is shown of an entry, and of the sleeps that happened in it. before: the one before it. */
export function arrange(entry, before, sleeps) {
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

/** Something that was said, or read, with whom or what it is from. */
export function bubble(role, text, source) {
  const isText = role === "text";
  return make(
    "li",
    { className: `bubble ${role}` },
    make("span", { className: `chip ${hue(source)}`, textContent: isText ? `read from ${source}` : source }),
    make("span", { className: "unseen", textContent: ": " }),
    make("span", { className: "text", textContent: isText ? shorten(text, 600) : text }),
  );
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

// Elements, texts and numbers. Data becomes text nodes only; nothing here takes markup.

export const find = (id) => document.getElementById(id);

/** An element. props: properties of it; those with a dash, and role, are attributes; on*: listeners. */
export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Makes the children of a list those of items, and leaves alone what has not changed, so that
 * focus, selection and place stay. describe(item): equal texts for equal children.
 */
export function show(list, items, describe, build) {
  const signatures = items.map(describe);
  const wanted = new Set(signatures);
  const focused = document.activeElement;
  const row = [...list.children].findIndex((child) => child.contains(focused));
  const place = [...(list.children[row]?.querySelectorAll("button") ?? [])].indexOf(focused);
  for (const child of [...list.children]) if (!wanted.has(child.signature)) child.remove();
  signatures.forEach((signature, i) => {
    const there = list.children[i] ?? null;
    if (there?.signature === signature) return;
    list.insertBefore(build(items[i]), there).signature = signature;
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
  if (place < 0 || focused.isConnected) return;
  const heir = list.children[Math.min(row, items.length - 1)]; // what took the place of what had the focus
  (heir?.querySelectorAll("button")[place] ?? list).focus();
}

export const count = (number, one, many = `${one}s`) =>
  `${number.toLocaleString()} ${number === 1 ? one : many}`;

export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function bytes(number) {
  if (number < 1000) return `${number} B`;
  if (number < 1e6) return `${(number / 1e3).toFixed(1)} kB`;
  return `${(number / 1e6).toFixed(1)} MB`;
}

export function percent(fraction) {
  const value = 100 * fraction;
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} %`;
}

/** A time of day, with the date where that is not today's. seconds: since 1970. */
export function clock(seconds) {
  const date = new Date(1000 * seconds);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

const HUES = 6;

/** The class that colours a source, always the same. */
export function hue(source) {
  if (["user", "model", "system"].includes(source)) return `from-${source}`;
  let sum = 0;
  for (const letter of source) sum = (31 * sum + letter.codePointAt(0)) % 9973;
  return `from-${sum % HUES}`;
}

/** A text on one line, cut after so many letters. */
export function shorten(text, length = 80) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > length ? `${cut(line, length - 1)}…` : line;
}

/** The first characters of a text, none of them in halves. */
export function cut(text, length) {
  const end = text.codePointAt(length - 1) > 0xffff ? length - 1 : length;
  return text.slice(0, end).trim();
}

/** A name like this one that is not taken yet. */
export function findFree(name, taken, length) {
  for (let i = 1; ; i += 1) {
    const end = i === 1 ? "" : ` ${i}`;
    const free = cut(name, length - end.length) + end;
    if (!taken.includes(free)) return free;
  }
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

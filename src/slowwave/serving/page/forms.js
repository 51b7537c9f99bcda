// Dialogs that ask before something happens.

import { make } from "./dom.js";

/**
 * Asks in a dialog. fields: of a form, as {name, label, value, rows, type}; body: what is shown
 * above them; isGrave: it cannot be undone. Resolves to the values by name, or null.
 */
export function ask({ title, body = [], fields = [], confirm, isGrave = false }) {
  return new Promise((resolve) => {
    const inputs = fields.map(makeInput);
    const heading = make("h2", { id: "asked", textContent: title });
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    const go = make("button", { type: "submit", className: isGrave ? "grave" : "main", textContent: confirm });
    const labels = fields.map((field, i) => wrap(field, inputs[i]));
    const buttons = make("div", { className: "row end" }, cancel, go);
    const form = make("form", {}, heading, ...body, ...labels, buttons);
    const dialog = make("dialog", { "aria-labelledby": "asked" }, form);
    let values = null;
    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      values = Object.fromEntries(fields.map(({ name }, i) => [name, read(inputs[i])]));
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(values);
    });
    document.body.append(dialog);
    dialog.showModal();
    (inputs[0] ?? cancel).focus();
    inputs[0]?.select?.();
  });
}

const read = (input) => (input.type === "checkbox" ? input.checked : input.value.trim());

function makeInput({ name, type = "text", rows, value = "", max = 128, optional = false }) {
  if (type === "checkbox") return make("input", { name, type, checked: value });
  const input = rows ? make("textarea", { rows }) : make("input", { type, maxLength: max });
  return Object.assign(input, { name, value, required: !optional, autocomplete: "off" });
}

function wrap({ label, type }, input) {
  if (type === "checkbox") return make("label", { className: "tick" }, input, label);
  return make("label", { className: "field" }, make("span", { textContent: label }), input);
}

export const say = (textContent) => make("p", { textContent });

export const askForKey = (why) =>
  ask({
    title: "API key",
    body: [say(why), say("It is kept in this tab until you close it.")],
    fields: [{ name: "key", label: "Key", type: "password", max: 4096 }],
    confirm: "Use it",
  });

export const askForName = (title, text, label, value, confirm) =>
  ask({ title, body: [say(text)], fields: [{ name: "name", label, value }], confirm });

export const askForText = () =>
  ask({
    title: "Give it a text to read",
    body: [say("It is read as it is. Under its source it can be forgotten again.")],
    fields: [
      { name: "text", label: "Text", rows: 7 },
      { name: "source", label: "Source", value: "notes" },
    ],
    confirm: "Let it read",
  });

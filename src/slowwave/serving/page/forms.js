// Dialogs that ask before something happens, and stay until it has.

import { limits } from "./api.js";
import { bytes, cut, make, sentence } from "./dom.js";
import { areFit, complain, makeField, note } from "./fields.js";

const MOST_SHOWN = 100_000; // bytes of a text; browsers take seconds to lay out millions

/**
 * Asks in a dialog. fields: of makeField; body: what is shown above them; isGrave: it cannot be
 * undone; act(values by name): does it. What goes wrong then is said in the dialog, which stays with
 * all that was typed. Resolves to whether it was done; raises what goes wrong after it was closed.
 */
export function ask({ title, body = [], fields = [], confirm, isGrave = false, act }) {
  return new Promise((resolve) => {
    const inputs = fields.map(({ input }) => input);
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    const go = make("button", { type: "submit", className: isGrave ? "grave" : "main", textContent: confirm });
    const trouble = make("p", { className: "complaint wrong", role: "alert" });
    const form = make(
      "form",
      { noValidate: true },
      make("h2", { textContent: title }),
      ...body,
      ...fields.map(({ element }) => element),
      trouble,
      make("div", { className: "row end" }, cancel, go),
    );
    const dialog = make("dialog", { "aria-label": title }, form);
    let work = false;

    function refuse(error) {
      const [input] = inputs; // what a dialog is about comes first
      if (input) complain(input, error.message);
      else trouble.textContent = sentence(error.message);
      (input ?? go).focus();
      if (input?.type === "password") input.select(); // nobody sees where to mend it
    }

    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled || !areFit(inputs)) return;
      go.disabled = true;
      dialog.ariaBusy = "true";
      trouble.textContent = "";
      work = act(Object.fromEntries(fields.map(({ name, input }) => [name, read(input)]))).then(() => true);
      try {
        await work;
        dialog.close();
      } catch (error) {
        if (!dialog.open) return;
        work = false;
        go.disabled = false;
        dialog.ariaBusy = "false";
        refuse(error);
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(work);
    });
    document.body.append(dialog);
    dialog.showModal();
    (inputs[0] ?? cancel).focus();
    inputs[0]?.select?.();
  });
}

function read({ type, checked, value }) {
  if (type === "checkbox") return checked;
  return type === "textarea" ? value : value.trim();
}

export const say = (textContent) => make("p", { textContent });

export const askForKey = (why, act) =>
  ask({
    title: "API key",
    body: [say(why), say("It is kept in this tab until you close it.")],
    fields: [makeField({ name: "key", label: "Key", type: "password", max: 4096 })],
    confirm: "Use it",
    act,
  });

export const NAMES = "It may have spaces within, and no @ or /.";

export const askForName = (title, text, value, confirm, act) =>
  ask({
    title,
    body: [say(text)],
    fields: [makeField({ name: "name", label: "Its name", value, hint: NAMES })],
    confirm,
    act,
  });

export function askForText(act) {
  const most = limits.max_prompt_tokens?.toLocaleString();
  const text = makeField({ name: "text", label: "Text", rows: 7, hint: `At most ${most} tokens, or ${bytes(limits.max_body_bytes)}.` });
  const source = makeField({ name: "source", label: "Source", value: "notes", hint: "What it is from. Under this name it can be forgotten again." });
  const file = makeField({ name: "file", label: "From a file", type: "file", isOptional: true });
  file.input.addEventListener("change", () => take(file.input, text.input, source.input));
  return ask({
    title: "Give it a text to read",
    body: [say("It is read as it is."), file.element],
    fields: [text, source],
    confirm: "Let it read",
    act,
  });
}

/** Puts the text of a chosen file into the form, or says why it cannot be. */
async function take(input, text, source) {
  const [file] = input.files;
  if (!file) return;
  const most = limits.max_body_bytes;
  try {
    if (file.size > most) throw new Error(`it has ${bytes(file.size)}, and the server takes ${bytes(most)} at a time; cut it`);
    const decoded = await decode(file);
    text.hidden = file.size > MOST_SHOWN;
    text.value = decoded;
    source.value = cut(file.name, limits.max_name_length) || "file";
    complain(input, "");
    if (text.hidden) note(input, `${bytes(file.size)} of text, too long to show here.`);
    areFit([text, source]);
  } catch (error) {
    complain(input, error.message);
  }
}

async function decode(file) {
  const data = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data);
    if (!text.includes("\0")) return text;
  } catch {
    // bytes that are no UTF-8
  }
  throw new Error("it is no text in UTF-8; choose another, or save it as such");
}

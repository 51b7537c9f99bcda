// Inputs, each with words beside it: what it is for, and what is wrong with what it holds.

import { ApiError, findExcess, limits } from "./api.js";
import { make, sentence } from "./dom.js";

const REFUSALS = [400, 409, 413, 422]; // of what was asked, not of who asked, or when
let number = 0;

/** A field of a form: {name, input, element}. hint: what it is for. max: characters. */
export function makeField({ name, label, type = "text", rows, value = "", max = limits.max_name_length, hint = "", isOptional = false }) {
  const id = `field-${(number += 1)}`;
  const maxLength = ["text", "password"].includes(type) ? max : undefined;
  const input = rows ? make("textarea", { id, rows, value }) : make("input", { id, type, value, maxLength, checked: value === true });
  Object.assign(input, { name, required: !isOptional, autocomplete: "off" });
  const text = make("label", { htmlFor: id, textContent: label });
  const words = hint ? make("p", { id: `${id}-hint`, className: "hint", textContent: hint }) : null;
  if (words) input.setAttribute("aria-describedby", words.id);
  const parts = type === "checkbox" ? [make("div", { className: "tick" }, input, text)] : [text, input];
  const element = make("div", { className: "field" }, ...parts, words);
  furnish(element);
  return { name, input, element };
}

/** Lets a field say what is wrong with it, as soon as it is. */
export function furnish(field) {
  const input = field.querySelector("input, textarea");
  const id = `words-${(number += 1)}`;
  field.append(make("p", { id, className: "complaint", role: "alert" }));
  input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
  input.addEventListener("input", () => complain(input, input.value || input.validity.badInput ? judge(input) : ""));
}

/** Says beside an input what is wrong with it; "" takes it back. */
export function complain(input, text) {
  const isFull = !text && input.maxLength > 0 && input.value.length >= input.maxLength;
  note(input, isFull ? `That is the longest it may be: ${input.maxLength} characters.` : text && sentence(text));
  input.setAttribute("aria-invalid", String(Boolean(text)));
}

/** Says something beside an input. */
export function note(input, words) {
  const place = input.closest(".field").querySelector(".complaint");
  if (place.textContent !== words) place.textContent = words;
}

/** Whether a form may be sent; if not, each input says why, and the first of them has the focus. */
export function areFit(inputs) {
  for (const input of inputs) complain(input, judge(input));
  const wrong = inputs.find(judge);
  wrong?.focus();
  return !wrong;
}

/** What is wrong with what an input holds; "" if nothing is. */
export function judge({ type, value, required, min, max, step, validity }) {
  if (validity.badInput) return "this is no number";
  if (required && type !== "checkbox" && !value.trim()) return "nothing is in it yet";
  if (validity.rangeUnderflow) return `use ${min} or more`;
  if (validity.rangeOverflow) return `use ${Number(max).toLocaleString()} or less`;
  if (validity.stepMismatch && !step) return "use a whole number";
  return findExcess(value);
}

/** Says beside an input that the server refused what it holds; anything else is for fail. */
export function refuse(input, error, fail) {
  if (!(error instanceof ApiError && REFUSALS.includes(error.status))) return fail(error);
  complain(input, error.message);
  input.focus();
}

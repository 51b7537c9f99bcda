// Requests to this server: JSON, files and event streams, with the key where it wants one.

import { count } from "./dom.js";

const KEY = "slowwave.key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What the server allows, by the names that it gives in /v1/limits. */
export const limits = {};

export async function learnLimits() {
  Object.assign(limits, await call("/v1/limits"));
}

/** Keeps a key in this tab, if the server takes it. */
export async function useKey(key) {
  if (/[^\x21-\xff]/.test(key)) throw new ApiError(400, "no API key has such signs; look at it again");
  await request("/v1/limits", { key });
  sessionStorage.setItem(KEY, key);
}

/** Says that this is more than the server takes; "" if it is not. */
export function findExcess(text) {
  const most = limits.max_body_bytes;
  if (6 * text.length < most) return ""; // not even if every character is escaped
  const size = new Blob([text]).size;
  if (!(size > most)) return "";
  return `this is ${count(size, "byte")}, and the server takes ${most.toLocaleString()} at a time; send less`;
}

/** The address of a memory, or of something of it. */
export function at(...parts) {
  const lost = parts.find((part) => [".", ".."].includes(part)); // it would lead elsewhere, encoded or not
  if (lost) throw new ApiError(400, `“${lost}” cannot stand in an address; use the command line for it`);
  return ["/v1/memories", ...parts.map(encodeURIComponent)].join("/");
}

/** GET, or POST where there is a body; the answer's JSON. */
export async function call(path, body, method = body === undefined ? "GET" : "POST") {
  return read(await request(path, { method, body }), "json");
}

export async function download(path) {
  return read(await request(path, {}), "blob");
}

/**
 * The events of a stream as {kind, data}; comments have the kind "comment".
 * Ends when the stream does, and raises what went wrong.
 */
export async function* listen(path, { body, signal } = {}) {
  const method = body === undefined ? "GET" : "POST";
  const response = await request(path, { method, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(explainLoss);
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

function parse(block) {
  let kind = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith(": ")) return { kind: "comment", data: line.slice(2) };
    if (line.startsWith("event: ")) kind = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  return { kind, data: data === "[DONE]" ? null : JSON.parse(data) };
}

async function request(path, { method = "GET", body, signal, key = sessionStorage.getItem(KEY) }) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const excess = findExcess(sent ?? "");
  if (excess) throw new ApiError(413, excess);
  const response = await fetch(path, { method, headers, body: sent, signal }).catch(explainLoss);
  if (response.ok) return response;
  const error = new ApiError(response.status, await explain(response));
  if (error.status === 401) window.dispatchEvent(new CustomEvent("denied", { detail: error }));
  throw error;
}

const read = (response, kind) => response[kind]().catch(explainLoss);

function explainLoss(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError(0, "the server does not answer; see whether it still runs");
}

async function explain(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answers ${response.status}`;
  }
}

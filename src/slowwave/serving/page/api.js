// Requests to this server: JSON, files and event streams, with the key where it wants one.

const KEY = "slowwave.key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);

/** The address of a memory, or of something of it. */
export const at = (name, ...parts) =>
  ["/v1/memories", ...[name, ...parts].map(encodeURIComponent)].join("/");

/** GET, or POST where there is a body; the answer's JSON. */
export async function call(path, body, method = body === undefined ? "GET" : "POST") {
  return (await request(path, { method, body })).json();
}

export async function download(path) {
  return (await request(path, {})).blob();
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
    const { value, done } = await reader.read();
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

async function request(path, { method = "GET", body, signal }) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server does not answer; see whether it still runs");
  }
  if (!response.ok) throw new ApiError(response.status, await explain(response));
  return response;
}

async function explain(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answers ${response.status}`;
  }
}

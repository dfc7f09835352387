// Asks the server that this page came from. Addresses are relative: the page may lie below a prefix, as behind a proxy.

const STORED = "ivcp-key";

/** Where a path of the API is. */
export const address = (path) => new URL(path, new URL(".", document.baseURI));

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const keepKey = (key) => sessionStorage.setItem(STORED, key);
export const forgetKey = () => sessionStorage.removeItem(STORED);

/** Why there is no answer: `code` is the API's, or "unreachable", or "cancelled". */
export class Problem extends Error {
  constructor(code, { status = 0, detail = "", retrySeconds = null, values = {} } = {}) {
    super(detail || code);
    Object.assign(this, { code, status, detail, retrySeconds, values });
  }

  /** Whether the same request may succeed a little later. */
  get passesBy() {
    return [429, 503].includes(this.status);
  }

  get isAboutKey() {
    return this.status === 401;
  }
}

/** The JSON at a path. */
export async function get(path) {
  let response;
  try {
    response = await fetch(address(path), { headers: authorization(), cache: "no-store" });
  } catch {
    throw new Problem("unreachable");
  }
  if (!response.ok) throw problemOf(response.status, await response.text(), response.headers.get("Retry-After"));
  return response.json();
}

/**
 * Sends FormData or JSON text, and returns what is answered as text.
 *
 * XMLHttpRequest, since fetch does not tell how much of a body was sent. `onSent` is told the share that was;
 * `onText` what has been answered so far.
 */
export function post(path, body, { accept = "application/json", signal, onSent = () => {}, onText = () => {} }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    const headers = { Accept: accept, ...authorization() };
    if (typeof body === "string") headers["Content-Type"] = "application/json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onSent(event.total ? event.loaded / event.total : 1);
    request.upload.onload = () => onSent(1);
    request.onprogress = () => request.status === 200 && onText(request.responseText);
    request.onload = () =>
      request.status === 200
        ? resolve(request.responseText)
        : reject(problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    request.onerror = () => reject(new Problem("unreachable"));
    request.onabort = () => reject(new Problem("cancelled"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** A function that is given an answer of server-sent events as it grows, and hands each event over once. */
export function eventReader(onEvent) {
  let read = 0;
  return (answer) => {
    for (let end; (end = answer.indexOf("\n\n", read)) >= 0; ) {
      const lines = answer.slice(read, end).split("\n");
      const fields = Object.fromEntries(lines.map((line) => line.split(/: ?(.*)/s, 2)));
      read = end + 2;
      onEvent(fields.event, JSON.parse(fields.data));
    }
  };
}

/** A problem of the API (problem+json), also one that comes as an event. */
export function problemOf(status, body, retryAfter = null) {
  let said = {};
  try {
    said = JSON.parse(body);
  } catch {
    // something between here and the server answered
  }
  const retrySeconds = Number.parseInt(retryAfter, 10) || null;
  return new Problem(said.code ?? "unreachable", { status, detail: said.detail ?? "", retrySeconds });
}

function authorization() {
  return hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(STORED)}` } : {};
}

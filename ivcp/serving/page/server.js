// Meets the server: which model there is, whether it is ready, and whether it asks for a key.

import { Problem, forgetKey, get, hasKey, keepKey } from "./api.js";
import { show } from "./drawing.js";
import { element } from "./state.js";

export const RETRY_SECONDS = 3;

/** Asks until the server says what model it has; where it wants a key, the reader is asked for that first. */
export async function meetServer() {
  for (;;) {
    try {
      showServer(await get("v1/model"));
      return;
    } catch (problem) {
      if (problem.isAboutKey) return askForKey(problem);
      show({ waiting: problem });
      await pause(problem.retrySeconds ?? RETRY_SECONDS);
    }
  }
}

function showServer(model) {
  element("columns").hidden = element("labels").hidden = false;
  element("uri-form").hidden = !model.uris;
  show({ model, waiting: null });
}

/** Asks the reader for a key. */
export function askForKey(problem) {
  show({ waiting: null, keyProblem: hasKey() ? problem.code : null });
  forgetKey();
  element("columns").hidden = element("labels").hidden = true;
  element("key-form").hidden = false;
  element("key").focus();
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(element("key").value.trim());
  element("key").value = "";
  element("key-form").hidden = true;
  meetServer();
});

/** Waits, or throws when the signal says so. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Problem("cancelled"));
    });
  });
}

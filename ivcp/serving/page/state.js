// What the page knows and is asked; what it shows is drawn from it.

export const element = (id) => document.getElementById(id);

export const state = {
  model: null,
  chosen: null, // { file, name, seconds } or { uri, name }
  note: null, // why the video is not shown
  clip: null, // an answer for the whole video
  timeline: null, // { start, windows, segments }
  closer: null, // a window of the timeline, and an answer for it with its frames
  status: null, // [text, values]
  count: "", // how far it is; apart from the status, which is read aloud
  problem: null,
  waiting: null, // why the server cannot be asked yet
  keyProblem: null, // the code
  recording: null,
  underWay: null, // an AbortController
};

/** "clip" or "timeline". */
export const mode = () => document.querySelector("input[name=mode]:checked").value;
export const setMode = (value) => (document.querySelector(`input[name=mode][value=${value}]`).checked = true);

/** A very long video is cut into as many windows as the server takes, and no more. */
export function windowFields() {
  const { window_seconds: window, limits } = state.model;
  const [seconds, most] = [state.chosen.seconds ?? 0, limits.max_windows - 1];
  if (seconds <= most * (window / 2)) return {};
  const stride = Math.ceil(seconds / most);
  return { window_seconds: Math.max(window, stride), stride_seconds: stride };
}

/** An element with a text in it. */
export function made(kind, className = "", content = "") {
  return Object.assign(document.createElement(kind), { className, textContent: content });
}

// Asks the model about the video that was chosen.

import { Problem, eventReader, post, problemOf } from "./api.js";
import { wordsOf } from "./band.js";
import { band, show, windowHere } from "./drawing.js";
import { RETRY_SECONDS, askForKey, pause } from "./server.js";
import { element, mode, state, windowFields } from "./state.js";
import { fileSize, percent, text } from "./texts.js";

const MOST_TRIES = 5;

element("ask").addEventListener("click", () => {
  const most = state.model.limits.max_upload_mb * 1e6;
  const { file: chosen, name } = state.chosen;
  if (chosen && chosen.size > most) {
    const values = { name, size: fileSize(chosen.size), most: fileSize(most) };
    return show({ problem: new Problem("too_large_to_send", { values }) });
  }
  show({ clip: null, timeline: null, closer: null });
  band.reset();
  return begin(mode() === "clip" ? askClip : askTimeline);
});
element("closer").addEventListener("click", () => begin(askCloser));
element("cancel").addEventListener("click", () => state.underWay?.abort());

async function begin(ask) {
  const underWay = new AbortController();
  show({ problem: null, status: null, underWay });
  const ended = await outcome(ask, underWay.signal);
  if (state.underWay !== underWay) return; // another video was chosen meanwhile
  element("progress").hidden = true;
  show({ underWay: null, count: "", ...ended });
}

async function outcome(ask, signal) {
  try {
    return { status: ["done", { what: await askWithRetries(ask, signal) }], problem: null };
  } catch (problem) {
    if (problem.code === "cancelled") return { status: ["cancelled"], problem: null };
    if (!(problem instanceof Problem)) throw problem;
    if (problem.isAboutKey) askForKey(problem);
    return { status: null, problem };
  }
}

async function askWithRetries(ask, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await ask(signal);
    } catch (problem) {
      if (!problem.passesBy || tries === MOST_TRIES) throw problem;
      const seconds = problem.retrySeconds ?? RETRY_SECONDS;
      show({ status: ["again", { seconds }], problem });
      await pause(seconds, signal);
      show({ problem: null });
    }
  }
}

async function askClip(signal) {
  const clip = JSON.parse(await post("v1/predict", bodyOf({ with_frames: true }), { signal, onSent }));
  show({ clip });
  return saidOf(clip);
}

/** The window at the cursor once more, with its frames. */
async function askCloser(signal) {
  const window = windowHere();
  const { start_seconds, end_seconds } = window;
  const asked = { start_seconds, end_seconds, with_frames: true };
  const answer = JSON.parse(await post("v1/predict", bodyOf(asked), { signal, onSent }));
  show({ closer: { window, answer } });
  return saidOf(answer);
}

function saidOf(answer) {
  return answer.confidence === null ? wordsOf(answer) : `${answer.label_name}, ${percent(answer.confidence)}`;
}

async function askTimeline(signal) {
  const found = { start: null, windows: [], segments: null, failure: null };
  const onText = eventReader((kind, data) => {
    if (kind === "error") found.failure = problemOf(data.status, JSON.stringify(data));
    if (kind === "start") found.start = data;
    if (kind === "window") found.windows.push(data);
    if (kind === "segments") found.segments = data.segments;
  });
  const onGrowth = (answer) => {
    onText(answer);
    if (!found.start) return;
    const [done, all] = [found.windows.length, found.start.num_windows];
    onShare(done / all);
    show({ timeline: found, count: text("windows", { done, all }) });
  };
  const accept = "text/event-stream";
  onGrowth(await post("v1/timeline", bodyOf(windowFields()), { accept, signal, onSent, onText: onGrowth }));
  if (found.failure) throw found.failure;
  if (!found.segments) throw new Problem("unreachable");
  return text("segments_found", { number: found.segments.length });
}

function bodyOf(asked) {
  const { uri, name, file: chosen } = state.chosen;
  if (uri) return JSON.stringify({ uri, ...asked });
  const form = new FormData();
  for (const [field, value] of Object.entries(asked)) form.append(field, value);
  form.append("video", chosen, name);
  return form;
}

function onSent(share) {
  onShare(share < 1 ? share : null);
  show({ status: [share < 1 ? "uploading" : "looking"], count: share < 1 ? percent(share) : "" });
}

function onShare(share) {
  element("progress").hidden = false;
  if (share === null) element("progress").removeAttribute("value");
  else element("progress").value = share;
}

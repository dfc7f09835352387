// The page: what happens when something is pressed, dropped or answered.

import { showClasses, showFrames, showSegments } from "./answer.js";
import { Problem, address, eventReader, forgetKey, get, hasKey, keepKey, post, problemOf } from "./api.js";
import { Band, partsOfWindows } from "./band.js";
import { startRecording } from "./camera.js";
import { curlCommand } from "./command.js";
import { clock, fileSize, percent, problemText, switchLanguage, text, translateDocument } from "./texts.js";

const RETRY_SECONDS = 3;
const MOST_TRIES = 5;
const element = (id) => document.getElementById(id);
const [video, file] = [element("video"), element("file")];

/** What the page knows; what it shows is drawn from it. */
const state = {
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
  keyProblem: "key_needed",
  recording: null,
  underWay: null, // an AbortController
};
const band = new Band(goTo);

// The server

async function meetServer() {
  for (;;) {
    try {
      state.model = await get("v1/model");
      break;
    } catch (problem) {
      if (problem.isAboutKey) return askForKey(problem);
      show({ waiting: problem });
      await pause(problem.retrySeconds ?? RETRY_SECONDS);
    }
  }
  element("columns").hidden = element("labels").hidden = false;
  element("uri-form").hidden = !state.model.uris;
  show({ waiting: null });
}

function askForKey(problem) {
  show({ waiting: null });
  element("columns").hidden = element("labels").hidden = true;
  element("key-form").hidden = false;
  show({ keyProblem: hasKey() ? `problem_${problem.code}` : "key_needed" });
  forgetKey();
  element("key").focus();
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(element("key").value.trim());
  element("key").value = "";
  element("key-form").hidden = true;
  meetServer();
});

element("labels").addEventListener("toggle", async () => {
  if (!element("labels").open || element("label-names").childElementCount) return;
  try {
    const { labels } = await get("v1/labels");
    element("label-names").append(...labels.map(({ label_name }) => made("li", label_name)));
  } catch (problem) {
    show({ problem });
  }
});

// Choosing a video

function choose(chosen) {
  state.underWay?.abort();
  URL.revokeObjectURL(video.src);
  Object.assign(state, { chosen, clip: null, timeline: null, closer: null, problem: null, status: null, note: null });
  band.reset();
  element("modes").hidden = true;
  setMode("clip");
  Object.assign(video, { hidden: !chosen.file, muted: false });
  if (chosen.file) {
    video.src = URL.createObjectURL(chosen.file);
    if (chosen.isRecorded) Object.assign(element("save"), { href: video.src, download: chosen.name });
  } else {
    video.removeAttribute("src");
    video.load();
    lengthIsUnknown("not_shown");
  }
  drawAll();
  element("ask").focus();
}

function chooseFile(chosen, { isRecorded = false } = {}) {
  choose({ file: chosen, name: chosen.name, seconds: null, isRecorded });
}

video.addEventListener("loadedmetadata", () => {
  if (state.recording) return;
  if (video.duration === Infinity) video.currentTime = 1e9; // recordings do not say how long they are; now it is looked up
  else lengthIsKnown();
});
video.addEventListener("durationchange", () => {
  if (state.recording || state.chosen?.seconds !== null || !Number.isFinite(video.duration)) return;
  video.currentTime = 0;
  lengthIsKnown();
});
video.addEventListener("error", () => video.hasAttribute("src") && lengthIsUnknown("unplayable"));

function lengthIsKnown() {
  state.chosen.seconds = video.duration;
  const isLong = video.duration > 2 * state.model.window_seconds;
  element("modes").hidden = !isLong;
  setMode(isLong ? "timeline" : "clip");
  draw();
}

function lengthIsUnknown(note) {
  Object.assign(state, { note });
  video.hidden = true;
  element("modes").hidden = false;
  draw();
}

const mode = () => document.querySelector("input[name=mode]:checked").value;
const setMode = (value) => (document.querySelector(`input[name=mode][value=${value}]`).checked = true);
element("modes").addEventListener("change", draw);

file.addEventListener("change", () => {
  if (file.files.length) chooseFile(file.files[0]);
  file.value = ""; // the same file may be chosen again
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  const dropped = [...dataTransfer.files];
  if (!state.model || state.recording || !dropped.length) return;
  chooseFile(dropped[0]);
  if (dropped.length > 1) show({ status: ["one_at_a_time", { name: dropped[0].name }] });
});

element("uri-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const uri = element("uri").value.trim();
  if (uri) choose({ uri, name: uri });
});

element("record").addEventListener("click", async () => {
  if (state.recording) return state.recording.stop();
  state.underWay?.abort();
  try {
    state.recording = await startRecording();
  } catch (error) {
    return show({ problem: new Problem(error.text) });
  }
  show({ chosen: null, clip: null, timeline: null, problem: null, note: null, status: ["recording"] });
  element("modes").hidden = true;
  video.hidden = false;
  Object.assign(video, { srcObject: state.recording.stream, muted: true });
  video.play();
  const started = Date.now();
  const tick = setInterval(() => show({ count: clock((Date.now() - started) / 1000) }), 200);
  const recorded = await state.recording.file;
  clearInterval(tick);
  video.srcObject = null;
  Object.assign(state, { recording: null, count: "" });
  chooseFile(recorded, { isRecorded: true });
});

// Asking

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
  show({ problem: null, status: null, underWay: new AbortController() });
  try {
    const what = await askWithRetries(ask, state.underWay.signal);
    show({ status: ["done", { what }] });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.isAboutKey) askForKey(problem);
    const wasCancelled = problem.code === "cancelled";
    show({ status: wasCancelled ? ["cancelled"] : null, problem: wasCancelled ? null : problem });
  } finally {
    element("progress").hidden = true;
    show({ underWay: null, count: "" });
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
  return `${clip.label_name}, ${percent(clip.confidence)}`;
}

/** The window at the cursor once more, with its frames. */
async function askCloser(signal) {
  const window = windowHere();
  const { start_seconds, end_seconds } = window;
  const asked = { start_seconds, end_seconds, with_frames: true };
  const answer = JSON.parse(await post("v1/predict", bodyOf(asked), { signal, onSent }));
  show({ closer: { window, answer } });
  return `${answer.label_name}, ${percent(answer.confidence)}`;
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

/** A very long video is cut into as many windows as the server takes, and no more. */
function windowFields() {
  const { window_seconds: window, limits } = state.model;
  const stride = Math.ceil((state.chosen.seconds ?? 0) / (limits.max_windows - 1));
  return stride <= window / 2 ? {} : { window_seconds: Math.max(window, stride), stride_seconds: stride };
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

// The time in the video

function goTo(seconds) {
  if (!video.hidden) video.currentTime = seconds;
  moveTo(seconds);
}

function moveTo(seconds) {
  if (!state.timeline) return;
  band.moveTo(seconds);
  drawWindow();
}

video.addEventListener("seeked", () => moveTo(video.currentTime));
video.addEventListener("play", function follow() {
  moveTo(video.currentTime);
  if (!video.paused) requestAnimationFrame(follow);
});

// Drawing

function show(changed) {
  Object.assign(state, changed);
  draw();
}

let isDrawing = false;

/** Draws once for all changes of a moment. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    drawAll();
  });
}

function drawAll() {
  const { model, status, count, problem, recording, underWay, clip, timeline, waiting } = state;
  translateDocument();
  element("language").textContent = text("other_language");
  element("language").lang = text("other_language") === "English" ? "en" : "zh-CN";
  element("record").textContent = text(recording ? "stop" : "record");
  if (model) {
    const values = { name: model.name, version: model.version, classes: model.num_classes, steps: model.trained_steps };
    element("model").textContent = text(model.version ? "model_version" : "model", values);
  }
  element("waiting").hidden = !waiting;
  if (waiting) element("waiting").textContent = waitingText(waiting);
  element("key-problem").textContent = text(state.keyProblem);
  element("status").textContent = status ? text(...status) : "";
  element("count").textContent = count;
  element("ask").hidden = Boolean(underWay || recording);
  file.disabled = element("uri-form").inert = Boolean(recording);
  element("cancel").hidden = !underWay;
  drawProblem(problem);
  drawChosen();
  element("found").hidden = !clip && !timeline?.windows.length;
  element("nothing-yet").hidden = !element("found").hidden;
  element("nothing-yet").textContent = text("nothing_yet");
  element("timeline").hidden = !timeline;
  if (clip) drawClip(clip);
  if (timeline) drawTimeline(timeline);
}

function waitingText({ status, code, detail }) {
  return status === 503 ? text("loading") : `${problemText(code)} ${detail}`;
}

function drawProblem(problem) {
  element("problem").hidden = !problem;
  if (!problem) return;
  const isOfCamera = problem.code.startsWith("camera_");
  const said = isOfCamera ? text(problem.code) : problemText(problem.code, problem.values);
  element("problem").replaceChildren(made("p", said), ...(problem.detail ? [made("p", problem.detail, "small")] : []));
}

function drawChosen() {
  const { chosen, note, recording } = state;
  element("chosen").hidden = !chosen && !recording;
  element("command-part").hidden = !chosen;
  element("name").textContent = chosen ? sizeOf(chosen) : "";
  element("unplayable").hidden = !note;
  if (note) element("unplayable").textContent = text(note);
  element("save").hidden = !chosen?.isRecorded;
  if (!chosen) return;
  const url = address(mode() === "clip" ? "v1/predict" : "v1/timeline").href;
  const fields = mode() === "clip" ? {} : windowFields();
  const command = curlCommand(url, { video: chosen, fields, withKey: hasKey() });
  element("command").textContent = hasKey() ? `# ${text("key_in_command")}\n${command}` : command;
}

function sizeOf({ uri, name, file: chosen, seconds }) {
  if (uri) return name;
  const values = { name, size: fileSize(chosen.size), time: seconds && clock(seconds) };
  return text(seconds ? "size_and_length" : "size", values);
}

function drawClip(clip) {
  showClasses(clip, unsureBelow());
  showFrames(clip, goTo);
  showSegments([], band);
  element("closer").hidden = true;
  element("moment").textContent = "";
  element("took").textContent = text("took", { seconds: clip.seconds.toFixed(2), backend: clip.backend });
}

function drawTimeline({ start, windows, segments }) {
  const end = start.duration_seconds;
  band.show(segments ?? partsOfWindows(windows, end), { end, step: Math.min(start.stride_seconds, 1) });
  showSegments(segments ?? [], band);
  element("closer").hidden = !segments || Boolean(state.underWay);
  drawWindow();
  const values = { number: windows.length, window: start.window_seconds, stride: start.stride_seconds };
  element("took").textContent = text("took_windows", values);
}

/** The window whose middle is nearest to the cursor. */
function windowHere() {
  const distance = (window) => Math.abs((window.start_seconds + window.end_seconds) / 2 - band.at);
  return state.timeline.windows.reduce((best, window) => (distance(window) < distance(best) ? window : best));
}

function drawWindow() {
  if (!state.timeline.windows.length) return;
  const here = windowHere();
  showClasses(here, unsureBelow());
  showFrames(state.closer?.window === here ? state.closer.answer : {}, goTo);
  const [start, end] = [clock(here.start_seconds), clock(here.end_seconds)];
  element("moment").textContent = text("moment", { start, end });
}

const unsureBelow = () => state.model.calibration?.unsure_below ?? null;

element("language").addEventListener("click", () => {
  switchLanguage();
  draw();
});

element("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(element("command").textContent);
    element("copied").textContent = text("copied");
  } catch {
    getSelection().selectAllChildren(element("command")); // a browser lets pages copy only over https
    element("copied").textContent = text("not_copied");
  }
});

/** Waits, or throws when the signal says so. */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Problem("cancelled"));
    });
  });
}

function made(kind, content, className = "") {
  return Object.assign(document.createElement(kind), { textContent: content, className });
}

drawAll();
meetServer();

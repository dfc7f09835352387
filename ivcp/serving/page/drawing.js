// Draws what the page knows.

import { showClasses, showFrames, showSegments } from "./answer.js";
import { address, hasKey } from "./api.js";
import { Band, partsOfWindows } from "./band.js";
import { curlCommand } from "./command.js";
import { element, made, mode, state, windowFields } from "./state.js";
import { clock, fileSize, percent, problemText, text, translateDocument } from "./texts.js";

const video = element("video");
export const band = new Band(goTo);

/** Takes what has changed, and draws it. */
export function show(changed) {
  Object.assign(state, changed);
  draw();
}

let isDrawing = false;

/** Draws once for all changes of a moment. */
export function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    drawAll();
  });
}

/** Draws now. */
export function drawAll() {
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
  element("key-problem").textContent = state.keyProblem ? problemText(state.keyProblem) : "";
  element("status").textContent = status ? text(...status) : "";
  element("count").textContent = count;
  element("ask").hidden = Boolean(underWay || recording);
  element("file").disabled = element("uri-form").inert = Boolean(recording);
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
  element("problem").replaceChildren(made("p", "", said), ...(problem.detail ? [made("p", "small", problem.detail)] : []));
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
  element("command").textContent = curlCommand(url, { video: chosen, fields, withKey: hasKey() });
  element("key-in-command").hidden = !hasKey();
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
  const overlap = windows.some(({ labels, heads }) => labels || heads); // segments of several classes hide each other
  const parts = segments?.length && !overlap ? segments : partsOfWindows(windows, end);
  band.show(parts, { end, step: Math.min(start.stride_seconds, 1) });
  showSegments(segments ?? [], band);
  element("closer").hidden = !segments || Boolean(state.underWay);
  drawWindow();
  const values = { number: windows.length, window: start.window_seconds, stride: start.stride_seconds };
  element("took").textContent = text("took_windows", values);
}

/** The window whose middle is nearest to the cursor. */
export function windowHere() {
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

/** Above 1, every answer is unsure: the line stands at the end then. */
function unsureBelow() {
  const threshold = state.model.calibration?.unsure_below ?? null;
  return threshold === null ? null : Math.min(threshold, 1);
}

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

// Where the video comes from: a file, a drop, the camera, an address.

import { Problem } from "./api.js";
import { startRecording } from "./camera.js";
import { band, draw, drawAll, show } from "./drawing.js";
import { element, setMode, state } from "./state.js";
import { clock } from "./texts.js";

const [video, file] = [element("video"), element("file")];

function choose(chosen) {
  clear();
  URL.revokeObjectURL(video.src);
  state.chosen = chosen;
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

/** Ends and forgets what was there before. */
function clear() {
  state.underWay?.abort();
  const nothing = ["chosen", "note", "clip", "timeline", "closer", "status", "problem", "underWay"];
  for (const name of nothing) state[name] = null;
  state.count = "";
  element("progress").hidden = true;
  band.reset();
}

function chooseFile(chosen, { isRecorded = false } = {}) {
  choose({ file: chosen, name: chosen.name, seconds: null, isRecorded });
}

video.addEventListener("durationchange", () => {
  if (state.chosen?.seconds !== null) return;
  if (video.duration === Infinity) video.currentTime = 1e9; // WebM recordings do not say how long they are: look it up
  if (!Number.isFinite(video.duration)) return;
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
  element("record").disabled = true;
  try {
    state.recording = await startRecording();
  } catch (error) {
    return show({ problem: new Problem(error.text ?? "camera_unsupported") });
  } finally {
    element("record").disabled = false;
  }
  await record(state.recording);
});

async function record(recording) {
  clear();
  show({ status: ["recording"] });
  element("modes").hidden = true;
  video.hidden = false;
  Object.assign(video, { srcObject: recording.stream, muted: true });
  video.play();
  const started = Date.now();
  const tick = setInterval(() => show({ count: clock((Date.now() - started) / 1000) }), 200);
  const recorded = await recording.file;
  clearInterval(tick);
  video.srcObject = null;
  state.recording = null;
  chooseFile(recorded, { isRecorded: true });
}

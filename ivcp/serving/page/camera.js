// Records with the camera. There is no sound: the model hears nothing.

const KINDS = ["video/mp4", "video/webm"];
const LONGEST_SECONDS = 300;
const REASONS = {
  NotAllowedError: "camera_denied",
  SecurityError: "camera_denied",
  NotFoundError: "camera_missing",
  OverconstrainedError: "camera_missing",
};

/** Why there is no recording: `text` names what to say. */
export class CameraError extends Error {
  constructor(name) {
    super(name);
    this.text = name;
  }
}

/** A recording that goes on until `stop()`; `stream` can be shown, `file` is a promise of what was recorded. */
export async function startRecording() {
  if (!window.isSecureContext) throw new CameraError("camera_insecure");
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) throw new CameraError("camera_unsupported");
  const stream = await openCamera();
  const kind = KINDS.find((each) => MediaRecorder.isTypeSupported(each));
  const recorder = new MediaRecorder(stream, kind && { mimeType: kind });
  const parts = [];
  const file = new Promise((resolve) => {
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearTimeout(timer);
      for (const track of stream.getTracks()) track.stop();
      const type = recorder.mimeType.split(";")[0];
      resolve(new File(parts, `recording.${type.split("/")[1]}`, { type }));
    };
  });
  recorder.start();
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const timer = setTimeout(stop, LONGEST_SECONDS * 1000);
  return { stream, file, stop };
}

async function openCamera() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    throw new CameraError(REASONS[error.name] ?? "camera_busy");
  }
}

// The answer's parts: bars of the classes, the frames, the list of segments.

import { nameOf, wordsOf } from "./band.js";
import { element, made } from "./state.js";
import { clock, percent, text } from "./texts.js";

/** The best classes of an answer or of a window; `unsureBelow` is null where the model has no threshold. */
export function showClasses(answer, unsureBelow) {
  const { confidence, unsure, top, heads } = answer;
  element("label").textContent = wordsOf(answer);
  element("confidence").textContent = confidence === null ? "" : percent(confidence);
  element("unsure").hidden = !unsure;
  const scores = Object.entries(heads ?? {}).flatMap(([name, head]) =>
    head.top.map((score) => ({ ...score, label_name: `${name}: ${score.label_name}` })),
  );
  element("bars").replaceChildren(...[...top, ...scores].map((score) => bar(score, unsureBelow)));
  element("threshold").hidden = unsureBelow === null;
  if (unsureBelow !== null) element("threshold").textContent = text("threshold", { share: percent(unsureBelow) });
}

function bar({ label_name, confidence }, unsureBelow) {
  const row = made("li");
  const track = made("div", "track");
  const fill = track.appendChild(made("div", "fill"));
  fill.style.width = `${100 * confidence}%`;
  if (unsureBelow !== null) {
    fill.classList.toggle("below", confidence < unsureBelow);
    track.appendChild(made("div", "line")).style.left = `${100 * unsureBelow}%`;
  }
  row.append(made("span", "class", label_name), made("span", "share", percent(confidence)), track);
  return row;
}

/** The frames that the model saw, each a button that goes there. */
export function showFrames({ frame_images, frame_seconds }, onSeek) {
  const images = frame_images ?? [];
  element("frames-part").hidden = !images.length;
  element("frames-heading").textContent = text("frames", { number: images.length });
  element("frames").replaceChildren(
    ...images.map((image, number) => {
      const time = clock(frame_seconds[number]);
      const picture = Object.assign(made("img"), { src: image, alt: text("frame", { time }) });
      return item([picture, made("span", "small", time)], () => onSeek(frame_seconds[number]));
    }),
  );
}

/** The segments of a timeline, each a button that goes to its start. */
export function showSegments(segments, band) {
  element("segments-part").hidden = !segments.length;
  element("segments").replaceChildren(
    ...segments.map((segment) => {
      const times = `${clock(segment.start_seconds)}–${clock(segment.end_seconds)}`;
      const words = [made("span", "time", times), made("span", "class", nameOf(segment))];
      return item([band.swatch(segment), ...words, made("span", "share", percent(segment.confidence))], () =>
        band.onSeek(segment.start_seconds),
      );
    }),
  );
}

function item(content, onClick) {
  const [row, button] = [made("li"), made("button")];
  button.type = "button";
  button.append(...content);
  button.addEventListener("click", onClick);
  row.append(button);
  return row;
}

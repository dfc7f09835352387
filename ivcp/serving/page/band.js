// The timeline: a coloured band that is a slider over the video's time.

import { clock, percent, text } from "./texts.js";

const GOLDEN_ANGLE = 137.5; // neighbours in this order are far apart on the colour wheel

export class Band {
  #element = document.getElementById("band");
  #parts = document.getElementById("parts");
  #cursor = document.getElementById("cursor");
  #legend = document.getElementById("legend");
  #hues = new Map();
  #shown = [];
  #step = 1;
  #end = 1;
  at = 0;

  /** `onSeek` is called with seconds when the reader goes somewhere. */
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.#element.addEventListener("pointerdown", (event) => this.#follow(event));
    this.#element.addEventListener("pointermove", (event) => event.buttons && this.#follow(event));
    this.#element.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Another video: colours begin anew. */
  reset() {
    this.#hues.clear();
    this.at = 0;
  }

  /** Draws stretches of one class each; `label` null is "unsure". */
  show(parts, { end, step }) {
    [this.#shown, this.#end, this.#step] = [parts, end, step];
    this.#parts.replaceChildren(...parts.map((part) => this.#drawn(part)));
    this.#element.setAttribute("aria-label", text("band"));
    this.#element.setAttribute("aria-valuemax", end.toFixed(1));
    this.#drawLegend();
    this.moveTo(this.at);
  }

  /** Moves the cursor. */
  moveTo(seconds) {
    this.at = Math.min(Math.max(seconds, 0), this.#end);
    this.#cursor.style.left = `${(100 * this.at) / this.#end}%`;
    const here = this.#shown.findLast((part) => part.start_seconds <= this.at && this.at <= part.end_seconds);
    const what = here ? nameOf(here) : text("nothing_there");
    this.#element.setAttribute("aria-valuenow", this.at.toFixed(1));
    this.#element.setAttribute("aria-valuetext", text("at", { time: clock(this.at), what }));
  }

  /** A small square in the colour of a class. */
  swatch(part) {
    return this.#coloured("swatch", keyOf(part));
  }

  #coloured(className, key) {
    const element = Object.assign(document.createElement("div"), { className });
    element.classList.toggle("unsure", key === null);
    if (key !== null && !this.#hues.has(key)) this.#hues.set(key, (255 + this.#hues.size * GOLDEN_ANGLE) % 360);
    if (key !== null) element.style.setProperty("--hue", this.#hues.get(key));
    return element;
  }

  #drawn(part) {
    const element = this.#coloured("part", keyOf(part));
    element.style.left = `${(100 * part.start_seconds) / this.#end}%`;
    element.style.width = `${(100 * (part.end_seconds - part.start_seconds)) / this.#end}%`;
    const share = part.confidence === null ? "" : percent(part.confidence);
    element.title = `${clock(part.start_seconds)}–${clock(part.end_seconds)} ${nameOf(part)} ${share}`;
    const name = document.createElement("span");
    name.textContent = nameOf(part);
    element.append(name);
    return element;
  }

  #drawLegend() {
    const seconds = new Map();
    for (const part of this.#shown) {
      const known = seconds.get(keyOf(part))?.sum ?? 0;
      seconds.set(keyOf(part), { part, sum: known + part.end_seconds - part.start_seconds });
    }
    const rows = [...seconds.values()].sort((one, other) => other.sum - one.sum);
    this.#legend.replaceChildren(
      ...rows.map(({ part, sum }) => {
        const row = document.createElement("li");
        row.append(this.swatch(part), `${nameOf(part)} · ${clock(sum)}`);
        return row;
      }),
    );
  }

  #follow(event) {
    const box = this.#element.getBoundingClientRect();
    this.onSeek((this.#end * Math.min(Math.max(event.clientX - box.left, 0), box.width)) / box.width);
  }

  #press(event) {
    const starts = this.#shown.map((part) => part.start_seconds);
    const goal = {
      ArrowLeft: () => this.at - this.#step,
      ArrowDown: () => this.at - this.#step,
      ArrowRight: () => this.at + this.#step,
      ArrowUp: () => this.at + this.#step,
      PageUp: () => starts.findLast((start) => start < this.at - 0.05) ?? 0,
      PageDown: () => starts.find((start) => start > this.at + 0.05) ?? this.#end,
      Home: () => 0,
      End: () => this.#end,
    }[event.key];
    if (!goal) return;
    event.preventDefault();
    this.onSeek(Math.min(Math.max(goal(), 0), this.#end));
  }
}

/** What an answer says: a class, several at once, that of each head, or a number. */
export function wordsOf({ label_name, labels, heads, value }) {
  if (value !== undefined) return String(Number(value.toPrecision(4)));
  if (heads) return Object.entries(heads).map(([name, head]) => `${name}: ${head.label_name}`).join(", ");
  if (labels) return labels.map((score) => score.label_name).join(", ") || text("none_shown");
  return label_name;
}

/** What a stretch shows. */
export function nameOf(part) {
  const name = part.label === null ? text("unsure") : part.label_name;
  return part.head ? `${part.head}: ${name}` : name;
}

/** What has a colour of its own: a class, which each head counts from 0; null is "unsure". */
function keyOf({ head, label }) {
  return head && label !== null ? `${head}: ${label}` : label;
}

/** Windows overlap: each is drawn from its start to the next one's, until segments are known. */
export function partsOfWindows(windows, end) {
  return windows.map((window, number) => ({
    ...window,
    label: window.unsure ? null : (window.label ?? wordsOf(window)),
    label_name: wordsOf(window),
    end_seconds: windows[number + 1]?.start_seconds ?? Math.min(window.end_seconds, end),
  }));
}

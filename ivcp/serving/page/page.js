// The page begins here.

import "./asking.js";
import "./choosing.js";
import { get } from "./api.js";
import { draw, drawAll, show } from "./drawing.js";
import { meetServer } from "./server.js";
import { element, made } from "./state.js";
import { switchLanguage, text } from "./texts.js";

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

element("labels").addEventListener("toggle", async () => {
  if (!element("labels").open || element("label-names").childElementCount) return;
  try {
    const { labels } = await get("v1/labels");
    element("label-names").append(...labels.map(({ label_name }) => made("li", "", label_name)));
  } catch (problem) {
    show({ problem });
  }
});

element("modes").addEventListener("change", draw);

drawAll();
meetServer();

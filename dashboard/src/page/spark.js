// Sparklines and state lanes.

import { s, h } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 34;

/** Draws `points` (oldest first) into `element`; `length` points fill the width. */
export function spark(element, points, length) {
  let svg = element.firstElementChild;
  if (!svg) {
    svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      s("path", { class: "area" }), s("path", { class: "stroke" }));
    element.append(svg);
  }
  const [area, stroke] = svg.children;
  if (points.length < 2) {
    area.removeAttribute("d");
    stroke.removeAttribute("d");
    return;
  }
  const top = Math.max(1, ...points) * 1.08;
  const step = WIDTH / (length - 1);
  const left = WIDTH - (points.length - 1) * step;
  const line = points.map((v, i) => `${(left + i * step).toFixed(1)} ${(HEIGHT - 1 - (v / top) * (HEIGHT - 3)).toFixed(1)}`);
  stroke.setAttribute("d", `M${line.join("L")}`);
  area.setAttribute("d", `M${left.toFixed(1)} ${HEIGHT}L${line.join("L")}L${WIDTH} ${HEIGHT}Z`);
}

const STATES = { S: "STARTING", R: "READY", D: "DRAINING", X: "DEAD", L: "LEFT" };

/** A strip of the last minutes: one letter a point, drawn as runs. */
export function lane(element, letters, length) {
  const runs = [];
  for (const letter of letters) {
    const last = runs.at(-1);
    if (last?.letter === letter) last.points += 1;
    else runs.push({ letter, points: 1 });
  }
  const key = `${length}:${runs.map((r) => r.letter + r.points).join("")}`;
  if (element.dataset.runs === key) return;
  element.dataset.runs = key;
  const missing = h("span");
  missing.style.flex = `${Math.max(0, length - letters.length)} 0 0`;
  element.replaceChildren(missing, ...runs.map((run) => {
    const part = h("i", { "data-state": STATES[run.letter] ?? "LEFT" });
    part.style.flex = `${run.points} 0 0`;
    return part;
  }));
}

/**
 * Figures: axes on a canvas, and layers drawn within them. A figure is drawn anew when its size or the theme changes.
 *
 * A figure that is `pick`ed is reached by the keyboard too: the arrows move a cross hair, Enter picks.
 */

import { ramp } from "./colours.js";
import { h, replace } from "./dom.js";
import { fixed, show, ticks } from "./numbers.js";
import { onTheme, token } from "./theme.js";

const FONT = "11px ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif";
const MATH = "italic 13px Charter, 'Iowan Old Style', Georgia, 'Liberation Serif', serif";

/**
 * What a layer draws with.
 * @typedef {object} Frame
 * @property {(x: number) => number} px from a value to pixels.
 * @property {(y: number) => number} py
 * @property {number} left @property {number} top @property {number} width @property {number} height
 */

export class Figure {
  #size = [0, 0];
  #shown = null;
  #frame = null;
  #cross = null;
  #ends = [];
  #asked = 0;

  /**
   * @param {object} given
   * @param {string} given.label what a screen reader says of it.
   * @param {number} [given.aspect] width by height of the whole; else `height` in pixels.
   * @param {number} [given.height]
   * @param {"math"} [given.labels] set the names of the axes as mathematics.
   * @param {(point: {x: number, y: number}, how: "hover"|"pick"|"leave") => void} [given.pick]
   */
  constructor({ label, aspect, height, labels, pick, margins }) {
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.node = h("div.figure", {}, this.canvas);
    this.node.style.setProperty(aspect ? "--aspect" : "--height", aspect ? String(aspect) : `${height}px`);
    if (!aspect) this.node.classList.add("tall");
    this.labels = labels;
    this.margins = margins ?? { left: 46, right: 12, top: 10, bottom: 38 };
    if (pick) this.#listen(pick, label);
    const observer = new ResizeObserver(() => this.redraw());
    observer.observe(this.node);
    this.#ends = [() => observer.disconnect(), onTheme(() => this.redraw())];
  }

  /**
   * Show axes and layers.
   * @param {{x: [number, number], y: [number, number], xLabel?: string, yLabel?: string, hide?: "x"|"y"|"both",
   *   layers: ((context: CanvasRenderingContext2D, frame: Frame) => void)[]}} shown
   */
  show(shown) {
    this.#shown = shown;
    this.redraw();
  }

  /** Say something else to a screen reader. */
  describe(label) { this.canvas.setAttribute("aria-label", label); }

  /** Put the cross hair at a point, or take it away. */
  cross(point) { this.#cross = point; this.redraw(); }

  /** Draw at the next frame, once, however often this is asked for. */
  redraw() {
    if (this.#asked) return;
    this.#asked = requestAnimationFrame(() => { this.#asked = 0; this.draw(); });
  }

  /** Draw now. */
  draw() {
    const shown = this.#shown;
    const width = this.node.clientWidth;
    const height = this.node.clientHeight;
    if (!shown || width === 0 || height === 0) return;
    const ratio = Math.min(devicePixelRatio || 1, 3);
    if (this.#size[0] !== width * ratio || this.#size[1] !== height * ratio) {
      this.#size = [width * ratio, height * ratio];
      [this.canvas.width, this.canvas.height] = this.#size.map(Math.round);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const bare = shown.hide === "both";
    const m = bare ? { left: 0, right: 0, top: 0, bottom: 0 } : this.margins;
    const left = shown.hide === "y" ? 12 : m.left;
    const frame = { left, top: m.top, width: Math.max(1, width - left - m.right), height: Math.max(1, height - m.top - m.bottom), ratio };
    const [x0, x1] = shown.x;
    const [y0, y1] = shown.y;
    frame.px = (x) => frame.left + ((x - x0) / (x1 - x0)) * frame.width;
    frame.py = (y) => frame.top + frame.height - ((y - y0) / (y1 - y0)) * frame.height;
    this.#frame = frame;
    context.save();
    context.beginPath();
    context.rect(frame.left, frame.top, frame.width, frame.height);
    context.clip();
    for (const layer of shown.layers) {
      context.save();
      layer(context, frame);
      context.restore();
    }
    context.restore();
    if (!bare) this.#axes(context, frame, shown);
    if (this.#cross) this.#drawCross(context, frame);
  }

  /** End it: nothing is drawn any more. */
  close() { this.#ends.forEach((end) => end()); }

  #axes(context, frame, shown) {
    context.strokeStyle = token("--rule");
    context.fillStyle = token("--ink-soft");
    context.lineWidth = 1;
    context.font = FONT;
    const bottom = frame.top + frame.height;
    context.beginPath();
    context.moveTo(frame.left, bottom + 0.5);
    context.lineTo(frame.left + frame.width, bottom + 0.5);
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of shown.hide === "x" ? [] : ticks(...shown.x, Math.max(2, Math.round(frame.width / 90)))) {
      const at = Math.round(frame.px(tick)) + 0.5;
      context.moveTo(at, bottom + 1);
      context.lineTo(at, bottom + 5);
      context.fillText(show(tick), at, bottom + 8);
    }
    if (shown.hide !== "y") {
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const tick of ticks(...shown.y, Math.max(2, Math.round(frame.height / 45)))) {
        const at = Math.round(frame.py(tick)) + 0.5;
        context.moveTo(frame.left - 1, at);
        context.lineTo(frame.left - 5, at);
        context.fillText(show(tick), frame.left - 8, at);
      }
    }
    context.stroke();
    context.font = this.labels === "math" ? MATH : FONT;
    context.fillStyle = token("--ink");
    context.textAlign = "right";
    context.textBaseline = "bottom";
    if (shown.xLabel) context.fillText(shown.xLabel, frame.left + frame.width, bottom + 35);
    if (shown.yLabel && shown.hide !== "y") {
      context.textAlign = "left";
      context.textBaseline = "top";
      const wide = context.measureText(shown.yLabel).width;
      context.fillStyle = token("--veil");
      context.fillRect(frame.left + 4, frame.top + 2, wide + 8, 18);
      context.fillStyle = token("--ink");
      context.fillText(shown.yLabel, frame.left + 8, frame.top + 5);
    }
  }

  #drawCross(context, frame) {
    const x = frame.px(this.#cross.x);
    const y = frame.py(this.#cross.y);
    context.strokeStyle = token("--ink");
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(frame.left, y);
    context.lineTo(frame.left + frame.width, y);
    context.moveTo(x, frame.top);
    context.lineTo(x, frame.top + frame.height);
    context.stroke();
    context.setLineDash([]);
    dot(this.#cross.x, this.#cross.y, { radius: 5 })(context, frame);
  }

  #listen(pick, label) {
    const { canvas } = this;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${label} Arrow keys move the cross hair, Enter picks.`);
    canvas.classList.add("picked");
    const at = (event) => {
      const frame = this.#frame;
      if (!frame) return null;
      const box = canvas.getBoundingClientRect();
      const [x0, x1] = this.#shown.x;
      const [y0, y1] = this.#shown.y;
      const fx = (event.clientX - box.left - frame.left) / frame.width;
      const fy = (event.clientY - box.top - frame.top) / frame.height;
      return fx < 0 || fx > 1 || fy < 0 || fy > 1 ? null : { x: x0 + fx * (x1 - x0), y: y1 - fy * (y1 - y0) };
    };
    canvas.addEventListener("pointermove", (event) => { const point = at(event); if (point) pick(point, "hover"); else pick(null, "leave"); });
    canvas.addEventListener("pointerleave", () => pick(null, "leave"));
    canvas.addEventListener("click", (event) => { const point = at(event); if (point) pick(point, "pick"); });
    canvas.addEventListener("keydown", (event) => {
      if (!this.#shown) return;
      const [x0, x1] = this.#shown.x;
      const [y0, y1] = this.#shown.y;
      const step = event.shiftKey ? 0.1 : 0.02;
      const from = this.#cross ?? { x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!moves && event.key !== "Enter") return;
      event.preventDefault();
      const point = moves
        ? { x: Math.min(x1, Math.max(x0, from.x + moves[0] * step * (x1 - x0))), y: Math.min(y1, Math.max(y0, from.y + moves[1] * step * (y1 - y0))) }
        : from;
      this.cross(point);
      pick(point, moves ? "hover" : "pick");
    });
  }
}

/**
 * A layer: a grid of numbers as colours.
 * @param {{data: TypedArray, columns: number, rows: number, x: [number, number], y: [number, number]}} grid row 0 lowest.
 * @param {[number, number]} range the values at the two ends of the ramp.
 * @param {{ramp?: string, smooth?: boolean}} [how]
 */
export function heat(grid, range, { ramp: name, smooth = true } = {}) {
  let picture = null;
  let painted = null;
  return (context, frame) => {
    const colours = ramp(name);
    if (painted !== colours) {
      picture = paint(grid, range, colours);
      painted = colours;
    }
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = "high";
    const left = frame.px(grid.x[0]);
    const top = frame.py(grid.y[1]);
    context.drawImage(picture, left, top, frame.px(grid.x[1]) - left, frame.py(grid.y[0]) - top);
  };
}

function paint({ data, columns, rows }, [low, high], colours) {
  const picture = new OffscreenCanvas(columns, rows);
  const context = picture.getContext("2d");
  const image = context.createImageData(columns, rows);
  const packed = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low || 1);
  for (let row = 0; row < rows; row += 1) {
    const to = (rows - 1 - row) * columns;
    for (let k = 0; k < columns; k += 1) {
      const share = (data[row * columns + k] - low) * scale;
      packed[to + k] = colours[share > 255 ? 255 : share > 0 ? share | 0 : 0];
    }
  }
  context.putImageData(image, 0, 0);
  return picture;
}

/**
 * A layer: points. `data` is flat, `width` numbers a row.
 * @param {{size?: number, colour?: string, alpha?: number, colours?: string[], columns?: [number, number]}} [how]
 */
export function points(data, width, { size = 2.5, colour = "--data", alpha = 0.55, colours, columns = [0, 1] } = {}) {
  return (context, { px, py }) => {
    context.globalAlpha = alpha;
    context.fillStyle = token(colour);
    const n = data.length / width;
    for (let row = 0; row < n; row += 1) {
      if (colours) context.fillStyle = colours[row];
      context.fillRect(px(data[row * width + columns[0]]) - size / 2, py(data[row * width + columns[1]]) - size / 2, size, size);
    }
  };
}

/** A layer: a line through points; a number that is none breaks it. */
export function line(xs, ys, { colour = "--ink", width = 1.75, dash = [], fill = null, to = 0 } = {}) {
  return (context, { px, py }) => {
    const n = xs.length;
    context.beginPath();
    let open = false;
    for (let k = 0; k < n; k += 1) {
      if (!Number.isFinite(ys[k])) { open = false; continue; }
      if (open) context.lineTo(px(xs[k]), py(ys[k]));
      else context.moveTo(px(xs[k]), py(ys[k]));
      open = true;
    }
    context.strokeStyle = token(colour);
    context.lineWidth = width;
    context.lineJoin = "round";
    context.setLineDash(dash);
    context.stroke();
    if (!fill || !n) return;
    context.lineTo(px(xs[n - 1]), py(to));
    context.lineTo(px(xs[0]), py(to));
    context.closePath();
    context.globalAlpha = 0.16;
    context.fillStyle = token(fill);
    context.fill();
  };
}

/** A layer: bars of a histogram between two ends. */
export function histogram(counts, low, high, { colour = "--data", alpha = 0.75 } = {}) {
  return (context, { px, py }) => {
    context.globalAlpha = alpha;
    context.fillStyle = token(colour);
    const step = (high - low) / counts.length;
    for (let k = 0; k < counts.length; k += 1) {
      const left = px(low + k * step);
      const top = py(counts[k]);
      context.fillRect(left + 0.5, top, Math.max(0.5, px(low + (k + 1) * step) - left - 1), py(0) - top);
    }
  };
}

/** A layer: one point that stands out. */
export function dot(x, y, { colour = "--data", radius = 6, edge = 2 } = {}) {
  return (context, { px, py }) => {
    context.beginPath();
    context.arc(px(x), py(y), radius, 0, 2 * Math.PI);
    context.fillStyle = token(colour);
    context.fill();
    context.lineWidth = edge;
    context.strokeStyle = token("--ground");
    context.stroke();
  };
}

/** A layer: a line across, at a value of x or of y, with a word at it. */
export function marker(at, { axis = "x", colour = "--ink", text = "" } = {}) {
  return (context, { px, py, left, top, width, height }) => {
    context.strokeStyle = token(colour);
    context.setLineDash([4, 3]);
    context.beginPath();
    if (axis === "x") { context.moveTo(px(at), top); context.lineTo(px(at), top + height); }
    else { context.moveTo(left, py(at)); context.lineTo(left + width, py(at)); }
    context.stroke();
    context.font = FONT;
    context.fillStyle = token(colour);
    const late = axis === "x" && px(at) > left + width / 2;
    context.textAlign = late ? "right" : "left";
    if (axis === "x") context.fillText(text, px(at) + (late ? -5 : 5), top + 12);
    else context.fillText(text, left + 6, py(at) - 5);
  };
}

/** A bar of a ramp's colours, with the numbers at its ends. */
export class ColourBar {
  #end;

  constructor(label) {
    this.canvas = h("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    this.low = h("span");
    this.high = h("span");
    this.label = h("span.colour-label", {}, label);
    this.node = h("div.colour-bar", {}, this.low, this.canvas, this.high, this.label);
    this.#end = onTheme(() => this.#draw());
    this.#draw();
  }

  #draw() {
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(ramp(this.name));
    context.putImageData(image, 0, 0);
  }

  /** Show the numbers at the ends. */
  set(low, high, label) {
    this.low.textContent = show(low, 3);
    this.high.textContent = show(high, 3);
    if (label !== undefined) replace(this.label, label);
  }

  /** End it. */
  close() { this.#end(); }
}

/** A table of a few numbers: names and values. */
export const readout = (entries) => h("dl.readout", {}, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "number" ? fixed(value, 3) : value))));

/** What the chain is drawn on: a plane that deforms, the line of the teaching texts, or images step by step. */

import { column, extent, sorted } from "../lib/arrays.js";
import { ramp } from "../lib/colours.js";
import { h, replace } from "../lib/dom.js";
import { Figure, dot, points } from "../lib/figures.js";
import { columnLabel } from "../lib/flows.js";
import { areaOf, buildMesh } from "../lib/mesh.js";
import { quantile, show, ticks } from "../lib/numbers.js";
import { drawImages, imageCanvas, unsqueezed } from "../lib/pictures.js";
import { Raster } from "../lib/raster.js";
import { token } from "../lib/theme.js";
import { span } from "../lib/thumbnails.js";
import { between, smooth } from "../lib/traces.js";

const MESH = 44;
const LINES_EVERY = 4;
const LINE_CELLS = 400;

const mix = (a, b, share) => a + share * (b - a);

/** The ends of latents that a mesh covers: where samples lie, within the support of the base. */
function meshEnds(values, base) {
  let [low, high] = span(values, 0.0005, 0.04);
  if (base?.low !== undefined) {
    const inset = 1e-4 * (base.high - base.low);
    low = Math.max(low, base.low + inset);
    high = Math.min(high, base.high - inset);
  }
  return [low, high];
}

/** Two columns: a mesh over latent space and rows, both carried along. */
export class PlaneStage {
  constructor(app, follow) {
    this.app = app;
    this.figure = new Figure({ label: `Rows of ${app.flow.name} on their way through the chain.`, aspect: 1.45, pick: (point, how) => { if (how === "pick") this.#follow(point, follow); } });
    this.node = this.figure.node;
    this.raster = new Raster();
  }

  async load(rows, ask) {
    this.rows = rows;
    this.spans = new Map();
    this.mesh = null;
    if (rows.width === 2) {
      const ends = [0, 1].map((k) => meshEnds(column(rows.values[0], 2, k), this.app.flow.base));
      const spans = rows.values.map((_, place) => [0, 1].map((k) => this.#ends(place, k)));
      this.mesh = await buildMesh(ends, MESH, spans, ask);
    }
    this.tops = rows.logs.map((logs) => Math.exp(quantile(sorted(logs), 0.97)));
    return rows;
  }

  #ends(place, k) {
    const key = `${place} ${k}`;
    if (!this.spans.has(key)) this.spans.set(key, span(column(this.rows.values[place], this.rows.width, k), 0.002, 0.12));
    return this.spans.get(key);
  }

  draw(position, { row, cols, grid, dots }) {
    const { rows, mesh, app } = this;
    const [k, part] = between(position, rows.values.length);
    const share = smooth(part);
    const [x, y] = cols.map((c) => { const [from, to] = [this.#ends(k, c), this.#ends(k + 1, c)]; return [mix(from[0], to[0], share), mix(from[1], to[1], share)]; });
    const wide = rows.width;
    const now = new Float32Array(rows.rows * 2);
    for (let n = 0; n < rows.rows; n += 1) {
      for (let c = 0; c < 2; c += 1) now[2 * n + c] = mix(rows.values[k][n * wide + cols[c]], rows.values[k + 1][n * wide + cols[c]], share);
    }
    this.now = now;
    const layers = [];
    if (mesh) layers.push(this.#sheet(k, share, grid));
    if (dots || !mesh) layers.push(mesh ? points(now, 2, { size: 2, colour: "--ink", alpha: 0.5 }) : points(now, 2, { size: 2.6, alpha: 0.6, colours: this.#colours(k, share) }));
    if (row !== null) layers.push(this.#trail(row, k, share, cols));
    const atData = position >= rows.values.length - 1.0001;
    const atBase = position <= 0.0001;
    const name = (c) => (atBase ? `z ${cols[c] + 1}` : atData ? columnLabel(app.flow, cols[c]) : "");
    this.figure.show({ x, y, xLabel: name(0), yLabel: name(1), layers });
  }

  #colours(k, share) {
    const { logs } = this.rows;
    const colours = ramp();
    const top = mix(Math.log(this.tops[k]), Math.log(this.tops[k + 1]), share);
    return Array.from(logs[k], (value, n) => {
      const packed = colours[Math.round(255 * Math.min(1, 0.35 + 0.6 * Math.exp((mix(value, logs[k + 1][n], share) - top) / 4)))];
      return `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
    });
  }

  /** The sheet of latent space: each cell keeps its mass, and has the colour of its mass by its area. */
  #sheet(k, share, grid) {
    const { values, logs, cells, masses } = this.mesh;
    const side = MESH + 1;
    const at = new Float32Array(values[k].length);
    const dense = new Float32Array(logs[k].length);
    for (let n = 0; n < at.length; n += 1) at[n] = mix(values[k][n], values[k + 1][n], share);
    for (let n = 0; n < dense.length; n += 1) dense[n] = Math.exp(mix(logs[k][n], logs[k + 1][n], share));
    const top = mix(this.tops[k], this.tops[k + 1], share);
    const levels = cells.map((cell, n) => {
      const corner = Math.max(dense[cell[0]], dense[cell[1]], dense[cell[2]], dense[cell[3]]);  // a folded cell has next to no area
      return Math.min(255, Math.round((255 * Math.min(masses[n] / areaOf(at, cell), corner)) / top));
    });
    return (context, { px, py, left, top: above, width, height, ratio }) => {
      const fine = Math.min(ratio, 2);
      const pixels = new Float32Array(at.length);
      for (let n = 0; n < at.length; n += 2) {
        pixels[n] = (px(at[n]) - left) * fine;
        pixels[n + 1] = (py(at[n + 1]) - above) * fine;
      }
      this.raster.begin(width * fine, height * fine);
      for (let n = 0; n < cells.length; n += 1) if (levels[n] > 2) this.raster.fill(pixels, cells[n], levels[n]);
      context.drawImage(this.raster.picture(), left, above, width, height);
      if (!grid) return;
      context.strokeStyle = token("--latent");
      context.globalAlpha = 0.45;
      context.lineWidth = 1;
      context.beginPath();
      for (let j = 0; j <= MESH; j += LINES_EVERY) {
        for (let i = 0; i <= MESH; i += 1) {
          const [a, b] = [2 * (j * side + i), 2 * (i * side + j)];
          this.#step(context, i, px(at[a]), py(at[a + 1]), 0);
          this.#step(context, i, px(at[b]), py(at[b + 1]), 1);
        }
      }
      context.stroke();
    };
  }

  /** Two lines at once: each goes on from its own last place. */
  #step(context, i, x, y, which) {
    this.last ??= [null, null];
    if (i) { context.moveTo(...this.last[which]); context.lineTo(x, y); }
    this.last[which] = [x, y];
  }

  #trail(row, k, share, cols) {
    const { rows } = this;
    const wide = rows.width;
    const place = (n, c) => rows.values[n][row * wide + cols[c]];
    const [x, y] = [0, 1].map((c) => mix(place(k, c), place(k + 1, c), share));
    return dot(x, y, { colour: "--latent", radius: 7, edge: 2.5 });
  }

  #follow(point, follow) {
    const { now } = this;
    if (!now) return;
    const [x0, x1] = extent(column(now, 2, 0));
    const [y0, y1] = extent(column(now, 2, 1));
    let best = [0, Infinity];
    for (let n = 0; n < now.length / 2; n += 1) {
      const away = ((now[2 * n] - point.x) / (x1 - x0)) ** 2 + ((now[2 * n + 1] - point.y) / (y1 - y0)) ** 2;
      if (away < best[1]) best = [n, away];
    }
    this.figure.cross(null);
    follow(best[0]);
  }

  close() { this.figure.close(); }
}

/** One column: the map as a curve, both densities at its axes, and the two areas that are equal. */
export class LineStage {
  constructor(app) {
    this.app = app;
    this.figure = new Figure({ label: "", aspect: 1.35 });
    this.said = h("p.areas", { "aria-live": "polite" });
    this.node = h("div", {}, this.figure.node, this.said);
  }

  async load(_, ask) {
    const { flow } = this.app;
    const drawn = await ask({ n: 400, seed: 7 });
    const [low, high] = meshEnds(drawn.values[0], flow.base);
    const z = Array.from({ length: LINE_CELLS + 1 }, (_, k) => [Number(mix(low, high, k / LINE_CELLS).toPrecision(7))]);
    this.trace = await ask({ z });
    return { ...this.trace, terms: drawn.terms, rows: drawn.rows };
  }

  draw(position, { strip, wide }) {
    const { values, logs } = this.trace;
    const [k, part] = between(position, values.length);
    const z = values[0];
    const now = Float32Array.from(z, (_, n) => mix(values[k][n], values[k + 1][n], part));
    const density = Float32Array.from(logs[0], Math.exp);
    const cell = (n) => Math.min(LINE_CELLS, Math.max(0, n));
    const first = cell(Math.round(strip * (1 - wide) * LINE_CELLS));
    const end = cell(first + Math.max(1, Math.round(wide * LINE_CELLS)));
    const mass = (n) => ((density[n] + density[n + 1]) / 2) * Math.abs(z[n + 1] - z[n]);
    const pushed = Float32Array.from({ length: LINE_CELLS }, (_, n) => mass(n) / Math.abs(now[n + 1] - now[n] || 1e-12));
    let area = 0;
    let areaPushed = 0;
    for (let n = first; n < end; n += 1) {
      area += mass(n);
      areaPushed += pushed[n] * Math.abs(now[n + 1] - now[n]);
    }
    const name = position < 0.001 ? "z" : position > values.length - 1.001 ? "x" : "h";
    this.figure.show({ x: [0, 1], y: [0, 1], hide: "both", layers: [(context, frame) => this.#paint(context, frame, { z, now, density, pushed, first, end, name })] });
    const spread = [Math.abs(z[end] - z[first]), Math.abs(now[end] - now[first])];
    replace(this.said,
      h("span.latent", {}, `under p(z) over |dz| = ${show(spread[0], 3)}: `, h("b", {}, area.toFixed(4))), h("span", {}, "="),
      h("span.data", {}, `under p(${name}) over |d${name}| = ${show(spread[1], 3)}: `, h("b", {}, areaPushed.toFixed(4))));
    this.figure.describe(`The map from z to ${name}, with the density of z below it and that of ${name} beside it. The strip has an area of ${area.toFixed(4)} on both sides.`);
  }

  #paint(context, { width, height }, { z, now, density, pushed, first, end, name }) {
    const room = { left: width * 0.27, bottom: height * 0.27, top: 14, right: 18 };
    const axis = 26;
    const [z0, z1] = extent(z);
    const [h0, h1] = extent([...now, 0]);
    const px = (value) => room.left + axis + ((value - z0) / (z1 - z0)) * (width - room.left - axis - room.right);
    const py = (value) => height - room.bottom - axis - ((value - h0) / (h1 - h0)) * (height - room.bottom - axis - room.top);
    const below = height - room.bottom;
    const beside = room.left;
    const top = Math.min(extent(pushed)[1], 2.4 * quantile(sorted(pushed), 0.5));
    // Equal areas are as many pixels on both sides, so that the eye can compare them.
    const scales = [Math.abs(px(1) - px(0)), Math.abs(py(1) - py(0))];
    const scale = Math.min(scales[0] * (room.bottom - 20) / (extent(density)[1] * 1.05), scales[1] * (room.left - 14) / (top * 1.05));
    const [tall, deep] = scales.map((each) => scale / each);
    const dz = (n) => below + density[n] * tall;
    const dx = (n) => Math.max(2, beside - pushed[n] * deep);
    const area = (colour, alpha, path) => {
      context.beginPath();
      path();
      context.closePath();
      context.globalAlpha = alpha;
      context.fillStyle = token(colour);
      context.fill();
      context.globalAlpha = 1;
    };
    const low = (from, to) => () => { context.moveTo(px(z[from]), below); for (let n = from; n <= to; n += 1) context.lineTo(px(z[n]), dz(n)); context.lineTo(px(z[to]), below); };
    const left = (from, to) => () => { context.moveTo(beside, py(now[from])); for (let n = from; n < to; n += 1) { context.lineTo(dx(n), py(now[n])); context.lineTo(dx(n), py(now[n + 1])); } context.lineTo(beside, py(now[to])); };
    area("--latent", 0.14, low(0, LINE_CELLS));
    area("--data", 0.14, left(0, LINE_CELLS));
    area("--latent", 0.75, low(first, end));
    area("--data", 0.75, left(first, end));
    area("--latent", 0.07, () => { context.moveTo(px(z[first]), below); context.lineTo(px(z[first]), py(now[first])); for (let n = first; n <= end; n += 1) context.lineTo(px(z[n]), py(now[n])); context.lineTo(px(z[end]), below); });
    area("--data", 0.07, () => { context.moveTo(beside, py(now[first])); for (let n = first; n <= end; n += 1) context.lineTo(px(z[n]), py(now[n])); context.lineTo(beside, py(now[end])); });
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    for (const n of [first, end]) {
      context.strokeStyle = token("--latent");
      context.beginPath();
      context.moveTo(px(z[n]), below);
      context.lineTo(px(z[n]), py(now[n]));
      context.stroke();
      context.strokeStyle = token("--data");
      context.beginPath();
      context.moveTo(px(z[n]), py(now[n]));
      context.lineTo(beside, py(now[n]));
      context.stroke();
    }
    context.setLineDash([]);
    context.strokeStyle = token("--ink");
    context.lineWidth = 2.2;
    context.beginPath();
    for (let n = 0; n <= LINE_CELLS; n += 1) context.lineTo(px(z[n]), py(now[n]));
    context.stroke();
    context.strokeStyle = token("--rule-strong");
    context.fillStyle = token("--ink-soft");
    context.lineWidth = 1;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.beginPath();
    context.moveTo(px(z0), below - 0.5);
    context.lineTo(px(z1), below - 0.5);
    context.moveTo(beside + 0.5, py(h0));
    context.lineTo(beside + 0.5, py(h1));
    for (const tick of ticks(z0, z1, 5)) { context.moveTo(px(tick), below); context.lineTo(px(tick), below - 4); context.fillText(show(tick), px(tick), below - 6); }
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const tick of ticks(h0, h1, 5)) { context.moveTo(beside, py(tick)); context.lineTo(beside + 4, py(tick)); context.fillText(show(tick), beside + 7, py(tick)); }
    context.stroke();
    context.font = "italic 15px Charter, Georgia, 'Liberation Serif', serif";
    context.fillStyle = token("--latent");
    context.textAlign = "right";
    context.textBaseline = "bottom";
    context.fillText("p(z)", px(z1), Math.min(height - 2, below + tall * extent(density)[1] + 20));
    context.fillText("z", px(z1) + 12, below - 5);
    context.fillStyle = token("--data");
    context.textAlign = "left";
    context.fillText(`p(${name})`, 6, room.top + 12);
    context.fillText(name, beside + 7, room.top + 4);
  }

  close() { this.figure.close(); }
}

/** Images: a few rows, each as it is at every place of the chain. */
export class ImageStage {
  constructor(app, follow) {
    this.app = app;
    this.follow = follow;
    this.node = h("div.frames");
  }

  async load(given) {
    const { event_shape: event, manifest } = this.app.flow;
    const shapes = [event, ...manifest.trace.map((step) => step.shape)].reverse();
    const rows = { ...given, values: given.values.map((values, place) => unsqueezed(values, shapes[place], event)) };
    this.rows = rows;
    this.canvases = Array.from({ length: rows.rows }, (_, row) => {
      const now = imageCanvas(`Row ${row} at this place of the chain`, { class: "pixels now-picture" });
      const steps = imageCanvas(`Row ${row} at every place of the chain`, { class: "pixels" });
      return { now, steps, box: h("button.frame-row", { type: "button", "aria-label": `Follow row ${row}`, onclick: () => this.follow(row) }, now, steps) };
    });
    replace(this.node, this.canvases.map((each) => each.box));
    const size = rows.width;
    this.ranges = rows.values.map((values, place) => (place === rows.values.length - 1 ? null : spanOf(values)));
    const places = rows.values.length;
    this.canvases.forEach(({ steps }, row) => {
      const strip = new Float32Array(places * size);
      for (let place = 0; place < places; place += 1) this.#level(row, place, strip, place * size);
      drawImages(steps, strip, this.app.flow, { columns: places > 8 ? Math.ceil(places / 2) : places, range: [0, 1] });
    });
    return rows;
  }

  /** The values of a row at a place, from 0 to 1 within the place's own range. */
  #level(row, place, to, at) {
    const size = this.rows.width;
    const values = this.rows.values[place];
    const [low, high] = this.ranges[place] ?? this.#whole();
    for (let k = 0; k < size; k += 1) to[at + k] = (values[row * size + k] - low) / (high - low || 1);
  }

  #whole() {
    const { manifest, support } = this.app.flow;
    const ends = manifest?.quantization ?? support;
    return ends && ends.low !== null && ends.high !== null && ends.low !== undefined ? [ends.low, ends.high] : extent(this.rows.values.at(-1));
  }

  draw(position, { row }) {
    const [k, share] = between(position, this.rows.values.length);
    const size = this.rows.width;
    const [from, to] = [new Float32Array(size), new Float32Array(size)];
    this.canvases.forEach(({ now, box }, each) => {
      this.#level(each, k, from, 0);
      this.#level(each, k + 1, to, 0);
      drawImages(now, from.map((value, n) => mix(value, to[n], share)), this.app.flow, { range: [0, 1] });
      box.setAttribute("aria-pressed", String(each === row));
    });
  }

  close() {}
}

function spanOf(values) {
  const ordered = sorted(values);
  return [quantile(ordered, 0.01), quantile(ordered, 0.99)];
}

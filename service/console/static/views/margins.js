/** Pairs and margins of a wide table: samples in orange, and rows of yours over them in ink. */

import { bins, column } from "../lib/arrays.js";
import { Figure, histogram, line, points } from "../lib/figures.js";
import { columnName } from "../lib/flows.js";
import { freshId, h, replace } from "../lib/dom.js";
import { span } from "../lib/thumbnails.js";

const SHOWN = 5;
const BINS = 24;

/** The columns that are shown: the two of the map, and those beside them. */
export function shownColumns(cols, width) {
  const found = [...cols];
  for (let k = 0; found.length < Math.min(SHOWN, width); k += 1) if (!found.includes(k)) found.push(k);
  return found;
}

export class MarginPlots {
  #parts = [];
  #rows = null;
  #shown = null;

  constructor(app) {
    this.app = app;
    const id = freshId("file");
    const input = h("input", { id, type: "file", accept: ".csv,text/csv", onchange: () => { if (input.files[0]) this.#read(input.files[0]); } });
    this.grid = h("div.pairs");
    this.said = h("p.note", { role: "status" }, "Samples of the flow. Add held-out rows of yours to see them over it: they stay in this page.");
    this.node = h("div.stack", {}, h("div.row", {}, h("label.button.small", { for: id }, "Add rows (CSV)"), input, this.said), this.grid);
    input.classList.add("unseen");
  }

  /** Show samples, flat, with the columns of the map first. */
  show(samples, cols) {
    const key = `${cols}`;
    if (this.#shown?.samples === samples && this.#shown.key === key && this.#shown.rows === this.#rows) return;
    this.#shown = { samples, key, rows: this.#rows, cols };
    this.close();
    const { flow } = this.app;
    const width = flow.event_shape[0];
    const columns = shownColumns(cols, width);
    const few = samples.subarray(0, 700 * width);
    const ends = columns.map((k) => span(column(samples, width, k), 0.002, 0.06));
    this.grid.style.setProperty("--columns", String(columns.length));
    replace(this.grid, columns.flatMap((up, row) => columns.map((across, place) => {
      if (place > row) return h("div");
      const name = place === row ? columnName(flow, up) : `${columnName(flow, up)} against ${columnName(flow, across)}`;
      const figure = new Figure({ label: name, aspect: 1.15, margins: { left: 1, right: 1, top: 1, bottom: 1 } });
      this.#parts.push(figure);
      figure.show(place === row ? this.#margin(samples, width, across, ends[place]) : this.#pair(few, width, across, up, ends[place], ends[row]));
      return h(place === row ? "div.pair-cell.margin" : "div.pair-cell", {}, figure.node, place === row && h("span.pair-name", {}, name));
    })));
  }

  #margin(samples, width, k, x) {
    const counts = bins(column(samples, width, k), ...x, BINS).map((each) => each / (samples.length / width));
    const layers = [histogram(counts, ...x, { colour: "--data", alpha: 0.6 })];
    let top = Math.max(...counts);
    if (this.#rows) {
      const own = bins(column(this.#rows, width, k), ...x, BINS).map((each) => each / (this.#rows.length / width));
      const middles = Array.from(own, (_, bin) => x[0] + ((bin + 0.5) / BINS) * (x[1] - x[0]));
      layers.push(line(middles, own, { colour: "--ink", width: 1.6 }));
      top = Math.max(top, ...own);
    }
    return { x, y: [0, top * 1.25], hide: "both", layers };
  }

  #pair(samples, width, across, up, x, y) {
    const layers = [points(samples, width, { columns: [across, up], size: 1.8, alpha: 0.4 })];
    if (this.#rows) layers.push(points(this.#rows.subarray(0, 700 * width), width, { columns: [across, up], size: 2.2, colour: "--ink", alpha: 0.7 }));
    return { x, y, hide: "both", layers };
  }

  async #read(file) {
    const { flow } = this.app;
    const names = flow.event_shape[0] ? Array.from({ length: flow.event_shape[0] }, (_, k) => columnName(flow, k)) : [];
    const lines = (await file.text()).split(/\r?\n/).filter((each) => each.trim());
    const mark = [",", ";", "\t"].reduce((a, b) => (lines[0].split(b).length > lines[0].split(a).length ? b : a));
    const head = lines[0].split(mark).map((text) => text.trim().replace(/^"|"$/g, ""));
    const places = names.map((name) => head.indexOf(name));
    const missing = names.filter((_, k) => places[k] < 0);
    if (missing.length) {
      this.said.textContent = `${file.name} has no column ${missing.slice(0, 3).join(", ")}. Its heading should name the flow's columns.`;
      return;
    }
    const rows = [];
    for (const text of lines.slice(1)) {
      const parts = text.split(mark);
      const values = places.map((place) => (parts[place]?.trim() ? Number(parts[place]) : NaN));
      if (values.every(Number.isFinite)) rows.push(...values);
    }
    this.#rows = Float32Array.from(rows);
    const left = lines.length - 1 - rows.length / names.length;
    this.said.textContent = `${rows.length / names.length} rows of ${file.name} in dark, samples in orange${left ? `; ${left} rows without numbers are left out` : ""}.`;
    this.show(this.#shown.samples, this.#shown.cols);
  }

  /** End its figures. */
  close() {
    this.#parts.forEach((part) => part.close());
    this.#parts = [];
  }
}

/**
 * Directions of latent space, as sliders: a 3 towards an 8. Each slider is answered once for all its strengths, and
 * then moves by itself. Sliders add up: the edits of the others are made first.
 */

import { Latest, TYPES } from "../lib/api.js";
import { shaped } from "../lib/arrays.js";
import { button, slider } from "../lib/controls.js";
import { h, replace } from "../lib/dom.js";
import { path, width } from "../lib/flows.js";
import { panel } from "../lib/layout.js";
import { fixed } from "../lib/numbers.js";

const STEPS = 48;
const REST_MS = 180;

export class Directions {
  #app;
  #given;
  #sliders = new Map();
  #row = null;
  #table = null;
  #stage = null;
  #latest = new Latest();
  #waiting = 0;
  #strength = new Map();

  /**
   * @param {object} app
   * @param {{put: Function, tell: Function, fail: Function, context: () => object, strengths: () => string, stage: (label: string) => object}} given
   *   `context`: as an argument; `strengths`: what the address says; `stage`: makes a place that shows a row.
   */
  constructor(app, given) {
    this.#app = app;
    this.#given = given;
    const names = Object.keys(app.flow.manifest.directions ?? {});
    this.names = names;
    this.box = h("div.walk-picture");
    this.said = h("p.walk-figures", { role: "status" });
    this.list = h("div.directions", {});
    for (const name of names) {
      const made = slider({ label: name, min: -4, max: 4, step: 4 / STEPS, value: 0, show: strengthText, change: (value, isDone) => this.#move(name, value, isDone) });
      made.input.addEventListener("pointerenter", () => this.#prepare(name));
      made.input.addEventListener("focus", () => this.#prepare(name));
      this.#sliders.set(name, made);
      this.list.append(made.node);
    }
    this.node = names.length
      ? panel(h("span", {}, "Directions", h("span.note", {}, "From the row above. Strength 1 is as far as the two kinds of row are apart on average; 3 or 4 makes one out of the other.")),
        h("div.walk", {}, this.box, h("div.walk-side", {}, this.said, this.list, h("div.row", {}, button("All to 0", () => this.#reset(), { class: "button small" })))))
      : h("div");
  }

  /** Take the strengths that the address says. */
  update() {
    if (!this.names.length) return;
    const told = new Map((this.#given.strengths() ?? "").split(",").map((part) => part.split(":")).map(([name, value]) => [unescaped(name), value]).filter(([name, value]) => this.#sliders.has(name) && Number.isFinite(Number(value))).map(([name, value]) => [name, Number(value)]));
    const same = told.size === this.#strength.size && [...told].every(([name, value]) => Math.abs(this.#strength.get(name) - value) < 1e-6);
    this.#sliders.forEach((made, name) => made.set(told.get(name) ?? 0));
    if (same) return;
    this.#strength = told;
    this.#table = null;
    if (this.#row) this.#show();
  }

  /** Begin at another row. */
  from(row) {
    if (!this.names.length) return;
    this.#row = row;
    this.#table = null;
    this.#stage?.close();
    this.#stage = this.#given.stage("The row with the directions added");
    replace(this.box, this.#stage.node);
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => this.#show(), this.#strength.size ? REST_MS : 0);
  }

  /** Show the row with all strengths; without any it is the row itself. */
  async #show() {
    if (!this.#row) return;
    const [name] = [...this.#strength.keys()].slice(-1);
    if (!name) {
      this.#stage.show(this.#row);
      this.said.textContent = "The row as it is. Move a slider.";
      this.#given.tell(null);
      return;
    }
    await this.#prepare(name);
  }

  #call(row, direction, strength) {
    return { path: path(this.#app.flow, "edit"), json: { x: [shaped(row, this.#app.flow.event_shape)], direction, strength, ...this.#given.context() }, accept: TYPES.arrow };
  }

  /** The directions of all sliders but one, added up; null where these stand at 0. */
  #sum(name) {
    const others = [...this.#strength].filter(([each]) => each !== name);
    if (!others.length) return null;
    const vectors = this.#app.flow.manifest.directions;
    return Array.from({ length: this.#app.flow.latent_width }, (_, k) => others.reduce((sum, [each, strength]) => sum + strength * vectors[each][k], 0));
  }

  /** Ask for every strength of one direction, with the others as they stand. */
  async #prepare(name) {
    if (!this.#row || this.#table?.name === name) return;
    const table = { name, x: null };
    this.#table = table;
    try {
      const answer = await this.#latest.run(async (signal) => {
        const others = this.#sum(name);
        const base = others ? this.#read(await this.#app.api.columns(this.#call(this.#row, others, [1]), signal)).x : this.#row;
        const strengths = Array.from({ length: 2 * STEPS + 1 }, (_, k) => ((k - STEPS) / STEPS) * 4);
        this.#given.tell({ ...this.#call(base, name, [0, 1, 2, 3]), accept: TYPES.json });
        return this.#read(await this.#app.api.columns(this.#call(base, name, strengths), signal));
      });
      if (!answer || this.#table !== table) return;
      Object.assign(table, answer);
      this.#paint();
    } catch (error) {
      this.#table = null;
      this.#given.fail(error, () => this.#prepare(name));
    }
  }

  /** The events and log_prob of an answer, one strength after the other: its columns are x, z and log_prob. */
  #read(answer) {
    const { flow } = this.#app;
    const wide = width(flow);
    const values = [...answer.values()];
    const n = values[0].length;
    const x = new Float32Array(n * wide);
    for (let k = 0; k < wide; k += 1) for (let row = 0; row < n; row += 1) x[row * wide + k] = values[k][row];
    return { x, logProb: values[values.length - 1] };
  }

  #move(name, value, isDone) {
    if (value === 0) this.#strength.delete(name);
    else this.#strength.set(name, value);
    if (this.#table?.name === name) this.#paint();
    else this.#prepare(name);
    if (isDone) this.#write();
  }

  #paint() {
    const { name, x, logProb } = this.#table ?? {};
    if (!x) return;
    const wide = width(this.#app.flow);
    const k = Math.round(((this.#strength.get(name) ?? 0) / 4) * STEPS) + STEPS;
    this.#stage.show(x.subarray(k * wide, (k + 1) * wide));
    const told = [...this.#strength].map(([each, value]) => `${each} ${strengthText(value)}`).join(", ");
    this.said.textContent = `log p(x) = ${fixed(logProb[k], 2)} nats${told ? ` with ${told}` : ""}`;
  }

  #write() {
    this.#given.put({ edit: [...this.#strength].map(([name, value]) => `${escaped(name)}:${Number(value.toFixed(3))}`).join(",") });
  }

  #reset() {
    this.#strength.clear();
    this.#sliders.forEach((made) => made.set(0));
    this.#table = null;
    this.#write();
    this.#show();
  }

  /** End it. */
  close() {
    clearTimeout(this.#waiting);
    this.#latest.stop();
    this.#stage?.close();
  }
}

/** A name in the list that the address holds: without the marks of the list. */
const escaped = (name) => name.replace(/[%,:]/g, encodeURIComponent);
const unescaped = (text) => text.replace(/%(?:25|2C|3A)/g, decodeURIComponent);

/** A strength with its sign. */
const strengthText = (value) => (Math.abs(value) < 0.05 ? "0" : `${value > 0 ? "+" : ""}${fixed(value, 1)}`);

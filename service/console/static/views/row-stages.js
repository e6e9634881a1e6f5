/**
 * Where one row is shown, as its kind is: an image, a point on the map of the density, a point on its curve, or a
 * table's columns. A stage is `{node, show(row), walk(rows, ends), clear(ends), close()}`, and shows a row at once: it asks nobody.
 */

import { column, extent, sorted } from "../lib/arrays.js";
import { h, replace } from "../lib/dom.js";
import { Figure, dot, heat, line, points } from "../lib/figures.js";
import { columnLabel, columnName, kind, path, valueRange, width } from "../lib/flows.js";
import { quantile, show } from "../lib/numbers.js";
import { drawImages, imageCanvas } from "../lib/pictures.js";
import { contextQuery, densities, gridRows, span } from "../lib/thumbnails.js";

const SIDE = 120;
const CURVE = 400;
const MOST_COLUMNS = 40;

/**
 * What lies behind the rows of a flow of one or two columns: its density, and the ends of the picture.
 * @param {Float32Array} samples flat.
 */
export async function backdrop(api, flow, samples, context, signal) {
  const call = (data, n) => ({ path: path(flow, "logprob"), query: contextQuery(flow, context), npy: { data, shape: [n, ...flow.event_shape] } });
  if (kind(flow) === "plane") {
    const x = span(column(samples, 2, 0));
    const y = span(column(samples, 2, 1));
    const { data } = await api.npy(call(gridRows(x, y, SIDE, SIDE), SIDE * SIDE), signal);
    const values = densities(data);
    return { x, y, layers: [heat({ data: values, columns: SIDE, rows: SIDE, x, y }, [0, extent(values)[1] * 0.9])] };
  }
  const support = valueRange(flow);
  const x = support ? [support[0], support[1]] : span(samples);
  const xs = Float32Array.from({ length: CURVE }, (_, k) => x[0] + ((k + 0.5) / CURVE) * (x[1] - x[0]));
  const { data } = await api.npy(call(xs, CURVE), signal);
  const ys = densities(data);
  const top = quantile(sorted(ys), 0.985) * 1.2 || 1;
  return { x, y: [0, top], layers: [line(xs, ys, { colour: "--data", fill: "--data" })], curve: { xs, ys } };
}

/**
 * Make the stage of a flow's kind.
 * @param {object} flow
 * @param {{label: string, samples: Float32Array, ground?: object, pick?: (point: object, how: string) => void}} given
 *   `ground`: the backdrop, for one and two columns.
 */
export function rowStage(flow, given) {
  const what = kind(flow);
  if (what === "image") return imageStage(flow, given);
  return what === "table" ? tableStage(flow, given) : pointStage(flow, given);
}

function imageStage(flow, { label }) {
  const canvas = imageCanvas(label, { class: "pixels portrait" });
  canvas.style.setProperty("--aspect", String(flow.event_shape[1] / flow.event_shape[0]));
  return { node: canvas, show: (row) => drawImages(canvas, row, flow, { gap: 0 }), walk() {}, clear() {}, close() {} };
}

function pointStage(flow, { label, samples, ground, pick }) {
  const isLine = kind(flow) === "line";
  const figure = new Figure({ label, aspect: isLine ? 1.9 : 1.3, pick });
  const cloud = isLine ? () => {} : points(samples.subarray(0, 1200), 2, { size: 1.8, colour: "--ink", alpha: 0.22 });
  let way = () => {};
  let knots = [];
  let here = () => {};
  const at = (row) => (isLine ? [row[0], heightAt(ground.curve, row[0])] : [row[0], row[1]]);
  const paint = () => figure.show({
    x: ground.x, y: ground.y, xLabel: columnName(flow, 0), yLabel: isLine ? "p(x)" : columnName(flow, 1),
    layers: [...ground.layers, cloud, way, ...knots, here],
  });
  return {
    node: figure.node,
    show(row) { here = dot(...at(row)); paint(); },
    walk(rows, ends) {
      const n = rows.length / (isLine ? 1 : 2);
      const places = Array.from({ length: n }, (_, k) => at(rows.subarray(k * (isLine ? 1 : 2), (k + 1) * (isLine ? 1 : 2))));
      way = line(places.map((place) => place[0]), places.map((place) => place[1]), { colour: "--latent", width: 2.5 });
      knots = ends.map((row) => dot(...at(row), { colour: "--latent", radius: 4.5 }));
      paint();
    },
    clear(ends) { way = () => {}; here = () => {}; knots = ends.map((row) => dot(...at(row), { colour: "--latent", radius: 4.5 })); paint(); },
    close() { figure.close(); },
  };
}

/** The height of a curve at a place. */
function heightAt({ xs, ys }, x) {
  const k = Math.round(((x - xs[0]) / (xs[xs.length - 1] - xs[0])) * (xs.length - 1));
  return ys[Math.min(xs.length - 1, Math.max(0, k))];
}

function tableStage(flow, { label, samples }) {
  const wide = width(flow);
  const shown = Math.min(wide, MOST_COLUMNS);
  const parts = Array.from({ length: shown }, (_, k) => {
    const ordered = sorted(column(samples, wide, k));
    const [low, high] = span(ordered, 0.002, 0.04);
    const share = (value) => Math.min(1, Math.max(0, (value - low) / (high - low)));
    const band = h("span.band", { style: { "--from": `${100 * share(quantile(ordered, 0.1))}%`, "--to": `${100 * share(quantile(ordered, 0.9))}%` } });
    const mark = h("span.at");
    const value = h("dd");
    return { share, mark, value, node: h("div", {}, h("dt", {}, columnLabel(flow, k)), h("span.track", { "aria-hidden": "true" }, band, mark), value) };
  });
  const node = h("dl.profile", { "aria-label": label }, parts.map((part) => part.node));
  return {
    node: h("div", {}, node, h("p.note", {}, wide > shown ? `The first ${shown} of ${wide} columns. ` : "", "The bar is where the middle 80 % of samples lie.")),
    show(row) {
      parts.forEach(({ share, mark, value }, k) => {
        mark.style.setProperty("--at", `${100 * share(row[k])}%`);
        value.textContent = show(row[k], 4);
      });
    },
    walk() {},
    clear() {},
    close() { replace(node); },
  };
}

/** Small live pictures of flows: a density and rows over it, a curve, a pair of columns, or a grid of images. */

import { column, extent, sorted } from "./arrays.js";
import { columnName, hasTemperature, kind, path, usualContext, valueRange } from "./flows.js";
import { heat, line, points } from "./figures.js";
import { quantile } from "./numbers.js";
import { drawImages } from "./pictures.js";

const SIDE = 72;
const SEED = 7;

/** The arguments that say under which context a flow is asked, if it has one. */
export const contextQuery = (flow, values = usualContext(flow)) => (flow.context_width ? { context: values.join(",") } : {});

/** The call by which rows of a flow are drawn. */
export const sampleCall = (flow, n, more = {}) => ({ path: path(flow, "sample"), query: { n, seed: SEED, ...contextQuery(flow), ...more } });

/** The span of most of the numbers, with room beside it. */
export function span(values, share = 0.004, room = 0.08) {
  const ordered = sorted(values);
  if (!ordered.length) return [0, 1];
  const low = quantile(ordered, share);
  const high = quantile(ordered, 1 - share);
  const pad = room * (high - low) || 0.5;
  return [low - pad, high + pad];
}

/** The middles of so many cells between two ends, for each of two axes: rows of two columns, the lowest row first. */
export function gridRows([x0, x1], [y0, y1], columns, rows) {
  const data = new Float32Array(columns * rows * 2);
  for (let row = 0, k = 0; row < rows; row += 1) {
    for (let place = 0; place < columns; place += 1) {
      data[k++] = x0 + ((place + 0.5) / columns) * (x1 - x0);
      data[k++] = y0 + ((row + 0.5) / rows) * (y1 - y0);
    }
  }
  return data;
}

/** Densities out of log-densities. */
export const densities = (logs) => Float32Array.from(logs, Math.exp);

/**
 * What a card shows of a flow.
 * @returns {Promise<{images: Float32Array}|{figure: object}>} `figure` is for `Figure.show`.
 */
export async function thumbnail(api, flow, signal) {
  const what = kind(flow);
  const query = what === "image" && hasTemperature(flow) ? { temperature: 0.8 } : {};
  const n = what === "image" ? (flow.event_shape[0] > 16 ? 18 : 32) : what === "line" ? 1000 : Math.max(100, Math.min(1500, Math.floor(600_000 / flow.event_shape[0])));
  const { data } = await api.npy(sampleCall(flow, n, query), signal);
  if (what === "image") return { images: data };
  if (what === "line") return { figure: await curve(api, flow, data, signal) };
  if (what === "plane") return { figure: await plane(api, flow, data, signal) };
  return { figure: pair(flow, data) };
}

async function curve(api, flow, rows, signal) {
  const support = valueRange(flow);
  const [low, high] = support ? [support[0] - 0.06 * (support[1] - support[0]), support[1] + 0.06 * (support[1] - support[0])] : span(rows);
  const xs = Float32Array.from({ length: 240 }, (_, k) => low + ((k + 0.5) / 240) * (high - low));
  const { data } = await api.npy({ path: path(flow, "logprob"), query: contextQuery(flow), npy: { data: xs, shape: [240, 1] } }, signal);
  const ys = densities(data);
  const top = quantile(sorted(ys), 0.985) * 1.15 || 1;
  return { x: [low, high], y: [0, top], hide: "both", layers: [line(xs, ys, { colour: "--data", fill: "--data", width: 2 })] };
}

async function plane(api, flow, rows, signal) {
  const x = span(column(rows, 2, 0));
  const y = span(column(rows, 2, 1));
  const grid = gridRows(x, y, SIDE, SIDE);
  const { data } = await api.npy({ path: path(flow, "logprob"), query: contextQuery(flow), npy: { data: grid, shape: [SIDE * SIDE, 2] } }, signal);
  const values = densities(data);
  return {
    x, y, hide: "both",
    layers: [heat({ data: values, columns: SIDE, rows: SIDE, x, y }, [0, extent(values)[1] * 0.9]), points(rows.subarray(0, 600), 2, { size: 1.6, colour: "--ink", alpha: 0.35 })],
  };
}

/** The two columns of a wide table that go together most: their correlation is the greatest. */
export function bestPair(rows, width) {
  const n = rows.length / width;
  const standard = Array.from({ length: width }, (_, k) => {
    const values = column(rows, width, k);
    const mean = values.reduce((a, b) => a + b, 0) / n;
    const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / n) || 1;
    return values.map((value) => (value - mean) / deviation);
  });
  let best = [0, 1, -1];
  for (let i = 0; i < Math.min(width, 40); i += 1) {
    for (let j = i + 1; j < Math.min(width, 40); j += 1) {
      const together = Math.abs(standard[i].reduce((sum, value, row) => sum + value * standard[j][row], 0) / n);
      if (together > best[2]) best = [i, j, together];
    }
  }
  return best.slice(0, 2);
}

function pair(flow, rows) {
  const width = flow.event_shape[0];
  const [i, j] = bestPair(rows, width);
  return {
    x: span(column(rows, width, i)), y: span(column(rows, width, j)), hide: "both", words: `${columnName(flow, i)} against ${columnName(flow, j)}`,
    layers: [points(rows, width, { columns: [i, j], size: 2.2, alpha: 0.5 })],
  };
}

/** Draw images as a sheet that fills a card: as many columns as the card is wide for. */
export const drawSheet = (canvas, images, flow) => drawImages(canvas, images, flow, { columns: flow.event_shape[0] > 16 ? 6 : 8 });

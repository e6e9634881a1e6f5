/** Density: a heat map of p(x) over two columns, rows over it, and what the flow says of the row under the pointer. */

import { number, numbers } from "../lib/address.js";
import { column, extent, sorted } from "../lib/arrays.js";
import { Latest, isAborted } from "../lib/api.js";
import { button, contextControls, numberField, segmented, select, slider } from "../lib/controls.js";
import { add, h, m, replace } from "../lib/dom.js";
import { ColourBar, Figure, dot, heat, histogram, line, marker, points, readout } from "../lib/figures.js";
import { columnLabel, columnName, kind, path, usualContext, valueRange, width } from "../lib/flows.js";
import { CallBox, panel, workbench } from "../lib/layout.js";
import { fixed, percent, quantile, show } from "../lib/numbers.js";
import { token } from "../lib/theme.js";
import { bestPair, contextQuery, gridRows, sampleCall, span } from "../lib/thumbnails.js";
import { MarginPlots } from "./margins.js";

const NEAR = 6;

const SIDES = [50, 200];
const MARGINAL_SIDE = 64;
const MARGINAL_SLICES = 24;
const LOG_DEPTH = 12;
const LARGEST = 80;
const MOST_SAMPLES = 4000;
const MOST_VALUES = 2_000_000;

export function mount(root, app) {
  const { flow, api } = app;
  const shape = kind(flow);
  const wide = width(flow);
  const nSamples = Math.max(200, Math.min(MOST_SAMPLES, Math.floor(MOST_VALUES / wide)));
  const nLatents = Math.min(1500, nSamples);
  const sides = SIDES.map((side_) => Math.min(side_, Math.floor(Math.sqrt(MOST_VALUES / wide))));
  const isLine = shape === "line";
  const isTable = shape === "table";
  const drawing = new Latest();
  const asking = new Latest();
  const { controls, stage, place, end } = workbench(root, {
    title: "Density",
    words: [
      h("p", {}, isLine ? "How dense are the rows here? The curve is " : "How dense are the rows here? The map is ", m("p(x)"), ", exact, as the flow computes it. Point at it, and click to stay."),
      h("p", {}, "Beside it lies the same row in ", h("b.latent", {}, "latent space"), ", where the density is simple."),
    ],
  });

  let state = {};
  let samples = null;
  let latents = null;
  let context = usualContext(flow);
  let cols = [0, isLine ? 0 : 1];
  let rest = null;
  let shown = null;
  let base = null;
  let pinned = null;
  let waitingPoint = null;
  let near = [];
  let asks = false;
  const parts = [];
  const keep = (part) => { parts.push(part); return part; };

  // The stage
  const map = keep(new Figure({ label: `The density of ${flow.name}.`, aspect: isLine ? 1.7 : 1.18, pick: onPoint }));
  const bar = keep(new ColourBar(""));
  const latent = keep(new Figure({ label: `Samples of ${flow.name} in latent space, and the row that is picked`, aspect: isLine ? 1.9 : 1.18 }));
  const held = flow.calibration ? keep(new Figure({ label: "log_prob of the held-out rows, and that of the row that is picked", height: 150, margins: { left: 12, right: 12, top: 8, bottom: 40 } })) : null;
  const reading = h("div.reading", { "aria-live": "polite" });
  const call = new CallBox(app);
  const zoom = h("div.row", {}, button("Zoom in", () => scale(0.6), { class: "button small" }), button("Zoom out", () => scale(1 / 0.6), { class: "button small" }), button("Whole", () => put({ box: null }), { class: "button small" }));
  const side = h("div.stack", {},
    panel("In latent space", latent.node),
    panel("The row", reading));
  stage.classList.add("two");
  const mapTitle = h("span", {}, "");
  replace(stage, h("div.stack", {}, panel(mapTitle, map.node, isLine ? null : bar.node, zoom), held && panel("Among the held-out rows", held.node)), side);
  const margins = isTable ? new MarginPlots(app) : null;
  if (margins) add(end, [panel("Pairs and margins", margins.node)]);
  end.append(call.node);

  // The controls
  const what = segmented({ label: "Show", value: "p", options: [{ value: "p", label: "p(x)" }, { value: "log", label: "log p(x)" }], change: (value) => put({ show: value === "p" ? null : value }) });
  const names = Array.from({ length: wide }, (_, k) => ({ value: k, label: columnName(flow, k) }));
  const across = isTable ? select({ label: "Across", value: 0, options: names, change: (value) => put({ cols: `${value},${cols[1] === Number(value) ? cols[0] : cols[1]}`, box: null, at: null }) }) : null;
  const up = isTable ? select({ label: "Up", value: 1, options: names, change: (value) => put({ cols: `${cols[0] === Number(value) ? cols[1] : cols[0]},${value}`, box: null, at: null }) }) : null;
  const others = isTable ? segmented({ label: "The other columns", value: "fixed", options: [{ value: "fixed", label: "at a row" }, { value: "averaged", label: "averaged out" }], change: (value) => put({ others: value === "fixed" ? null : value }) }) : null;
  const row = isTable ? slider({ label: "Row of the samples", min: 0, max: 99, step: 1, value: 0, change: (value) => put({ row: value || null }) }) : null;
  const n = slider({ label: "Rows over it", min: 0, max: nSamples, step: 100, value: Math.min(1000, nSamples), change: (value) => { put({ n: value === 1000 ? null : value }); } });
  const seed = numberField({ label: "Seed of the rows", value: 7, min: 0, step: 1, change: (value) => put({ seed: value === 7 ? null : value }) });
  const contextPart = contextControls(flow, context, (values) => put({ context: values.join(","), box: null }));
  const fields = [numberField({ label: isLine ? m("x") : columnName(flow, 0), value: null, optional: true, change: () => fromFields() }), isLine ? null : numberField({ label: columnName(flow, 1), value: null, optional: true, change: () => fromFields() })].filter(Boolean);
  replace(controls, contextPart.node, across?.node, up?.node, others?.node, row?.node, what.node, n.node, seed.node,
    h("fieldset.pair", {}, h("legend", {}, "Look at"), fields.map((field) => field.node)));

  function put(patch) {
    app.set(patch);
    update(app.state);
  }

  function update(next) {
    const before = state;
    state = next;
    context = numbers(state, "context", usualContext(flow));
    contextPart.set(context);
    what.set(state.show ?? "p");
    others?.set(state.others ?? "fixed");
    row?.set(number(state, "row", 0));
    if (row) row.node.hidden = state.others === "averaged";
    n.set(number(state, "n", 1000));
    seed.set(number(state, "seed", 7));
    const changed = (...keys) => keys.some((key) => before[key] !== state[key]);
    if (samples === null || changed("context", "seed")) load();
    else if (changed("cols", "others", "row", "box")) draw();
    else if (changed("show", "n")) { paint(); }
    if (samples !== null && changed("at")) pin();
  }

  async function load() {
    try {
      const seedQuery = { seed: number(state, "seed", 7) };
      const found = await drawing.run(async (signal) => {
        const drawn = await api.npy(sampleCall(flow, nSamples, { ...seedQuery, ...contextQuery(flow, context) }), signal);
        const encoded = await api.npy({ path: path(flow, "encode"), query: contextQuery(flow, context), npy: { data: drawn.data.subarray(0, nLatents * wide), shape: [nLatents, ...flow.event_shape] } }, signal);
        return [drawn.data, encoded.data];
      });
      if (!found) return;
      [samples, latents] = found;
      await draw();
      pin();
    } catch (error) {
      place.show(error, load);
    }
  }

  /** The two columns, the ends of the map, and the row that the other columns are taken from. */
  function frame() {
    const usual = isTable ? bestPair(samples, wide) : [0, isLine ? 0 : 1];
    cols = isTable ? numbers(state, "cols", usual) : usual;
    if (cols.some((each) => !(each >= 0 && each < wide)) || (isTable && cols[0] === cols[1])) cols = usual;
    across?.set(cols[0]);
    up?.set(cols[1]);
    fields.forEach((field, k) => { field.node.querySelector("label").textContent = isLine ? columnName(flow, 0) : columnName(flow, cols[k]); });
    const spans = cols.map((each) => lineSpan(each));
    const box = numbers(state, "box", isLine ? [0, 0] : [0, 0, 0, 0]);
    const given = box.every((value, k) => k % 2 === 0 || value > box[k - 1]);
    const [x, y] = given ? [box.slice(0, 2), box.slice(2, 4)] : spans;
    rest = samples.slice(number(state, "row", 0) * wide, (number(state, "row", 0) + 1) * wide);
    return { x, y };
  }

  function lineSpan(k) {
    const range = isLine ? valueRange(flow) : null;
    if (!range) return span(column(samples, wide, k), 0.002, 0.14);
    const room = 0.05 * (range[1] - range[0]);
    return [range[0] - room, range[1] + room];
  }

  async function draw() {
    const { x, y } = frame();
    call.set(calls(x, y));
    const averaged = isTable && state.others === "averaged";
    map.node.setAttribute("aria-busy", "true");
    try {
      await drawing.run(async (signal) => {
        if (isLine) { await curve(x, signal); return; }
        if (averaged) { await marginal(x, y, signal); return; }
        for (const side_ of sides) await slice(x, y, side_, signal);
      });
      place.clear();
    } catch (error) {
      place.show(error, draw);
    } finally {
      map.node.removeAttribute("aria-busy");
    }
  }

  async function curve(x, signal) {
    const xs = Float32Array.from({ length: 800 }, (_, k) => x[0] + ((k + 0.5) / 800) * (x[1] - x[0]));
    const { data } = await api.npy({ path: path(flow, "logprob"), query: contextQuery(flow, context), npy: { data: xs, shape: [800, 1] } }, signal);
    shown = { x, xs, logs: data };
    paint();
  }

  async function slice(x, y, side_, signal) {
    const plane = gridRows(x, y, side_, side_);
    const rows = isTable ? spread(plane, rest) : plane;
    const { data } = await api.npy({ path: path(flow, "logprob"), query: contextQuery(flow, context), npy: { data: rows, shape: [side_ * side_, wide] } }, signal);
    performance.mark("map-answer");
    shown = { x, y, side: side_, logs: data };
    paint();
    map.draw();
    if (side_ === sides.at(-1)) performance.measure("heat map", "map-answer");
  }

  /** Rows of the plane, with the other columns of a row. */
  function spread(plane, values) {
    const rows = new Float32Array((plane.length / 2) * wide);
    for (let k = 0; k < plane.length / 2; k += 1) {
      rows.set(values, k * wide);
      rows[k * wide + cols[0]] = plane[2 * k];
      rows[k * wide + cols[1]] = plane[2 * k + 1];
    }
    return rows;
  }

  /** The density of the two columns alone: the mean of their densities given the others, over samples of those. */
  async function marginal(x, y, signal) {
    const cells = MARGINAL_SIDE ** 2;
    const area = ((x[1] - x[0]) * (y[1] - y[0])) / cells;
    const sum = new Float64Array(cells);
    const plane = gridRows(x, y, MARGINAL_SIDE, MARGINAL_SIDE);
    for (let k = 0; k < MARGINAL_SLICES; k += 1) {
      const values = samples.slice((k + 100) * wide, (k + 101) * wide);
      const { data } = await api.npy({ path: path(flow, "logprob"), query: contextQuery(flow, context), npy: { data: spread(plane, values), shape: [cells, wide] } }, signal);
      const top = extent(data)[1];
      const weights = data.map((value) => Math.exp(value - top));
      const whole = weights.reduce((a, b) => a + b, 0) * area;
      for (let cell = 0; cell < cells; cell += 1) sum[cell] += weights[cell] / whole;
      if (k % 4 === 3 || k === MARGINAL_SLICES - 1) {
        shown = { x, y, side: MARGINAL_SIDE, logs: sum.map((value) => Math.log(value / (k + 1))) };
        paint();
      }
    }
  }

  function paint() {
    if (!shown) return;
    const log = state.show === "log";
    const averaged = isTable && state.others === "averaged";
    const over = samples.subarray(0, number(state, "n", 1000) * wide);
    const top = extent(shown.logs)[1];
    if (isLine) {
      const ys = log ? shown.logs : shown.logs.map(Math.exp);
      const high = log ? top + 0.5 : (quantile(sorted(ys), 0.985) || 1) * 1.15;
      const low = log ? Math.max(extent(shown.logs)[0] - 0.5, top - LOG_DEPTH) : 0;
      const counts = rug(over);
      map.show({ x: shown.x, y: [low, high], xLabel: columnLabel(flow, 0), yLabel: log ? "log p(x), nats" : "p(x)", layers: [counts, line(shown.xs, ys, { colour: "--data", width: 2.2, fill: log ? null : "--data" })] });
      replace(mapTitle, log ? "log p(x)" : "p(x)", h("span.note", {}, ` and ${over.length} samples below it`));
      drawLatent();
      return;
    }
    const shift = Math.abs(top) > LARGEST ? top : 0;  // the density itself would be no number of float32
    const values = log ? shown.logs : shown.logs.map((value) => Math.exp(value - shift));
    const range = log ? [Math.max(top - LOG_DEPTH, extent(shown.logs)[0]), top] : [0, Math.exp(top - shift)];
    base = {
      x: shown.x, y: shown.y, xLabel: columnLabel(flow, cols[0]), yLabel: columnLabel(flow, cols[1]),
      layers: [heat({ data: values, columns: shown.side, rows: shown.side, x: shown.x, y: shown.y }, range), points(over, wide, { columns: cols, size: 2, colour: "--ink", alpha: 0.4 })],
    };
    drawMap();
    bar.set(range[0], range[1], log ? "log p(x), nats" : averaged ? "density of the two columns" : shift ? "p(x), as a share of its greatest here" : "p(x)");
    replace(mapTitle, averaged ? `The density of ${columnName(flow, cols[0])} and ${columnName(flow, cols[1])} alone` : isTable ? `A slice of p(x), the other columns as in row ${number(state, "row", 0)} of the samples` : log ? "log p(x)" : "p(x)");
    drawLatent();
    margins?.show(samples, cols);
  }

  /** The map, with the samples that are near the row. */
  function drawMap() {
    if (base && !isLine) map.show({ ...base, layers: [...base.layers, ...near.map((row_) => ring(samples[row_ * wide + cols[0]], samples[row_ * wide + cols[1]]))] });
  }

  const rug = (values) => (ctx, { px, top, height }) => {
    ctx.globalAlpha = 0.18;
    ctx.fillStyle = token("--ink");
    for (const value of values) ctx.fillRect(px(value), top + height - 9, 1, 9);
  };

  function drawLatent(z = pinned?.z) {
    if (!latents) return;
    const [i, j] = isLine ? [0, 0] : isTable ? cols : [0, 1];
    const x = span(column(latents, wide, i), 0.001, 0.1);
    const y = isLine ? [0, 1] : span(column(latents, wide, j), 0.001, 0.1);
    if (isLine) {
      const low = x[0];
      const high = x[1];
      const counts = new Float64Array(48);
      for (const value of latents) { const k = Math.floor(((value - low) / (high - low)) * 48); if (k >= 0 && k < 48) counts[k] += 1; }
      latent.show({ x, y: [0, extent(counts)[1] * 1.15], xLabel: "z", hide: "y", layers: [histogram(counts, low, high, { colour: "--latent" }), z ? marker(z[0], { colour: "--data", text: `z = ${show(z[0])}` }) : () => {}] });
      return;
    }
    const marks = z ? [...near.map((row_) => ring(latents[row_ * wide + i], latents[row_ * wide + j])), dot(z[i], z[j])] : [];
    latent.show({ x, y, xLabel: `z${sub(i)}`, yLabel: `z${sub(j)}`, layers: [points(latents, wide, { columns: [i, j], colour: "--latent", size: 2.2, alpha: 0.4 }), ...marks] });
  }

  function onPoint(point, how) {
    if (isTable && state.others === "averaged") return;
    if (how === "leave") { if (pinned) tell(pinned); return; }
    if (how === "pick") { put({ at: isLine ? show6(point.x) : `${show6(point.x)},${show6(point.y)}` }); return; }
    waitingPoint = point;
    if (!asks) hover();
  }

  /** Ask for the row under the pointer: one request at a time, and always the newest place next. */
  async function hover() {
    asks = true;
    while (waitingPoint) {
      const point = waitingPoint;
      waitingPoint = null;
      const found = await ask(point).catch((error) => { if (!isAborted(error)) place.show(error); return null; });
      if (found && !waitingPoint) tell(found);
    }
    asks = false;
  }

  const rowAt = (point) => {
    if (isLine) return [point.x];
    const values = isTable ? [...rest] : [0, 0];
    values[cols[0]] = point.x;
    values[cols[1]] = point.y;
    return values;
  };

  const rowCall = (point) => ({ path: path(flow, "logprob"), json: { x: [rowAt(point).map((value) => Number(value.toPrecision(7)))], return: ["z", "base_log_prob", "log_abs_det_jacobian", ...(flow.calibration ? ["quantile", "typicality"] : [])], ...(flow.context_width ? { context } : {}) } });

  async function ask(point) {
    const told = await api.json(rowCall(point));
    return { point, z: told.z[0], logProb: told.log_prob[0], quantile: told.quantile?.[0], typicality: told.typicality?.[0], base: told.base_log_prob[0], logDet: told.log_abs_det_jacobian[0] };
  }

  async function pin() {
    const at = numbers(state, "at", isLine ? [NaN] : [NaN, NaN]);
    if (at.some(Number.isNaN)) {
      pinned = null;
      near = [];
      map.cross(null);
      drawMap();
      replace(reading, h("p.note", {}, "Point at the map, or type a row at the side."));
      drawHeld();
      return;
    }
    const point = { x: at[0], y: at[1] };
    fields[0].set(at[0]);
    fields[1]?.set(at[1]);
    try {
      const found = await asking.run(() => ask(point));
      if (!found) return;
      pinned = found;
      if (!isLine) map.cross(point);
      else map.cross({ x: point.x, y: state.show === "log" ? found.logProb : Math.exp(found.logProb) });
      place.clear();
      tell(found);
      call.set(calls(shown.x, shown.y));
    } catch (error) {
      place.show(error);
    }
  }

  function fromFields() {
    const values = fields.map((field) => field.input.value);
    put({ at: values.some((value) => value === "") ? null : values.join(",") });
  }

  function tell({ point, z, logProb, quantile: share, typicality, base, logDet }) {
    const name = (k) => columnName(flow, cols[k]);
    near = logProb === null || isLine ? [] : nearest(latents, wide, z);
    replace(reading, readout([
      [name(0), show(point.x)], ...(isLine ? [] : [[name(1), show(point.y)]]),
      [m("log p(x)"), logProb === null ? "the density is 0" : `${fixed(logProb, 3)} nats`],
      [h("span", {}, m("log p"), h("sub", {}, m("Z")), m("(z)"), " + log det"), logProb === null ? "none" : `${fixed(base, 2)} + ${fixed(logDet, 2)}`],
      ...(share === undefined || share === null ? [] : [["quantile", `above ${percent(share)} of the held-out`]]),
      ...(typicality === undefined || typicality === null ? [] : [["typicality", `${fixed(typicality, 2)} deviations`]]),
      [m("z"), logProb === null ? "none" : z.slice(0, 6).map((value) => show(value, 3)).join(", ") + (z.length > 6 ? ", \u2026" : "")],
    ]), near.length > 0 && [h("p.note", {}, `The ${NEAR} samples nearest to it in latent space are ringed:`),
      h("p.near", {}, near.map((row_) => `(${cols.map((k) => show(samples[row_ * wide + k], 3)).join(", ")})`).join(" "))]);
    drawMap();
    drawLatent(logProb === null ? null : z);
    drawHeld(logProb);
  }

  function drawHeld(value = pinned?.logProb) {
    if (!held) return;
    const { quantiles, ranks } = flow.calibration;
    const low = quantile(quantiles, 0.005);
    const high = quantiles.at(-1);
    const bins = 60;
    const counts = new Float64Array(bins);
    quantiles.forEach((each, k) => {
      const weight = ranks && k ? ranks[k] - ranks[k - 1] : 1;
      const bin = Math.min(bins - 1, Math.floor(((each - low) / (high - low)) * bins));
      if (bin >= 0) counts[bin] += weight;
    });
    const ends = [low - 0.06 * (high - low), high + 0.06 * (high - low)];
    const inside = value === null || value === undefined ? null : Math.min(ends[1], Math.max(ends[0], value));
    held.show({ x: ends, y: [0, extent(counts)[1] * 1.3], hide: "y", xLabel: "log p(x), nats", layers: [histogram(counts, low, high, { colour: "--ink-soft", alpha: 0.45 }), inside === null ? () => {} : marker(inside, { colour: "--data", text: value < ends[0] ? "further left" : "this row" })] });
  }

  function scale(by) {
    if (!shown) return;
    const about = pinned?.point ?? { x: (shown.x[0] + shown.x[1]) / 2, y: isLine ? 0 : (shown.y[0] + shown.y[1]) / 2 };
    const ends = (range, at) => range.map((value) => show6(at + (value - at) * by));
    put({ box: [...ends(shown.x, about.x), ...(isLine ? [] : ends(shown.y, about.y))].join(",") });
  }

  const calls = (x, y) => {
    const file = `${flow.name}-grid.npy`;
    const asked = { path: path(flow, "logprob"), query: contextQuery(flow, context), npy: { data: new Float32Array(0), shape: [0] }, accept: "application/x-npy", file, output: "log_prob.npy" };
    const point = pinned?.point ?? { x: (x[0] + x[1]) / 2, y: isLine ? 0 : (y[0] + y[1]) / 2 };
    return [
      { title: "The row", call: rowCall(point) },
      { title: `${isLine ? "The curve: 800" : isTable && state.others === "averaged" ? `Each of ${MARGINAL_SLICES} slices: ${MARGINAL_SIDE} \u00d7 ${MARGINAL_SIDE}` : `The map: ${sides.at(-1)} \u00d7 ${sides.at(-1)}`} rows in ${file}`, call: asked },
    ];
  };

  return {
    update,
    unmount() {
      drawing.stop();
      asking.stop();
      place.clear();
      margins?.close();
      parts.forEach((part) => part.close());
    },
  };
}

const show6 = (value) => Number(value.toPrecision(6));
const sub = (k) => [...String(k + 1)].map((digit) => "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"[digit]).join("");

/** The samples whose latents are nearest to one. */
function nearest(latents, wide, z) {
  const away = Array.from({ length: latents.length / wide }, (_, row) => {
    let sum = 0;
    for (let k = 0; k < wide; k += 1) sum += (latents[row * wide + k] - z[k]) ** 2;
    return [sum, row];
  });
  return away.sort((a, b) => a[0] - b[0]).slice(0, NEAR).map(([, row]) => row);
}

/** A layer: a ring around a point. */
const ring = (x, y) => (ctx, { px, py }) => {
  ctx.beginPath();
  ctx.arc(px(x), py(y), 5, 0, 2 * Math.PI);
  ctx.strokeStyle = token("--ground");
  ctx.lineWidth = 3.5;
  ctx.stroke();
  ctx.strokeStyle = token("--latent");
  ctx.lineWidth = 1.8;
  ctx.stroke();
};

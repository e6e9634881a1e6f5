/** Latent walk: a path from row to row through latent space, all of it from one answer, and directions to go along. */

import { number, numbers } from "../lib/address.js";
import { Latest, TYPES } from "../lib/api.js";
import { shaped } from "../lib/arrays.js";
import { button, contextControls, numberField, segmented, slider } from "../lib/controls.js";
import { h, m, replace } from "../lib/dom.js";
import { Figure, dot, line, marker, points } from "../lib/figures.js";
import { hasTemperature, kind, path, usualContext, width } from "../lib/flows.js";
import { heldOut, shareBelow } from "../lib/held-out.js";
import { CallBox, panel, workbench } from "../lib/layout.js";
import { fixed, percent, quantile } from "../lib/numbers.js";
import { drawImages, imageCanvas } from "../lib/pictures.js";
import { isStill, token } from "../lib/theme.js";
import { contextQuery, sampleCall } from "../lib/thumbnails.js";
import { Directions } from "./directions.js";
import { backdrop, rowStage } from "./row-stages.js";

const FRAMES = 240;
const PICTURES = 28;
const POINTS = 2000;
const LATENTS = 900;
const STRIP = 13;
const MOST_ROWS = 8;
const SECONDS = 5;

export function mount(root, app) {
  const { flow, api } = app;
  const shape = kind(flow);
  const wide = width(flow);
  const latentWide = flow.latent_width;
  const isImage = shape === "image";
  const isMap = shape === "plane" || shape === "line";
  const held = heldOut(flow);
  const usual = { seed: 7, temperature: isImage && hasTemperature(flow) ? 0.8 : 1 };
  const n = isMap ? POINTS : Math.max(PICTURES, shape === "table" ? 400 : 0);
  const loading = new Latest();
  const walking = new Latest();
  const { controls, stage, place, end } = workbench(root, {
    title: "Latent walk",
    words: [
      h("p", {}, "Between two rows ", h("b.data", {}, m("x")), " lie rows that are like the data, if the way goes through ", h("b.latent", {}, "latent space"), ". Choose two or more, and slide."),
      h("p", {}, "The server answers once, with every row of the way. Sliding asks nobody."),
    ],
  });

  let state = {};
  let context = usualContext(flow);
  let samples = null;
  let walk = null;
  let at = null;
  let player = 0;
  let ground = null;
  let latents = null;
  let tiles = [];
  let big = null;
  let known = null;
  const told = {};

  const put = (patch) => { app.set(patch); update(app.state); };
  const contextPart = contextControls(flow, context, (values) => put({ context: values.join(",") }));
  const seed = numberField({ label: "Seed of the rows", value: usual.seed, min: 0, step: 1, change: (value) => put({ seed: value === usual.seed ? null : value }) });
  const others = button("Other rows", () => put({ seed: number(state, "seed", usual.seed) + 1 }), { class: "button small" });
  const temperature = hasTemperature(flow) ? slider({ label: "Temperature", min: 0, max: 1.5, step: 0.05, value: usual.temperature, show: (value) => fixed(value, 2), note: "Of the rows to choose from: 1 is the flow as it is.", change: (value, isDone) => { if (isDone) put({ temperature: value === usual.temperature ? null : value }); } }) : null;
  const curved = hasTemperature(flow) && flow.base?.family !== "mixture" && latentWide > 1;
  const way = curved ? segmented({ label: "Path", value: "slerp", options: [{ value: "slerp", label: "slerp" }, { value: "linear", label: "linear" }], change: (value) => put({ path: value === "slerp" ? null : value }) }) : null;
  const wayNote = curved ? h("p.note", {}, "slerp keeps as far from the centre as rows lie; linear cuts through it.") : null;
  replace(controls, contextPart.node, seed.node, others, temperature?.node, way?.node, wayNote);

  const gallery = h("div.gallery", { role: "group", "aria-label": "Rows to choose from" });
  const chosenWords = h("span.note", { role: "status" });
  const clear = button("Choose anew", () => put({ rows: "none", at: null }), { class: "button small" });
  const pictureBox = h("div.walk-picture");
  const figures = h("p.walk-figures", {});
  const curve = new Figure({ label: "log_prob along the way.", height: 160, margins: { left: 46, right: 12, top: 8, bottom: 22 }, pick: (point, how) => { if (point && (how === "hover" || how === "pick")) slideTo(point.x); if (how === "pick") settle(); } });
  const strip = h("div.strip", {});
  const slide = slider({ label: "Along the way", min: 0, max: 1, step: "any", value: 0, show: (value) => fixed(value, 2), change: (value, isDone) => { stop(); slideTo(value); if (isDone) settle(); } });
  const play = button("Play", () => (player ? stop() : start()), { class: "button" });
  const directions = new Directions(app, {
    put, tell: (asked) => tell({ direction: asked }), fail: (error, again) => place.show(error, again), context: () => (flow.context_width ? { context } : {}), strengths: () => state.edit ?? "",
    stage: (label) => rowStage(flow, { label, samples, ground }),
  });
  const call = new CallBox(app);
  const latent = shape === "plane" ? new Figure({ label: "The way in latent space, among the latents of samples", aspect: 1.75, margins: { left: 34, right: 8, top: 6, bottom: 22 } }) : null;
  const side = h("div.walk-side", {}, figures, curve.node, slide.node, h("div.row", {}, play), latent && h("div", {}, h("h3", {}, "The same way in latent space"), latent.node));
  const choice = h("div.row", {}, clear, chosenWords);
  const together = h("div.walk", {}, h("div.stack", {}, pictureBox, isMap && choice), side);
  const walkPanel = isMap
    ? panel(h("span", {}, "The way", h("span.note", {}, "Click near a row to choose it; a second click takes it back.")), together)
    : panel("The way", together, strip);
  replace(stage, isMap ? null : panel(h("span", {}, "Rows", h("span.note", {}, "Click to choose; a second click takes a row back.")), gallery, choice), walkPanel, directions.node);
  end.append(call.node);

  const rowAt = (k) => samples.subarray(k * wide, (k + 1) * wide);
  const frameAt = (t) => {
    const k = Math.min(walk.frames - 1, Math.max(0, Math.round(t * (walk.frames - 1) / walk.length)));
    return { k, row: walk.x.subarray(k * wide, (k + 1) * wide), logProb: walk.logProb[k] };
  };

  function chosen() {
    if (state.rows === "none") return [];
    const found = state.rows ? state.rows.split(",").map(Number) : [0, farthest()];
    return [...new Set(found)].filter((k) => Number.isInteger(k) && k >= 0 && k < n).slice(0, MOST_ROWS);
  }

  /** The row that differs most from the first, of those in sight. */
  function farthest() {
    const ends = spans();
    let best = 1;
    let most = -1;
    for (let k = 1; k < PICTURES; k += 1) {
      const distance = rowAt(k).reduce((sum, value, place) => sum + ((value - samples[place]) / (ends[place][1] - ends[place][0] || 1)) ** 2, 0);
      if (distance > most) { most = distance; best = k; }
    }
    return best;
  }

  function toggle(k) {
    const rows = chosen();
    const next = rows.includes(k) ? rows.filter((each) => each !== k) : [...rows, k];
    if (next.length > MOST_ROWS) { chosenWords.textContent = `At most ${MOST_ROWS} rows.`; return; }
    at = null;
    put({ rows: next.length ? next.join(",") : "none", at: null, edit: null });
  }

  function update(next) {
    const before = state;
    state = next;
    context = numbers(state, "context", usualContext(flow));
    contextPart.set(context);
    seed.set(number(state, "seed", usual.seed));
    temperature?.set(number(state, "temperature", usual.temperature));
    way?.set(state.path ?? "slerp");
    const changed = (...keys) => keys.some((key) => before[key] !== state[key]);
    if (samples === null || changed("seed", "temperature", "context")) load();
    else if (changed("rows", "path")) ask();
    else if (changed("at") && walk && Math.abs(number(state, "at", 0) - at) > 1e-3) { slideTo(number(state, "at", 0)); settle(false); }
    else if (changed("edit")) directions.update();
  }

  async function load() {
    stop();
    try {
      const found = await loading.run(async (signal) => {
        const drawn = await api.npy(samplesCall(), signal);
        const few = drawn.data.subarray(0, LATENTS * wide);
        return {
          drawn: drawn.data,
          ground: isMap ? await backdrop(api, flow, drawn.data, context, signal) : null,
          latents: latent ? (await api.npy({ path: path(flow, "encode"), query: contextQuery(flow, context), npy: { data: few, shape: [LATENTS, wide] } }, signal)).data : null,
        };
      });
      if (!found) return;
      samples = found.drawn;
      big?.close();
      ground = found.ground;
      latents = found.latents;
      big = rowStage(flow, { label: isMap ? `Rows of ${flow.name} on its density.` : "The row here", samples, ground, pick: isMap ? (point, how) => { if (how === "pick") toggle(nearest(point)); } : null });
      replace(pictureBox, big.node);
      if (!isMap) fillGallery();
      await ask();
    } catch (error) {
      place.show(error, load);
    }
  }

  function fillGallery() {
    tiles = Array.from({ length: PICTURES }, (_, k) => {
      const face = isImage ? imageCanvas("", { "aria-hidden": "true" }) : h("canvas", { width: 132, height: 34, "aria-hidden": "true" });
      const badge = h("span.order", { "aria-hidden": "true" });
      const node = h("button.tile", { type: "button", "aria-pressed": "false", "aria-label": `Row ${k}`, onclick: () => toggle(k) }, face, badge, !isImage && h("span.tile-name", {}, `row ${k}`));
      if (isImage) drawImages(face, rowAt(k), flow, { gap: 0 });
      else drawProfile(face, rowAt(k));
      return { node, badge };
    });
    gallery.classList.toggle("rows", !isImage);
    replace(gallery, tiles.map((tile) => tile.node));
  }

  /** A row of a table as a small line of its columns, each within the span of the samples. */
  function drawProfile(canvas, row) {
    const pen = canvas.getContext("2d");
    const ends = spans();
    pen.fillStyle = token("--data");
    const step = canvas.width / wide;
    row.forEach((value, k) => {
      const share = Math.min(1, Math.max(0.04, (value - ends[k][0]) / (ends[k][1] - ends[k][0] || 1)));
      pen.fillRect(k * step + 0.5, canvas.height * (1 - share), Math.max(1, step - 1.5), canvas.height * share);
    });
  }

  /** The least and the greatest value of each column of the samples. */
  function spans() {
    if (known?.samples !== samples) {
      const ends = Array.from({ length: wide }, () => [Infinity, -Infinity]);
      samples.forEach((value, k) => { const end = ends[k % wide]; end[0] = Math.min(end[0], value); end[1] = Math.max(end[1], value); });
      known = { samples, ends };
    }
    return known.ends;
  }

  function nearest(point) {
    let best = 0;
    let least = Infinity;
    for (let k = 0; k < n; k += 1) {
      const dx = (samples[k * wide] - point.x) / (ground.x[1] - ground.x[0]);
      const dy = wide === 2 ? (samples[k * wide + 1] - point.y) / (ground.y[1] - ground.y[0]) : 0;
      if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = k; }
    }
    return best;
  }

  const samplesCall = () => sampleCall(flow, n, { seed: number(state, "seed", usual.seed), temperature: hasTemperature(flow) ? number(state, "temperature", usual.temperature) : null, ...contextQuery(flow, context) });

  const walkCall = (rows) => {
    const points = rows.map((k) => shaped(rowAt(k), flow.event_shape));
    const given = { points, steps: Math.max(2, Math.floor(FRAMES / (rows.length - 1)) + 1), ...(way ? { path: state.path ?? "slerp" } : {}), ...(flow.context_width ? { context } : {}) };
    return { path: path(flow, "interpolate"), json: given, accept: TYPES.arrow };
  };

  /** Name the requests behind what is shown. */
  function tell(patch) {
    Object.assign(told, patch);
    call.set([
      { title: "The rows to choose from", call: samplesCall() },
      ...(told.way ? [{ title: "The way", call: { ...told.way, accept: TYPES.json } }] : []),
      ...(told.way && told.direction ? [{ title: "A direction", call: told.direction }] : []),
    ]);
  }

  async function ask() {
    stop();
    const rows = chosen();
    tiles.forEach((tile, k) => {
      const order = rows.indexOf(k);
      tile.node.setAttribute("aria-pressed", String(order >= 0));
      tile.badge.textContent = order < 0 ? "" : String(order + 1);
    });
    chosenWords.textContent = rows.length < 2 ? `${rows.length ? "One row is chosen" : "No row is chosen"}: the way needs two or more.` : `${rows.length} rows: ${rows.join(" \u2192 ")}`;
    (isMap ? side : walkPanel).hidden = rows.length < 2;
    directions.node.hidden = rows.length < 2;
    if (rows.length < 2) {
      walk = null;
      at = null;
      big.clear(rows.map(rowAt));
      walking.stop();
      tell({ way: null });
      return;
    }
    const asked = walkCall(rows);
    tell({ way: asked });
    try {
      const answer = await walking.run((signal) => api.columns(asked, signal));
      if (!answer) return;
      place.clear();
      walk = readWalk(answer, rows.length);
    } catch (error) {
      place.show(error, ask);
      return;
    }
    big.walk(walk.x, rows.map(rowAt));
    slide.range(0, walk.length);
    fillStrip();
    slideTo(at ?? number(state, "at", walk.length / 2));
    directions.update();
    settle(false);
  }

  /** The arrays of an answer: t, latents, events, log_prob and the error of the round trip, in the order of its columns. */
  function readWalk(answer, rows) {
    const columns = [...answer.values()];
    const frames = columns[0].length;
    const x = new Float32Array(frames * wide);
    for (let k = 0; k < wide; k += 1) {
      const values = columns[1 + latentWide + k];
      for (let row = 0; row < frames; row += 1) x[row * wide + k] = values[row];
    }
    return { frames, length: rows - 1, t: columns[0], z: columns.slice(1, 3), x, logProb: columns[1 + latentWide + wide] };
  }

  function fillStrip() {
    strip.hidden = !isImage;
    if (!isImage) return;
    const count = Math.max(STRIP, walk.length * 4 + 1);
    replace(strip, Array.from({ length: count }, (_, k) => {
      const t = (k / (count - 1)) * walk.length;
      const canvas = imageCanvas("", { "aria-hidden": "true" });
      drawImages(canvas, frameAt(t).row, flow, { gap: 0 });
      return h("button.frame", { type: "button", tabindex: -1, "aria-label": `The row at ${fixed(t, 2)}`, onpointerenter: () => { stop(); slideTo(t); }, onclick: () => { slideTo(t); settle(); } }, canvas);
    }));
  }

  let painting = 0;
  /** Show the row at a place of the way: at the next frame of the screen, from what is here. */
  function slideTo(t) {
    if (!walk) return;
    at = Math.min(walk.length, Math.max(0, t));
    slide.set(at);
    painting ||= requestAnimationFrame(() => { painting = 0; if (walk) paint(); });
  }

  function paint() {
    const { k, row, logProb } = frameAt(at);
    big.show(row);
    if (latent) drawLatent(k);
    const share = held && Number.isFinite(logProb) ? shareBelow(held, logProb) : null;
    figures.textContent = `log p(x) = ${fixed(logProb, 2)} nats${share === null ? "" : `, above ${percent(share)} of held-out rows`}`;
    const low = Math.min(...walk.logProb.filter(Number.isFinite));
    const high = Math.max(...walk.logProb.filter(Number.isFinite));
    const usually = held ? [0.05, 0.95].map((level) => quantile(held.quantiles, level)) : [low, high];
    const y = [Math.min(low, usually[0]), Math.max(high, usually[1])];
    const room = 0.08 * (y[1] - y[0]) || 1;
    curve.show({
      x: [0, walk.length], y: [y[0] - room, y[1] + room], yLabel: "log p(x)",
      layers: [held ? usualBand(usually) : () => {}, line(walk.t, walk.logProb, { colour: "--data", width: 2 }), ...Array.from({ length: Math.max(0, walk.length - 1) }, (_, k) => marker(k + 1, { colour: "--rule-strong" })), dot(at, logProb, { radius: 5 })],
    });
    strip.style.setProperty("--at", String(at / walk.length));
  }

  function drawLatent(k) {
    const most = Math.max(3.2, ...walk.z.flatMap((values) => Array.from(values, Math.abs))) * 1.05;
    latent.show({ x: [-most * 1.75, most * 1.75], y: [-most, most], layers: [points(latents, 2, { size: 1.8, colour: "--latent", alpha: 0.35 }), line(walk.z[0], walk.z[1], { colour: "--ink", width: 2 }), dot(walk.z[0][k], walk.z[1][k], { colour: "--latent" })] });
  }

  /** The slider rests: the address says where, and the directions begin here. */
  function settle(write = true) {
    if (!walk) return;
    if (write) app.set({ at: Number(at.toFixed(3)) });
    directions.from(frameAt(at).row.slice());
  }

  function start() {
    if (!walk) return;
    play.textContent = "Pause";
    let last = performance.now();
    let sign = at >= walk.length ? -1 : 1;
    const step = (now) => {
      const next = at + sign * ((now - last) / (1000 * SECONDS)) * (isStill() ? 0.5 : 1);
      last = now;
      if (next >= walk.length) sign = -1;
      else if (next <= 0) sign = 1;
      slideTo(next);
      player = requestAnimationFrame(step);
    };
    player = requestAnimationFrame(step);
  }

  function stop() {
    if (!player) return;
    cancelAnimationFrame(player);
    player = 0;
    play.textContent = "Play";
    settle();
  }

  return {
    update,
    unmount() {
      cancelAnimationFrame(player);
      cancelAnimationFrame(painting);
      loading.stop();
      walking.stop();
      place.clear();
      directions.close();
      curve.close();
      latent?.close();
      big?.close();
    },
  };
}

/** A layer: the band in which most held-out rows lie. */
const usualBand = ([low, high]) => (pen, { left, width: wide, py }) => {
  pen.globalAlpha = 0.12;
  pen.fillStyle = token("--latent");
  pen.fillRect(left, py(high), wide, py(low) - py(high));
};

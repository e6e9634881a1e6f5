/** The opening of the console: a flow at work, from the base to the data and back, with a few words beside it. */

import { extent } from "../lib/arrays.js";
import { Latest } from "../lib/api.js";
import { h, m, replace } from "../lib/dom.js";
import { Figure, points } from "../lib/figures.js";
import { hasTemperature, kind, path, valueRange, width } from "../lib/flows.js";
import { drawImages, imageCanvas } from "../lib/pictures.js";
import { contextQuery, sampleCall, span } from "../lib/thumbnails.js";
import { isStill } from "../lib/theme.js";

const ROWS = 1800;
const STEP_MS = 620;
const REST_MS = 1100;
const WALK_POINTS = 7;
const WALK_STEPS = 28;

/** The flow that opens the page: one of larger images, else the default one if a plane, else any plane. */
export function openingFlow(flows) {
  const ready = flows.filter((flow) => flow.state === "ready");
  const large = ready.find((flow) => kind(flow) === "image" && flow.event_shape[0] >= 16);
  const planes = ready.filter((flow) => kind(flow) === "plane" && flow.trace?.length);
  return large ?? planes.find((flow) => flow.default) ?? planes[0] ?? ready.find((flow) => kind(flow) === "image") ?? null;
}

/**
 * The opening.
 * @param {object} app
 * @param {object[]} flows that are served.
 * @returns {{node: Element, close: () => void}}
 */
export function hero(app, flows) {
  const flow = openingFlow(flows);
  const place = h("div.hero-picture");
  const latest = new Latest();
  const toggle = h("button.button.small", { type: "button" }, "Pause");
  const parts = [];
  let playing = !isStill();
  let frame = 0;
  let draw = null;
  let since = 0;
  let at = 0;

  const paint = () => { toggle.textContent = playing ? "Pause" : "Play"; };
  const tick = (now) => {
    frame = playing ? requestAnimationFrame(tick) : 0;
    at += Math.min(64, now - since);
    since = now;
    draw?.(at);
  };
  const run = () => { since = performance.now(); if (playing && !frame) frame = requestAnimationFrame(tick); };
  toggle.addEventListener("click", () => { playing = !playing; paint(); run(); });
  paint();

  async function fill() {
    const found = await latest.run((signal) => (kind(flow) === "image" ? walk(app, flow, place, signal) : bend(app, flow, place, parts, signal)));
    if (!found) return;
    draw = found.draw;
    at = playing ? 0 : found.still;  // where nothing moves, the data is shown
    draw(at);
    run();
  }

  const words = h("div.hero-words", {},
    h("h1", {}, "From a simple density to the data\u2019s, and back"),
    h("p", {}, "A normalizing flow is an invertible map. Forward, ", m("f"), " takes data ", h("b.data", {}, m("x")), " to a latent ", h("b.latent", {}, m("z")),
      " whose density is simple. Backward it draws: every sample is a latent, bent step by step into a row."),
    h("p", {}, "So a flow gives exact densities, ", h("span.formula", {}, m("log p(x) = log p"), h("sub", {}, m("Z")), m("(f(x)) + log |det \u2202f/\u2202x|")),
      ", and samples, and walks between rows. Everything on this page is drawn live from this server."),
    flow && h("p.hero-caption", {}, toggle, h("span", {}, kind(flow) === "image" ? "A walk through the latents of " : "Samples of ", h("b", {}, flow.name), kind(flow) === "image" ? "" : ", from the base to the data")));
  const node = h("section.hero", { "aria-label": "What a flow does" }, words, place);
  if (flow) fill().catch(() => replace(place));
  return { node, close() { latest.stop(); cancelAnimationFrame(frame); playing = false; parts.forEach((part) => part.close()); } };
}

/** Rows of a plane on their way through the chain. */
async function bend(app, flow, place, parts, signal) {
  const call = { path: path(flow, "trace"), json: { n: ROWS, seed: 11, ...(flow.context_width ? { context: contextQuery(flow).context.split(",").map(Number) } : {}) } };
  const { data, shape } = await app.api.npy(call, signal);
  const steps = shape[1];
  const frames = Array.from({ length: steps }, (_, k) => {  // from the base to the data
    const rows = new Float32Array(ROWS * 2);
    for (let row = 0; row < ROWS; row += 1) for (let c = 0; c < 2; c += 1) rows[2 * row + c] = data[(row * steps + steps - 1 - k) * 2 + c];
    return rows;
  });
  const spans = frames.map((rows) => [0, 1].map((c) => span(rows.filter((_, k) => k % 2 === c), 0.002, 0.14)));
  const figure = new Figure({ label: `${ROWS} samples of ${flow.name} on their way from the base to the data`, aspect: 1.25 });
  parts.push(figure);
  replace(place, figure.node);
  const now = new Float32Array(ROWS * 2);
  const whole = 2 * (REST_MS + (steps - 1) * STEP_MS);
  const half = whole / 2;
  return { still: half, draw(time) {
    const inside = time % whole;
    const way = Math.min(1, Math.max(0, ((inside % half) - REST_MS) / (half - REST_MS)));
    const place01 = inside < half ? way : 1 - way;
    const position = place01 * (steps - 1);
    const k = Math.min(steps - 2, Math.floor(position));
    const share = smooth(position - k);
    for (let n = 0; n < now.length; n += 1) now[n] = frames[k][n] + share * (frames[k + 1][n] - frames[k][n]);
    const [x, y] = [0, 1].map((c) => [0, 1].map((end) => spans[k][c][end] + share * (spans[k + 1][c][end] - spans[k][c][end])));
    figure.show({ x, y, hide: "both", layers: [points(now, 2, { size: 2.6, alpha: 0.16 + 0.5 * (1 - place01), colour: "--latent" }), points(now, 2, { size: 2.6, alpha: 0.62 * place01, colour: "--data" })] });
  } };
}

/** A walk from image to image, through their latents. */
async function walk(app, flow, place, signal) {
  const drawn = await app.api.npy(sampleCall(flow, WALK_POINTS, hasTemperature(flow) ? { temperature: 0.7 } : {}), signal);
  const size = width(flow);
  const round = new Float32Array(drawn.data.length + size);
  round.set(drawn.data);
  round.set(drawn.data.subarray(0, size), drawn.data.length);
  const { data } = await app.api.npy({ path: path(flow, "interpolate"), query: { steps: WALK_STEPS, ...contextQuery(flow) }, npy: { data: round, shape: [WALK_POINTS + 1, ...flow.event_shape] } }, signal);
  const canvas = imageCanvas(`A walk through images of ${flow.name}`);
  replace(place, canvas);
  const n = data.length / size;
  const range = valueRange(flow) ?? extent(data);
  return { still: 0, draw(time) {
    const segment = STEP_MS * 3;
    const position = (time % (segment * WALK_POINTS)) / segment;
    const k = Math.floor(position);
    const step = Math.round((k + smooth(position - k)) * (WALK_STEPS - 1)) % n;
    drawImages(canvas, data.subarray(step * size, (step + 1) * size), flow, { range });
  } };
}

const smooth = (t) => t * t * (3 - 2 * t);

/** The chain: rows, and the density with them, from the base to the data through every step, and back. */

import { number, numbers } from "../lib/address.js";
import { Latest } from "../lib/api.js";
import { button, contextControls, numberField, segmented, select, slider, toggle } from "../lib/controls.js";
import { h, m, replace } from "../lib/dom.js";
import { columnName, kind, usualContext, width } from "../lib/flows.js";
import { CallBox, panel, workbench } from "../lib/layout.js";
import { fixed } from "../lib/numbers.js";
import { isStill } from "../lib/theme.js";
import { askTrace, termOf, traceCall } from "../lib/traces.js";
import { ImageStage, LineStage, PlaneStage } from "./chain-stages.js";

const ROWS = 1200;
const IMAGE_ROWS = 6;
const MOST_VALUES = 400_000;
const STEP_MS = 700;
const REST_MS = 900;

export function mount(root, app) {
  const { flow } = app;
  const shape = kind(flow);
  const wide = width(flow);
  const last = flow.trace.length;
  const rowsShown = Math.max(20, Math.min(ROWS, Math.floor(MOST_VALUES / (wide * (last + 1)))));
  const latest = new Latest();
  const { controls, stage, place, end } = workbench(root, {
    title: "The chain",
    words: shape === "line" ? [
      h("p", {}, "The map stretches the line. Where it stretches, the density sinks; where it presses, the density rises: the areas stay equal,"),
      h("p", {}, m("p(z)"), " |dz| = ", m("p(x)"), " |dx|."),
    ] : [
      h("p", {}, "Each step is an invertible map, and bends the density a little. What it stretches becomes thinner by exactly ", m("|det|"), ", so that the whole stays a density."),
      h("p", {}, "Play it, drag it, turn it around. Click a row to follow it."),
    ],
  });
  let state = {};
  let context = usualContext(flow);
  let traces = null;
  let drawn = null;
  let position = null;
  let playing = false;
  let frame = 0;
  let since = 0;
  let rest = 0;

  const put = (patch) => { app.set(patch); update(app.state); };
  function isForward() { return state.way === "normalize"; }
  const contextPart = contextControls(flow, context, (values) => put({ context: values.join(",") }));
  const way = segmented({ label: "Direction", value: "generate", options: [{ value: "generate", label: "z to x" }, { value: "normalize", label: "x to z" }], change: (value) => { put({ way: value === "generate" ? null : value }); } });
  const names = Array.from({ length: wide }, (_, k) => ({ value: k, label: columnName(flow, k) }));
  const across = shape === "table" ? select({ label: "Across", value: 0, options: names, change: (value) => put({ cols: `${value},${cols()[1]}` }) }) : null;
  const up = shape === "table" ? select({ label: "Up", value: 1, options: names, change: (value) => put({ cols: `${cols()[0]},${value}` }) }) : null;
  const seed = shape === "line" ? null : numberField({ label: "Seed of the rows", value: 7, min: 0, step: 1, change: (value) => put({ seed: value === 7 ? null : value, row: null }) });
  const grid = shape === "plane" ? toggle({ label: "Grid", value: true, change: (value) => put({ grid: value ? null : "off" }) }) : null;
  const dots = shape === "plane" ? toggle({ label: "Rows", value: true, change: (value) => put({ rows: value ? null : "off" }) }) : null;
  const strip = shape === "line" ? slider({ label: "Where the strip is", min: 0, max: 1, step: 0.005, value: 0.4, change: (value) => put({ strip: value === 0.4 ? null : value }) }) : null;
  const thick = shape === "line" ? slider({ label: "How wide it is", min: 0.01, max: 0.3, step: 0.005, value: 0.12, change: (value) => put({ wide: value === 0.12 ? null : value }) }) : null;
  replace(controls, contextPart.node, way.node, across?.node, up?.node, seed?.node, grid?.node, dots?.node, strip?.node, thick?.node);

  const playButton = button("Play", () => (playing ? pause() : play()), { primary: true });
  const scrub = slider({ label: "Place in the chain", min: 0, max: last, step: 0.01, value: 0, show: (value) => placeName(value), change: (value) => { pause(); put({ t: fixedPlace(value) }); } });
  const bars = h("ol.bars");
  const total = h("p.note");
  const title = h("span", {}, "");
  const holder = h("div.chain-holder");
  replace(stage, panel(title, holder, h("div.player", {}, playButton, scrub.node)), panel(h("span", {}, "log |det| of each step"), h("p.note", { id: "bars-words" }), bars, total));
  const barsWords = stage.querySelector("#bars-words");
  stage.classList.add("chain-stage");
  const call = new CallBox(app);
  end.append(call.node);
  const Stage = { line: LineStage, image: ImageStage }[shape] ?? PlaneStage;
  const scene = new Stage(app, (row) => put({ row }));
  replace(holder, scene.node);

  const cols = () => numbers(state, "cols", [0, 1]);
  const fixedPlace = (value) => Number(value.toFixed(2));
  /** The place of the state: how far from where the direction begins. */
  const along = () => number(state, "t", 0);
  /** The same, counted from the base. */
  function fromBase(value) { return isForward() ? last - value : value; }

  function placeName(value) {
    const at = Math.round(fromBase(value));
    if (at === 0) return "z, the base";
    if (at === last) return "x, the data";
    return isForward() ? `after ${flow.trace[last - at - 1]}` : `before ${flow.trace[last - at - 1]}`;
  }

  function update(next) {
    const before = state;
    state = next;
    context = numbers(state, "context", usualContext(flow));
    contextPart.set(context);
    way.set(state.way ?? "generate");
    seed?.set(number(state, "seed", 7));
    grid?.set(state.grid !== "off");
    dots?.set(state.rows !== "off");
    strip?.set(number(state, "strip", 0.4));
    thick?.set(number(state, "wide", 0.12));
    across?.set(cols()[0]);
    up?.set(cols()[1]);
    position = Math.min(last, Math.max(0, along()));
    scrub.set(position);
    call.set([{ title: "The rows, and each step's log-det", call: traceCall(flow, asked(), context) }]);
    if (!traces || before.context !== state.context || before.seed !== state.seed) load();
    else draw();
  }

  const asked = () => (shape === "line" ? { n: 3, seed: 7 } : { n: shape === "image" ? IMAGE_ROWS : rowsShown, seed: number(state, "seed", 7) });

  async function load() {
    holder.setAttribute("aria-busy", "true");
    try {
      const found = await latest.run(async (signal) => {
        const rows = shape === "line" ? null : await askTrace(app, asked(), context, signal);
        return scene.load(rows, (more) => askTrace(app, more, context, signal), signal);
      });
      if (!found) return;
      const first = traces === null;
      traces = found;
      place.clear();
      draw();
      if (first && state.t === undefined && !isStill()) play();
    } catch (error) {
      place.show(error, load);
    } finally {
      holder.removeAttribute("aria-busy");
    }
  }

  function draw() {
    if (!traces) return;
    const row = state.row === undefined || shape === "line" ? null : Math.min(traces.rows - 1, Math.max(0, Math.round(number(state, "row", 0))));
    scene.draw(fromBase(position), {
      row, cols: shape === "table" ? cols() : [0, 1], grid: state.grid !== "off", dots: state.rows !== "off",
      strip: number(state, "strip", 0.4), wide: number(state, "wide", 0.12),
    });
    const told = placeName(position);
    if (told !== drawn) {
      drawn = told;
      replace(title, told);
    }
    drawBars(row);
  }

  /** A bar for each step, in the order of the direction. */
  function drawBars(row) {
    const order = Array.from({ length: last }, (_, k) => (isForward() ? last - 1 - k : k));
    const terms = order.map((k) => termOf(traces.terms[k], row) * (isForward() ? -1 : 1));
    const top = Math.max(...terms.map(Math.abs), 1e-9);
    const key = `${state.way} ${row} ${traces.terms.length}`;
    if (bars.dataset.key !== `${key} ${terms[0]}`) {
      bars.dataset.key = `${key} ${terms[0]}`;
      replace(barsWords, row === null ? "Mean over the rows, in nats. Left of the line a step presses together, right of it it stretches." : `Row ${row}, in nats. `, row !== null && button("All rows", () => put({ row: null }), { class: "button small" }));
      const values = terms.map((term) => fixed(term, 2));
      bars.style.setProperty("--value-width", `${Math.max(...values.map((value) => value.length))}ch`);
      replace(bars, order.map((k, step) => {
        const share = (50 * Math.abs(terms[step])) / top;
        const bar = h(terms[step] < 0 ? "span.bar-fill.less" : "span.bar-fill", { style: { width: `${share}%`, left: terms[step] < 0 ? `${50 - share}%` : "50%" } });
        return h("li", {}, h("button.bar-row", { type: "button", onclick: () => { pause(); put({ t: step + 1 }); } },
          h("span.bar-name", {}, traces.names[k + 1]), h("span.bar-track", {}, bar), h("span.bar-value", {}, values[step])));
      }));
      const sum = terms.reduce((a, b) => a + b, 0);
      replace(total, "Together ", h("b", {}, `${fixed(sum, 3)} nats`), isForward() ? ": log |det \u2202f/\u2202x|" : ": log |det \u2202g/\u2202z|");
    }
    [...bars.children].forEach((item, step) => item.classList.toggle("done", step + 0.5 < position));
    [...bars.children].forEach((item, step) => item.classList.toggle("now", position > step && position <= step + 1));
  }

  function play() {
    if (!traces) return;
    if (position >= last) position = 0;
    playing = true;
    rest = REST_MS;
    playButton.textContent = "Pause";
    since = performance.now();
    frame = requestAnimationFrame(tick);
  }

  function pause() {
    if (!playing) return;
    playing = false;
    cancelAnimationFrame(frame);
    playButton.textContent = "Play";
    app.set({ t: fixedPlace(position) });
  }

  function tick(now) {
    const passed = Math.min(64, now - since);
    since = now;
    if (rest > 0) rest -= passed;
    else position = Math.min(last, position + passed / (last === 1 ? 2 * STEP_MS : STEP_MS));
    scrub.set(position);
    draw();
    if (position >= last) { pause(); return; }
    frame = requestAnimationFrame(tick);
  }

  return {
    update,
    unmount() {
      playing = false;
      cancelAnimationFrame(frame);
      latest.stop();
      place.clear();
      scene.close();
    },
  };
}

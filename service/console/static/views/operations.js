/** Operations: what the server does now, out of /metrics, and whether what it serves is like what it was fitted to. */

import { number } from "../lib/address.js";
import { Away, Latest } from "../lib/api.js";
import { segmented, select, toggle } from "../lib/controls.js";
import { h, replace } from "../lib/dom.js";
import { Figure, histogram, line, marker } from "../lib/figures.js";
import { CallBox, panel, workbench } from "../lib/layout.js";
import { between, meanOf, quantileOf, readMetrics, total } from "../lib/metrics.js";
import { count, fixed, percent, show } from "../lib/numbers.js";
import { token } from "../lib/theme.js";

const EVERY_MS = 2000;
const READY_MS = 10_000;
const SPAN = 5;
const KEPT = 450;
const TELLING = 300;
const DIRECTIONS = ["forward", "inverse", "trace"];
const WINDOWS = [["60", "1 min"], ["300", "5 min"], ["900", "15 min"]];
const ALL = "all";
/** Routes of the page itself and of probes are no requests for a flow. */
const isAsked = (route) => route !== "other" && route !== "/metrics" && route !== "/models" && !route.startsWith("/health");
const isRefused = (status) => status >= "400";

export function mount(root, app) {
  const { api } = app;
  const reading = new Latest();
  const probing = new Latest();
  const { controls, stage, place, end } = workbench(root, {
    title: "Operations",
    words: [h("p", {}, "What the server does now, over all its workers. The figures are those that Prometheus gets; the charts show the last seconds.")],
  });
  let state = {};
  let past = [];
  let first = null;
  let points = new Map();
  let timer = 0;
  let readyTimer = 0;
  let ready = null;
  let isBegun = false;
  const parts = [];
  const figure = (label, height = 170) => {
    const made = new Figure({ label, height, margins: { left: 46, right: 12, top: 8, bottom: 24 } });
    parts.push(made);
    return made;
  };

  const put = (patch) => { app.set(patch); update(app.state); };
  const flow = select({ label: "Flow", value: ALL, options: [{ value: ALL, label: "all flows" }], change: (value) => put({ flow: value === ALL ? null : value }) });
  const span = segmented({ label: "Last", value: "60", options: WINDOWS.map(([value, label]) => ({ value, label })), change: (value) => put({ window: value === "60" ? null : value }) });
  const since = segmented({ label: "Drift since", value: "start", options: [{ value: "start", label: "server start" }, { value: "page", label: "page opened" }], change: (value) => put({ since: value === "start" ? null : value }) });
  const live = toggle({ label: "Live", value: true, change: (value) => put({ live: value ? null : "no" }) });
  replace(controls, live.node, flow.node, span.node, since.node);

  const tally = h("dl.tally.now", {});
  const requests = figure("Requests a second");
  const rows = figure("Rows a second");
  const waits = figure("Milliseconds in the queue, and in the engine: the 99th percentile");
  const batches = figure("Mean rows of a batch");
  const table = h("div.result", {});
  const engines = h("div.result", {});
  const drifts = h("div.drifts", {});
  const driftFigures = new Map();
  replace(stage,
    panel("Now", tally, h("div.charts", {},
      chart("Requests a second", requests, ["--data", "answered"], ["--bad", "refused or failed"]),
      chart("Rows a second", rows, ["--latent", "forward"], ["--data", "inverse"], ["--good", "trace"]),
      chart("Milliseconds, 99th percentile", waits, ["--latent", "in the queue"], ["--data", "in the engine"]),
      chart("Rows of a batch", batches, ["--latent", "forward"], ["--data", "inverse"]))),
    panel("By flow and direction", table), panel("Engines", engines),
    panel(h("span", {}, "Drift", h("span.note", {}, "Rows served by their quantile among held-out rows: 1 is as many as among held-out rows. Canary rows are counted too.")), drifts));
  const call = new CallBox(app);
  end.append(call.node);
  call.set([{ title: "The counts", call: { path: "/metrics", accept: "text/plain" } }, { title: "Readiness", call: { path: "/health/ready" } }]);

  function chart(title, made, ...kinds) {
    return h("div", {}, h("h3", {}, title), made.node, h("p.keys", {}, kinds.map(([colour, word]) => h("span", { style: { "--key": `var(${colour})` } }, word))));
  }

  function update(next) {
    const wasLive = state.live;
    state = next;
    flow.set(state.flow ?? ALL);
    span.set(state.window ?? "60");
    since.set(state.since ?? "start");
    live.set(state.live !== "no");
    if (isBegun && wasLive === state.live) { paint(); return; }
    isBegun = true;
    poll();
    probe();
  }

  async function poll() {
    clearTimeout(timer);
    if (state.live === "no" && past.length) return;
    if (!document.hidden || !past.length) {
      try {
        const text = await reading.run(async (signal) => (await api.call({ path: "/metrics", accept: "text/plain" }, signal)).text());
        if (text === undefined) return;
        place.clear();
        take(readMetrics(text));
      } catch (error) {
        if (error instanceof Away) return;
        place.show(error, poll);
        return;
      }
    }
    timer = setTimeout(poll, EVERY_MS);
  }

  async function probe() {
    clearTimeout(readyTimer);
    if (state.live === "no" && ready) return;
    try {
      const told = await probing.run((signal) => api.json({ path: "/health/ready" }, signal));
      if (told === undefined) return;
      ready = told;
    } catch (error) {
      if (error instanceof Away) return;
      ready = { ready: false, detail: error.message, flows: [] };
    }
    paintEngines();
    readyTimer = setTimeout(probe, READY_MS);
  }

  function take(metrics) {
    const now = performance.now() / 1000;
    const began = total(metrics, "process_start_time_seconds");
    if (past.length && past.at(-1).began !== began) { past = []; points = new Map(); first = null; }
    first ??= metrics;
    past.push({ now, began, metrics });
    past = past.slice(-SPAN - 1);
    const names = flowsOf(metrics);
    flow.fill([{ value: ALL, label: "all flows" }, ...names.map((name) => ({ value: name, label: name }))]);
    flow.set(state.flow ?? ALL);
    if (past.length > 1) for (const name of [ALL, ...names]) {
      if (!points.has(name)) points.set(name, []);
      const list = points.get(name);
      list.push(measure(name));
      if (list.length > KEPT) list.shift();
    }
    paint();
  }

  const flowsOf = (metrics) => [...new Set((metrics.get("pushforward_rows_total") ?? []).map(({ labels }) => labels.flow))].sort();

  /** What happened in the last seconds, of one flow or of all. */
  function measure(name) {
    const { now, metrics } = past.at(-1);
    const before = past[0];
    const seconds = now - before.now;
    const of = name === ALL ? {} : { flow: name };
    const rate = (metric, wanted) => Math.max(0, total(metrics, metric, wanted) - total(before.metrics, metric, wanted)) / seconds;
    const histogramOf = (metric, wanted = {}) => between(metrics, before.metrics, metric, { ...of, ...wanted });
    const queue = histogramOf("pushforward_queue_seconds");
    const engine = histogramOf("pushforward_engine_seconds");
    return {
      now,
      requests: rate("pushforward_requests_total", { route: isAsked }), refused: rate("pushforward_requests_total", { route: isAsked, status: isRefused }),
      rows: DIRECTIONS.map((direction) => rate("pushforward_rows_total", { ...of, direction })),
      batch: DIRECTIONS.map((direction) => meanOf(histogramOf("pushforward_batch_rows", { direction }))),
      queue: 1000 * quantileOf(queue, 0.99), engine: 1000 * quantileOf(engine, 0.99),
    };
  }

  function paint() {
    if (!past.length) return;
    const { metrics } = past.at(-1);
    const chosen = state.flow ?? ALL;
    const list = points.get(chosen) ?? [];
    const last = list.at(-1);
    const began = past.at(-1).began;
    replace(tally, [
      ["Requests a second", last ? fixed(last.requests, 1) : "\u2026"], ["Rows a second", last ? count(last.rows.reduce((a, b) => a + b, 0)) : "\u2026"],
      ["Requests so far", count(total(metrics, "pushforward_requests_total", { route: isAsked }))], ["Refused or failed", count(total(metrics, "pushforward_requests_total", { route: isAsked, status: isRefused }))],
      ["Workers", count(total(metrics, "pushforward_workers"))], ["Runs for", began ? lasting(Date.now() / 1000 - began) : "unknown"],
    ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    draw(requests, list, [["--data", (point) => point.requests], ["--bad", (point) => point.refused]]);
    draw(rows, list, [["--latent", (point) => point.rows[0]], ["--data", (point) => point.rows[1]], ["--good", (point) => point.rows[2]]]);
    draw(waits, list, [["--latent", (point) => point.queue], ["--data", (point) => point.engine]]);
    draw(batches, list, [["--latent", (point) => point.batch[0]], ["--data", (point) => point.batch[1]]]);
    paintTable(metrics, chosen);
    paintDrift(metrics, chosen);
    paintEngines();
  }

  function draw(made, list, series) {
    const length = number(state, "window", 60);
    const now = list.at(-1)?.now ?? 0;
    const seen = list.filter((point) => now - point.now <= length);
    const xs = seen.map((point) => point.now - now);
    const all = series.map(([colour, read]) => [colour, seen.map(read)]);
    const top = Math.max(...all.flatMap(([, ys]) => ys.filter(Number.isFinite)), 0) * 1.25 || 1;
    made.show({ x: [-length, 0], y: [0, top], layers: all.flatMap(([colour, ys], k) => [line(xs, ys, { colour, width: 2, fill: k === 0 && ys.every(Number.isFinite) ? colour : null }), lone(xs, ys, colour)]) });
  }

  function paintTable(metrics, chosen) {
    const before = past[0];
    const seconds = past.at(-1).now - before.now;
    const lines = [];
    for (const name of flowsOf(metrics)) {
      if (chosen !== ALL && chosen !== name) continue;
      for (const direction of DIRECTIONS) {
        const wanted = { flow: name, direction };
        const sum = total(metrics, "pushforward_rows_total", wanted);
        if (!sum) continue;
        const recent = past.length > 1 && total(before.metrics, "pushforward_rows_total", wanted) < sum;
        const of = (metric) => between(metrics, recent ? before.metrics : null, metric, wanted);
        const times = (made) => [0.5, 0.99].map((share) => h("td", {}, milliseconds(quantileOf(made, share))));
        lines.push(h("tr", {}, h("th.left", { scope: "row" }, name), h("td.left", {}, direction), h("td", {}, count(sum)),
          h("td", {}, past.length > 1 ? fixed((sum - total(before.metrics, "pushforward_rows_total", wanted)) / seconds, 1) : "\u2026"),
          h("td", {}, show(meanOf(of("pushforward_batch_rows")), 3)), times(of("pushforward_queue_seconds")), times(of("pushforward_engine_seconds"))));
      }
    }
    const heads = ["flow", "direction", "rows so far", "rows/s", "rows a batch", "queue, median", "queue, 99 %", "engine, median", "engine, 99 %"];
    replace(table, h("div.table", { tabindex: 0, role: "region", "aria-label": "By flow and direction" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head, k) => h(k < 2 ? "th.left" : "th", { scope: "col" }, head)))), h("tbody", {}, lines))),
      h("p.note", {}, "Times and batches are those of the last ten seconds; where nothing ran then, of all since the start."));
  }

  function paintEngines() {
    const metrics = past.at(-1)?.metrics;
    if (!ready) return;
    const restarts = (name, version) => total(metrics, "pushforward_engine_restarts_total", { flow: name, version: String(version) });
    const lines = ready.flows.map((each) => h("tr", {}, h("th.left", { scope: "row" }, `${each.name} ${each.version}`),
      h("td.left", {}, h(each.state === "ready" ? "span.tag.good" : "span.tag.warn", {}, each.state)), h("td.left", {}, (each.provider ?? "").replace("ExecutionProvider", "")),
      h("td.left", {}, total(metrics, "pushforward_canary_failed", { flow: each.name, version: String(each.version) }) ? "a canary row failed" : "canary rows pass"),
      h("td", {}, count(restarts(each.name, each.version)))));
    replace(engines, h("p", {}, h(ready.ready ? "span.tag.good" : "span.tag.warn", {}, ready.ready ? "ready" : "not ready"), " ", ready.detail ?? (ready.ready ? "A canary row went through every engine and gave its golden answer." : "")),
      lines.length > 0 && h("div.table", { tabindex: 0, role: "region", "aria-label": "Engines" }, h("table", {}, h("thead", {}, h("tr", {}, ["flow", "state", "runs on", "canary", "restarts"].map((head, k) => h(k < 4 ? "th.left" : "th", { scope: "col" }, head)))), h("tbody", {}, lines))));
  }

  function paintDrift(metrics, chosen) {
    const names = flowsOf(metrics).filter((name) => chosen === ALL || name === chosen);
    if (names.join() !== [...driftFigures.keys()].join()) {
      driftFigures.forEach(({ made }) => made.close());
      driftFigures.clear();
      for (const name of names) {
        const made = new Figure({ label: `${name}: rows served by their quantile among held-out rows`, height: 130, margins: { left: 30, right: 6, top: 6, bottom: 6 } });
        driftFigures.set(name, { made, words: h("p.note", {}) });
      }
      replace(drifts, [...driftFigures].map(([name, { made, words }]) => h("div", {}, h("h3", {}, name), made.node, words)));
    }
    for (const [name, { made, words }] of driftFigures) {
      const found = coarse(between(metrics, state.since === "page" ? first : null, "pushforward_log_prob_quantile", { flow: name, direction: "forward" }));
      const expected = found.ends.map((each, k) => Math.min(1, each) - (k ? found.ends[k - 1] : 0));
      const shares = found.counts.map((each, k) => (found.count ? each / found.count / expected[k] : 0));
      const top = Math.min(8, Math.max(2, ...shares));
      made.show({ x: [0, shares.length || 1], y: [0, top * 1.1], hide: "x", layers: [histogram(shares.map((each) => Math.min(each, top)), 0, shares.length || 1, { colour: "--data", alpha: 0.7 }), marker(1, { axis: "y", colour: "--latent", text: "" })] });
      const low = found.ends.reduce((sum, each, k) => (each <= 0.01 ? sum + found.counts[k] : sum), 0);
      words.textContent = found.count ? `${count(found.count)} rows; ${percent(low / found.count)} in the lowest 1\u202f%${found.count < TELLING ? ": too few rows to tell" : ""}.` : "No row was scored yet.";
    }
  }

  return {
    update,
    unmount() {
      clearTimeout(timer);
      clearTimeout(readyTimer);
      reading.stop();
      probing.stop();
      place.clear();
      parts.forEach((part) => part.close());
      driftFigures.forEach(({ made }) => made.close());
    },
  };
}

/** A histogram of quantiles without its outermost bins: they hold a thousandth each, and few rows fall there. */
function coarse({ ends, counts, ...rest }) {
  const kept = { ...rest, ends: [], counts: [] };
  let waiting = 0;
  ends.forEach((each, k) => {
    waiting += counts[k];
    if (each < 0.01 || (each > 0.99 && each < Infinity)) return;
    kept.ends.push(each);
    kept.counts.push(waiting);
    waiting = 0;
  });
  return kept;
}

const milliseconds = (seconds) => (Number.isFinite(seconds) ? `${show(1000 * seconds, 2)} ms` : "none");

function lasting(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${fixed(seconds / 3600, 1)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** A layer: points of a line that have no neighbours, which a line alone would not show. */
const lone = (xs, ys, colour) => (pen, { px, py }) => {
  pen.fillStyle = token(colour);
  ys.forEach((y, k) => {
    if (!Number.isFinite(y) || Number.isFinite(ys[k - 1]) || Number.isFinite(ys[k + 1])) return;
    pen.beginPath();
    pen.arc(px(xs[k]), py(y), 2.5, 0, 2 * Math.PI);
    pen.fill();
  });
};

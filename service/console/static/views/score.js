/** Score a file: every row of a table with its log_prob, ranked, beside the held-out rows. */

import { number, numbers } from "../lib/address.js";
import { TYPES } from "../lib/api.js";
import { button, contextControls, segmented, slider } from "../lib/controls.js";
import { freshId, h, m, replace } from "../lib/dom.js";
import { save } from "../lib/files.js";
import { Figure, histogram, line, marker } from "../lib/figures.js";
import { columnLabel, columnName, contextFields, kind, path, usualContext, width } from "../lib/flows.js";
import { ends, heldOut, heldOutBins, placeOf, threshold } from "../lib/held-out.js";
import { CallBox, copyable, panel, workbench } from "../lib/layout.js";
import { bytes, count, fixed, percent, show } from "../lib/numbers.js";
import { drawImages, imageCanvas } from "../lib/pictures.js";
import { contextQuery } from "../lib/thumbnails.js";
import { startWorker } from "../lib/workers.js";

const PAGE = 25;
const SHOWN_CELLS = 8;
const EXAMPLE_ROWS = 3000;
const EXAMPLE_VALUES = 600_000;
const ODD = 0.01;
const USUAL_RATE = 0.01;
/** The alarm rates of the slider: even steps of a logarithm from 0.001 to 0.5. */
const rateOf = (place) => Number((0.001 * 500 ** place).toPrecision(2));
const placeOfRate = (rate) => Math.log(rate / 0.001) / Math.log(500);

export function mount(root, app) {
  const { flow, api } = app;
  const wide = width(flow);
  const held = heldOut(flow);
  const binEnds = held ? ends(held) : [-50, 50];
  const { controls, stage, place, end } = workbench(root, {
    title: "Score a file",
    words: [
      h("p", {}, "Which rows of a table are unusual? Each gets its ", m("log p(x)"), " and the share of held-out rows below it. The rows are sent to this server in blocks, and nowhere else."),
    ],
  });
  let state = {};
  let context = usualContext(flow);
  let worker = null;
  let file = null;
  let progress = null;
  let done = null;
  let usual = null;

  const put = (patch) => { app.set(patch); update(app.state); };
  const contextPart = contextControls(flow, context, (values) => put({ context: values.join(",") }));
  const rate = held ? slider({ label: "Alarm rate", min: 0, max: 1, step: 0.005, value: placeOfRate(USUAL_RATE), show: (value) => percent(rateOf(value), rateOf(value) < 0.1 ? 1 : 0), note: "The share of usual rows that may raise an alarm.", change: (value, isDone) => { paint(rateOf(value)); if (isDone) put({ rate: rateOf(value) === USUAL_RATE ? null : rateOf(value) }); } }) : null;
  const order = segmented({ label: "First", value: "low", options: [{ value: "low", label: "the least likely" }, { value: "high", label: "the most likely" }], change: (value) => put({ order: value === "low" ? null : value, from: null }) });
  replace(controls, contextPart.node, contextFields(flow).length > 0 && h("p.note", {}, "Columns of the context in the file come first; this is for files without."), rate?.node, order.node);

  // The place for a file
  const id = freshId("file");
  const input = h("input.unseen", { id, type: "file", accept: ".csv,.tsv,.txt,text/csv,.parquet", onchange: () => { if (input.files[0]) start(input.files[0]); input.value = ""; } });
  const names = Array.from({ length: wide }, (_, k) => columnName(flow, k));
  const drop = h("div.drop", {},
    h("p.drop-title", {}, "Drop a CSV or Parquet file here"),
    h("p.note", {}, "with the columns ", h("b", {}, names.length > 8 ? `${names.slice(0, 8).join(", ")} and ${names.length - 8} more` : names.join(", ")), ". A million rows are fine."),
    h("div.row", {}, input, h("label.button.primary", { for: id }, "Choose a file"), button("Use an example", example)));
  root.addEventListener("dragover", over);
  root.addEventListener("dragleave", leave);
  root.addEventListener("drop", dropped);

  // What is found
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Rows scored" });
  const said = h("p.progress-words", { role: "status" });
  const cancel = button("Stop", () => stop("Stopped."), { class: "button small" });
  const running = h("section.panel.running", { hidden: true, "aria-label": "Progress" }, h("div.field-head", {}, said, cancel), bar);
  const tally = h("dl.tally", {});
  const spread = new Figure({ label: "log_prob of the file's rows beside the held-out rows", height: 230, margins: { left: 12, right: 12, top: 8, bottom: 40 } });
  const keys = h("p.keys", {}, h("span.key-data", {}, "rows of the file"), held && h("span.key-latent", {}, "held-out rows"));
  const ranking = h("div.result", {});
  const pager = h("div.row", {});
  const saver = button("Download the result (CSV)", download, { class: "button" });
  const found = h("div.stack", { hidden: true }, panel("Beside the held-out rows", tally, spread.node, keys), panel("Ranked rows", ranking, pager, h("div.row", {}, saver)));
  const badRows = h("section.panel", { hidden: true, "aria-label": "Bad rows" });
  replace(stage, drop, running, badRows, found);
  const call = new CallBox(app);
  end.append(call.node);

  function over(event) {
    event.preventDefault();
    drop.classList.add("over");
  }

  function leave(event) {
    if (!root.contains(event.relatedTarget)) drop.classList.remove("over");
  }

  function dropped(event) {
    event.preventDefault();
    drop.classList.remove("over");
    const [first] = event.dataTransfer.files;
    if (first) start(first);
  }

  function update(next) {
    const before = state;
    state = next;
    context = numbers(state, "context", usualContext(flow));
    contextPart.set(context);
    rate?.set(placeOfRate(number(state, "rate", USUAL_RATE)));
    order.set(state.order ?? "low");
    call.set([{ title: "A file's rows", call: { path: path(flow, "logprob"), query: { ...(held ? { return: "quantile", alarm_rate: number(state, "rate", USUAL_RATE) } : {}), ...contextQuery(flow, context) }, type: TYPES.csv, file: file?.name ?? "rows.csv" } }]);
    if (file && before.context !== undefined && before.context !== state.context) start(file);
    else if (done && (before.order !== state.order || before.from !== state.from)) ask();
    paint();
  }

  /** Score a file, from the beginning. */
  function start(next) {
    stop();
    place.clear();
    file = next;
    done = null;
    progress = null;
    found.hidden = true;
    badRows.hidden = true;
    replace(ranking);
    replace(pager);
    running.hidden = false;
    cancel.hidden = false;
    drop.classList.add("small");
    said.textContent = `Reading ${file.name}\u2026`;
    bar.value = 0;
    bar.hidden = false;
    worker = startWorker("views/score-worker.js");
    worker.onmessage = ({ data }) => hear(data);
    worker.onerror = (event) => { event.preventDefault(); fail({ problem: { title: "Something went wrong", message: event.message } }); };
    worker.postMessage({
      type: "start", file, root: api.root.href, key: api.key, context: flow.context_width ? context : null, ends: binEnds,
      flow: {
        path: path(flow, "logprob"), width: wide, shape: flow.event_shape, isSingle: flow.precision !== "float64", isCalibrated: Boolean(held), names,
        isNamed: Boolean(flow.features?.length), contextNames: Array.from({ length: flow.context_width ?? 0 }, (_, k) => flow.context_features?.[k]?.name ?? `context${k}`),
      },
    });
    update(state);
  }

  function stop(words) {
    worker?.terminate();
    worker = null;
    if (!words) return;
    said.textContent = words;
    cancel.hidden = true;
  }

  function hear(data) {
    if (data.type === "progress") {
      progress = data;
      const share = (0.5 * data.read) / (data.size || 1) + (0.5 * (data.scored + data.bad)) / Math.max(1, data.rows) * (data.read / (data.size || 1));
      bar.value = share;
      said.textContent = data.isAway ? `The server does not answer: waiting at ${count(data.scored)} rows.` : `${count(data.scored)} rows scored, ${bytes(data.read)} of ${bytes(data.size)} read${data.bad ? `, ${count(data.bad)} bad rows` : ""}.`;
      found.hidden = data.scored === 0;
      paint();
    } else if (data.type === "done") {
      done = data;
      cancel.hidden = true;
      bar.hidden = true;
      said.textContent = `${count(data.scored)} rows of ${file.name} are scored${data.bad ? `; ${count(data.bad)} are bad` : ""}.`;
      app.say(said.textContent);
      found.hidden = data.scored === 0;
      tellBad();
      paint();
      ask();
    } else if (data.type === "opening") said.textContent = `Reading ${file.name}: ${percent(data.share, 0)}`;
    else if (data.type === "page") list(data);
    else if (data.type === "saving") saver.textContent = `Writing\u2026 ${percent(data.share, 0)}`;
    else if (data.type === "file") {
      save(data.blob, `${data.name}-scored.csv`);
      saver.textContent = "Download the result (CSV)";
    } else if (data.type === "failed") fail(data);
  }

  function fail({ problem, command, isTable }) {
    stop("Nothing more was scored.");
    running.hidden = isTable || running.hidden;
    if (problem.status === 401) { api.onkey(Object.assign(new Error(problem.message), problem)); return; }
    place.show(Object.assign(new Error(problem.message), problem), isTable ? undefined : () => start(file));
    if (command) place.node.append(copyable(app, command, "the command").node);
  }

  function paint(alarm = number(state, "rate", USUAL_RATE)) {
    const counts = progress?.counts;
    if (!counts) return;
    const total = counts.reduce((a, b) => a + b, 0) || 1;
    const shares = counts.map((each) => each / total);
    const limit = held ? threshold(held, alarm) : null;
    const layers = [histogram(shares, ...binEnds, { colour: "--data", alpha: 0.7 })];
    let top = Math.max(...shares);
    if (held) {
      usual ??= smoothed(heldOutBins(held, ...binEnds, counts.length).map((each) => each / held.rows), held.rows > 2000 ? 1 : held.rows > 200 ? 8 : 30);
      const middles = Array.from(usual, (_, k) => binEnds[0] + ((k + 0.5) / usual.length) * (binEnds[1] - binEnds[0]));
      layers.push(line(middles, usual, { colour: "--latent", width: 2 }), marker(Math.max(binEnds[0], limit), { colour: "--bad", text: `alarm below ${fixed(limit, 2)}` }));
      top = Math.max(top, ...usual);
    }
    spread.show({ x: binEnds, y: [0, top * 1.18], hide: "y", xLabel: "log p(x), nats; rows further left are in the first bar", layers });
    const alarms = done && held ? placeOf(done.sorted, limit) : null;
    replace(tally,
      entry("Rows", count(progress.scored)), progress.bad > 0 && entry("Bad rows", count(progress.bad), "bad"),
      alarms !== null && entry(`Alarms at ${percent(alarm, alarm < 0.1 ? 1 : 0)}`, count(alarms), "alarm"),
      alarms !== null && entry("Share of alarms", percent(alarms / Math.max(1, done.scored), 2)),
      done && entry("Mean log p(x)", `${fixed(done.mean, 2)}${held ? ` (held-out ${fixed(held.mean, 2)})` : ""}`));
    for (const node of ranking.querySelectorAll("tr[data-log-prob]")) node.classList.toggle("alarm", held ? Number(node.dataset.logProb) < limit : false);
  }

  /** A histogram of few rows is jagged: each pass takes a part of its neighbours. */
  function smoothed(values, passes) {
    let found = values;
    for (let pass = 0; pass < passes; pass += 1) found = found.map((each, k) => (found[Math.max(0, k - 1)] + 2 * each + found[Math.min(found.length - 1, k + 1)]) / 4);
    return found;
  }

  const entry = (name, value, kind) => h("div", { class: kind ?? null }, h("dt", {}, name), h("dd", {}, value));

  function ask() {
    if (!done?.scored || !worker) return;
    const from = Math.min(number(state, "from", 0), Math.max(0, done.scored - 1));
    worker.postMessage({ type: "page", from, count: PAGE, fromTop: state.order === "high" });
  }

  function list({ from, rows }) {
    const isImage = kind(flow) === "image";
    const columns = names.slice(0, SHOWN_CELLS);
    const heads = isImage ? ["image"] : [...columns.map((_, k) => columnLabel(flow, k)), ...(wide > SHOWN_CELLS ? ["\u2026"] : [])];
    const cells = (row) => (isImage ? h("td", {}, picture(row)) : [columns.map((_, k) => h("td", { title: row.values[k] ?? null }, show(Number(row.values[k]), 6))), wide > SHOWN_CELLS && h("td", {}, "\u2026")]);
    replace(ranking, h("div.table", { tabindex: 0, role: "region", "aria-label": "Ranked rows" }, h("table", {},
      h("thead", {}, h("tr", {}, ["rank", "row", "log_prob", held && "quantile", ...heads].filter(Boolean).map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", { "data-log-prob": row.logProb }, h("td", {}, count(row.rank + 1)), h("th", { scope: "row" }, row.row), h("td.strong", {}, fixed(row.logProb, 3)), held && h("td", {}, show(row.quantile, 4)), cells(row)))))));
    const last = from + rows.length;
    replace(pager, button("Before", () => put({ from: Math.max(0, from - PAGE) || null }), { class: "button small", disabled: from === 0 }), button("Next", () => put({ from: last }), { class: "button small", disabled: last >= done.scored }), h("span.note", {}, `${count(from + 1)} to ${count(last)} of ${count(done.scored)}. Row 0 is the first of the file.`));
    paint();
  }

  function picture(row) {
    const canvas = imageCanvas(`Row ${row.row}`);
    drawImages(canvas, Float32Array.from(row.values.slice(0, wide), Number), flow, { gap: 0 });
    return canvas;
  }

  function tellBad() {
    badRows.hidden = done.bad === 0;
    if (!done.bad) return;
    replace(badRows, h("h2", {}, done.bad === 1 ? "One row could not be scored" : `${count(done.bad)} rows could not be scored`),
      h("ul.bad-rows", {}, done.faults.slice(0, 12).map((fault) => h("li", {}, h("b", {}, `Row ${fault.row}${fault.line ? ` (line ${fault.line})` : ""}`), fault.column !== undefined ? `, ${fault.column}: ` : ": ", fault.reason))),
      done.bad > 12 && h("p.note", {}, "The result that you download names the reason of each."));
  }

  function download() {
    if (!done || !worker) return;
    worker.postMessage({ type: "save", threshold: held ? threshold(held, number(state, "rate", USUAL_RATE)) : null });
  }

  /** Samples of the flow, and some whose columns come from different rows: rows that are unusual together. */
  async function example() {
    try {
      const n = Math.max(100, Math.min(EXAMPLE_ROWS, Math.floor(EXAMPLE_VALUES / wide)));
      const odd = Math.ceil(ODD * n);
      const { data } = await api.npy({ path: path(flow, "sample"), query: { n, seed: 11, ...contextQuery(flow, context) } });
      const lines = [names.join(",")];
      for (let k = 0; k < n; k += 1) {
        const isOdd = k >= n - odd;
        lines.push(names.map((_, at) => Number(data[(isOdd ? (k + 37 * at * odd) % n : k) * wide + at].toPrecision(6))).join(","));
      }
      start(new File([lines.join("\n")], `${flow.name}-example.csv`, { type: "text/csv" }));
    } catch (error) {
      place.show(error, example);
    }
  }

  return {
    update,
    unmount() {
      stop();
      root.removeEventListener("dragover", over);
      root.removeEventListener("dragleave", leave);
      root.removeEventListener("drop", dropped);
      place.clear();
      spread.close();
    },
  };
}

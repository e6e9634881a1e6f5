/** The figures of a report, drawn by the console's components in the place of its pictures. */

import { bins, column, extent } from "./arrays.js";
import { h, replace } from "./dom.js";
import { ColourBar, Figure, heat, histogram, line, marker, points } from "./figures.js";
import { fixed, percent, show } from "./numbers.js";
import { drawImages, imageCanvas } from "./pictures.js";

const SHOWN = JSON.parse(document.getElementById("figures").textContent);
const NO_EDGE = { left: 1, right: 1, top: 1, bottom: 1 };

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const keys = (...kinds) => h("p.keys", {}, kinds.map(([colour, word]) => h("span", { style: { "--key": `var(${colour})` } }, word)));
const band = ([low, high]) => (pen, { left, width, py }) => {
  pen.globalAlpha = 0.14;
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--latent");
  pen.fillRect(left, py(high), width, py(low) - py(high));
};

function loss(given, label) {
  const { train, validation, best } = given;
  const epochs = validation.map((_, k) => k + 1);
  const all = [...train, ...validation].filter((value) => value !== null).sort((a, b) => a - b);
  const low = all[Math.floor(0.05 * all.length)] ?? 0;
  const high = all.at(-1) ?? 1;
  const room = 0.12 * (high - low) || 1;
  const said = h("p.note", { role: "status" });
  const tell = (epoch) => { said.textContent = epoch ? `Epoch ${epoch}: ${fixed(train[epoch - 1], 3)} on training rows, ${fixed(validation[epoch - 1], 3)} on validation rows.` : "Point at an epoch to read it."; };
  const figure = new Figure({ label, height: 300, pick(point) {
    const epoch = point ? Math.min(epochs.length, Math.max(1, Math.round(point.x))) : 0;
    figure.cross(epoch ? { x: epoch, y: validation[epoch - 1] ?? low } : null);
    tell(epoch);
  } });
  figure.show({ x: [1, Math.max(2, epochs.length)], y: [low - 2 * room, high + room], xLabel: "epoch", yLabel: "mean log-likelihood, nats", layers: [
    line(epochs, train.map((each) => each ?? NaN), { colour: "--rule-strong", width: 1.4 }), line(epochs, validation.map((each) => each ?? NaN), { colour: "--data", width: 2 }),
    best ? marker(best, { text: `epoch ${best} is kept` }) : () => {},
  ] });
  tell(0);
  return [figure.node, keys(["--data", "validation rows"], ["--rule-strong", "training rows, as stepped on"]), said];
}

function logProb({ low, high, flow, gaussian, flow_mean: flowMean, gaussian_mean: gaussianMean }, label) {
  const figure = new Figure({ label, height: 280, margins: { left: 46, right: 12, top: 8, bottom: 40 } });
  const top = Math.max(...flow, ...gaussian) * 1.18;
  const step = (high - low) / flow.length;
  const steps = gaussian.flatMap((each, k) => [[low + k * step, each], [low + (k + 1) * step, each]]);
  figure.show({ x: [low, high], y: [0, top], xLabel: "log_prob of a held-out row, nats", yLabel: "rows", layers: [
    histogram(flow, low, high, { colour: "--data", alpha: 0.65 }), line(steps.map(([x]) => x), steps.map(([, y]) => y), { colour: "--ink-soft", width: 1.6 }),
    marker(Math.min(high, Math.max(low, flowMean)), { colour: "--data", text: fixed(flowMean, 2) }), marker(Math.min(high, Math.max(low, gaussianMean)), { colour: "--ink-soft" }),
  ] });
  return [figure.node, keys(["--data", `flow, mean ${fixed(flowMean, 2)}`], ["--ink-soft", `Gaussian, mean ${fixed(gaussianMean, 2)}`])];
}

/** A histogram of quantiles, which is flat where rows are as the flow says. */
function uniform({ counts, band: ends, expected }, label, given = {}) {
  const figure = new Figure({ label, height: 250, margins: { left: 40, right: 12, top: 8, bottom: 40 }, ...given });
  figure.show({ x: [0, 1], y: [0, Math.max(...counts, ends[1]) * 1.15], xLabel: given.quiet ? "" : "quantile of log_prob among samples", yLabel: given.quiet ? "" : "rows", layers: [band(ends), histogram(counts, 0, 1, { colour: "--data", alpha: 0.65 }), marker(expected, { axis: "y", colour: "--ink-soft" })] });
  return figure.node;
}

function quantiles(given, label) {
  const curve = new Figure({ label: "The share of rows inside regions of greatest density, by the probability of the region", height: 250, margins: { left: 40, right: 12, top: 8, bottom: 40 } });
  const { levels, covered, error, marks } = given;
  curve.show({ x: [0, 1], y: [0, 1], xLabel: "probability of the region", yLabel: "rows inside it", layers: [
    line([...levels, ...levels.toReversed()], [...levels.map((each, k) => each - error[k]), ...levels.map((each, k) => each + error[k]).toReversed()], { colour: "--latent-wash", fill: "--latent", width: 0.5 }),
    line(levels, covered, { colour: "--data", width: 2 }), points(Float64Array.from(marks.flat()), 2, { size: 6, colour: "--data", alpha: 1 }),
  ] });
  return [h("div.beside", {}, uniform(given, label), curve.node), keys(["--data", "held-out rows"], ["--latent", "where 99 of 100 exact flows lie"])];
}

function ranks({ columns }) {
  return [h("div.grid", {}, columns.map((each) => h("div", {}, h("h3", {}, each.name), uniform(each, `Ranks of ${each.name}`, { height: 130, quiet: true, margins: { left: 30, right: 4, top: 6, bottom: 22 } })))), keys(["--data", "held-out rows"], ["--latent", "where 99 of 100 exact flows lie"])];
}

/** The span of most rows and samples of a column. */
function span(first, second) {
  const all = Float64Array.of(...first, ...second).sort();
  const low = all[Math.floor(0.004 * all.length)];
  const high = all[Math.floor(0.996 * (all.length - 1))];
  const room = 0.06 * (high - low) || 0.5;
  return [low - room, high + room];
}

function pairs({ names, data, samples }) {
  const wide = names.length;
  const ends = names.map((_, k) => span(column(data, wide, k), column(samples, wide, k)));
  const cell = (row, place) => {
    const name = place === row ? names[row] : `${names[row]} against ${names[place]}`;
    const figure = new Figure({ label: name, aspect: 1.1, margins: NO_EDGE });
    if (place === row) {
      const share = (rows) => bins(column(rows, wide, row), ...ends[row], 28).map((each) => each / (rows.length / wide));
      const [own, drawn] = [share(data), share(samples)];
      const middles = Array.from(drawn, (_, k) => ends[row][0] + ((k + 0.5) / drawn.length) * (ends[row][1] - ends[row][0]));
      figure.show({ x: ends[row], y: [0, Math.max(...own, ...drawn) * 1.3], hide: "both", layers: [histogram(own, ...ends[row], { colour: "--latent", alpha: 0.4 }), line(middles, drawn, { colour: "--data", width: 1.8 })] });
    } else figure.show({ x: ends[place], y: ends[row], hide: "both", layers: [points(data, wide, { columns: [place, row], size: 2, colour: "--latent", alpha: 0.4 }), points(samples, wide, { columns: [place, row], size: 2, alpha: 0.45 })] });
    return h(place === row ? "div.pair-cell.margin" : "div.pair-cell", {}, figure.node, place === row && h("span.pair-name", {}, names[row]));
  };
  const grid = h("div.pairs", {}, names.map((_, row) => names.map((_, place) => (place > row ? h("div") : cell(row, place)))));
  grid.style.setProperty("--columns", String(wide));
  return [grid, keys(["--latent", "held-out rows"], ["--data", "samples of the flow"])];
}

function density({ names, x, y, side, top, map, data }, label) {
  const values = Float32Array.from(bytesOf(map), (each) => (each / 255) * top);
  const said = h("p.note", { role: "status" }, "Point at the map to read the density.");
  const figure = new Figure({ label, aspect: 1.35, pick(point) {
    figure.cross(point);
    if (!point) { said.textContent = "Point at the map to read the density."; return; }
    const place = (value, [low, high]) => Math.min(side - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * side)));
    said.textContent = `${names[0]} ${show(point.x, 3)}, ${names[1]} ${show(point.y, 3)}: p = ${show(values[place(point.y, y) * side + place(point.x, x)], 2)}, ${percent(values[place(point.y, y) * side + place(point.x, x)] / top, 0)} of the greatest`;
  } });
  const bar = new ColourBar("p(x)");
  bar.set(0, top);
  figure.show({ x, y, xLabel: names[0], yLabel: names[1], layers: [heat({ data: values, columns: side, rows: side, x, y }, [0, extent(values)[1]]), points(data, 2, { size: 1.8, colour: "--ink", alpha: 0.35 })] });
  return [figure.node, bar.node, said];
}

function images({ shape, data, samples }) {
  const sheet = (title, text) => {
    const canvas = imageCanvas(title);
    drawImages(canvas, bytesOf(text), { event_shape: shape }, { columns: 6, range: [0, 255] });
    return h("div", {}, h("h3", {}, title), canvas);
  };
  return [h("div.beside.sheets", {}, sheet("held-out images", data), sheet("samples of the flow", samples))];
}

const DRAWN = { loss, log_prob: logProb, quantiles, ranks, pairs, density, images };

for (const place of document.querySelectorAll("[data-figure]")) {
  const given = SHOWN[place.dataset.figure];
  if (given) replace(place, DRAWN[given.kind](given, `${place.querySelector("img").alt}.`));
}

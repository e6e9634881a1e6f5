/** Sampling: rows of a seed, as a table or as images, and as files. */

import { number, numbers } from "../lib/address.js";
import { Latest, TYPES } from "../lib/api.js";
import { button, contextControls, numberField, slider } from "../lib/controls.js";
import { h, m, replace } from "../lib/dom.js";
import { save } from "../lib/files.js";
import { columnLabel, hasTemperature, kind, path, usualContext, width } from "../lib/flows.js";
import { CallBox, panel, workbench } from "../lib/layout.js";
import { bytes, count, fixed, show } from "../lib/numbers.js";
import { drawImages, imageCanvas } from "../lib/pictures.js";

const SHOWN_ROWS = 100;
const SHOWN_IMAGES = 400;
const SHOWN_COLUMNS = 40;
const MOST = 100_000;
const FILES = [["CSV", TYPES.csv, "csv"], ["NumPy", TYPES.npy, "npy"], ["Arrow", TYPES.arrow, "arrows"]];

export function mount(root, app) {
  const { flow, api } = app;
  const isImage = kind(flow) === "image";
  const usualN = isImage ? 64 : 20;
  const latest = new Latest();
  const { controls, stage, place, end } = workbench(root, {
    title: "Sampling",
    words: [
      h("p", {}, "A sample is a latent ", h("b.latent", {}, m("z")), " drawn from the base, bent into a row ", h("b.data", {}, m("x = g(z)")), "."),
      h("p", {}, "Row ", m("i"), " of a seed is always the same row, whoever asks, and however many rows are asked for."),
    ],
  });
  let state = {};
  let context = usualContext(flow);

  const put = (patch) => { app.set(patch); update(app.state); };
  const contextPart = contextControls(flow, context, (values) => put({ context: values.join(",") }));
  const n = numberField({ label: "Rows", value: usualN, min: 1, max: MOST, step: 1, change: (value) => put({ n: value === usualN ? null : value }) });
  const seed = numberField({ label: "Seed", value: 7, min: 0, step: 1, change: (value) => put({ seed: value === 7 ? null : value }) });
  const another = button("Another seed", () => put({ seed: number(state, "seed", 7) + 1 }), { class: "button small" });
  const temperature = hasTemperature(flow) ? slider({ label: "Temperature", min: 0, max: 2, step: 0.05, value: 1, show: (value) => fixed(value, 2), note: "Multiplies the standard deviation of the base.", change: (value) => put({ temperature: value === 1 ? null : value }) }) : null;
  const truncation = hasTemperature(flow) ? numberField({ label: "Truncation", unit: "standard deviations", value: null, min: 0.01, optional: true, placeholder: "none", change: (value) => put({ truncation: value }) }) : null;
  replace(controls, contextPart.node, n.node, seed.node, another, temperature?.node, truncation?.node);

  const title = h("span", {}, "Samples");
  const result = h("div.result", {});
  const files = h("div.row", {}, h("span.note", {}, "All rows as a file:"), FILES.map(([name, type, ending]) => button(name, () => download(type, ending), { class: "button small" })));
  const said = h("span.note", { role: "status" });
  files.append(said);
  replace(stage, panel(title, result, files));
  const call = new CallBox(app);
  end.append(call.node);

  const query = () => ({
    n: number(state, "n", usualN), seed: number(state, "seed", 7), temperature: state.temperature, truncation: state.truncation,
    context: flow.context_width ? context.join(",") : null,
  });

  function update(next) {
    state = next;
    context = numbers(state, "context", usualContext(flow));
    contextPart.set(context);
    n.set(number(state, "n", usualN));
    seed.set(number(state, "seed", 7));
    temperature?.set(number(state, "temperature", 1));
    truncation?.set(number(state, "truncation", null));
    call.set([{ title: "These rows", call: { path: path(flow, "sample"), query: query() } }]);
    draw();
  }

  async function draw() {
    const asked = query();
    const limit = isImage ? SHOWN_IMAGES : SHOWN_ROWS;
    const few = { ...asked, n: Math.min(asked.n, limit) };
    result.setAttribute("aria-busy", "true");
    try {
      const found = await latest.run((signal) => (isImage ? api.npy({ path: path(flow, "sample"), query: few }, signal) : api.json({ path: path(flow, "sample"), query: few }, signal)));
      if (!found) return;
      place.clear();
      replace(title, asked.n > limit ? `The first ${limit} of ${count(asked.n)} rows` : `${count(asked.n)} ${asked.n === 1 ? "row" : "rows"}`, h("span.note", {}, ` of seed ${asked.seed}`));
      if (isImage) images(found.data, few.n);
      else table(found);
    } catch (error) {
      place.show(error, draw);
    } finally {
      result.removeAttribute("aria-busy");
    }
  }

  function images(data, shown) {
    const columns = Math.max(1, Math.min(shown, Math.ceil(Math.sqrt(shown * 1.6))));
    const canvas = imageCanvas(`${shown} samples of ${flow.name}`, { class: "pixels sheet" });
    drawImages(canvas, data, flow, { columns });
    canvas.style.setProperty("width", `${Math.min(100, columns * 12.5)}%`);
    replace(result, canvas);
  }

  function table({ x, log_prob: logProb, offset }) {
    const names = Array.from({ length: Math.min(SHOWN_COLUMNS, width(flow)) }, (_, k) => k);
    const left = width(flow) - names.length;
    replace(result, left > 0 && h("p.note", {}, `The first ${SHOWN_COLUMNS} columns; the files have ${count(left)} more.`), h("div.table", { tabindex: 0, role: "region", "aria-label": "Samples" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "row"), names.map((k) => h("th", { scope: "col" }, columnLabel(flow, k))), h("th", { scope: "col" }, "log_prob"))),
      h("tbody", {}, x.map((row, k) => h("tr", {}, h("th", { scope: "row" }, offset + k), row.slice(0, SHOWN_COLUMNS).map((value) => h("td", {}, show(value, 5))), h("td.strong", {}, logProb[k] === null ? "none" : fixed(logProb[k], 3))))))));
  }

  async function download(type, ending) {
    said.textContent = "Drawing\u2026";
    try {
      const answer = await api.call({ path: path(flow, "sample"), query: query(), accept: type });
      const blob = await answer.blob();
      save(blob, `${flow.name}-seed-${query().seed}.${ending}`);
      said.textContent = `${bytes(blob.size)} saved`;
    } catch (error) {
      said.textContent = "";
      place.show(error);
    }
  }

  return { update, unmount() { latest.stop(); place.clear(); } };
}

/** Flows: every served flow as a card, with a live picture, its figures, and how to call it. */

import { Latest, asCurl, isAborted } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { Figure } from "../lib/figures.js";
import { kind, newest, path, shapeText, width } from "../lib/flows.js";
import { copyable, problemBox } from "../lib/layout.js";
import { count, fixed, show } from "../lib/numbers.js";
import { imageCanvas } from "../lib/pictures.js";
import { drawSheet, sampleCall, thumbnail } from "../lib/thumbnails.js";
import { VIEWS } from "../views.js";
import { hero } from "./hero.js";

export function mount(root, app) {
  const top = h("div.hero-place");
  const cards = h("div.cards");
  const page = h("div.flows-page", {}, top, cards);
  replace(root, page);
  let shown = "";
  let made = [];
  let opening = null;

  function update() {
    const told = JSON.stringify(app.flows);
    if (told === shown) return;
    shown = told;
    close();
    const flows = newest(app.flows);
    if (!flows.length) {
      replace(top);
      replace(cards, emptyRepository(app));
      return;
    }
    opening = hero(app, flows);
    replace(top, opening.node);
    made = flows.map((flow) => card(app, flow));
    replace(cards, made.map((each) => each.node));
  }

  function close() {
    opening?.close();
    opening = null;
    made.forEach((each) => each.close());
    made = [];
  }

  return { update, unmount: close };
}

const emptyRepository = (app) => h("div.state", {},
  h("h1", {}, "There is no flow here yet"),
  h("p", {}, "The server runs, and its repository is empty. Fit a flow into it, or put a bundle there, and it appears on this page."),
  copyable(app, "pushforward train rows.csv --name my-flow --out flows\npushforward serve --repository flows", "Commands").node);

/** One flow. */
function card(app, flow) {
  const { api } = app;
  const latest = new Latest();
  const picture = h("div.card-picture");
  const figures = h("dl.figures");
  const name = h("h2", {}, flow.name);
  const usable = flow.state === "ready";
  const links = VIEWS.filter((view) => view.needsFlow && usable && !view.refuses?.(flow));
  const state = { model: flow.name, version: null };
  const parts = [];
  const node = h(usable ? "article.card" : "article.card.off", { "aria-label": flow.name }, picture,
    h("div.card-body", {},
      h("div.card-head", {}, name, flow.default && h("span.tag.accent", { title: "Answers requests that name no flow" }, "default"),
        h("span.tag", {}, `version ${flow.version}`), !usable && h("span.tag.warn", {}, flow.state)),
      h("p.card-words", {}, flow.description || (usable ? "" : flow.error?.detail ?? "It is being loaded and checked. It appears here as soon as it answers.")),
      usable && h("p.card-shape", {}, shapeText(flow), flow.context_width > 0 && ` given ${flow.context_width} of context`, ` \u00b7 ${flow.base?.family?.replaceAll("_", " ") ?? ""} base \u00b7 ${flow.precision}`),
      figures,
      links.length > 0 && h("nav.card-links", { "aria-label": `Views of ${flow.name}` }, links.map((view) => h("a", { href: app.link(view.id, state) }, view.title))),
      usable && howToCall(app, flow)));

  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    fill();
  }, { rootMargin: "200px" });

  async function fill() {
    if (!usable) return;
    figuresOf(app, flow).then((found) => replace(figures, found), (error) => { if (!isAborted(error)) replace(figures); });
    try {
      const found = await latest.run((signal) => thumbnail(api, flow, signal));
      if (!found) return;
      if (found.images) {
        const canvas = imageCanvas(`Samples of ${flow.name}`);
        drawSheet(canvas, found.images, flow);
        replace(picture, canvas);
      } else {
        const figure = new Figure({ label: `${flow.name}: ${found.figure.words ?? (kind(flow) === "line" ? "its density" : "its density, and samples")}`, aspect: 1.6 });
        parts.push(figure);
        figure.show(found.figure);
        replace(picture, figure.node, found.figure.words && h("span.picture-words", {}, found.figure.words));
      }
    } catch (error) {
      replace(picture, problemBox(error, fill));
    }
  }

  if (usable) watcher.observe(node);
  else replace(picture, h("p.waiting", {}, flow.state === "loading" ? "Loading\u2026" : flow.state));
  return { node, close() { latest.stop(); watcher.disconnect(); parts.forEach((part) => part.close()); } };
}

/** The figures of a flow: held-out nats, those of a Gaussian, parity and calibration. */
async function figuresOf(app, flow) {
  const { manifest } = await app.describe(flow);
  const { calibration, parity } = manifest;
  const entry = (title, value, note) => h("div", {}, h("dt", {}, title), h("dd", {}, value), note && h("dd.note", {}, note));
  const bits = manifest.quantization && calibration ? bitsPerDim(calibration.mean, width(flow), manifest.quantization.step) : null;
  const gain = calibration?.gaussian_mean === null || calibration?.gaussian_mean === undefined ? null : calibration.mean - calibration.gaussian_mean;
  return [
    calibration && entry("held-out", [fixed(calibration.mean), h("small", {}, " nats")], [bits === null ? null : `${fixed(bits)} bits/dim`, gain === null ? null : `${gain >= 0 ? "+" : ""}${fixed(gain)} over a Gaussian`].filter(Boolean).join(", ") || null),
    parity && entry("parity", show(parity.log_prob, 2), "nats from the float64 flow"),
    calibration && entry("calibrated on", count(calibration.rows), "held-out rows"),
    (calibration?.warning || parity?.warning) && h("p.warning", {}, calibration?.warning ?? parity.warning),
  ];
}

/** Bits of the probability of a row's bin, for each of its values. */
const bitsPerDim = (logProb, values, step) => -(logProb / values + Math.log(step)) / Math.log(2);

/** How to call a flow, by curl and by Python, with this server's own address. */
function howToCall(app, flow) {
  const call = sampleCall(flow, 3);
  const prefix = app.api.root.href.replace(/\/$/, "");
  const key = app.api.key === null ? "" : ', key="\u2026"';
  const context = flow.context_width ? `, context=[${call.query.context.replaceAll(",", ", ")}]` : "";
  const python = `import pushforward\n\nclient = pushforward.Client("${prefix}"${key})\nrows = client.sample(3, seed=${call.query.seed}, model="${flow.name}"${context})\nclient.log_prob(rows.x, model="${flow.name}"${context})`;
  const body = h("div.how");
  const details = h("details.call-how", {}, h("summary", {}, "How to call it"), body);
  details.addEventListener("toggle", () => {
    if (!details.open || body.childElementCount) return;
    replace(body, copyable(app, asCurl(app.api, { ...call, path: path(flow, "sample") }), `curl for ${flow.name}`).node, copyable(app, python, `Python for ${flow.name}`).node);
  });
  return details;
}

/** Parts of every view: the workbench with its words and controls, the call behind a picture, errors, and waiting. */

import { asCurl } from "./api.js";
import { freshId, h, replace } from "./dom.js";

/**
 * The bench of a view: words and controls at the side, pictures on the stage, the call below.
 * @param {Element} root
 * @param {{title: string, words: (Node|string)[]}} given
 * @returns {{controls: Element, stage: Element, place: ErrorPlace, end: Element}}
 */
export function workbench(root, { title, words }) {
  const controls = h("form.controls", { onsubmit: (event) => event.preventDefault(), "aria-label": `Controls: ${title}` });
  const stage = h("div.stage");
  const place = new ErrorPlace();
  const end = h("div.end");
  replace(root, h("article.workbench", {},
    h("div.side", {}, h("h1", {}, title), h("div.words", {}, words.map((each) => (each instanceof Node ? each : h("p", {}, each)))), controls),
    h("div.desk", {}, place.node, stage, end)));
  return { controls, stage, place, end };
}

/** A part of the stage with a heading, by which it is named. */
export function panel(title, ...children) {
  const id = freshId("panel");
  return h("section.panel", { "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** Where a view tells its errors: the server's own detail, its reasons, and a way to try again. */
export class ErrorPlace {
  #timer = null;

  constructor() { this.node = h("div.error-place", { role: "alert" }); }

  /**
   * Tell an error.
   * @param {Error} error
   * @param {() => void} [again] tries once more; by itself too, where the server says when.
   */
  show(error, again) {
    clearTimeout(this.#timer);
    replace(this.node, problemBox(error, again));
    const soon = again && (error.status === 503 || error.status === 429);
    if (soon) this.#timer = setTimeout(() => { if (this.node.isConnected) again(); }, 1000 * Math.max(1, error.retryAfter));
  }

  /** Tell none. */
  clear() {
    clearTimeout(this.#timer);
    replace(this.node);
  }
}

/** An error in words: title, detail, and each reason with its row and column. */
export function problemBox(error, again) {
  if (!error.title) reportError(error);  // it is the page's own, and belongs into the console
  const reasons = (error.reasons ?? []).filter((reason) => reason.reason && reason.reason !== error.message);
  const placed = (reason) => [reason.row !== undefined && reason.row !== null ? `row ${reason.row}` : "", reason.column ?? ""].filter(Boolean).join(", ");
  return h("div.problem", {},
    h("p.problem-title", {}, error.title ?? "Something went wrong", error.status && h("span.tag", {}, `${error.status} ${error.code}`)),
    h("p", {}, error.message),
    reasons.length > 0 && h("ul", {}, reasons.slice(0, 8).map((reason) => h("li", {}, placed(reason) && h("b", {}, `${placed(reason)}: `), reason.reason))),
    error.requestId && h("p.note", {}, `Request ${error.requestId}`),
    again && h("button.button", { type: "button", onclick: again }, "Try again"));
}

/** A text that is copied with a click. */
export function copyable(app, text, label) {
  const code = h("code", {}, text);
  const copy = h("button.copy", { type: "button", "aria-label": `Copy ${label}`, onclick: async () => {
    const done = await copyText(code.textContent);
    copy.textContent = done ? "Copied" : "Select and copy";
    app.say(done ? `${label} copied` : "The browser does not let a page copy here");
    setTimeout(() => { copy.textContent = "Copy"; }, 1600);
  } }, "Copy");
  return { node: h("div.code", {}, h("pre", { tabindex: 0, "aria-label": label }, code), copy), set(next) { code.textContent = next; } };
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {  // a page that came over plain HTTP has no clipboard, or it was refused
    const area = h("textarea.unseen", { value: text, "aria-hidden": "true" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** The calls behind a view, each as a command to copy. */
export class CallBox {
  #app;
  #parts = new Map();

  /** @param {object} app */
  constructor(app) {
    this.#app = app;
    this.list = h("div.calls");
    this.node = h("section.call-box", { "aria-label": "The request behind this view" },
      h("h2", {}, "The request behind this"),
      h("p.note", {}, "This page asks the same endpoints as every other client."), this.list);
  }

  /**
   * Show calls.
   * @param {{title: string, call: import("./api.js").Call, text?: string}[]} calls `text` in place of the command.
   */
  set(calls) {
    const titles = calls.map((each) => each.title);
    if (titles.join("|") !== [...this.#parts.keys()].join("|")) {
      this.#parts = new Map(titles.map((title) => [title, { ...copyable(this.#app, "", title), link: h("a.open", { target: "_blank", rel: "noopener" }, "Open as JSON") }]));
      replace(this.list, [...this.#parts].map(([title, part]) => h("div.call", {}, h("h3", {}, title, part.link), part.node)));
    }
    const { api } = this.#app;
    for (const { title, call, text } of calls) {
      const part = this.#parts.get(title);
      part.set(text ?? asCurl(api, call));
      const isPlain = call && !call.json && !call.npy && !call.type && !call.method && !call.accept && api.key === null;  // a link sends no body and no key
      part.link.hidden = !isPlain;
      if (isPlain) part.link.href = api.address(call).href;
    }
  }
}

/** A word about what is going on, in the middle of an empty place. */
export const waiting = (text) => h("p.waiting", {}, text);

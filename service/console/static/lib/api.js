/**
 * Calls of the server: the ones that everyone uses. The key is kept here, in memory, and nowhere else.
 *
 * An answer that is an error becomes a `Problem` with the server's own words; no answer becomes `Away`.
 */

import { readArrow } from "./arrow.js";
import { readNpy, writeNpy } from "./arrays.js";

const PROBE_MS = 1500;

export const TYPES = {
  json: "application/json",
  npy: "application/x-npy",
  arrow: "application/vnd.apache.arrow.stream",
  csv: "text/csv",
  ndjson: "application/x-ndjson",
  png: "image/png",
};

/** An error that the server tells (RFC 9457). */
export class Problem extends Error {
  constructor(status, told, retryAfter) {
    super(told.detail ?? told.title ?? `the server answered ${status}`);
    this.status = status;
    this.title = told.title ?? "The server refused";
    this.code = told.code ?? "";
    this.reasons = told.errors ?? [];
    this.requestId = told.request_id ?? "";
    this.retryAfter = retryAfter;
  }
}

/** The server did not answer at all. */
export class Away extends Error {
  constructor() {
    super("The server does not answer.");
    this.title = "No answer";
  }
}

/** Whether an error only says that nobody waits for the answer any more. */
export const isAborted = (error) => error?.name === "AbortError";

/**
 * A call, before it is made.
 * @typedef {object} Call
 * @property {string} path such as "/models/wine/sample".
 * @property {string} [method] GET, unless something is sent.
 * @property {object} [query] arguments in the address.
 * @property {object} [json] arguments as an object.
 * @property {{data: TypedArray, shape: number[]}} [npy] the main argument as an array.
 * @property {BodyInit} [body] the main argument as it is, with its `type`.
 * @property {string} [type] media type of `body`.
 * @property {string} [accept] media type of the answer.
 */

export class Api {
  /** @param {URL} root of the server, with the prefix of a proxy. */
  constructor(root) {
    this.root = root;
    this.key = null;
    this.isAway = false;
    this.onaway = () => {};
    this.onback = () => {};
    this.onkey = () => {};
  }

  /** The whole address of a call. */
  address({ path, query }) {
    const url = new URL(path.replace(/^\//, ""), this.root);
    for (const [name, value] of Object.entries(query ?? {})) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
    }
    url.search = url.search.replaceAll("%2C", ",");
    return url;
  }

  /**
   * Make a call.
   * @param {Call} call
   * @param {AbortSignal} [signal] that ends it.
   * @returns {Promise<Response>} whose status is 200.
   */
  async call(call, signal) {
    const headers = { Accept: call.accept ?? TYPES.json };
    let { body } = call;
    if (call.json !== undefined) {
      headers["Content-Type"] = TYPES.json;
      body = JSON.stringify(call.json);
    } else if (call.npy !== undefined) {
      headers["Content-Type"] = TYPES.npy;
      body = writeNpy(call.npy.data, call.npy.shape);
    } else if (call.type !== undefined) headers["Content-Type"] = call.type;
    if (this.key !== null) headers.Authorization = `Bearer ${this.key}`;
    const method = call.method ?? (body === undefined ? "GET" : "POST");
    let answer;
    try {
      answer = await fetch(this.address(call), { method, headers, body, signal, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (isAborted(error)) throw error;
      this.#lost();
      throw new Away();
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    const problem = new Problem(answer.status, told, Number(answer.headers.get("Retry-After")) || 0);
    if (answer.status === 401) this.onkey(problem);
    throw problem;
  }

  /** Make a call, and read a JSON answer. */
  async json(call, signal) {
    return (await this.call(call, signal)).json();
  }

  /** Make a call, and read its answer as one array, with the headers that say more. */
  async npy(call, signal) {
    const answer = await this.call({ ...call, accept: TYPES.npy }, signal);
    return { ...readNpy(await answer.arrayBuffer()), headers: answer.headers };
  }

  /** Make a call, and read its answer as columns, by their names. */
  async columns(call, signal) {
    const answer = await this.call({ ...call, accept: TYPES.arrow }, signal);
    return readArrow(await answer.arrayBuffer());
  }

  #lost() {
    if (this.isAway) return;
    this.isAway = true;
    this.onaway();
    this.#probe();
  }

  #probe() {
    setTimeout(async () => {
      const answer = await fetch(this.address({ path: "/health/live" }), { cache: "no-store" }).catch(() => null);
      if (!answer?.ok) {
        this.#probe();
        return;
      }
      this.isAway = false;
      this.onback();
    }, PROBE_MS);
  }
}

/** One piece of work at a time: a new one ends the one before, so that a late answer never replaces a newer one. */
export class Latest {
  #controller = null;

  /**
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @returns {Promise<T|undefined>} undefined where it was ended.
   */
  async run(work) {
    this.stop();
    const controller = new AbortController();
    this.#controller = controller;
    try {
      const result = await work(controller.signal);
      return controller.signal.aborted ? undefined : result;
    } catch (error) {
      if (controller.signal.aborted || isAborted(error)) return undefined;
      throw error;
    }
  }

  /** End what runs. */
  stop() {
    this.#controller?.abort();
  }
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A text as one word of a shell's command: as it is where no character of it means anything there. */
export const shellWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : quoted(text));

/**
 * A call as a command of curl. An array is left to a file, whose name stands for it.
 * @param {Api} api
 * @param {Call & {file?: string, output?: string}} call
 */
export function asCurl(api, call) {
  const parts = [`curl -s ${quoted(api.address(call).href)}`];
  if (api.key !== null) parts.push("-H \"Authorization: Bearer $KEY\"");
  if (call.accept && call.accept !== TYPES.json) parts.push(`-H ${quoted(`Accept: ${call.accept}`)}`);
  if (call.npy !== undefined || call.type !== undefined) {
    parts.push(`-H ${quoted(`Content-Type: ${call.type ?? TYPES.npy}`)}`, `--data-binary ${shellWord(`@${call.file ?? "rows.npy"}`)}`);
  } else if (call.json !== undefined) parts.push(`-d ${quoted(JSON.stringify(call.json))}`);
  if (call.output) parts.push(`-o ${shellWord(call.output)}`);
  return parts.join(" \\\n  ");
}

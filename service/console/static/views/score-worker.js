/**
 * Score a file, beside the page: read it in pieces, send blocks of rows to the server, keep a log_prob for each row,
 * and rank them. The file itself is never held: lines are read again where they are shown or saved.
 */

import { Api, Away, shellWord } from "../lib/api.js";
import { RowReader, TableFault, readHead, splitCells } from "../lib/csv.js";
import { isParquet, parquetToCsv } from "../lib/parquet.js";

const PIECE = 1 << 20;
const HEAD = 1 << 18;
const LONGEST_LINE = 1 << 24;
const BLOCK_VALUES = 400_000;
const BLOCK_ROWS = 32_768;
const IN_FLIGHT = 2;
const BINS = 90;
const KEPT_REASONS = 100_000;
const SAVED_ROWS = 20_000;
const SAVED_BYTES = 1 << 24;
const REPORT_MS = 120;
const TOLD_FAULTS = 200;

/** Numbers of one type that grow. */
class Grown {
  constructor(Kind) { this.data = new Kind(1 << 14); this.length = 0; }

  push(value) {
    if (this.length === this.data.length) {
      const more = new this.data.constructor(this.data.length * 2);
      more.set(this.data);
      this.data = more;
    }
    this.data[this.length] = value;
    this.length += 1;
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class Scoring {
  constructor({ file, root, key, flow, context, ends }) {
    this.file = file;
    this.flow = flow;
    this.context = context;
    this.ends = ends;
    this.api = new Api(new URL(root));
    this.api.key = key;
    this.offsets = new Grown(Float64Array);
    this.logProb = new Grown(flow.isSingle ? Float32Array : Float64Array);
    this.quantile = new Grown(Float32Array);
    this.reasons = new Map();
    this.faults = [];
    this.bad = 0;
    this.scored = 0;
    this.counts = new Float64Array(BINS);
    this.read = 0;
    this.told = 0;
    this.blockRows = Math.max(1, Math.min(BLOCK_ROWS, Math.floor(BLOCK_VALUES / flow.width)));
    this.isAway = false;
  }

  async run() {
    let start = new Uint8Array(await this.file.slice(0, HEAD).arrayBuffer());
    if (isParquet(start)) {
      this.file = await parquetToCsv(this.file, (share) => postMessage({ type: "opening", share }));
      start = new Uint8Array(await this.file.slice(0, HEAD).arrayBuffer());
    }
    refuseOthers(start, this.file.name);
    const { names, isNamed, contextNames } = this.flow;
    this.head = readHead(start, { names, isNamed, context: contextNames });
    this.slots = this.head.hasContext ? [...names, ...contextNames] : names;
    postMessage({ type: "head", names: this.head.names, delimiter: this.head.delimiter, hasContext: this.head.hasContext });
    if (contextNames.length && !this.head.hasContext && !this.context) throw new TableFault(`The file has no columns of the context: ${contextNames.join(", ")}.`);
    const reader = new RowReader(this.head, { names: this.slots, isSingle: this.flow.isSingle });
    const sending = [];
    const full = [];
    let block = this.#block();
    const sink = {
      row: (values, at) => {
        block.values.set(values, block.n * values.length);
        block.rows[block.n] = this.offsets.length;
        block.n += 1;
        this.#row(base + at);
        if (block.n === this.blockRows) {
          full.push(block);
          block = this.#block();
        }
      },
      bad: (fault, at, line) => {
        this.#mark(this.offsets.length, { ...fault, line });
        this.#row(base + at);
      },
    };
    let base = this.head.start;
    let rest = new Uint8Array(0);
    let from = this.head.start;
    while (from < this.file.size || rest.length) {
      const piece = new Uint8Array(await this.file.slice(from, from + PIECE).arrayBuffer());
      from += piece.length;
      const isLast = from >= this.file.size;
      const bytes = rest.length ? joined(rest, piece) : piece;
      const used = reader.read(bytes, isLast, sink);
      base += used;
      rest = bytes.slice(used);
      this.read = from;
      for (const each of full.splice(0)) {
        sending.push(this.#send(each));
        if (sending.length >= IN_FLIGHT) await sending.shift();
        if (this.failure) throw this.failure;
      }
      if (isLast && !rest.length) break;
      if (rest.length > LONGEST_LINE) throw new TableFault(`Line ${reader.line} is longer than 16 MB: is a quote open?`);
      this.#report();
      await pause(0);
    }
    if (block.n) sending.push(this.#send(block));
    await Promise.all(sending);
    if (this.failure) throw this.failure;
    this.#report(true);
    this.#rank();
    const { sorted } = this;
    const mean = sorted.reduce((sum, value) => sum + value, 0) / Math.max(1, sorted.length);
    postMessage({ type: "done", rows: this.offsets.length, scored: this.scored, bad: this.bad, sorted, mean, faults: this.faults }, [sorted.buffer]);
  }

  #block() {
    const Kind = this.flow.isSingle ? Float32Array : Float64Array;
    return { n: 0, rows: new Uint32Array(this.blockRows), values: new Kind(this.blockRows * this.slots.length) };
  }

  #row(at) {
    this.offsets.push(at);
    this.logProb.push(NaN);
    this.quantile.push(NaN);
  }

  #mark(row, fault) {
    this.bad += 1;
    if (this.reasons.size < KEPT_REASONS) this.reasons.set(row, `${fault.column !== undefined ? `${fault.column}: ` : ""}${fault.reason}`);
    if (this.faults.length < TOLD_FAULTS) this.faults.push({ row, ...fault });
  }

  /** Send rows, and keep what comes back. A failure is kept until the reading of the file comes to it. */
  async #send({ n, rows, values }) {
    try {
      await this.#ask(rows.subarray(0, n), values.subarray(0, n * this.slots.length));
      this.#report();
    } catch (error) {
      this.failure ??= error;
    }
  }

  async #ask(rows, values) {
    const n = rows.length;
    if (!n) return;
    for (;;) {
      try {
        const answer = await this.api.columns(this.#call(values, n));
        this.#away(false);
        this.#keep(rows, answer);
        return;
      } catch (error) {
        if (error instanceof Away) {
          this.#away(true);
          await pause(1500);
        } else if (error.status === 429 || error.status === 503 || error.status === 504) {
          await pause(1000 * Math.max(0.5, error.retryAfter));
        } else if (n > 1 && (error.status === 413 || error.code === "over_work_budget")) {
          const half = n >> 1;
          const wide = this.slots.length;
          await this.#ask(rows.subarray(0, half), values.subarray(0, half * wide));
          await this.#ask(rows.subarray(half), values.subarray(half * wide));
          return;
        } else {
          const refused = error.status === 422 ? (error.reasons ?? []).filter((reason) => Number.isInteger(reason.row)) : [];
          if (!refused.length) throw error;
          await this.#askOthers(rows, values, refused);
          return;
        }
      }
    }
  }

  /** Rows that the server refused are named; the others are sent again. */
  async #askOthers(rows, values, refused) {
    const wide = this.slots.length;
    const out = new Map(refused.map((reason) => [reason.row, reason]));
    out.forEach(({ column, reason }, k) => this.#mark(rows[k], { column: Number.isInteger(column) ? this.slots[column] : column, reason }));
    const kept = Array.from(rows.keys()).filter((k) => !out.has(k));
    const left = new values.constructor(kept.length * wide);
    kept.forEach((k, place) => left.set(values.subarray(k * wide, (k + 1) * wide), place * wide));
    await this.#ask(Uint32Array.from(kept, (k) => rows[k]), left);
  }

  #call(values, n) {
    const { flow } = this;
    const query = { return: flow.isCalibrated ? "quantile" : null };
    if (!this.head.hasContext) return { path: flow.path, query: { ...query, context: this.context?.join(",") }, npy: { data: values, shape: [n, ...flow.shape] } };
    const wide = this.slots.length;
    const x = Array.from({ length: n }, (_, k) => Array.from(values.subarray(k * wide, k * wide + flow.width)));
    const context = Array.from({ length: n }, (_, k) => Array.from(values.subarray(k * wide + flow.width, (k + 1) * wide)));
    return { path: flow.path, json: { x, context, ...(flow.isCalibrated ? { return: ["quantile"] } : {}) } };
  }

  #keep(rows, answer) {
    const logProb = answer.get("log_prob");
    const quantile = answer.get("quantile");
    const [low, high] = this.ends;
    for (let k = 0; k < rows.length; k += 1) {
      this.logProb.data[rows[k]] = logProb[k];
      if (quantile) this.quantile.data[rows[k]] = quantile[k];
      const bin = Math.floor(((logProb[k] - low) / (high - low)) * BINS);
      this.counts[Math.min(BINS - 1, Math.max(0, bin))] += 1;
    }
    this.scored += rows.length;
  }

  #away(isAway) {
    if (this.isAway === isAway) return;
    this.isAway = isAway;
    this.#report(true);
  }

  #report(must = false) {
    const now = performance.now();
    if (!must && now - this.told < REPORT_MS) return;
    this.told = now;
    postMessage({ type: "progress", read: this.read, size: this.file.size, rows: this.offsets.length, scored: this.scored, bad: this.bad, counts: this.counts.slice(), faults: this.faults.length, isAway: this.isAway });
  }

  /** Order the rows by log_prob, the least first: floats whose bits are turned so that they sort as whole numbers, with the row below them. */
  #rank() {
    const keys = new BigUint64Array(this.scored);
    const words = new Uint32Array(keys.buffer);
    const bits = new DataView(new ArrayBuffer(4));
    let n = 0;
    for (let row = 0; row < this.offsets.length; row += 1) {
      const value = this.logProb.data[row];
      if (Number.isNaN(value)) continue;
      bits.setFloat32(0, value);
      const raw = bits.getUint32(0);
      words[2 * n] = row;
      words[2 * n + 1] = raw & 0x80000000 ? ~raw : raw | 0x80000000;
      n += 1;
    }
    keys.sort();
    this.order = new Uint32Array(n);
    this.sorted = new Float32Array(n);
    for (let k = 0; k < n; k += 1) {
      this.order[k] = words[2 * k];
      this.sorted[k] = this.logProb.data[words[2 * k]];
    }
  }

  /** The rows at some places of the ranking. */
  async page({ from, count, fromTop }) {
    const n = this.order.length;
    const places = Array.from({ length: Math.max(0, Math.min(count, n - from)) }, (_, k) => (fromTop ? n - 1 - from - k : from + k));
    const rows = await Promise.all(places.map(async (rank) => {
      const row = this.order[rank];
      const cells = splitCells(await this.#line(row), this.head.delimiter);
      const values = this.slots.map((_, slot) => cells[this.head.slots.indexOf(slot)]);
      return { rank, row, logProb: this.logProb.data[row], quantile: this.quantile.data[row], values };
    }));
    postMessage({ type: "page", from, fromTop, rows });
  }

  async #line(row) {
    const end = row + 1 < this.offsets.length ? this.offsets.data[row + 1] : this.file.size;
    return (await this.file.slice(this.offsets.data[row], Math.min(end, this.offsets.data[row] + LONGEST_LINE)).text()).trimEnd();
  }

  /** The file with what was found of each row behind it, in the order of the file. */
  async save({ threshold }) {
    const { delimiter, names } = this.head;
    const known = names ?? this.slots;
    const added = ["log_prob", "quantile", "rank", "anomaly", "reason"].map((name) => (known.includes(name) ? `answer_${name}` : name));
    const ranks = new Uint32Array(this.offsets.length);
    this.order.forEach((row, rank) => { ranks[row] = rank + 1; });
    const quoted = (text) => (text.includes(delimiter) || /["\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const encoder = new TextEncoder();
    const pieces = [encoder.encode(`${[...(names ?? this.#madeUp()), ...added].map(quoted).join(delimiter)}\n`)];
    const number = (value) => (Number.isNaN(value) ? "" : value === -Infinity ? "-inf" : String(Number(value.toPrecision(9))));
    const n = this.offsets.length;
    for (let first = 0, last = 0; first < n; first = last) {
      const start = this.offsets.data[first];
      last = Math.min(n, first + 1);
      while (last < n && last - first < SAVED_ROWS && this.offsets.data[last] - start < SAVED_BYTES) last += 1;
      const bytes = new Uint8Array(await this.file.slice(start, last < n ? this.offsets.data[last] : this.file.size).arrayBuffer());
      const piece = new Uint8Array(bytes.length + (last - first) * 640);
      let at = 0;
      for (let row = first; row < last; row += 1) {
        let end = (row + 1 < n ? this.offsets.data[row + 1] : this.file.size) - start;
        const begin = this.offsets.data[row] - start;
        while (end > begin && (bytes[end - 1] === 10 || bytes[end - 1] === 13)) end -= 1;
        piece.set(bytes.subarray(begin, end), at);
        at += end - begin;
        const value = this.logProb.data[row];
        const isBad = Number.isNaN(value);
        const behind = [number(value), number(this.quantile.data[row]), isBad ? "" : ranks[row], isBad || threshold === null ? "" : value < threshold, isBad ? quoted((this.reasons.get(row) ?? "not a row of numbers").slice(0, 200)) : ""];
        at += encoder.encodeInto(`${delimiter}${behind.join(delimiter)}\n`, piece.subarray(at)).written;
      }
      pieces.push(new Blob([piece.subarray(0, at)]));  // the browser may put it on its disk
      postMessage({ type: "saving", share: last / n });
    }
    postMessage({ type: "file", blob: new Blob(pieces, { type: "text/csv" }), name: this.file.name.replace(/\.[^.]*$/, "") });
  }

  #madeUp() { return Array.from(this.head.slots, (slot, k) => this.slots[slot] ?? `cell${k}`); }
}

function joined(first, second) {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** Other files than CSV say what they are; this says what to do with them. */
function refuseOthers(start, name) {
  const magic = String.fromCharCode(...start.subarray(0, 6));
  const csv = name.replace(/\.[^.]*$/, "");
  const python = (program) => `python -c "${program}" ${shellWord(name)} ${shellWord(`${csv}.csv`)}`;  // names are arguments: no part of the program
  const turn = (reader) => python(`import sys, pandas; pandas.${reader}(sys.argv[1]).to_csv(sys.argv[2], index=False)`);
  if (magic.startsWith("ARROW1")) throw Object.assign(new TableFault("This is Feather (Arrow), which is not read here. Turn it into CSV, and drop that."), { command: turn("read_feather") });
  if (magic.startsWith("PK")) throw Object.assign(new TableFault("This is a spreadsheet or another archive. Save the table as CSV, and drop that."), { command: turn("read_excel") });
  if (magic.startsWith("\u0093NUMPY")) throw Object.assign(new TableFault("This is an array of NumPy. Turn it into CSV, and drop that."), { command: python("import sys, numpy; numpy.savetxt(sys.argv[2], numpy.load(sys.argv[1]), delimiter=',')") });
  const isUtf16 = (start[0] === 0xff && start[1] === 0xfe) || (start[0] === 0xfe && start[1] === 0xff);
  if (!isUtf16 && start.subarray(0, 4096).includes(0)) throw new TableFault("This is no text. Drop a table as CSV.");
}

let scoring = null;

const tell = (error) => postMessage({
  type: "failed", isTable: error instanceof TableFault, command: error.command ?? "",
  problem: { message: error.message, title: error.title ?? (error instanceof TableFault ? "The file cannot be read" : "Something went wrong"), status: error.status, code: error.code, reasons: error.reasons, requestId: error.requestId },
});

addEventListener("message", async ({ data }) => {
  try {
    if (data.type === "start") {
      scoring = new Scoring(data);
      await scoring.run();
    } else if (data.type === "page") await scoring.page(data);
    else if (data.type === "save") await scoring.save(data);
  } catch (error) {
    tell(error);
  }
});

/**
 * Parquet, read as CSV: the columns of numbers of a flat table, row group by row group. Files as pandas, Arrow and
 * DuckDB write them by default are read: pages of version 1 and 2, plain or with a dictionary, as they are or
 * compressed by Snappy or gzip (and zstd, where the browser has it).
 *
 * parquet.apache.org/docs/file-format/
 */

import { shortest } from "./arrays.js";
import { TableFault } from "./csv.js";

const KINDS = { 1: { size: 4, read: (view, at) => view.getInt32(at, true) }, 2: { size: 8, read: long }, 4: { size: 4, read: (view, at) => view.getFloat32(at, true) }, 5: { size: 8, read: (view, at) => view.getFloat64(at, true) } };
const FLOAT = 4;
const CODECS = { 0: null, 1: "snappy", 2: "gzip", 6: "zstd" };
const NAMES = { 3: "LZO", 4: "Brotli", 5: "LZ4", 7: "LZ4" };
const DICTIONARY_PAGE = 2;
const DATA_PAGE = 0;
const DATA_PAGE_2 = 3;
const PLAIN = 0;
const STREAM_SPLIT = 9;
const DICTIONARIES = [2, 8];
const LINES = 20_000;

function long(view, at) { return view.getInt32(at + 4, true) * 4294967296 + view.getUint32(at, true); }

/** Thrift's compact protocol: structs as objects whose keys are the numbers of the fields. */
class Thrift {
  constructor(bytes) { this.bytes = bytes; this.at = 0; }

  varint() {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[this.at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      if (byte === undefined || scale > 2 ** 63) throw new TableFault("The Parquet file is broken.");
    }
  }

  signed() { const value = this.varint(); return value % 2 ? -(value + 1) / 2 : value / 2; }

  value(type) {
    if (type === 1 || type === 2) return type === 1;
    if (type === 3) return this.bytes[this.at++];
    if (type <= 6) return this.signed();
    if (type === 7) { this.at += 8; return new DataView(this.bytes.buffer, this.bytes.byteOffset + this.at - 8, 8).getFloat64(0, true); }
    if (type === 8) { const n = this.varint(); this.at += n; return this.bytes.subarray(this.at - n, this.at); }
    if (type === 9 || type === 10) return this.list();
    if (type === 12) return this.struct();
    throw new TableFault("The Parquet file is broken.");
  }

  list() {
    const head = this.bytes[this.at++];
    const n = head >> 4 === 15 ? this.varint() : head >> 4;
    return Array.from({ length: n }, () => ((head & 15) <= 2 ? this.bytes[this.at++] === 1 : this.value(head & 15)));
  }

  struct() {
    const found = {};
    let field = 0;
    for (;;) {
      const head = this.bytes[this.at++];
      if (!head) return found;
      field = head >> 4 ? field + (head >> 4) : this.signed();
      found[field] = this.value(head & 15);
    }
  }
}

const text = (bytes) => new TextDecoder().decode(bytes);
const bytesOf = async (file, from, to) => new Uint8Array(await file.slice(from, to).arrayBuffer());

/** Whether a file begins as Parquet does. */
export const isParquet = (start) => text(start.subarray(0, 4)) === "PAR1";

/**
 * A Parquet file as CSV. What lies in the memory at once is one row group; the text is left to the browser.
 * @param {File} file
 * @param {(share: number) => void} tell how much is read.
 * @returns {Promise<File>} the CSV, without the columns that are no numbers.
 */
export async function parquetToCsv(file, tell) {
  try {
    return await toCsv(file, tell);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw new TableFault("The Parquet file is broken.");  // a place or a count in it leads nowhere
    throw error;
  }
}

async function toCsv(file, tell) {
  const tail = await bytesOf(file, file.size - 8, file.size);
  if (file.size < 12 || text(tail.subarray(4)) !== "PAR1") throw new TableFault("The Parquet file is broken: it does not end as one.");
  const length = new DataView(tail.buffer).getUint32(0, true);
  const meta = new Thrift(await bytesOf(file, file.size - 8 - length, file.size - 8)).struct();
  const [root, ...fields] = meta[2];
  const flat = fields.map((field, k) => ({ name: text(field[4]), type: field[1], isOptional: field[3] === 1, isFlat: !field[5] && field[3] !== 2, k }));
  if (root[5] !== fields.length) throw new TableFault("The Parquet file has columns within columns, which are not read here.");
  const columns = flat.filter((each) => each.isFlat && each.type in KINDS && !/^__index_level_\d+__$/.test(each.name));
  if (!columns.length) throw new TableFault("The Parquet file has no columns of numbers.");
  const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
  const parts = [`${columns.map(({ name }) => quoted(name)).join(",")}\n`];
  let done = 0;
  for (const group of meta[4]) {
    const rows = group[3];
    const values = [];
    for (const column of columns) values.push(await readColumn(file, group[1][column.k][3], column, rows));
    for (let first = 0; first < rows; first += LINES) {
      const lines = [];
      for (let row = first; row < Math.min(rows, first + LINES); row += 1) lines.push(values.map((each, k) => written(each[row], columns[k].type)).join(","));
      parts.push(new Blob([`${lines.join("\n")}\n`]));
    }
    done += rows;
    tell(done / meta[3]);
  }
  return new File(parts, file.name, { type: "text/csv" });
}

const written = (value, type) => (value === null || value === undefined ? "" : Number.isFinite(value) && type === FLOAT ? shortest(value) : value);

/** The values of one column of a row group; null where there is none. */
async function readColumn(file, meta, { name, isOptional }, rows) {
  const kind = KINDS[meta[1]];
  const codec = CODECS[meta[4]];
  if (codec === undefined) throw new TableFault(`The column ${name} is compressed by ${NAMES[meta[4]] ?? "an unknown codec"}, which is not read here. Write the file with snappy.`);
  const start = Math.min(meta[9], meta[11] || meta[9]);
  const bytes = await bytesOf(file, start, start + meta[7]);
  const found = new Array(rows);
  let dictionary = null;
  let row = 0;
  for (let at = 0; row < rows && at < bytes.length;) {
    const thrift = new Thrift(bytes.subarray(at));
    const head = thrift.struct();
    const body = bytes.subarray(at + thrift.at, at + thrift.at + head[3]);
    at += thrift.at + head[3];
    if (head[1] === DICTIONARY_PAGE) dictionary = plain(await inflate(body, codec, head[2], name), kind, head[7][1]);
    else if (head[1] === DATA_PAGE || head[1] === DATA_PAGE_2) row = fill(found, row, await openPage(head, body, codec, isOptional, name), kind, dictionary, name);
  }
  if (row !== rows) throw new TableFault(`The column ${name} of the Parquet file breaks off.`);
  return found;
}

/** The levels and the values of a data page. */
async function openPage(head, body, codec, isOptional, name) {
  if (head[1] === DATA_PAGE_2) {
    const { 1: n, 4: encoding, 5: definitions, 6: repetitions, 7: isCompressed = true } = head[8];
    const levels = body.subarray(repetitions, repetitions + definitions);
    const rest = body.subarray(repetitions + definitions);
    return { n, encoding, levels: isOptional ? hybrid(levels, 1, n) : null, values: isCompressed ? await inflate(rest, codec, head[2] - definitions - repetitions, name) : rest };
  }
  const { 1: n, 2: encoding } = head[5];
  const page = await inflate(body, codec, head[2], name);
  if (!isOptional) return { n, encoding, levels: null, values: page };
  const length = new DataView(page.buffer, page.byteOffset).getUint32(0, true);
  return { n, encoding, levels: hybrid(page.subarray(4, 4 + length), 1, n), values: page.subarray(4 + length) };
}

function fill(found, row, { n, encoding, levels, values }, kind, dictionary, name) {
  const there = levels ? levels.reduce((sum, level) => sum + level, 0) : n;
  let read;
  if (encoding === PLAIN) read = plain(values, kind, there);
  else if (encoding === STREAM_SPLIT) read = plain(joinedStreams(values, kind.size, there), kind, there);
  else if (DICTIONARIES.includes(encoding) && dictionary) {
    const places = there ? hybrid(values.subarray(1), values[0], there) : [];
    read = Array.from(places, (place) => dictionary[place]);
  } else throw new TableFault(`The column ${name} of the Parquet file has an encoding (${encoding}) that is not read here.`);
  for (let k = 0, next = 0; k < n; k += 1) found[row + k] = levels && !levels[k] ? null : read[next++];
  return row + n;
}

function plain(bytes, { size, read }, n) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < n * size) throw new TableFault("The Parquet file is broken: a page is too short.");
  const found = new Float64Array(n);
  for (let k = 0; k < n; k += 1) found[k] = read(view, k * size);
  return found;
}

/** Byte k of every value lies together: put the bytes of each value beside one another. */
function joinedStreams(bytes, size, n) {
  const found = new Uint8Array(n * size);
  for (let byte = 0; byte < size; byte += 1) for (let k = 0; k < n; k += 1) found[k * size + byte] = bytes[byte * n + k];
  return found;
}

/** Runs of one value, and groups of eight values of so many bits each. */
function hybrid(bytes, width, n) {
  const found = new Uint32Array(n);
  const thrift = new Thrift(bytes);
  const step = Math.ceil(width / 8);
  for (let k = 0; k < n;) {
    const head = thrift.varint();
    if (head % 2 === 0) {
      let value = 0;
      for (let byte = 0; byte < step; byte += 1) value += bytes[thrift.at + byte] * 256 ** byte;
      thrift.at += step;
      found.fill(value, k, k + head / 2);
      k += head / 2;
    } else {
      const many = ((head - 1) / 2) * 8;
      for (let j = 0; j < many && k + j < n; j += 1) {
        let value = 0;
        for (let bit = 0; bit < width; bit += 1) {
          const place = j * width + bit;
          if (bytes[thrift.at + (place >> 3)] & (1 << (place & 7))) value += 2 ** bit;
        }
        found[k + j] = value;
      }
      thrift.at += (many / 8) * width;
      k += many;
    }
  }
  return found;
}

async function inflate(bytes, codec, size, name) {
  if (codec === null) return bytes;
  if (codec === "snappy") return snappy(bytes, size);
  let stream;
  try {
    stream = new DecompressionStream(codec);
  } catch {
    throw new TableFault(`The column ${name} is compressed by ${codec}, which this browser does not read. Write the file with snappy.`);
  }
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** github.com/google/snappy/blob/main/format_description.txt */
function snappy(bytes, size) {
  const found = new Uint8Array(size);
  const thrift = new Thrift(bytes);
  if (thrift.varint() !== size) throw new TableFault("The Parquet file is broken: a page has another length.");
  let { at } = thrift;
  let to = 0;
  const little = (count) => { let value = 0; for (let k = 0; k < count; k += 1) value += bytes[at++] * 256 ** k; return value; };
  while (at < bytes.length) {
    const tag = bytes[at++];
    const kind = tag & 3;
    if (kind === 0) {
      const length = tag >> 2 < 60 ? (tag >> 2) + 1 : little((tag >> 2) - 59) + 1;
      found.set(bytes.subarray(at, at + length), to);
      at += length;
      to += length;
      continue;
    }
    const length = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1;
    const back = kind === 1 ? ((tag >> 5) << 8) + bytes[at++] : little(kind === 2 ? 2 : 4);
    if (back > to || !back || to + length > size) throw new TableFault("The Parquet file is broken: a page refers to what is not there.");
    for (let k = 0; k < length; k += 1, to += 1) found[to] = found[to - back];
  }
  return found;
}

/**
 * Arrow's IPC stream, read: the columns of floats and booleans that the server writes, each as one typed array.
 *
 * https://arrow.apache.org/docs/format/Columnar.html; the metadata is a table of FlatBuffers.
 */

const SCHEMA = 1;
const RECORDS = 3;
const FLOAT = 3;
const BOOLEAN = 6;

/** A table of FlatBuffers, by the places of its fields. */
class Table {
  constructor(view, at) {
    this.view = view;
    this.at = at;
    this.fields = at - view.getInt32(at, true);
  }

  static root(view) { return new Table(view, view.getUint32(0, true)); }

  place(slot) {
    const offset = 4 + 2 * slot;
    return offset < this.view.getUint16(this.fields, true) ? this.view.getUint16(this.fields + offset, true) : 0;
  }

  byte(slot) { const place = this.place(slot); return place ? this.view.getUint8(this.at + place) : 0; }
  short(slot) { const place = this.place(slot); return place ? this.view.getInt16(this.at + place, true) : 0; }
  long(slot) { const place = this.place(slot); return place ? Number(this.view.getBigInt64(this.at + place, true)) : 0; }
  #follow(slot) { const at = this.at + this.place(slot); return at + this.view.getUint32(at, true); }
  table(slot) { return new Table(this.view, this.#follow(slot)); }

  text(slot) {
    const at = this.#follow(slot);
    return new TextDecoder().decode(new Uint8Array(this.view.buffer, this.view.byteOffset + at + 4, this.view.getUint32(at, true)));
  }

  /** The start of a vector's items, and how many there are. */
  vector(slot) { const at = this.#follow(slot); return [at + 4, this.view.getUint32(at, true)]; }

  tables(slot) {
    const [start, n] = this.vector(slot);
    return Array.from({ length: n }, (_, k) => new Table(this.view, start + 4 * k + this.view.getUint32(start + 4 * k, true)));
  }

  /** Pairs of 64-bit integers. */
  pairs(slot) {
    const [start, n] = this.vector(slot);
    return Array.from({ length: n }, (_, k) => [0, 8].map((more) => Number(this.view.getBigInt64(start + 16 * k + more, true))));
  }
}

/**
 * Read a stream.
 * @param {ArrayBuffer} buffer all of it.
 * @returns {Map<string, Float32Array|Float64Array|Uint8Array>} the columns, in order; booleans as 0 and 1.
 */
export function readArrow(buffer) {
  const view = new DataView(buffer);
  let fields = [];
  const pieces = [];
  let ended = false;
  for (let at = 0; !ended && at + 8 <= buffer.byteLength;) {
    const length = view.getUint32(at + 4, true);
    if (view.getUint32(at, true) !== 0xffffffff) throw new Error("this is no stream of Arrow");
    at += 8;
    ended = length === 0;
    if (ended) break;
    const message = Table.root(new DataView(buffer, at, length));
    at += length;
    const kind = message.byte(1);
    if (kind === SCHEMA) fields = message.table(2).tables(1).map(readField);
    else if (kind === RECORDS) pieces.push(readBatch(message.table(2), fields, buffer, at));
    at += message.long(3);
  }
  if (!ended) throw new Error("the answer broke off");
  return new Map(fields.map(({ name, Kind }, k) => [name, pieces.length === 1 ? pieces[0][k] : joined(pieces.map((piece) => piece[k]), Kind)]));
}

function readField(field) {
  const type = field.byte(2);
  if (type === BOOLEAN) return { name: field.text(0), Kind: Uint8Array };
  if (type !== FLOAT) throw new Error(`columns of type ${type} are not read here`);
  return { name: field.text(0), Kind: field.table(3).short(0) === 2 ? Float64Array : Float32Array };
}

function readBatch(batch, fields, buffer, body) {
  const rows = batch.long(0);
  const buffers = batch.pairs(2);
  return fields.map(({ Kind }, k) => {
    const [at] = buffers[2 * k + 1];
    if (Kind !== Uint8Array) return new Kind(buffer.slice(body + at, body + at + rows * Kind.BYTES_PER_ELEMENT));
    const bits = new Uint8Array(buffer, body + at, Math.ceil(rows / 8));
    return Uint8Array.from({ length: rows }, (_, row) => (bits[row >> 3] >> (row & 7)) & 1);
  });
}

function joined(parts, Kind) {
  const all = new Kind(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Arrays as they go over the wire: the format of NumPy's files, and counts and places in flat arrays. */

const TYPES = {
  "<f4": Float32Array, "<f8": Float64Array, "<i4": Int32Array, "<i8": BigInt64Array,
  "|u1": Uint8Array, "|i1": Int8Array, "|b1": Uint8Array, "<i2": Int16Array, "<u4": Uint32Array,
};

/**
 * Read an array as np.save writes it.
 * @param {ArrayBuffer} buffer of the file.
 * @returns {{shape: number[], data: TypedArray}} in C order.
 */
export function readNpy(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x93 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("this is no file of NumPy");
  const view = new DataView(buffer);
  const long = bytes[6] > 1;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = long ? 12 : 10;
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const type = /'descr': *'([^']+)'/.exec(header)?.[1];
  const shape = (/'shape': *\(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((part) => part.trim()).map(Number);
  if (/'fortran_order': *True/.test(header) || !(type in TYPES)) throw new Error(`arrays of type ${type} are not read here`);
  const kind = TYPES[type];
  const size = shape.reduce((a, b) => a * b, 1);
  const from = start + length;
  const data = from % kind.BYTES_PER_ELEMENT === 0 ? new kind(buffer, from, size) : new kind(buffer.slice(from), 0, size);
  return { shape, data };
}

/**
 * Write an array of floats as np.save does.
 * @param {Float32Array|Float64Array} data in C order.
 * @param {number[]} shape
 * @returns {ArrayBuffer}
 */
export function writeNpy(data, shape) {
  const type = data instanceof Float64Array ? "<f8" : "<f4";
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  let header = `{'descr': '${type}', 'fortran_order': False, 'shape': (${sizes}), }`;
  header += " ".repeat(63 - ((10 + header.length) % 64)) + "\n";
  const made = new Uint8Array(10 + header.length + data.byteLength);
  made.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  new DataView(made.buffer).setUint16(8, header.length, true);
  for (let k = 0; k < header.length; k += 1) made[10 + k] = header.charCodeAt(k);
  made.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + header.length);
  return made.buffer;
}

/** Column k of a flat array of rows. */
export function column(data, width, k) {
  const found = new Float64Array(data.length / width);
  for (let row = 0; row < found.length; row += 1) found[row] = data[row * width + k];
  return found;
}

/** The least and the greatest of the finite numbers of an array; [0, 1] where there is none. */
export function extent(data) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of data) {
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

/** The finite numbers of an array, sorted. */
export const sorted = (data) => Float64Array.from(data).filter(Number.isFinite).sort();

/** How many numbers fall into each of so many bins between two ends; those outside are left out. */
export function bins(data, low, high, n) {
  const counts = new Float64Array(n);
  for (const value of data) {
    const k = Math.floor(((value - low) / (high - low)) * n);
    if (k >= 0 && k < n) counts[k] += 1;
    else if (value === high) counts[n - 1] += 1;
  }
  return counts;
}

/** Flat values as nested arrays of a shape. */
export function shaped(values, shape) {
  if (shape.length === 1) return Array.from(values, values instanceof Float32Array ? shortest : Number);
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, k) => shaped(values.subarray(k * size, (k + 1) * size), shape.slice(1)));
}

/** A number of single precision as the number with the fewest digits that is the same in single precision. */
export function shortest(value) {
  for (let digits = 6; digits < 9; digits += 1) {
    const found = Number(value.toPrecision(digits));
    if (Math.fround(found) === value) return found;
  }
  return Number(value.toPrecision(9));
}

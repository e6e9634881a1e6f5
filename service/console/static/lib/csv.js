/**
 * CSV in pieces: the rows of numbers of a file that is larger than memory, by the rule of the server's own tables
 * (service/tabular.py): the delimiter, the heading, an index, names, and what is a number.
 */

const COMMA = 44;
const SPACE = 32;
const TAB = 9;
const LF = 10;
const CR = 13;
const QUOTE = 34;
const DELIMITERS = [",", ";", "\t"];
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const INFINITE = /^[+-]?(nan|inf|infinity)$/i;
const MISSING = /^(na|n\/a|null|none|nil|missing|-|\?)$/i;
const POWERS = Array.from({ length: 23 }, (_, k) => Number(`1e${k}`));
const EXACT = 2 ** 53;
const FLOAT32_END = 3.4028235677973366e38;

/** Why a whole file cannot be read. */
export class TableFault extends Error {}

/** The cells of one line, without the spaces around them. */
export function splitCells(text, delimiter) {
  const cells = [];
  let cell = "";
  let isQuoted = false;
  for (let k = 0; k < text.length; k += 1) {
    const letter = text[k];
    if (isQuoted) {
      if (letter !== '"') cell += letter;
      else if (text[k + 1] === '"') { cell += '"'; k += 1; }
      else isQuoted = false;
    } else if (letter === '"' && cell === "") isQuoted = true;
    else if (letter === delimiter) { cells.push(cell.trim()); cell = ""; }
    else cell += letter;
  }
  cells.push(cell.trim());
  return cells;
}

/** Whether a text is a number, finite or not. */
export const isNumber = (text) => NUMBER.test(text) || INFINITE.test(text);

/** The lines at the start of a file: their bytes' places and texts. Line ends within quotes are none. */
function firstLines(bytes, count) {
  const lines = [];
  const decoder = new TextDecoder();
  let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  while (at < bytes.length && lines.length < count) {
    const start = at;
    let isQuoted = false;
    for (; at < bytes.length && (isQuoted || (bytes[at] !== LF && bytes[at] !== CR)); at += 1) if (bytes[at] === QUOTE) isQuoted = !isQuoted;
    const text = decoder.decode(bytes.subarray(start, at));
    if (bytes[at] === CR && bytes[at + 1] === LF) at += 1;
    at += 1;
    lines.push({ start, end: at, text });
  }
  return lines;
}

const isBlank = (text) => !/[^\s,;"]/.test(text);

/**
 * Read the start of a file.
 * @param {Uint8Array} bytes of its start: all of its comments, the heading and two rows lie within.
 * @param {{names: string[], isNamed: boolean, context: string[]}} wanted the flow's columns; `isNamed` is false where the
 *   names are made up; `context`: the names of the context's columns.
 * @returns {{delimiter: string, names: string[]|null, start: number, line: number, slots: Int32Array, hasContext: boolean}}
 *   `slots` has for each cell its place in a row of the flow's columns and then the context's, or -1.
 */
export function readHead(bytes, { names: wanted, isNamed, context }) {
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) throw new TableFault("The text is UTF-16. Save the file as CSV in UTF-8.");
  const lines = firstLines(bytes, 200);
  let first = lines.findIndex((line) => !isBlank(line.text) && !line.text.trimStart().startsWith("#"));
  if (first < 0) throw new TableFault("The file has no rows.");
  const second = lines.findIndex((line, k) => k > first && !isBlank(line.text));
  const delimiter = chooseDelimiter(lines[first].text, second < 0 ? null : lines[second].text);
  const cells = splitCells(lines[first].text, delimiter);
  let names = null;
  let start = lines[first].start;
  let line = first + 1;
  if (!cells.some(isNumber)) {
    names = cells;
    start = lines[first].end;
    line = first + 2;
  } else {
    const comment = lines.slice(0, first).filter((each) => !isBlank(each.text)).at(-1)?.text.replace(/^[\s#]+/, "");
    const told = comment ? splitCells(comment, delimiter) : [];
    if (told.length === cells.length && !told.some(isNumber)) names = told;
  }
  const found = place(names, cells.length, wanted, isNamed, context);
  return { delimiter, names, start, line, ...found };
}

function chooseDelimiter(first, second) {
  const cut = (text, delimiter) => splitCells(text, delimiter).length;
  let best = ",";
  let most = 1;
  for (const delimiter of DELIMITERS) {
    const cells = cut(first, delimiter);
    if (cells > most && (second === null || cut(second, delimiter) === cells)) { best = delimiter; most = cells; }
  }
  return best;
}

/** Where the flow's columns are among the cells of a line. */
function place(names, count, wanted, isNamed, context) {
  const slots = new Int32Array(count).fill(-1);
  if (names) {
    const known = names.filter((name) => wanted.includes(name));
    if (known.length || isNamed) {
      const missing = wanted.filter((name) => !names.includes(name));
      const several = wanted.find((name) => names.indexOf(name) !== names.lastIndexOf(name));
      if (missing.length) throw new TableFault(`The heading has no column ${listed(missing)}. It has ${listed(names)}; names are matched exactly.`);
      if (several) throw new TableFault(`The heading has the column ${several} more than once.`);
      wanted.forEach((name, k) => { slots[names.indexOf(name)] = k; });
      const told = context.every((name) => names.includes(name)) ? context : context.map((_, k) => `context${k}`);
      const hasContext = context.length > 0 && told.every((name) => names.includes(name));
      if (hasContext) told.forEach((name, k) => { slots[names.indexOf(name)] = wanted.length + k; });
      return { slots, hasContext };
    }
    const other = names.find((name) => wanted.some((each) => each.toLowerCase() === name.toLowerCase()));
    if (other) throw new TableFault(`The heading has the column ${other}, and the flow's columns are ${listed(wanted)}: names are matched exactly.`);
  }
  const isIndexed = names && (names[0] === "" || names[0] === "Unnamed: 0");
  const from = isIndexed ? 1 : 0;
  const left = count - from;
  if (left !== wanted.length && (!context.length || left !== wanted.length + context.length)) {
    throw new TableFault(`A line has ${left} ${left === 1 ? "cell" : "cells"}, and a row of the flow has ${wanted.length} ${wanted.length === 1 ? "column" : "columns"}: ${listed(wanted)}.`);
  }
  for (let k = 0; k < left; k += 1) slots[from + k] = k;
  return { slots, hasContext: left > wanted.length };
}

const listed = (names) => (names.length > 6 ? `${names.slice(0, 6).join(", ")} and ${names.length - 6} more` : names.join(", "));

/** The reader of a file's rows, piece by piece. */
export class RowReader {
  #slots;
  #delimiter;
  #single;
  #names;
  #values;
  #fault = null;

  /**
   * @param {{delimiter: string, slots: Int32Array, line: number}} head of `readHead`.
   * @param {{names: string[], isSingle: boolean}} given the names of the slots; whether numbers become float32.
   */
  constructor(head, { names, isSingle }) {
    this.#slots = head.slots;
    this.#delimiter = head.delimiter.charCodeAt(0);
    this.#single = isSingle;
    this.#names = names;
    this.#values = new Float64Array(names.length);
    this.line = head.line;
  }

  /**
   * Read the whole lines of a piece.
   * @param {Uint8Array} bytes
   * @param {boolean} isLast whether the file ends here.
   * @param {{row: (values: Float64Array, at: number) => void, bad: (fault: object, at: number, line: number) => void}} sink
   *   `at`: where the line begins in the piece.
   * @returns {number} how many bytes were read: the rest belongs to a line that goes on.
   */
  read(bytes, isLast, sink) {
    const delimiter = this.#delimiter;
    const n = bytes.length;
    let at = 0;
    while (at < n) {
      const start = at;
      let cell = 0;
      let breaks = 1;
      let isBare = true;
      this.#fault = null;
      for (;;) {
        const slot = cell < this.#slots.length ? this.#slots[cell] : -1;
        if (bytes[at] === QUOTE) {  // only where a cell begins with it

          const from = at + 1;
          for (at = from; at < n; at += 1) {
            if (bytes[at] === LF) breaks += 1;
            if (bytes[at] !== QUOTE) continue;
            if (bytes[at + 1] !== QUOTE) break;
            at += 1;
          }
          if (at >= n && isLast) this.#fault ??= { reason: "a quote that is not closed" };
          if (at > from) isBare = false;
          const end = at;
          at += 1;
          while (at < n && bytes[at] !== delimiter && bytes[at] !== LF && bytes[at] !== CR) at += 1;
          if (slot >= 0 && end < n) this.#quoted(bytes, from, end, at, slot);
        } else {
          while (at < n && (bytes[at] === SPACE || (bytes[at] === TAB && delimiter !== TAB))) at += 1;
          const from = at;
          if (slot >= 0) at = this.#number(bytes, at, n, slot);
          else while (at < n && bytes[at] !== delimiter && bytes[at] !== LF && bytes[at] !== CR) at += 1;
          if (at > from) isBare = false;
        }
        if (at < n && bytes[at] === delimiter) { at += 1; cell += 1; } else break;
      }
      if (at >= n && !isLast) return start;
      if (bytes[at] === CR) {
        if (at + 1 >= n && !isLast) return start;
        if (bytes[at + 1] === LF) at += 1;
      }
      at += 1;
      const line = this.line;
      this.line += breaks;
      if (isBare) continue;
      if (cell + 1 !== this.#slots.length) sink.bad({ reason: `the line has ${cell + 1} ${cell ? "cells" : "cell"}, and the first has ${this.#slots.length}` }, start, line);
      else if (this.#fault) sink.bad(this.#fault, start, line);
      else sink.row(this.#values, start);
    }
    return n;
  }

  /** Read a number at a place, and give where its cell ends. Up to 15 digits are exact by one multiplication. */
  #number(bytes, from, n, slot) {
    let at = from;
    const isNegative = bytes[at] === 45;
    if (isNegative || bytes[at] === 43) at += 1;
    let mantissa = 0;
    let digits = 0;
    let power = 0;
    for (; at < n && bytes[at] >= 48 && bytes[at] <= 57; at += 1) { mantissa = mantissa * 10 + bytes[at] - 48; digits += 1; }
    if (bytes[at] === 46) {
      at += 1;
      for (; at < n && bytes[at] >= 48 && bytes[at] <= 57; at += 1) { mantissa = mantissa * 10 + bytes[at] - 48; digits += 1; power -= 1; }
    }
    let isPlain = digits > 0;
    if (isPlain && (bytes[at] === 101 || bytes[at] === 69)) {
      at += 1;
      const sign = bytes[at] === 45 ? -1 : 1;
      if (bytes[at] === 45 || bytes[at] === 43) at += 1;
      const before = at;
      let exponent = 0;
      for (; at < n && bytes[at] >= 48 && bytes[at] <= 57; at += 1) exponent = exponent * 10 + bytes[at] - 48;
      isPlain = at > before;
      power += sign * exponent;
    }
    let end = at;
    while (end < n && (bytes[end] === SPACE || (bytes[end] === TAB && this.#delimiter !== TAB))) end += 1;
    const isEnd = end >= n || bytes[end] === this.#delimiter || bytes[end] === LF || bytes[end] === CR;
    if (isPlain && isEnd && mantissa < EXACT && power >= -22 && power <= 22) {
      const value = power < 0 ? mantissa / POWERS[-power] : mantissa * POWERS[power];
      this.#put(isNegative ? -value : value, slot, bytes, from, at);
      return end;
    }
    while (end < n && bytes[end] !== this.#delimiter && bytes[end] !== LF && bytes[end] !== CR) end += 1;
    this.#slow(bytes, from, end, slot);
    return end;
  }

  /** A number in quotes, which end its cell. */
  #quoted(bytes, from, end, last, slot) {
    if (end + 1 === last) this.#slow(bytes, from, end, slot);
    else this.#fault ??= { column: this.#names[slot], reason: `something stands behind the quotes: ${new TextDecoder().decode(bytes.subarray(from - 1, last))}` };
  }

  #slow(bytes, from, end, slot) {
    const text = new TextDecoder().decode(bytes.subarray(from, end)).trim();
    if (NUMBER.test(text)) this.#put(Number(text), slot, bytes, from, end);
    else this.#fault ??= { column: this.#names[slot], reason: why(text, this.#delimiter) };
  }

  #put(value, slot, bytes, from, end) {
    this.#values[slot] = value;
    if (this.#single ? Math.abs(value) >= FLOAT32_END : !Number.isFinite(value)) {
      const text = new TextDecoder().decode(bytes.subarray(from, end)).trim();
      this.#fault ??= { column: this.#names[slot], reason: `${text} is beyond the range of ${this.#single ? "float32" : "float64"}` };
    }
  }
}

function why(text, delimiter) {
  if (!text) return "the cell is empty";
  const told = `"${text.length > 40 ? `${text.slice(0, 40)}\u2026` : text}"`;
  if (INFINITE.test(text)) return `${text} is not finite`;
  if (MISSING.test(text)) return `${told} looks like a missing value`;
  if (/^[+-]?\d+,\d+$/.test(text) && delimiter !== COMMA) return `${told} has a decimal comma: write it with a point`;
  if (/^[+-]?\d{1,3}([ ,_']\d{3})+(\.\d+)?$/.test(text)) return `${told} has a separator of thousands`;
  return `${told} is not a number`;
}

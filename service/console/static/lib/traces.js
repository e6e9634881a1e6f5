/** Rows on their way through a chain: the event after each step, each step's log-det, and the density at each place. */

const WIDE = 64;

/**
 * What `/trace` gives, from the base to the data: place 0 is the latent, the last place is the row.
 * @typedef {object} Trace
 * @property {number} rows @property {number} width of an event.
 * @property {string[]} names of the places: "z", then each step undone, the last is "x".
 * @property {Float32Array[]} values of each place, flat `[rows, width]`.
 * @property {Float64Array[]} terms of each place but the first: log|det| of the inverse step that leads to it.
 * @property {Float64Array[]} logs log-density of the rows at each place.
 */

/**
 * Ask for a trace.
 * @param {object} app
 * @param {{n?: number, seed?: number, z?: number[][], x?: number[][]}} rows
 * @param {number[]} context of the flow, or an empty one.
 * @param {AbortSignal} signal
 * @returns {Promise<Trace>}
 */
export async function askTrace(app, rows, context, signal) {
  const { flow, api } = app;
  const width = flow.event_shape.reduce((a, b) => a * b, 1);
  const call = traceCall(flow, rows, context);
  const found = width > WIDE ? fromJson(await api.json(call, signal)) : fromColumns(await api.columns(call, signal), width, flow.trace.length);
  const logs = [];
  let spent = Float64Array.from(found.logProb);
  for (const term of found.terms) {  // as the server has them, from the data to the base
    spent = spent.map((value, row) => value - term[row]);
    logs.unshift(spent);
  }
  return {
    rows: spent.length, width, logs, values: found.values.reverse(), names: ["z", ...[...flow.trace].reverse()],
    terms: found.terms.slice(1).reverse().map((term) => Float64Array.from(term, (value) => -value)),
  };
}

/** Values, terms and log_prob out of a table: a column for each value of each step. */
function fromColumns(table, width, steps) {
  const columns = [...table.values()];
  const n = columns[0].length;
  const values = Array.from({ length: steps + 1 }, (_, step) => {
    const flat = new Float32Array(n * width);
    for (let k = 0; k < width; k += 1) {
      const from = columns[step * width + k];
      for (let row = 0; row < n; row += 1) flat[row * width + k] = from[row];
    }
    return flat;
  });
  return { values, terms: columns.slice((steps + 1) * width, (steps + 1) * (width + 1)), logProb: columns.at(-1) };
}

/** The same out of JSON, which says less about each of thousands of columns. */
function fromJson({ steps, log_prob: logProb }) {
  return { values: steps.map((step) => Float32Array.from(step.value.flat(Infinity))), terms: steps.map((step) => step.log_abs_det_jacobian), logProb };
}

/** The call behind a trace. */
export const traceCall = (flow, rows, context) => ({
  path: `/models/${flow.name}/versions/${flow.version}/trace`,
  json: { ...rows, ...(flow.context_width ? { context } : {}) },
});

/** The two places between which a position lies, and how far it is from the first. */
export function between(position, places) {
  const k = Math.min(places - 2, Math.max(0, Math.floor(position)));
  return [k, position - k];
}

/** The mean of a term over the rows, or the term of one row. */
export const termOf = (term, row) => (row === null ? term.reduce((a, b) => a + b, 0) / term.length : term[row]);

/** An ease in and out. */
export const smooth = (t) => t * t * (3 - 2 * t);

/** Rows on their way through a chain: the event after each step, each step's log-det, and the density at each place. */

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
  const columns = [...(await api.columns({ ...traceCall(flow, rows, context) }, signal)).values()];
  const width = flow.event_shape.reduce((a, b) => a * b, 1);
  const steps = flow.trace.length;
  const n = columns[0].length;
  const logProb = columns.at(-1);
  const values = [];
  const logs = [];
  const terms = [];
  let spent = Float64Array.from(logProb);
  for (let step = 0; step <= steps; step += 1) {  // as the server has them, from the data to the base
    const flat = new Float32Array(n * width);
    for (let k = 0; k < width; k += 1) {
      const from = columns[step * width + k];
      for (let row = 0; row < n; row += 1) flat[row * width + k] = from[row];
    }
    const term = columns[(steps + 1) * width + step];
    spent = spent.map((value, row) => value - term[row]);
    values.unshift(flat);
    logs.unshift(spent);
    if (step > 0) terms.unshift(Float64Array.from(term, (value) => -value));
  }
  return { rows: n, width, values, logs, terms, names: ["z", ...[...flow.trace].reverse()] };
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

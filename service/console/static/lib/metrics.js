/** The text format of Prometheus, read; and what a histogram's counts say. prometheus.io/docs/instrumenting/exposition_formats/ */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? +(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", "\\": "\\", '"': '"' };

/**
 * Read samples.
 * @param {string} text
 * @returns {Map<string, {labels: object, value: number}[]>} by the name of the metric.
 */
export function readMetrics(text) {
  const found = new Map();
  for (const each of text.split("\n")) {
    if (!each || each.startsWith("#")) continue;
    const [, name, told, value] = LINE.exec(each) ?? [];
    if (name === undefined) continue;
    const labels = {};
    for (const [, label, content] of (told ?? "").matchAll(LABEL)) labels[label] = content.replace(/\\(.)/g, (_, letter) => ESCAPES[letter] ?? letter);
    const number = value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels, value: number });
  }
  return found;
}

/** The sum of a metric's samples that have these labels; `wanted` may name a test instead of a value. */
export function total(metrics, name, wanted = {}) {
  let sum = 0;
  for (const { labels, value } of metrics?.get(name) ?? []) if (fits(labels, wanted)) sum += value;
  return sum;
}

const fits = (labels, wanted) => Object.entries(wanted).every(([key, value]) => (typeof value === "function" ? value(labels[key]) : labels[key] === value));

/**
 * A histogram between two readings: the upper ends of its bins, and what fell into each since.
 * @returns {{ends: number[], counts: number[], count: number, sum: number}}
 */
export function between(later, earlier, name, wanted = {}) {
  const below = new Map();
  const add = (metrics, sign) => {
    for (const { labels, value } of metrics?.get(`${name}_bucket`) ?? []) {
      if (!fits(labels, wanted)) continue;
      const end = labels.le === "+Inf" ? Infinity : Number(labels.le);
      below.set(end, (below.get(end) ?? 0) + sign * value);
    }
  };
  add(later, 1);
  add(earlier, -1);
  const ends = [...below.keys()].sort((a, b) => a - b);
  const counts = ends.map((end, k) => Math.max(0, below.get(end) - (k ? below.get(ends[k - 1]) : 0)));
  return {
    ends, counts, count: counts.reduce((a, b) => a + b, 0),
    sum: total(later, `${name}_sum`, wanted) - total(earlier, `${name}_sum`, wanted),
  };
}

/** The value below which a share of a histogram lies, as Prometheus' histogram_quantile has it; NaN where nothing fell. */
export function quantileOf({ ends, counts, count }, share) {
  if (!count) return NaN;
  const wanted = share * count;
  let before = 0;
  for (let k = 0; k < ends.length; k += 1) {
    if (before + counts[k] >= wanted && counts[k] > 0) {
      const low = k ? ends[k - 1] : 0;
      return ends[k] === Infinity ? low : low + ((wanted - before) / counts[k]) * (ends[k] - low);
    }
    before += counts[k];
  }
  return NaN;
}

/** The mean of what fell into a histogram; NaN where nothing fell. */
export const meanOf = ({ sum, count }) => (count ? sum / count : NaN);

/** What the server knows of held-out rows: the scale on which a log_prob is usual or not. */

/** A flow's calibration, with its values in the precision in which the server has them; null where there is none. */
export function heldOut(flow) {
  const { calibration } = flow;
  if (!calibration) return null;
  return { ...calibration, quantiles: (flow.precision === "float64" ? Float64Array : Float32Array).from(calibration.quantiles) };
}

/** The first place of sorted numbers that is not below a value. */
export function placeOf(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The count of held-out rows below the k-th value that is kept. */
const rankAt = ({ quantiles, ranks, rows }, k) => (k >= quantiles.length ? rows : ranks ? ranks[k] : quantiles.length < 2 ? 0 : (k * (rows - 1)) / (quantiles.length - 1));

/** The share of held-out rows with a lower log_prob. */
export const shareBelow = (calibration, value) => rankAt(calibration, placeOf(calibration.quantiles, value)) / calibration.rows;

/**
 * The log_prob below which a row is an anomaly at an alarm rate, as `alarm_rate` of /logprob tells it: at most this
 * share of held-out rows has a log_prob as low or lower.
 */
export function threshold(calibration, rate) {
  const { quantiles, rows } = calibration;
  for (let k = 0; k < quantiles.length; k += 1) {
    let next = k + 1;
    while (next < quantiles.length && quantiles[next] === quantiles[k]) next += 1;
    if (rankAt(calibration, next) / rows > rate) return quantiles[k];
    k = next - 1;
  }
  return Infinity;
}

/** How many held-out rows fall into each of so many bins between two ends; those outside are in the outermost. */
export function heldOutBins({ quantiles, ranks, rows }, low, high, n) {
  const counts = new Float64Array(n);
  for (let k = 0; k < quantiles.length; k += 1) {
    const weight = ranks ? (k + 1 < ranks.length ? ranks[k + 1] : rows) - ranks[k] : 1;
    counts[Math.min(n - 1, Math.max(0, Math.floor(((quantiles[k] - low) / (high - low)) * n)))] += weight;
  }
  return counts;
}

/** The ends of a histogram of log_prob: most held-out rows lie between, and there is room for worse ones. */
export function ends({ quantiles }) {
  const low = quantiles[Math.floor(0.005 * (quantiles.length - 1))];
  const high = quantiles[quantiles.length - 1];
  const room = high - low || 1;
  return [low - 0.5 * room, high + 0.1 * room];
}

/** Numbers as people read them. */

const MINUS = "\u2212";

/** A number with so many significant digits, with a true minus sign; what is none is told in words. */
export function show(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value === -Infinity) return `${MINUS}\u221e`;
  if (value === Infinity) return "\u221e";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) {
    return signed(value.toExponential(Math.max(0, digits - 1)).replace(/\.?0+e/, "e").replace("e+", "e"));
  }
  return signed(String(Number(value.toPrecision(digits))));
}

/** A number with so many decimals. */
export const fixed = (value, decimals = 2) =>
  value === null || value === undefined || !Number.isFinite(value) ? show(value) : signed(value.toFixed(decimals));

/** A count, in groups of three digits. */
export const count = (value) => Math.round(value).toLocaleString("en-GB").replaceAll(",", "\u2009");

/** A share as a percentage. */
export const percent = (value, decimals = 1) => `${signed((100 * value).toFixed(decimals))}\u202f%`;

/** A count of bytes. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${Number(value.toPrecision(3))} ${units[unit]}`;
}

const signed = (text) => text.replace(/-/g, MINUS);

/** Round ticks between two ends: about so many, each a multiple of 1, 2 or 5 of a power of ten. */
export function ticks(low, high, wanted = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let k = first; k * step <= high + 1e-9 * step; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** The value below which a share of sorted numbers lies. */
export function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

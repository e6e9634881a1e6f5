/**
 * Colours of numbers. Density runs from the page's own ground to a deep or a bright end, so that nothing is where
 * nothing is drawn; latents are blue and data is orange, everywhere.
 *
 * Both ramps are even steps of lightness in OKLab, with hue and chroma as chosen.
 */

import { isDark } from "./theme.js";

/** Lightness, chroma and hue (degrees) of each ramp's stops. */
const RAMPS = {
  light: [[0.985, 0.006, 80], [0.90, 0.055, 75], [0.80, 0.115, 55], [0.68, 0.165, 35], [0.54, 0.185, 12], [0.41, 0.16, 340], [0.29, 0.11, 305], [0.20, 0.07, 285]],
  dark: [[0.185, 0.022, 285], [0.27, 0.085, 295], [0.38, 0.145, 325], [0.50, 0.18, 355], [0.62, 0.18, 22], [0.74, 0.15, 45], [0.86, 0.11, 75], [0.965, 0.06, 95]],
  diverging: [[0.45, 0.16, 265], [0.66, 0.11, 262], [0.86, 0.045, 255], [0.95, 0.005, 80], [0.87, 0.06, 55], [0.70, 0.14, 42], [0.52, 0.17, 32]],
};

function toRgb(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((c) => Math.round(255 * Math.min(1, Math.max(0, c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055))));
}

function table(stops) {
  const packed = new Uint32Array(256);
  for (let k = 0; k < 256; k += 1) {
    const place = (k / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const part = place - low;
    const [from, to] = [stops[low], stops[low + 1]];
    const turn = ((to[2] - from[2] + 540) % 360) - 180;
    const [r, g, b] = toRgb(from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1]), from[2] + part * turn);
    packed[k] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return packed;
}

const made = new Map();

/** 256 colours, packed as a canvas has them: of density as the theme is, or "diverging". */
export function ramp(name = isDark() ? "dark" : "light") {
  if (!made.has(name)) made.set(name, table(RAMPS[name]));
  return made.get(name);
}

/** A colour of a ramp at a share of it, as text. */
export function colourAt(share, name) {
  const packed = ramp(name)[Math.round(255 * Math.min(1, Math.max(0, share)))];
  return `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
}

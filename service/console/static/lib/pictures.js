/** Pictures of events that are images: one of them, a grid, or a strip. Pixels are repeated, never blended. */

import { h } from "./dom.js";
import { extent } from "./arrays.js";
import { valueRange } from "./flows.js";

const GAP = 1;

/**
 * Draw images side by side.
 * @param {HTMLCanvasElement} canvas whose size in pixels is set to what they need.
 * @param {TypedArray} data flat, one image after another.
 * @param {object} flow whose events they are.
 * @param {{columns?: number, range?: [number, number], gap?: number}} [how] `range`: the values that are black and white.
 */
export function drawImages(canvas, data, flow, { columns = 1, range = valueRange(flow) ?? extent(data), gap = GAP } = {}) {
  const [height, width, channels] = flow.event_shape;
  const size = height * width * channels;
  const n = Math.floor(data.length / size);
  const across = Math.min(columns, Math.max(1, n));
  const down = Math.max(1, Math.ceil(n / across));
  const wide = across * (width + gap) - gap;
  const high = down * (height + gap) - gap;
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(wide, high);
  const packed = new Uint32Array(image.data.buffer);
  const [low, top] = range;
  const scale = 255 / (top - low || 1);
  const level = (value) => { const share = (value - low) * scale; return share > 255 ? 255 : share > 0 ? Math.round(share) : 0; };
  for (let k = 0; k < n; k += 1) {
    const start = Math.floor(k / across) * (height + gap) * wide + (k % across) * (width + gap);
    for (let row = 0; row < height; row += 1) {
      for (let place = 0; place < width; place += 1) {
        const from = k * size + (row * width + place) * channels;
        const red = level(data[from]);
        const green = channels === 3 ? level(data[from + 1]) : red;
        const blue = channels === 3 ? level(data[from + 2]) : red;
        packed[start + row * wide + place] = (255 << 24) | (blue << 16) | (green << 8) | red;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/**
 * Rows within a flow of images, as they would lie in an image: steps there have their channels in front, and a squeeze
 * makes four channels of each square of 2 x 2 pixels, y[4c + 2i + j, h, w] = x[c, 2h + i, 2w + j].
 * @param {Float32Array} values flat, one row after another.
 * @param {number[]} shape of the event after the step.
 * @param {number[]} event shape of the image, [H, W, C].
 * @returns {Float32Array} flat images; the values as they are where the shape is no such one.
 */
export function unsqueezed(values, shape, event) {
  const [height, wide, channels] = event;
  const size = height * wide * channels;
  if (shape.length !== 3 || shape.every((side, k) => side === event[k])) return values;
  const made = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += size) {
    let [c, h, w] = shape;
    let row = values.subarray(start, start + size);
    for (; c > channels && c % 4 === 0; c /= 4, h *= 2, w *= 2) {
      const next = new Float32Array(size);
      for (let k = 0; k < size; k += 1) {
        const [x, y, channel] = [k % w, Math.floor(k / w) % h, Math.floor(k / (w * h))];
        const [i, j] = [(channel >> 1) & 1, channel & 1];
        next[((channel >> 2) * 2 * h + 2 * y + i) * 2 * w + 2 * x + j] = row[k];
      }
      row = next;
    }
    if (c !== channels || h !== height || w !== wide) return values;
    for (let k = 0; k < size; k += 1) made[start + (k % (w * h)) * channels + Math.floor(k / (w * h))] = row[k];
  }
  return made;
}

/** A canvas that shows images. */
export function imageCanvas(label, given = {}) {
  return h("canvas.pixels", { role: "img", "aria-label": label, ...given });
}

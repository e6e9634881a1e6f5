/**
 * Cells of a mesh as pixels. A canvas takes thousands of paths one by one, each with soft edges; a mesh that moves sixty
 * times a second is quicker as one table of levels, where the greater level wins, and one picture of it.
 */

import { ramp } from "./colours.js";

export class Raster {
  #canvas = new OffscreenCanvas(1, 1);
  #levels = new Uint8Array(0);
  #width = 0;
  #height = 0;

  /** Begin a picture of so many pixels, all of level 0. */
  begin(width, height) {
    this.#width = Math.max(1, Math.round(width));
    this.#height = Math.max(1, Math.round(height));
    const size = this.#width * this.#height;
    if (this.#levels.length === size) this.#levels.fill(0);
    else this.#levels = new Uint8Array(size);
  }

  /**
   * Fill a cell.
   * @param {Float32Array} points flat, in pixels.
   * @param {number[]} cell its four corners.
   * @param {number} level from 0 to 255.
   */
  fill(points, [a, b, c, d], level) {
    this.#triangle(points, a, b, c, level);
    this.#triangle(points, a, c, d, level);
    this.#edge(points, a, b, level);  // a cell thinner than a pixel is seen too
    this.#edge(points, b, c, level);
  }

  /** The picture, in the colours of density. */
  picture() {
    const canvas = this.#canvas;
    if (canvas.width !== this.#width || canvas.height !== this.#height) {
      canvas.width = this.#width;
      canvas.height = this.#height;
    }
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.#width, this.#height);
    const packed = new Uint32Array(image.data.buffer);
    const colours = ramp();
    for (let k = 0; k < packed.length; k += 1) packed[k] = colours[this.#levels[k]];
    context.putImageData(image, 0, 0);
    return canvas;
  }

  #triangle(points, a, b, c, level) {
    const [x0, y0, x1, y1, x2, y2] = [points[2 * a], points[2 * a + 1], points[2 * b], points[2 * b + 1], points[2 * c], points[2 * c + 1]];
    const low = Math.max(0, Math.ceil(Math.min(y0, y1, y2) - 0.5));
    const high = Math.min(this.#height - 1, Math.floor(Math.max(y0, y1, y2) - 0.5));
    for (let row = low; row <= high; row += 1) {
      const y = row + 0.5;
      let left = Infinity;
      let right = -Infinity;
      if (y0 <= y !== y1 <= y) { const x = x0 + ((y - y0) / (y1 - y0)) * (x1 - x0); if (x < left) left = x; if (x > right) right = x; }
      if (y1 <= y !== y2 <= y) { const x = x1 + ((y - y1) / (y2 - y1)) * (x2 - x1); if (x < left) left = x; if (x > right) right = x; }
      if (y2 <= y !== y0 <= y) { const x = x2 + ((y - y2) / (y0 - y2)) * (x0 - x2); if (x < left) left = x; if (x > right) right = x; }
      const start = row * this.#width + Math.max(0, Math.ceil(left - 0.5));
      const end = row * this.#width + Math.min(this.#width - 1, Math.floor(right - 0.5));
      for (let k = start; k <= end; k += 1) if (this.#levels[k] < level) this.#levels[k] = level;
    }
  }

  #edge(points, a, b, level) {
    const [x0, y0, x1, y1] = [points[2 * a], points[2 * a + 1], points[2 * b], points[2 * b + 1]];
    const steps = Math.min(2000, Math.ceil(Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0))) || 1);
    for (let k = 0; k <= steps; k += 1) {
      const x = Math.floor(x0 + (k / steps) * (x1 - x0));
      const y = Math.floor(y0 + (k / steps) * (y1 - y0));
      if (x < 0 || y < 0 || x >= this.#width || y >= this.#height) continue;
      const at = y * this.#width + x;
      if (this.#levels[at] < level) this.#levels[at] = level;
    }
  }
}

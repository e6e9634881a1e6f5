/**
 * A mesh over a plane of latents that a chain carries along: cells keep their mass. Where the chain tears a cell wide,
 * the cell is cut into four, and its new corners are traced too, so that the sheet stays as smooth as the map.
 */

const ROUNDS = 4;
const MOST_SPLIT = 700;
const LONGEST = 0.045;

/** The area of a cell of four corners, in a flat array of points. */
export function areaOf(points, corners) {
  let twice = 0;
  for (let n = 0; n < 4; n += 1) {
    const [a, b] = [corners[n], corners[(n + 1) % 4]];
    twice += points[2 * a] * points[2 * b + 1] - points[2 * b] * points[2 * a + 1];
  }
  return Math.abs(twice) / 2 + 1e-12;
}

/**
 * A mesh of a plane.
 * @typedef {object} Mesh
 * @property {Float32Array[]} values of its corners at each place of the chain, flat.
 * @property {Float64Array[]} logs their log-density at each place.
 * @property {number[][]} cells four corners each.
 * @property {number[]} masses of the base in each cell.
 * @property {number} side of the first, even mesh, whose corners come first, row by row.
 */

/**
 * Build a mesh.
 * @param {[number, number][]} ends of the two latents.
 * @param {number} side cells along each.
 * @param {[number, number][][]} spans of the rows, for each place and column: what is seen of each place.
 * @param {(rows: {z: number[][]}) => Promise<object>} ask traces latents.
 * @returns {Promise<Mesh>}
 */
export async function buildMesh(ends, side, spans, ask) {
  const z = [];
  for (let j = 0; j <= side; j += 1) {
    for (let i = 0; i <= side; i += 1) z.push([i, j].map((k, c) => rounded(ends[c][0] + (k / side) * (ends[c][1] - ends[c][0]))));
  }
  let { values, logs } = await ask({ z });
  let cells = [];
  const row = side + 1;
  for (let j = 0; j < side; j += 1) {
    for (let i = 0; i < side; i += 1) cells.push([j * row + i, j * row + i + 1, (j + 1) * row + i + 1, (j + 1) * row + i]);
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    const torn = cells.map((cell) => [longest(values, cell, spans) * Math.sqrt(weight(logs[0], cell)), cell]).filter(([length]) => length > LONGEST)
      .sort((a, b) => b[0] - a[0]).slice(0, MOST_SPLIT).map(([, cell]) => cell);
    if (!torn.length) break;
    const chosen = new Set(torn);
    const fresh = [];
    const parts = [];
    for (const [a, b, c, d] of torn) {
      const at = z.length + fresh.length;
      fresh.push(middle(z, a, b), middle(z, b, c), middle(z, c, d), middle(z, d, a), middle(z, a, c));
      parts.push([a, at, at + 4, at + 3], [at, b, at + 1, at + 4], [at + 4, at + 1, c, at + 2], [at + 3, at + 4, at + 2, d]);
    }
    const more = await ask({ z: fresh });
    z.push(...fresh);
    values = values.map((flat, place) => joined(flat, more.values[place]));
    logs = logs.map((flat, place) => joined(flat, more.logs[place]));
    cells = [...cells.filter((cell) => !chosen.has(cell)), ...parts];
  }
  const masses = cells.map((cell) => areaOf(values[0], cell) * cell.reduce((sum, corner) => sum + Math.exp(logs[0][corner]), 0) / 4);
  return { values, logs, cells, masses, side };
}

/** How long the longer diagonal of a cell is at most, as a share of what is seen. */
function longest(values, [a, b, c, d], spans) {
  let most = 0;
  values.forEach((flat, place) => {
    const [wide, high] = spans[place].map(([low, top]) => top - low);
    for (const [from, to] of [[a, c], [b, d]]) most = Math.max(most, Math.hypot((flat[2 * from] - flat[2 * to]) / wide, (flat[2 * from + 1] - flat[2 * to + 1]) / high));
  });
  return most;
}

/** How much a cell counts: from 0 where the base has no density to 1 where it has most. */
const weight = (logs, cell) => Math.min(1, 30 * Math.exp(Math.max(...cell.map((corner) => logs[corner]))));

const rounded = (value) => Number(value.toPrecision(7));
const middle = (z, a, b) => [0, 1].map((c) => rounded((z[a][c] + z[b][c]) / 2));

function joined(a, b) {
  const all = new a.constructor(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

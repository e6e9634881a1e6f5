/**
 * The views of the console, in the order of the menu. A view is a module that is loaded when it is opened:
 * `mount(root, app)` fills an element and gives `{update(state), unmount()}`.
 *
 * @typedef {object} View
 * @property {string} id in the address.
 * @property {string} title in the menu.
 * @property {boolean} [needsFlow] whether it shows one flow, which `app.flow` then is.
 * @property {(flow: object) => string|null} [refuses] why it cannot show a flow; null where it can.
 * @property {() => Promise<{mount: Function}>} load
 */

import { kind } from "./lib/flows.js";

/** @type {View[]} */
export const VIEWS = [
  { id: "flows", title: "Flows", load: () => import("./views/flows.js") },
  {
    id: "density", title: "Density", needsFlow: true, load: () => import("./views/density.js"),
    refuses: (flow) => (kind(flow) === "image" ? "It draws densities over columns, and the rows of this flow are images: see its samples, or walk through them." : null),
  },
  {
    id: "chain", title: "Chain", needsFlow: true, load: () => import("./views/chain.js"),
    refuses: (flow) => (flow.trace?.length ? null : "The bundle of this flow holds no trace of its steps."),
  },
  { id: "sampling", title: "Sampling", needsFlow: true, load: () => import("./views/sampling.js") },
  { id: "walk", title: "Latent walk", needsFlow: true, load: () => import("./views/walk.js") },
  { id: "score", title: "Score a file", needsFlow: true, load: () => import("./views/score.js") },
  { id: "operations", title: "Operations", load: () => import("./views/operations.js") },
];

/** The view of this id, or the first. */
export const viewOf = (id) => VIEWS.find((view) => view.id === id) ?? VIEWS[0];

/** Workers: modules of this page that run beside it. The policy lets a page start no script but these. */

let policy = null;

/**
 * Start a worker.
 * @param {string} path of its module within the console, such as "views/ranking-worker.js".
 * @returns {Worker}
 */
export function startWorker(path) {
  if (!/^[a-z/-]+\.js$/.test(path)) throw new Error(`no module of the console is called ${path}`);
  const url = new URL(`../${path}`, import.meta.url).href;
  policy ??= globalThis.trustedTypes?.createPolicy("console", { createScriptURL: (text) => text }) ?? { createScriptURL: (text) => text };
  return new Worker(policy.createScriptURL(url), { type: "module" });
}

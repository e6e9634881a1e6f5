/** Files that the page gives to whoever looks at it. */

import { h } from "./dom.js";

/** Let the browser save bytes under a name. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

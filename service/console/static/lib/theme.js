/** Light and dark: what the system says, or what was chosen here. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();
let chosen = null;

/** Whether motion is unwelcome. */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Whether the page is dark. */
export const isDark = () => (chosen === null ? dark.matches : chosen === "dark");

/** Choose a theme: "light", "dark", or null for what the system says. */
export function choose(theme) {
  chosen = theme;
  if (theme === null) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  told();
}

/** Hear of each change; gives what ends that. */
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const told = () => listeners.forEach((listener) => listener());

dark.addEventListener("change", told);

/** The value of a property of the styles, such as "--ink". */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

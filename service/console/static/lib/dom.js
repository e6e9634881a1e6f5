/** Elements of the page: made, filled and named. Text is always text: nothing here reads HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag such as "p" or "button.primary": a name, then classes.
 * @param {object} [given] attributes; on… for listeners, and `style` as an object of properties.
 * @param {...(Node|string|number|null|undefined|false|Array)} children what lies in it; null and false are left out.
 */
export function h(tag, given = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name || "div");
  return fill(node, classes, given, children);
}

/** The same for SVG. */
export function svg(tag, given = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElementNS(SVG, name), classes, given, children);
}

function fill(node, classes, given, children) {
  if (classes.length) node.classList.add(...classes);
  for (const [key, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else if (key === "value" || key === "checked" || key === "selected") node[key] = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

/** Put children behind what an element holds. */
export function add(node, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** Replace what an element holds. */
export function replace(node, ...children) {
  node.replaceChildren();
  return add(node, children);
}

/** Mathematics in a line of text: italic letters, such as m("p(x)"). */
export const m = (text) => h("i.math", {}, text);

let counter = 0;

/** An id that no other element has. */
export const freshId = (word) => `${word}-${(counter += 1)}`;

/**
 * Controls: each is `{node, set(value)}`. `change(value, isDone)` hears of every change by hand; isDone is false while
 * a slider is still being dragged. `set` shows another value, and tells nobody.
 */

import { freshId, h, replace } from "./dom.js";
import { contextFields } from "./flows.js";
import { show as showNumber } from "./numbers.js";

/**
 * A slider, with its value beside it.
 * @param {object} given label, min, max, step, value, show (value to text), note, change.
 */
export function slider({ label, min, max, step = "any", value, show = showNumber, note, change }) {
  const id = freshId("slider");
  const output = h("output", { for: id });
  const input = h("input", {
    id, type: "range", min, max, step, value,
    oninput: () => { paint(); change(Number(input.value), false); },
    onchange: () => change(Number(input.value), true),
  });
  const paint = () => {
    const share = (Number(input.value) - Number(input.min)) / (Number(input.max) - Number(input.min) || 1);
    input.style.setProperty("--share", `${100 * share}%`);
    output.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", show(Number(input.value)));
  };
  paint();
  return {
    node: h("div.field", {}, h("div.field-head", {}, h("label", { for: id }, label), output), input, note && h("p.note", {}, note)),
    input,
    set(next) { input.value = next; paint(); },
    range(low, high, by = step) { input.min = low; input.max = high; input.step = by; paint(); },
  };
}

/** A field for a number; `optional` ones may be empty, and are then null. */
export function numberField({ label, value, min, max, step = "any", optional = false, placeholder, note, unit, change }) {
  const id = freshId("number");
  let isTyped = false;  // what is being typed is not written over
  const input = h("input", {
    id, type: "number", min, max, step, value: value ?? "", placeholder, inputmode: step === 1 ? "numeric" : "decimal",
    oninput: () => { isTyped = true; },
    onchange: () => {
      isTyped = false;
      if (input.value === "" && optional) change(null, true);
      else if (input.value !== "" && input.checkValidity()) change(Number(input.value), true);
      else input.reportValidity();
    },
  });
  return {
    node: h("div.field", {}, h("label", { for: id }, label, unit && h("span.unit", {}, unit)), input, note && h("p.note", {}, note)),
    input,
    set(next) { if (!isTyped) input.value = next ?? ""; },
  };
}

/** A choice out of a list; options are {value, label}. */
export function select({ label, value, options, change, compact = false }) {
  const id = freshId("select");
  const input = h("select", { id, onchange: () => change(input.value, true) });
  const fill = (next) => replace(input, next.map((option) => h("option", { value: option.value, disabled: option.disabled }, option.label)));
  fill(options);
  input.value = String(value);
  return {
    node: h(compact ? "div.field.compact" : "div.field", {}, h("label", { for: id }, label), h("div.select", {}, input)),
    input,
    set(next) { input.value = String(next); },
    fill,
  };
}

/** A choice out of a few, all in sight. */
export function segmented({ label, value, options, change }) {
  const name = freshId("choice");
  const inputs = options.map((option) => h("input", {
    type: "radio", name, value: option.value, id: freshId("option"), checked: option.value === value,
    onchange: () => change(option.value, true),
  }));
  return {
    node: h("fieldset.field.segmented", {}, h("legend", {}, label),
      h("div.segments", {}, options.map((option, k) => [inputs[k], h("label", { for: inputs[k].id }, option.label)]))),
    set(next) { for (const input of inputs) input.checked = input.value === next; },
  };
}

/** A switch. */
export function toggle({ label, value, change }) {
  const id = freshId("toggle");
  const input = h("input", { id, type: "checkbox", role: "switch", checked: value, onchange: () => change(input.checked, true) });
  return { node: h("div.field.toggle", {}, input, h("label", { for: id }, label)), input, set(next) { input.checked = next; } };
}

/** A button. */
export const button = (label, onclick, given = {}) => h(given.primary ? "button.button.primary" : "button.button", { type: "button", onclick, ...given, primary: null }, label);

/**
 * Fields for a flow's context, by name; nothing for a flow without.
 * @param {object} flow
 * @param {number[]} values of the context's columns.
 * @param {(values: number[]) => void} change
 */
export function contextControls(flow, values, change) {
  const fields = contextFields(flow);
  if (!fields.length) return { node: null, set() {} };
  let current = [...values];
  const put = (patch) => { current = current.map((value, k) => patch[k] ?? value); change([...current]); };
  const controls = fields.map((field) => {
    if (!field.choices) {
      const made = numberField({ label: field.name, unit: field.unit, value: current[field.place], change: (value) => put({ [field.place]: value }) });
      return { node: made.node, set: (next) => made.set(next[field.place]) };
    }
    const chosen = (next) => field.choices.find((choice) => next[choice.place] === 1)?.place ?? field.choices.at(-1).place ?? "none";
    const made = select({
      label: field.name, value: chosen(current), options: field.choices.map((choice) => ({ value: choice.place ?? "none", label: choice.text })),
      change: (text) => put(Object.fromEntries(field.choices.filter((choice) => choice.place !== null).map((choice) => [choice.place, Number(String(choice.place) === text)]))),
    });
    return { node: made.node, set: (next) => made.set(chosen(next)) };
  });
  return {
    node: h("fieldset.context", {}, h("legend", {}, "Context"), controls.map((control) => control.node)),
    set(next) { current = [...next]; controls.forEach((control) => control.set(next)); },
  };
}

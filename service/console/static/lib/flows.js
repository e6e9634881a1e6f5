/** What the server says of its flows, as the page uses it. */

/** "image", "line" (one column), "plane" (two) or "table" (more). */
export function kind(flow) {
  if (flow.event_shape?.length === 3) return "image";
  const width = flow.event_shape?.[0] ?? 0;
  return width === 1 ? "line" : width === 2 ? "plane" : "table";
}

/** The number of values in an event. */
export const width = (flow) => (flow.event_shape ?? []).reduce((a, b) => a * b, 1);

/** The event's shape as people write it: 13 columns, 8 x 8. */
export function shapeText(flow) {
  const shape = flow.event_shape ?? [];
  if (shape.length === 3) return `${shape[0]} \u00d7 ${shape[1]}${shape[2] === 1 ? " grey" : ` \u00d7 ${shape[2]}`}`;
  return shape[0] === 1 ? "1 column" : `${shape[0]} columns`;
}

/** The name of column k, as the server knows it. */
export const columnName = (flow, k) => flow.features?.[k]?.name ?? `x${k}`;

/** The name of column k and its unit. */
export function columnLabel(flow, k) {
  const unit = flow.features?.[k]?.unit;
  return unit ? `${columnName(flow, k)} (${unit})` : columnName(flow, k);
}

/** Whether latents are drawn from normals, so that a temperature has a meaning. */
export const hasTemperature = (flow) => ["normal", "diagonal_normal", "mixture"].includes(flow.base?.family);

/** The path of a verb of one version of a flow. */
export const path = (flow, verb) => `/models/${flow.name}/versions/${flow.version}/${verb}`;

/** Flows by name, the newest version that is ready before others, as the server would choose. */
export function newest(flows) {
  const found = new Map();
  for (const flow of flows) {
    const known = found.get(flow.name);
    const better = !known || (flow.state === "ready") > (known.state === "ready") ||
      ((flow.state === "ready") === (known.state === "ready") && flow.version > known.version);
    if (better) found.set(flow.name, flow);
  }
  return [...found.values()];
}

/**
 * The fields by which a context is asked for: a number for each column, and a choice for columns of classes. A column
 * of one class alone has another choice beside it, where the column is 0.
 */
export function contextFields(flow) {
  const features = flow.context_features ?? [];
  const fields = [];
  for (let k = 0; k < (flow.context_width ?? 0); k += 1) {
    const feature = features[k];
    if (feature?.column) {
      const known = fields.find((field) => field.choices && field.name === feature.column);
      if (known) known.choices.push({ place: k, text: feature.category });
      else fields.push({ name: feature.column, choices: [{ place: k, text: feature.category }] });
    } else fields.push({ name: feature?.name ?? `context ${k}`, unit: feature?.unit, place: k });
  }
  for (const field of fields) if (field.choices?.length === 1) field.choices.push({ place: null, text: "another" });
  return fields;
}

/** The context where none is chosen: the first class of each column of classes, and 0 elsewhere. */
export function usualContext(flow) {
  const values = new Array(flow.context_width ?? 0).fill(0);
  for (const field of contextFields(flow)) if (field.choices) values[field.choices[0].place] = 1;
  return values;
}

/** The range that an event's values have: of the data, if it was quantized, else of the support. */
export function valueRange(flow) {
  const quantization = flow.manifest?.quantization;
  if (quantization) return [quantization.low, quantization.high];
  const { low, high } = flow.support ?? {};
  return low !== null && low !== undefined && high !== null && high !== undefined ? [low, high] : null;
}

"""Small bundles with a closed form, written node by node: tests of serving need no torch and no trained flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle.bases import NormalBase, UniformBase
from service.bundle.constraints import Constraint
from service.bundle.manifest import (
    Calibration,
    Feature,
    Manifest,
    Parity,
    Provenance,
    Quantization,
    Step,
    Support,
)
from service.bundle.store import Bundle, Golden, Repository, read_bundle

__all__ = ["Parts", "affine", "coupling", "image", "in_float64", "install", "shares", "square", "traced"]

OPSET = 18
Array = NDArray[np.float64]
Map = Callable[[Array, Array | None], tuple[Array, Array]]


@dataclass(frozen=True)
class Parts:
    """What a bundle is made of, and its flow in float64: x, context -> z and log|det dz/dx|."""

    manifest: Manifest
    files: dict[str, bytes]
    forward: Map
    inverse: Map

    def log_prob(self, x: Any, context: Any = None) -> Array:
        """The density in float64, by the closed form."""
        rows = np.asarray(x, np.float64)
        z, ladj = self.forward(rows, None if context is None else np.asarray(context, np.float64))
        return _masked(self.manifest, rows, _base_log_prob(self.manifest, z) + ladj)


class _Graph:
    """A graph under construction: `op` adds a node and names its output."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"{self._prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{self._prefix}t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def total(self, value: str, width: int) -> str:
        """The sum over the coordinates of each row: [N, D] -> [N].

        As a product with ones: ReduceSum's order of adding depends on where in memory a row begins, so that a sum of
        five values has other last digits in the batch's second row than in its first.
        """
        return self.op("Reshape", self.op("MatMul", value, self.const(np.ones((width, 1)))), self.const([-1], np.int64))

    def normal(self, z: str, width: int) -> str:
        half = self.op("Mul", self.total(self.op("Mul", z, z), width), self.const(-0.5))
        return self.op("Sub", half, self.const(0.5 * width * math.log(2 * math.pi)))

    def finish(self, given: str, given_shape: Sequence[Any], out: str, out_shape: Sequence[Any], context: int) -> bytes:
        inputs = [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["N", *given_shape])]
        if context:
            inputs.append(helper.make_tensor_value_info("context", TensorProto.FLOAT, ["N", context]))
        outputs = [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["N", *out_shape])]
        outputs += [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in ("log_abs_det_jacobian", "log_prob")
        ]
        graph = helper.make_graph(self.nodes, "flow", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data


def _base_log_prob(manifest: Manifest, z: Array) -> Array:
    width = manifest.latent_width
    if isinstance(manifest.base, NormalBase):
        value: Array = -0.5 * (z * z).sum(1) - 0.5 * width * math.log(2 * math.pi)
        return value
    inside = ((z >= manifest.base.low) & (z <= manifest.base.high)).all(1)
    return np.where(inside, -width * math.log(manifest.base.high - manifest.base.low), -np.inf)


def _masked(manifest: Manifest, x: Array, log_prob: Array) -> Array:
    support = manifest.support
    if support is None:
        return log_prob
    flat = x.reshape(len(x), -1)
    inside = np.ones(len(x), bool)
    if support.low is not None:
        inside &= (flat >= support.low if support.low_closed else flat > support.low).all(1)
    if support.high is not None:
        inside &= (flat <= support.high if support.high_closed else flat < support.high).all(1)
    return np.where(inside, log_prob, -np.inf)


def _parts(
    manifest: dict[str, Any], graphs: dict[str, bytes], forward: Map, inverse: Map, x: Array, context: Array | None
) -> Parts:
    rows = np.asarray(x, np.float32)
    given = None if context is None else np.asarray(context, np.float32)
    draft = Manifest.model_validate(
        {
            "opset": OPSET,
            "files": {},
            "calibration": Calibration(rows=2, mean=0.0, standard_deviation=1.0, quantiles=[-1.0, 1.0]),
            "parity": Parity(
                tolerance=1e-4, batches=[1, 7], log_prob=0, log_abs_det_jacobian=0, z=0, x=0, round_trip=0
            ),
            "provenance": Provenance(data="made for a test", created="2026-01-01T00:00:00Z"),
            **manifest,
        }
    )
    exact = rows.astype(np.float64)
    z, ladj = forward(exact, None if given is None else given.astype(np.float64))
    log_prob = _masked(draft, exact, _base_log_prob(draft, z) + ladj)
    held_out = np.sort(log_prob[np.isfinite(log_prob)])
    calibration = Calibration(
        rows=len(held_out),
        mean=float(held_out.mean()),
        standard_deviation=float(held_out.std(ddof=1)),
        quantiles=held_out.tolist(),
    )
    golden = Golden(x=rows, z=z, log_abs_det_jacobian=ladj, log_prob=log_prob, context=given)
    return Parts(
        draft.model_copy(update={"calibration": calibration}),
        {**graphs, "golden.npz": golden.to_npz()},
        forward,
        inverse,
    )


def affine(
    name: str = "affine",
    version: int = 1,
    event_shape: Sequence[int] = (2,),
    context_width: int = 0,
    **manifest: Any,
) -> Parts:
    """z = (x - mean - context @ W) / std: a normal distribution, with its mean moved by the context."""
    width = math.prod(event_shape)
    generator = np.random.default_rng(width)
    mean, std = generator.normal(size=width), np.exp(generator.normal(size=width) * 0.3)
    matrix = generator.normal(size=(context_width, width))
    ladj = -float(np.log(std).sum())

    def forward(x: Array, context: Array | None) -> tuple[Array, Array]:
        moved = mean if context is None else mean + context @ matrix
        return (x.reshape(len(x), width) - moved) / std, np.full(len(x), ladj)

    def inverse(z: Array, context: Array | None) -> tuple[Array, Array]:
        moved = mean if context is None else mean + context @ matrix
        return (z * std + moved).reshape(len(z), *event_shape), np.full(len(z), -ladj)

    def center(graph: _Graph) -> str:
        if not context_width:
            return graph.const(mean)
        return graph.op("Add", graph.op("MatMul", "context", graph.const(matrix)), graph.const(mean))

    there = _Graph()
    flat = there.op("Reshape", "x", there.const([-1, width], np.int64))
    z = there.op("Div", there.op("Sub", flat, center(there)), there.const(std), out="z")
    nothing = there.op("Mul", there.total(z, width), there.const(0.0))
    det = there.op("Add", nothing, there.const(ladj), out="log_abs_det_jacobian")
    there.op("Add", there.normal(z, width), det, out="log_prob")

    back = _Graph()
    flat = back.op("Add", back.op("Mul", "z", back.const(std)), center(back))
    back.op("Reshape", flat, back.const([-1, *event_shape], np.int64), out="x")
    nothing = back.op("Mul", back.total("z", width), back.const(0.0))
    det = back.op("Sub", nothing, back.const(ladj), out="log_abs_det_jacobian")
    back.op("Sub", back.normal("z", width), det, out="log_prob")

    graphs = {
        "forward.onnx": there.finish("x", event_shape, "z", [width], context_width),
        "inverse.onnx": back.finish("z", [width], "x", event_shape, context_width),
    }
    context = generator.normal(size=(9, context_width)) if context_width else None
    x, _ = inverse(generator.normal(size=(9, width)), context)
    draft = {
        "name": name,
        "version": version,
        "description": "A normal distribution.",
        "event_shape": list(event_shape),
        "latent_width": width,
        "context_width": context_width,
        "features": [Feature(name=f"column {i}", unit="m") for i in range(width)] if len(event_shape) == 1 else [],
        "base": NormalBase(),
        **manifest,
    }
    return _parts(draft, graphs, forward, inverse, x, context)


def image(name: str = "image", version: int = 1) -> Parts:
    """`affine` on events of shape [2, 3, 1], quantized in steps of 0.5."""
    reading = Quantization(low=0, high=4, step=0.5, reading="a level is read as the centre of its bin")
    return affine(name, version, (2, 3, 1), quantization=reading)


def square(name: str = "square", version: int = 1) -> Parts:
    """z ~ U(0, 2) and x = z^2, so that p(x) = 1 / (4 sqrt(x)) on (0, 4]."""

    def forward(x: Array, _: Array | None) -> tuple[Array, Array]:
        inside = np.clip(x, np.nextafter(np.float32(0), np.float32(1)), 4.0)
        return np.sqrt(inside), -math.log(2) - 0.5 * np.log(inside[:, 0])

    def inverse(z: Array, _: Array | None) -> tuple[Array, Array]:
        return z * z, math.log(2) + np.log(z[:, 0])

    there = _Graph()
    least = np.nextafter(np.float32(0), np.float32(1))
    inside = there.op("Clip", "x", there.const(least), there.const(4.0))
    there.op("Sqrt", inside, out="z")
    half = there.op("Mul", there.total(there.op("Log", inside), 1), there.const(-0.5))
    det = there.op("Sub", half, there.const(math.log(2)), out="log_abs_det_jacobian")
    density = there.op("Sub", det, there.const(math.log(2)))
    zero, four = there.const(0.0), there.const(4.0)
    within = there.op("And", there.op("Greater", "x", zero), there.op("LessOrEqual", "x", four))
    within = there.op("Reshape", within, there.const([-1], np.int64))
    there.op("Where", within, density, there.const(-np.inf), out="log_prob")

    back = _Graph()
    back.op("Mul", "z", "z", out="x")
    det = back.op("Add", back.total(back.op("Log", "z"), 1), back.const(math.log(2)), out="log_abs_det_jacobian")
    density = back.op("Sub", back.op("Neg", det), back.const(math.log(2)))
    within = back.op("LessOrEqual", "z", back.const(2.0))
    within = back.op("Reshape", within, back.const([-1], np.int64))
    back.op("Where", within, density, back.const(-np.inf), out="log_prob")

    draft = {
        "name": name,
        "version": version,
        "event_shape": [1],
        "latent_width": 1,
        "base": UniformBase(low=0.0, high=2.0),
        "support": Support(low=0.0, high=4.0, high_closed=True),
    }
    graphs = {"forward.onnx": there.finish("x", [1], "z", [1], 0), "inverse.onnx": back.finish("z", [1], "x", [1], 0)}
    x = np.array([[0.01], [0.25], [1.0], [2.25], [4.0], [-1.0], [5.0]])
    return _parts(draft, graphs, forward, inverse, x, None)


def coupling(name: str = "coupling", version: int = 1, width: int = 2, hidden: int = 64, seed: int = 0) -> Parts:
    """Affine couplings with a one-layer conditioner each: a graph whose arithmetic depends on the batch's size."""
    generator = np.random.default_rng(seed)
    kept = width // 2
    layers = []
    for flip in (False, True, False, True):
        given = width - kept if flip else kept
        first = generator.normal(size=(given, hidden)).astype(np.float32)
        second = (generator.normal(size=(hidden, 2 * (width - given))) * 0.3 / math.sqrt(hidden)).astype(np.float32)
        layers.append((flip, first, second))

    def split(y: Array, flip: bool) -> tuple[Array, Array]:
        return (y[:, kept:], y[:, :kept]) if flip else (y[:, :kept], y[:, kept:])

    def join(a: Array, b: Array, flip: bool) -> Array:
        return np.concatenate([b, a] if flip else [a, b], 1)

    def forward(x: Array, _: Array | None) -> tuple[Array, Array]:
        y, ladj = x, np.zeros(len(x))
        for flip, first, second in layers:
            a, b = split(y, flip)
            scale, shift = np.split(np.tanh(a @ first.astype(np.float64)) @ second.astype(np.float64), 2, axis=1)
            y, ladj = join(a, b * np.exp(scale) + shift, flip), ladj + scale.sum(1)
        return y, ladj

    def inverse(z: Array, _: Array | None) -> tuple[Array, Array]:
        y, ladj = z, np.zeros(len(z))
        for flip, first, second in reversed(layers):
            a, b = split(y, flip)
            scale, shift = np.split(np.tanh(a @ first.astype(np.float64)) @ second.astype(np.float64), 2, axis=1)
            y, ladj = join(a, (b - shift) * np.exp(-scale), flip), ladj - scale.sum(1)
        return y, ladj

    def graph(given: str, out: str, backwards: bool) -> bytes:
        built = _Graph()
        value, terms = given, []
        one = built.const([1], np.int64)
        ends = [built.const([i], np.int64) for i in (0, kept, width)]
        for flip, first, second in reversed(layers) if backwards else layers:
            left = built.op("Slice", value, ends[0], ends[1], one)
            right = built.op("Slice", value, ends[1], ends[2], one)
            a, b = (right, left) if flip else (left, right)
            both = built.op("MatMul", built.op("Tanh", built.op("MatMul", a, built.const(first))), built.const(second))
            n = second.shape[1] // 2
            middle = built.const([n], np.int64)
            scale = built.op("Slice", both, ends[0], middle, one)
            shift = built.op("Slice", both, middle, built.const([2 * n], np.int64), one)
            if backwards:
                scale = built.op("Neg", scale)
                moved = built.op("Mul", built.op("Sub", b, shift), built.op("Exp", scale))
            else:
                moved = built.op("Add", built.op("Mul", b, built.op("Exp", scale)), shift)
            value = built.op("Concat", *((moved, a) if flip else (a, moved)), axis=1)
            terms.append(built.total(scale, n))
        built.op("Identity", value, out=out)
        det = built.op("Sum", *terms, out="log_abs_det_jacobian")
        if backwards:
            built.op("Sub", built.normal(given, width), det, out="log_prob")
        else:
            built.op("Add", built.normal(value, width), det, out="log_prob")
        return built.finish(given, [width], out, [width], 0)

    draft = {
        "name": name,
        "version": version,
        "description": "Affine couplings with random weights.",
        "event_shape": [width],
        "latent_width": width,
        "base": NormalBase(),
    }
    graphs = {"forward.onnx": graph("x", "z", False), "inverse.onnx": graph("z", "x", True)}
    x, _ = inverse(generator.normal(size=(9, width)), None)
    return _parts(draft, graphs, forward, inverse, x, None)


def shares(name: str = "shares", version: int = 1, context_width: int = 0, **manifest: Any) -> Parts:
    """x = (s, 1 - s, y) with normal z = (logit s, y - sum of the context): three columns, and two latents."""
    tolerance = 1e-3

    def moved(context: Array | None) -> Array | float:
        return 0.0 if context is None else context.sum(1)

    def forward(x: Array, context: Array | None) -> tuple[Array, Array]:
        inside = np.clip(x[:, :2], 1e-30, None)
        z = np.stack([np.log(inside[:, 0]) - np.log(inside[:, 1]), x[:, 2] - moved(context)], 1)
        return z, -np.log(inside).sum(1)

    def inverse(z: Array, context: Array | None) -> tuple[Array, Array]:
        s = 1 / (1 + np.exp(-z[:, 0]))
        x = np.stack([s, 1 - s, z[:, 1] + moved(context)], 1)
        return x, np.log(x[:, :2]).sum(1)

    def column(graph: _Graph, value: str, start: int, stop: int) -> str:
        first, last, axis = (graph.const([at], np.int64) for at in (start, stop, 1))
        return graph.op("Slice", value, first, last, axis)

    def shift(graph: _Graph) -> str:
        if not context_width:
            return graph.const([[0.0]])
        return graph.op("MatMul", "context", graph.const(np.ones((context_width, 1))))

    there = _Graph()
    both = column(there, "x", 0, 2)
    logs = there.op("Log", there.op("Clip", both, there.const(1e-30)))
    logit = there.op("MatMul", logs, there.const([[1.0], [-1.0]]))
    there.op("Concat", logit, there.op("Sub", column(there, "x", 2, 3), shift(there)), out="z", axis=1)
    det = there.op("Neg", there.total(logs, 2), out="log_abs_det_jacobian")
    apart = there.op("Abs", there.op("Sub", there.total(both, 2), there.const(1.0)))
    least = there.op("Mul", column(there, "x", 0, 1), column(there, "x", 1, 2))
    positive = there.op("Reshape", there.op("Greater", least, there.const(0.0)), there.const([-1], np.int64))
    within = there.op("And", positive, there.op("Less", apart, there.const(tolerance)))
    density = there.op("Add", there.normal("z", 2), det)
    there.op("Where", within, density, there.const(-np.inf), out="log_prob")

    back = _Graph()
    logit = column(back, "z", 0, 1)
    pair = back.op("Sigmoid", back.op("MatMul", logit, back.const([[1.0, -1.0]])))
    back.op("Concat", pair, back.op("Add", column(back, "z", 1, 2), shift(back)), out="x", axis=1)
    det = back.op("Identity", back.total(back.op("Log", pair), 2), out="log_abs_det_jacobian")
    back.op("Sub", back.normal("z", 2), det, out="log_prob")

    graphs = {
        "forward.onnx": there.finish("x", [3], "z", [2], context_width),
        "inverse.onnx": back.finish("z", [2], "x", [3], context_width),
    }
    generator = np.random.default_rng(3)
    context = generator.normal(size=(9, context_width)) if context_width else None
    x, _ = inverse(generator.normal(size=(9, 2)), context)
    draft = {
        "name": name,
        "version": version,
        "description": "Two shares of a whole, and a number.",
        "event_shape": [3],
        "latent_width": 2,
        "context_width": context_width,
        "base": NormalBase(),
        "constraints": [Constraint(kind="simplex", first=0, columns=2)],
        **manifest,
    }
    return _parts(draft, graphs, forward, inverse, x, context)


def traced(parts: Parts) -> Parts:
    """The same bundle of `affine` or `image` with its chain in two steps: "centre" and "scale"."""
    manifest = parts.manifest
    width = manifest.latent_width
    model = onnx.load_from_string(parts.files["forward.onnx"])
    (centred,) = (node.output[0] for node in model.graph.node if node.op_type == "Sub" and node.input[0] == "t0")
    built = _Graph("trace ")
    alone, column = built.const([-1, 1, width], np.int64), built.const([-1, 1], np.int64)
    values = [built.op("Reshape", step, alone) for step in (centred, "z")]
    built.op("Concat", *values, out="values", axis=1)
    term = built.op("Reshape", "log_abs_det_jacobian", column)
    nothing = built.op("Mul", term, built.const(0.0))
    built.op("Concat", nothing, term, out="log_abs_det_jacobians", axis=1)
    model.graph.node.extend(built.nodes)
    model.graph.initializer.extend(built.constants)
    kept = [output for output in model.graph.output if output.name == "log_prob"]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N", 2, width]))
    model.graph.output.append(helper.make_tensor_value_info("log_abs_det_jacobians", TensorProto.FLOAT, ["N", 2]))
    model.graph.output.extend(kept)
    onnx.checker.check_model(model)
    steps = [Step(name="centre", shape=manifest.event_shape), Step(name="scale", shape=[width])]
    return replace(
        parts,
        manifest=manifest.model_copy(update={"trace": steps}),
        files={**parts.files, "trace.onnx": model.SerializeToString()},
    )


def in_float64(parts: Parts, name: str) -> Parts:
    """The same flow under another name, with graphs and golden rows of float64."""
    golden = Golden.from_npz(parts.files["golden.npz"], parts.manifest)
    wide = replace(
        golden,
        x=golden.x.astype(np.float64),
        context=None if golden.context is None else golden.context.astype(np.float64),
    )
    graphs = {file: _widened(data) for file, data in parts.files.items() if file.endswith(".onnx")}
    manifest = parts.manifest.model_copy(update={"name": name, "precision": "float64"})
    return replace(parts, manifest=manifest, files={**graphs, "golden.npz": wide.to_npz()})


def _widened(data: bytes) -> bytes:
    """A graph with float64 in the place of float32 throughout."""
    model = onnx.load_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))
    onnx.checker.check_model(model)
    widened: bytes = model.SerializeToString()
    return widened


def install(root: Path, *parts: Parts) -> Repository:
    """Write bundles into a repository."""
    repository = Repository(root)
    for part in parts:
        repository.install(part.manifest, part.files)
    return repository


def bundle(folder: Path, parts: Parts) -> Bundle:
    """The bundle as the server reads it."""
    return read_bundle(Repository(folder).install(parts.manifest, parts.files))

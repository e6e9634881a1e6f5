"""Hand-written ONNX graphs of a flow: the graph that an expert of ONNX writes for this one flow, from its weights.

Columns and operators are chosen for the flow, and torch's exporter has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from zuko.nn import Linear, MaskedLinear

from benchmarks.measure import MeasurementFailed
from models.export.graph import OPSET
from models.flows.conditional import Coupling
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Standardize
from models.flows.zuko_steps import ZukoAutoregressive
from service.onnx.signature import TENSORS

__all__ = ["Direction", "HandWrittenGraph"]

SCALE: Final = -math.log(0.05)
"""The greatest logarithm of a factor, of an affine step by default."""

BOUND: Final = 5.0
SLOPE: Final = -math.log(0.01)
"""The bound of a spline and the greatest logarithm of a slope, by default."""

Direction = Literal["forward", "inverse"]


class HandWrittenGraph:
    """One direction of a flow of couplings, affine or splines, or of affine autoregressive steps (forward only).

    The columns of couplings are taken apart once and put together once; in between each half is a tensor of its own. A
    conditioner is three Gemm. What bounds its output, L a / (L + |a|), is L Softsign(a / L), with the division done in
    the last layer's weight.

    Args:
        flow: `Standardize`, and steps as `real_nvp`, `neural_spline_coupling` or `maf` make them by default.
        direction: which.
    """

    def __init__(self, flow: Flow, direction: Direction) -> None:
        self._flow = flow
        self._back = direction == "inverse"
        self._turned = False  # whether what the steps give is to be taken from the logarithm, not added to it
        self._given, self._outputs = TENSORS[direction]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def graph(self) -> bytes:
        """The bytes of the file.

        Raises:
            MeasurementFailed: the flow has a step that is not written by hand here.
        """
        standardize, *steps = list(self._flow.bijections)
        if not isinstance(standardize, Standardize):
            raise MeasurementFailed(f"the flow begins with {standardize.name}, not with a standardization")
        mean, std = standardize.mean.numpy(), standardize.std.numpy()
        value, ladjs = self._given, []
        if not self._back:
            value = self._node("Div", self._node("Sub", value, mean), std)
        couplings = [step for step in steps if isinstance(step, Coupling)]
        if len(couplings) == len(steps):
            value, ladjs = self._coupled(couplings, value)
        else:
            for step in steps:
                value, ladj = self._autoregressive(step, value)
                ladjs.append(ladj)
        if self._back:
            value = self._node("Mul", value, std)
            self._node("Add", value, mean, output=self._outputs[0])
        else:
            self._nodes[-1].output[0] = self._outputs[0]
        self._densities(ladjs, float(np.log(std).sum()))
        return self._bytes()

    def _coupled(self, couplings: Sequence[Coupling], value: str) -> tuple[str, list[str]]:
        """What comes out of all couplings, and their logarithms of slopes, each [N, B], to be added up."""
        odd = np.arange(self._flow.width) % 2 == 1
        columns = np.concatenate([np.flatnonzero(odd), np.flatnonzero(~odd)])
        halves = {side: self._node("Gather", value, np.flatnonzero(odd == side), axis=1) for side in (True, False)}
        ladjs = []
        for coupling in reversed(couplings) if self._back else couplings:
            side = bool(odd[coupling.first[0]])
            affine = coupling.transform.lazy.shapes == ((), ())
            step = self._affine if affine else self._spline
            halves[not side], ladj = step(coupling, halves[side], halves[not side])
            ladjs.append(ladj)
        whole = self._node("Concat", halves[True], halves[False], axis=1)
        return self._node("Gather", whole, np.argsort(columns), axis=1), ladjs

    def _autoregressive(self, step: Bijection, value: str) -> tuple[str, str]:
        """One pass of the conditioner for all columns."""
        if not isinstance(step, ZukoAutoregressive) or self._back:
            raise MeasurementFailed(f"there is no graph by hand of {step.name} in this direction")
        return self._affine(step, value, value)

    def _affine(self, step: Coupling | ZukoAutoregressive, seen: str, moved: str) -> tuple[str, str]:
        """The columns that are moved, and the logarithms of their factors: shift and scale are the two parameters."""
        weight, bias, value = self._hidden(step, seen)
        weight = np.concatenate([weight[0::2], weight[1::2] / np.float32(SCALE)]).T
        bias = np.concatenate([bias[0::2], bias[1::2] / np.float32(SCALE)])
        value = self._node("Gemm", value, np.ascontiguousarray(weight), bias)
        shift, raw = self._split(value, [bias.size // 2] * 2, axis=1)
        scale = self._node("Mul", self._node("Softsign", raw), np.float32(SCALE))
        factor = self._node("Exp", scale)
        if self._back:
            self._turned = True
            return self._node("Div", self._node("Sub", moved, shift), factor), scale
        return self._node("Add", self._node("Mul", moved, factor), shift), scale

    def _spline(self, coupling: Coupling, seen: str, moved: str) -> tuple[str, str]:
        """The columns that are moved, and the logarithms of their slopes.

        A bin is chosen by products with ones and zeros: GatherElements takes twice the time.
        """
        weight, bias, value = self._hidden(coupling, seen)
        bins = coupling.transform.lazy.shapes[0][1]
        each = 3 * bins - 1
        limits = np.repeat([SLOPE / 2, SLOPE], [2 * bins, bins - 1]).astype(np.float32)
        tiled = np.tile(limits, bias.size // each)
        value = self._node("Gemm", value, np.ascontiguousarray((weight / tiled[:, None]).T), bias / tiled)
        value = self._node("Reshape", value, np.array([-1, bias.size // each, each]))
        table = self._table(self._node("Softsign", value), limits, bins)
        inner = self._node("Clip", moved, np.float32(-BOUND), np.float32(BOUND))
        given = self._node("Unsqueeze", inner, np.array([2]))
        parts = self._bin(table, given, bins)
        answer, slope = self._quadratic_back(given, *parts) if self._back else self._quadratic(given, *parts)
        inside = self._node("Equal", inner, moved)
        answer, ladj = (self._node("Squeeze", part, np.array([2])) for part in (answer, self._node("Log", slope)))
        return self._node("Where", inside, answer, moved), self._node("Where", inside, ladj, np.float32(0))

    def _table(self, soft: str, limits: npt.NDArray[np.float32], bins: int) -> str:
        """Left ends, lower ends, widths, heights, slopes at both ends: [N, B, 6 bins], from parameters in (-1, 1)."""
        inner, one = np.eye(bins - 1), np.eye(bins)
        slopes = np.hstack([np.zeros((bins - 1, 1)), inner, inner, np.zeros((bins - 1, 1))])
        spread = np.block(
            [[np.eye(2 * bins), np.zeros((2 * bins, 2 * bins))], [np.zeros((bins - 1, 2 * bins)), slopes]]
        )
        shares = self._node("Exp", self._node("MatMul", soft, (limits[:, None] * spread).astype(np.float32)))
        first = np.zeros((2 * bins, 2 * bins))
        first[0] = 1.0  # the slope at the left bound, which is 1
        none = np.zeros((2 * bins, 2 * bins))
        totals = np.block([[np.kron(np.eye(2), np.full((bins, bins), 0.5 / BOUND)), none], [none, first]])
        extents = self._node("Div", shares, self._node("MatMul", shares, totals.astype(np.float32)))
        corners = np.vstack([np.kron(np.eye(2), np.triu(np.ones_like(one), 1)), -BOUND * first])
        return self._node("MatMul", extents, np.hstack([corners, np.eye(4 * bins)]).astype(np.float32))

    def _bin(self, table: str, given: str, bins: int) -> list[str]:
        """The bin that each number [N, B, 1] is in: left and lower end, width, height, slopes at both ends.

        Back, also half the first slope and half the sum of both.
        """
        start = bins if self._back else 0
        corners = self._node("Slice", table, *(np.array([number]) for number in (start, start + bins, 2)))
        reached = self._node("Cast", self._node("LessOrEqual", corners, given), to=onnx.TensorProto.FLOAT)
        chosen = np.tile(np.eye(bins) - np.eye(bins, k=-1), (1, 6)).astype(np.float32)
        alone = self._node("Mul", table, self._node("MatMul", reached, chosen))
        found = np.eye(6, 8)
        found[4:, 6:] = [[0.5, 0.5], [0.0, 0.5]]
        found = found[:, : 8 if self._back else 6]
        parts = self._node("MatMul", alone, np.repeat(found, bins, axis=0).astype(np.float32))
        return self._split(parts, [1] * found.shape[1], axis=2)

    def _quadratic(self, given: str, x: str, y: str, width: str, height: str, left: str, right: str) -> tuple[str, str]:
        """The height reached, and the slope there."""
        node, one = self._node, np.float32(1)
        u = node("Clip", node("Div", node("Sub", given, x), width), np.float32(0), one)
        s = node("Div", height, width)
        top, bottom, rise = self._fraction(s, left, right, u)
        slope = node("Div", s, bottom)
        answer = node("Add", y, node("Div", node("Mul", height, top), bottom))
        return answer, node("Mul", node("Mul", slope, rise), slope)

    def _quadratic_back(
        self, given: str, x: str, y: str, width: str, height: str, left: str, right: str, half: str, middle: str
    ) -> tuple[str, str]:
        """The place where the height is reached, and one over the slope there."""
        node, zero, one = self._node, np.float32(0), np.float32(1)
        s = node("Div", height, width)
        e = node("Clip", node("Div", node("Sub", given, y), height), zero, one)
        b, c = node("Sub", half, node("Mul", e, node("Sub", middle, s))), node("Mul", s, e)
        apart = node("Sub", b, c)
        square = node("Add", node("Mul", apart, apart), node("Mul", c, node("Sub", s, c)))
        u = node("Clip", node("Div", c, node("Add", b, node("Sqrt", square))), zero, one)
        _, bottom, rise = self._fraction(s, left, right, u)
        slope = node("Div", bottom, s)
        return node("Add", x, node("Mul", u, width)), node("Mul", node("Div", slope, rise), slope)

    def _fraction(self, s: str, left: str, right: str, u: str) -> tuple[str, str, str]:
        """Above and below the line of the rational quadratic, and above the line of its slope."""

        def mixed(one: str, other: str, weight: str, rest: str) -> str:
            return self._node("Add", self._node("Mul", one, weight), self._node("Mul", other, rest))

        v = self._node("Sub", np.float32(1), u)
        a, b = mixed(s, left, u, v), mixed(s, right, v, u)
        top = self._node("Mul", u, a)
        return top, self._node("Add", top, self._node("Mul", v, b)), mixed(v, u, a, b)

    def _hidden(
        self, step: Coupling | ZukoAutoregressive, value: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], str]:
        """The last layer's weight and bias, and what goes into it, from the columns that condition."""
        clip, *layers = step.transform.lazy.hyper
        value = self._node("Clip", value, np.float32(clip.min_val), np.float32(clip.max_val))
        *hidden, last = [
            (layer.mask * layer.weight if isinstance(layer, MaskedLinear) else layer.weight, layer.bias)
            for layer in layers
            if isinstance(layer, (Linear, MaskedLinear))
        ]
        for weight, bias in hidden:
            transposed = np.ascontiguousarray(weight.detach().numpy().T)
            value = self._node("Relu", self._node("Gemm", value, transposed, bias.detach().numpy()))
        return last[0].detach().numpy(), last[1].detach().numpy(), value

    def _densities(self, ladjs: Sequence[str], log_std: float) -> None:
        """log_abs_det_jacobian and log_prob, from the steps' logarithms and z."""
        axis, one, shift = np.array([1]), {"keepdims": 0}, np.float32(log_std)
        terms = self._node("ReduceSum", self._node("Concat", *ladjs, axis=1), axis, **one)
        if self._turned:
            ladj = self._node("Sub", shift, terms, output="log_abs_det_jacobian")
        else:
            ladj = self._node("Add" if self._back else "Sub", terms, shift, output="log_abs_det_jacobian")
        norm = self._node("Mul", self._node("ReduceSumSquare", "z", axis, **one), np.float32(-0.5))
        base = self._node("Sub", norm, np.float32(self._flow.width / 2 * math.log(2 * math.pi)))
        self._node("Sub" if self._back else "Add", base, ladj, output="log_prob")

    def _split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        names = [f"{value}_part_{number}" for number in range(len(sizes))]
        given = [value, self._constant(np.array(sizes))]
        self._nodes.append(helper.make_node("Split", given, names, axis=axis))
        return names

    def _node(self, operator: str, *inputs: str | npt.ArrayLike, output: str = "", **attributes: int) -> str:
        names = [each if isinstance(each, str) else self._constant(np.asarray(each)) for each in inputs]
        name = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def _bytes(self) -> bytes:
        kind, width = onnx.TensorProto.FLOAT, self._flow.width
        shapes = zip(self._outputs, (["N", width], ["N"], ["N"]), strict=True)
        graph = helper.make_graph(
            self._nodes,
            "by_hand",
            [helper.make_tensor_value_info(self._given, kind, ["N", width])],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

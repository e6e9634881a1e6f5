"""The lowering of operators: those that a bundle may not hold, or that have no kernel, written as several others.

A layer of torch may be one operator of ONNX that is not on the allow-list: a norm, SELU, PReLU. It is written here as
arithmetic. In float64, ONNX Runtime's processor provider has no kernel for some operators that are on the list: those
are lowered in a graph of float64 alone, so that graphs of float32 stay what they are.

A sum over the columns of a row is a product with a constant vector, never a reduction: the order in which ONNX Runtime
adds up a reduction depends on the place of the row in its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from numpy.polynomial import Chebyshev, Polynomial
from onnx_ir.passes.common import RemoveUnusedNodesPass

from models.export.rewrites.nodes import (
    Array,
    add_constant,
    constant_value,
    describe_output,
    float_type,
    input_of,
    is_made_by,
    last_dimension,
    producer_of,
    replace_value,
    required_input,
)

__all__ = ["lower"]

Operand = ir.Value | float | Array
Float64 = npt.NDArray[np.float64]

_ERF_END: Final = 6.0
"""From here on erf is 1 in float64."""
_ERF_TURN: Final = 2.0
"""The y that u = (y - turn) / (y + turn) sends to 0."""
_DEGREE: Final = 24
"""The degree of a polynomial that stands for a smooth function: more gains nothing in float64."""
_MOST_REPEATS: Final = 256
_SELU: Final = (1.6732632423543772, 1.0507009873554805)
"""alpha and gamma of torch. ONNX has these as its defaults, rounded to float32."""


def lower(model: ir.Model) -> None:
    """Replace each operator that can be written as others and must be, until none is left.

    Args:
        model: changed in place. Inputs, outputs and their names stay.
    """
    changed = True
    while changed:
        changed = False
        for node in list(model.graph):
            rule = _rule(node)
            if rule is None:
                continue
            new = rule(_Writer(model.graph, node))
            if new is None:
                continue
            replace_value(model.graph, node.outputs[0], new)
            model.graph.remove(node, safe=True)
            changed = True
    RemoveUnusedNodesPass()(model)


class _Writer:
    """Writes nodes in front of the one that they replace, in its precision.

    Args:
        graph: of the node.
        node: to be replaced; it has one output that is read.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.node = node
        self.dtype = float_type(node.outputs[0]) or np.dtype(np.float32)
        self._graph = graph
        self._count = 0

    @property
    def x(self) -> ir.Value:
        """The first input of the node."""
        return required_input(self.node, 0)

    def number(self, name: str, default: float) -> float:
        """An attribute of the node."""
        return self.node.attributes.get_float(name, default)

    def constant(self, position: int) -> Float64 | None:
        """An input of the node that is a constant; None where it depends on the rows, or there is none."""
        found = constant_value(input_of(self.node, position))
        return None if found is None else found.astype(np.float64)

    def write(
        self,
        operator: str,
        *operands: Operand,
        shape: Sequence[int | ir.SymbolicDim | None] | None = None,
        **attributes: int | float,
    ) -> ir.Value:
        """Write a node.

        Args:
            operator: of the node.
            operands: its inputs; a number or an array of floats is a constant of the graph's precision.
            shape: of its output; None for that of the node that is replaced.
            attributes: of the node.

        Returns:
            Its output.
        """
        inputs = [value if isinstance(value, ir.Value) else self._constant(value) for value in operands]
        new = ir.node(operator, inputs, attributes=attributes)
        self._graph.insert_before(self.node, new)
        self._count += 1
        name = f"{self.node.outputs[0].name}_{operator}_{self._count}"
        output = describe_output(self.node.outputs[0], new, name)
        if shape is not None:
            output.shape = ir.Shape(shape)
        return output

    def _constant(self, value: float | Array) -> ir.Value:
        array = np.asarray(value)
        return add_constant(self._graph, self.node, array if array.dtype == np.int64 else array.astype(self.dtype))

    def relu(self, x: Operand) -> ir.Value:
        """max(x, 0)."""
        return self.write("Relu", x)

    def clip(self, x: Operand, low: float, high: float) -> ir.Value:
        """X between two numbers."""
        return self.write("Clip", x, low, high)

    def exp_minus_one(self, x: Operand) -> ir.Value:
        """exp(min(x, 0)) - 1: 0 from 0 on."""
        return self.write("Sub", self.write("Exp", self.write("Min", x, 0.0)), 1.0)

    def polynomial(self, coefficients: Float64, x: ir.Value) -> ir.Value:
        """The value of a polynomial at x, by Horner's rule; the coefficients ascend."""
        *rest, value = coefficients.tolist()
        total: Operand = value
        for coefficient in reversed(rest):
            total = self.write("Add", self.write("Mul", total, x), coefficient)
        return total if isinstance(total, ir.Value) else self.write("Add", self.write("Mul", x, 0.0), total)

    def standardize(
        self, x: ir.Value, width: int, epsilon: float, shape: Sequence[int | ir.SymbolicDim | None]
    ) -> ir.Value:
        """(x - mean) / sqrt(variance + epsilon), over the last axis.

        Args:
            x: ``[..., width]``.
            width: of the axis.
            epsilon: beside the variance.
            shape: of x.
        """
        single = [*shape[:-1], 1]
        share = np.full((width, 1), 1.0 / width)
        mean = self.write("MatMul", x, share, shape=single)
        centred = self.write("Sub", x, mean, shape=shape)
        variance = self.write("MatMul", self.write("Mul", centred, centred, shape=shape), share, shape=single)
        deviation = self.write("Sqrt", self.write("Add", variance, epsilon, shape=single), shape=single)
        return self.write("Div", centred, deviation, shape=shape)


_Rule = Callable[[_Writer], "ir.Value | None"]


def _rule(node: ir.Node) -> _Rule | None:
    """The rule for a node; None where it may stay."""
    if node.domain not in ("", "ai.onnx"):
        return None
    rule = _ALWAYS.get(node.op_type)
    if rule is None and float_type(node.outputs[0]) == np.float64:
        rule = _IN_FLOAT64.get(node.op_type)
    return rule


def _layer_norm(w: _Writer) -> ir.Value | None:
    """LayerNormalization: standardized over the last axes, then scaled and shifted."""
    shape = _known_shape(w.x)
    if shape is None:
        return None
    axis = w.node.attributes.get_int("axis", -1) % len(shape)
    normed = _standardized_rows(w, shape, axis, w.number("epsilon", 1e-5))
    return _scaled(w, normed, [input_of(w.node, 1), input_of(w.node, 2)])


def _instance_norm(w: _Writer) -> ir.Value | None:
    """InstanceNormalization: each channel of each row is standardized, then scaled and shifted by the channel's own.

    The rows may stand in the place of the channels: so torch writes a norm of rows ``[N, D]``.
    """
    shape = None if w.x.shape is None else list(w.x.shape)
    inside = [] if shape is None else [size for size in shape[2:] if isinstance(size, int)]
    if shape is None or not inside or len(inside) != len(shape) - 2:
        return None
    width, epsilon = math.prod(inside), w.number("epsilon", 1e-5)
    if len(inside) == 1:
        normed = w.standardize(w.x, width, epsilon, shape)
    else:
        flat = w.write("Reshape", w.x, np.array([0, 0, width]), shape=[*shape[:2], width])
        normed = w.standardize(flat, width, epsilon, [*shape[:2], width])
        normed = w.write("Reshape", normed, np.array([0, 0, *inside]))
    return _scaled(w, normed, [_by_channel(w, position, len(shape)) for position in (1, 2)])


def _group_norm(w: _Writer) -> ir.Value | None:
    """GroupNormalization: the channels of a group are standardized together, then scaled and shifted by their own."""
    shape = _known_shape(w.x)
    groups = w.node.attributes.get_int("num_groups")
    if shape is None or groups is None or len(shape) < 2:
        return None
    values = math.prod(shape[1:])
    grouped = w.write("Reshape", w.x, np.array([-1, groups, values // groups]), shape=[None, groups, values // groups])
    normed = w.standardize(grouped, values // groups, w.number("epsilon", 1e-5), [None, groups, values // groups])
    back = w.write("Reshape", normed, np.array([-1, *shape[1:]]))
    return _scaled(w, back, [_by_channel(w, position, len(shape)) for position in (1, 2)])


def _batch_norm(w: _Writer) -> ir.Value | None:
    """BatchNormalization by the running statistics: a scale and a shift for each channel, worked out in float64."""
    rank = None if w.x.shape is None else w.x.shape.rank()
    constants = [w.constant(position) for position in (1, 2, 3, 4)]
    if rank is None or rank < 2 or any(constant is None for constant in constants):
        return None
    scale, shift, mean, variance = (c.reshape(-1, *[1] * (rank - 2)) for c in constants if c is not None)
    centred = w.write("Sub", w.x, mean)
    return w.write("Add", w.write("Mul", centred, scale / np.sqrt(variance + w.number("epsilon", 1e-5))), shift)


def _tile(w: _Writer) -> ir.Value | None:
    """Tile by constant numbers: the value beside itself, axis by axis."""
    repeats = constant_value(input_of(w.node, 1))
    if repeats is None or math.prod(repeats.tolist()) > _MOST_REPEATS:
        return None
    value = w.x
    for axis, times in enumerate(repeats.tolist()):
        if times != 1:
            sizes = [] if value.shape is None else list(value.shape)
            long = [size * times if isinstance(size, int) else None for size in sizes]
            shape = [*sizes[:axis], *long[axis : axis + 1], *sizes[axis + 1 :]]
            value = w.write("Concat", *[value] * times, shape=shape or None, axis=axis)
    return w.write("Identity", value) if value is w.x else value


def _reduce_mean(w: _Writer) -> ir.Value | None:
    """ReduceMean over the columns of a row."""
    width = _reduced_columns(w)
    return None if width is None else _summed(w, w.x, np.full((width, 1), 1.0 / width))


def _reduce_l2(w: _Writer) -> ir.Value | None:
    """ReduceL2 over the columns of a row: the square root of the sum of squares."""
    width = _reduced_columns(w)
    if width is None or w.x.shape is None:
        return None
    return w.write("Sqrt", _summed(w, w.write("Mul", w.x, w.x, shape=list(w.x.shape)), np.ones((width, 1))))


def _reduced_columns(w: _Writer) -> int | None:
    """How long the last axis is, where a reduction is over that axis alone."""
    axes, width = constant_value(input_of(w.node, 1)), last_dimension(w.x)
    if axes is None or axes.size != 1 or w.x.shape is None or w.x.shape.rank() < 2:
        return None
    return width if int(axes.reshape(())) in (-1, w.x.shape.rank() - 1) else None


def _summed(w: _Writer, x: ir.Value, weights: Float64) -> ir.Value:
    """The weighted sum over the last axis, which is kept where the node keeps it."""
    kept = [] if x.shape is None else [*x.shape[:-1], 1]
    if w.node.attributes.get_int("keepdims", 1):
        return w.write("MatMul", x, weights)
    return w.write("Squeeze", w.write("MatMul", x, weights, shape=kept), np.array([-1]))


def _prelu(w: _Writer) -> ir.Value:
    """PRelu: max(x, 0) - slope max(-x, 0)."""
    return w.write("Sub", w.relu(w.x), w.write("Mul", w.relu(w.write("Neg", w.x)), required_input(w.node, 1)))


def _leaky_relu(w: _Writer) -> ir.Value:
    """LeakyRelu, as PRelu."""
    negative = w.write("Mul", w.relu(w.write("Neg", w.x)), w.number("alpha", 0.01))
    return w.write("Sub", w.relu(w.x), negative)


def _elu(w: _Writer) -> ir.Value:
    """Elu: max(x, 0) + alpha (exp(min(x, 0)) - 1)."""
    return w.write("Add", w.relu(w.x), w.write("Mul", w.exp_minus_one(w.x), w.number("alpha", 1.0)))


def _celu(w: _Writer) -> ir.Value | None:
    """Celu: max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)."""
    if _float64_before_celu(w.node) is not None:
        return None  # with the Cast after it
    return _celu_of(w, w.x, w.number("alpha", 1.0))


def _cast_of_celu(w: _Writer) -> ir.Value | None:
    """Cast(Celu(Cast(x))) of x in float64: the exporter writes a Celu in float32 whatever it is given."""
    celu = w.x.producer()
    source = None if celu is None else _float64_before_celu(celu)
    if celu is None or source is None:
        return None
    return _celu_of(w, source, celu.attributes.get_float("alpha", 1.0))


def _float64_before_celu(node: ir.Node) -> ir.Value | None:
    """The value of float64 that a Celu is given as float32; None for any other node."""
    source = input_of(producer_of(node, 0), 0) if is_made_by(input_of(node, 0), "Cast") else None
    return source if node.op_type == "Celu" and float_type(source) == np.float64 else None


def _celu_of(w: _Writer, x: ir.Value, alpha: float) -> ir.Value:
    return w.write("Add", w.relu(x), w.write("Mul", w.exp_minus_one(w.write("Div", x, alpha)), alpha))


def _selu(w: _Writer) -> ir.Value:
    """Selu: gamma (max(x, 0) + alpha (exp(min(x, 0)) - 1))."""
    alpha, gamma = (w.number(name, default) for name, default in zip(("alpha", "gamma"), _SELU, strict=True))
    return w.write("Add", w.write("Mul", w.relu(w.x), gamma), w.write("Mul", w.exp_minus_one(w.x), alpha * gamma))


def _thresholded_relu(w: _Writer) -> ir.Value:
    """ThresholdedRelu: x above alpha, else 0."""
    above = w.write("Greater", w.x, w.number("alpha", 1.0))
    above.type = ir.TensorType(ir.DataType.BOOL)
    return w.write("Where", above, w.x, 0.0)


def _shrink(w: _Writer) -> ir.Value:
    """Shrink: x - bias above lambd, x + bias below -lambd, and 0 between."""
    bias, limit = w.number("bias", 0.0), w.number("lambd", 0.5)
    sides = [w.write("Greater", w.x, limit), w.write("Less", w.x, -limit)]
    for side in sides:
        side.type = ir.TensorType(ir.DataType.BOOL)
    below = w.write("Where", sides[1], w.write("Add", w.x, bias), 0.0)
    return w.write("Where", sides[0], w.write("Sub", w.x, bias), below)


def _mish(w: _Writer) -> ir.Value:
    """Mish: x tanh(softplus(x))."""
    return w.write("Mul", w.x, w.write("Tanh", w.write("Softplus", w.x)))


def _hard_swish(w: _Writer) -> ir.Value:
    """HardSwish: x times x / 6 + 1 / 2, which is cut to between 0 and 1."""
    return w.write("Mul", w.x, w.clip(w.write("Add", w.write("Div", w.x, 6.0), 0.5), 0.0, 1.0))


def _hard_sigmoid(w: _Writer) -> ir.Value:
    """HardSigmoid: alpha x + beta, cut to between 0 and 1."""
    line = w.write("Add", w.write("Mul", w.x, w.number("alpha", 0.2)), w.number("beta", 0.5))
    return w.clip(line, 0.0, 1.0)


def _softplus(w: _Writer) -> ir.Value:
    """Softplus: log(1 + exp(-|x|)) + max(x, 0)."""
    rest = w.write("Log", w.write("Add", w.write("Exp", w.write("Neg", w.write("Abs", w.x))), 1.0))
    return w.write("Add", rest, w.relu(w.x))


def _softsign(w: _Writer) -> ir.Value:
    """Softsign: x / (1 + |x|)."""
    return w.write("Div", w.x, w.write("Add", w.write("Abs", w.x), 1.0))


def _erf(w: _Writer) -> ir.Value:
    """Erf: sign(x) (1 - exp(-y^2) p(u)) with y = min(|x|, 6) and u = (y - 2) / (y + 2).

    p is the polynomial through exp(y^2) erfc(y), which is smooth.
    """
    y = w.write("Min", w.write("Abs", w.x), _ERF_END)
    u = w.write("Div", w.write("Sub", y, _ERF_TURN), w.write("Add", y, _ERF_TURN))
    tail = w.write("Mul", w.write("Exp", w.write("Neg", w.write("Mul", y, y))), w.polynomial(_erf_coefficients(), u))
    return w.write("Mul", w.write("Sign", w.x), w.write("Sub", 1.0, tail))


def _atan(w: _Writer) -> ir.Value:
    """Atan: sign(x) times t p(t^2) with t = |x| up to 1, and pi / 2 - t p(t^2) with t = 1 / |x| from there on."""
    size = w.write("Abs", w.x)
    t = w.write("Div", w.write("Min", size, 1.0), w.write("Max", size, 1.0))
    small = w.write("Mul", t, w.polynomial(_atan_coefficients(), w.write("Mul", t, t)))
    beyond = w.write("Greater", size, 1.0)
    beyond.type = ir.TensorType(ir.DataType.BOOL)
    angle = w.write("Where", beyond, w.write("Sub", math.pi / 2, small), small)
    return w.write("Mul", w.write("Sign", w.x), angle)


def _cos(w: _Writer) -> ir.Value:
    """Cos x = sin(x + pi / 2)."""
    return w.write("Sin", w.write("Add", w.x, math.pi / 2))


def _tan(w: _Writer) -> ir.Value:
    """Tan: sin(x) / cos(x)."""
    return w.write("Div", w.write("Sin", w.x), w.write("Cos", w.x))


def _known_shape(value: ir.Value) -> list[int] | None:
    """The shape of a value of which the number of rows alone is open; -1 stands for that number."""
    if value.shape is None or value.shape.rank() < 2:
        return None
    rows, *rest = value.shape
    sizes = [size for size in rest if isinstance(size, int)]
    return [rows if isinstance(rows, int) else -1, *sizes] if len(sizes) == len(rest) else None


def _standardized_rows(w: _Writer, shape: Sequence[int], axis: int, epsilon: float) -> ir.Value:
    """The first input, standardized over the axes from `axis` on."""
    open_shape = [None if size == -1 else size for size in shape]
    width = math.prod(shape[axis:])
    if axis == len(shape) - 1:
        return w.standardize(w.x, width, epsilon, open_shape)
    flat = w.write("Reshape", w.x, np.array([*shape[:axis], width]), shape=[*open_shape[:axis], width])
    normed = w.standardize(flat, width, epsilon, [*open_shape[:axis], width])
    return w.write("Reshape", normed, np.array(list(shape)), shape=open_shape)


def _by_channel(w: _Writer, position: int, rank: int) -> ir.Value | Float64 | None:
    """An input ``[C]`` in the shape ``[C, 1, ...]`` that fits the channels of a value of so many axes."""
    value, constant, shape = input_of(w.node, position), w.constant(position), [-1, *[1] * (rank - 2)]
    if value is None or constant is not None:
        return None if constant is None else constant.reshape(shape)
    return w.write("Reshape", value, np.array(shape), shape=[None, *shape[1:]])


def _scaled(w: _Writer, value: ir.Value, affine: Sequence[ir.Value | Float64 | None]) -> ir.Value:
    """A value times the first of two operands, plus the second; None for neither."""
    for operator, operand in zip(("Mul", "Add"), affine, strict=True):
        if operand is not None:
            value = w.write(operator, value, operand)
    return value


def _erf_coefficients() -> Float64:
    def scaled(u: Float64) -> Float64:
        y = _ERF_TURN * (1.0 + u) / (1.0 - u)
        return np.array([math.exp(v * v) * math.erfc(v) for v in y])

    return _through(scaled, -1.0, (_ERF_END - _ERF_TURN) / (_ERF_END + _ERF_TURN))


def _atan_coefficients() -> Float64:
    def scaled(square: Float64) -> Float64:
        return np.array([math.atan(t) / t if t else 1.0 for t in np.sqrt(square)])

    return _through(scaled, 0.0, 1.0)


def _through(function: Callable[[Float64], Float64], low: float, high: float) -> Float64:
    """The coefficients, ascending, of the polynomial through a function at Chebyshev's points of an interval."""
    found = Chebyshev.interpolate(function, _DEGREE, domain=(low, high))
    return np.asarray(found.convert(kind=Polynomial, domain=(-1.0, 1.0), window=(-1.0, 1.0)).coef, np.float64)


_ALWAYS: Final[Mapping[str, _Rule]] = {
    "BatchNormalization": _batch_norm,
    "Celu": _celu,
    "GroupNormalization": _group_norm,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Mish": _mish,
    "PRelu": _prelu,
    "ReduceL2": _reduce_l2,
    "ReduceMean": _reduce_mean,
    "Selu": _selu,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded_relu,
    "Tile": _tile,
}
"""The operators that are not on the allow-list, and the reductions of layers: operator -> its rule."""

_IN_FLOAT64: Final[Mapping[str, _Rule]] = {
    "Atan": _atan,
    "Cos": _cos,
    "Cast": _cast_of_celu,
    "Elu": _elu,
    "Erf": _erf,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Tan": _tan,
}
"""The operators that ONNX Runtime may have no float64 kernel for on the processor: operator -> its rule."""

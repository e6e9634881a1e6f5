"""The rules of shapes: for each operator of the allow-list, the shapes of its outputs from those of its inputs.

Beside shapes, a rule follows the few integers that shapes are made of, as far as they are `service.bundle.terms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from service.bundle.terms import ONE, Size, Term, equal, larger, minus, over, plus, product, rest, smaller, times

__all__ = ["RULES", "SCALAR", "UNKNOWN", "ShapeFault", "ShapeNode", "Tensor", "keep_shape", "read_constant"]

_MAX_FOLDED: Final = 256
"""The most numbers of a tensor that are followed; those that decide a shape are one or two for each axis."""

_INT64, _BOOL = 7, 9  # TensorProto.DataType
_FULL: Final = (1 << 31) - 1
"""The least end of a Slice that stands for all of an axis."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a tensor.

    Args:
        shape: the size of each axis; None where not even their number is known.
        numbers: its numbers, flat, where they are few integers that fold; else None.
    """

    shape: tuple[Size, ...] | None
    numbers: tuple[Size, ...] | None = None

    def size(self) -> Size:
        """The number of its values."""
        return None if self.shape is None else product(self.shape)


UNKNOWN: Final = Tensor(None)
SCALAR: Final = Tensor(())


class ShapeFault(Exception):
    """A node whose shape does not fold, or is too large."""


class ShapeNode:
    """A node with what is known of its inputs."""

    def __init__(self, node: Any, inputs: Sequence[Tensor | None]) -> None:  # noqa: ANN401  see `service.bundle.model_message`
        self._attributes = {attribute.name: attribute for attribute in node.attribute}
        self.inputs = inputs
        self.operator: str = node.op_type
        self.outputs = len(node.output)

    def input(self, at: int) -> Tensor:
        """An input; unknown where there is none."""
        found = self.inputs[at] if at < len(self.inputs) else None
        return UNKNOWN if found is None else found

    def has_input(self, at: int) -> bool:
        """Whether there is such an input."""
        return at < len(self.inputs) and self.inputs[at] is not None

    def attribute(self, name: str) -> Any:  # noqa: ANN401  see `service.bundle.model_message`
        """An attribute; None where there is none."""
        return self._attributes.get(name)

    def integer(self, name: str, default: int) -> int:
        """An attribute of one integer."""
        found = self._attributes.get(name)
        return default if found is None else int(found.i)

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        """An attribute of integers."""
        found = self._attributes.get(name)
        if found is None:
            return None if default is None else list(default)
        return [int(value) for value in found.ints]

    def decides(self, at: int, name: str) -> tuple[Term, ...] | None:
        """The numbers that decide a shape: an input, or in older opsets the attribute of that name.

        Returns:
            The numbers; None where there are none.

        Raises:
            ShapeFault: they do not fold.
        """
        if self.has_input(at):
            numbers = self.input(at).numbers
            folded = tuple(number for number in numbers or () if number is not None)
            if numbers is None or len(folded) < len(numbers) or any(number.power > 1 for number in folded):
                raise ShapeFault(
                    f"takes {name} that are computed from rows; they must fold to constants or to the number of rows"
                )
            return folded
        given = self.integers(name)
        return None if given is None else tuple(Term(value) for value in given)

    def axes(self, at: int, rank: int) -> list[int] | None:
        """Axes, from an input or an attribute, counted from 0; None where there are none."""
        given = self.decides(at, "axes")
        return None if given is None else [axis.factor % rank if rank else 0 for axis in given]


def read_constant(tensor: Any) -> Tensor:  # noqa: ANN401  see `service.bundle.model_message`
    """A tensor of the file."""
    shape = tuple(Term(size) for size in tensor.dims)
    count = math.prod(tensor.dims)
    if tensor.data_type != _INT64 or count > _MAX_FOLDED:
        return Tensor(shape)
    if tensor.raw_data:
        raw = tensor.raw_data
        numbers = [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]
    else:
        numbers = list(tensor.int64_data)
    return Tensor(shape, tuple(Term(number) for number in numbers) if len(numbers) == count else None)


def _broadcast_sizes(a: Size, b: Size) -> Size:
    if a == b or b == ONE:
        return a
    if a == ONE:
        return b
    if a is None or b is None:  # the one that is known and not 1 stands, as the other must be it or 1
        return b if a is None else a
    if 0 in (a.power, b.power) and a.power != b.power:  # a frozen batch: no other number of rows than one runs
        return a if a.power else b
    return None


def _broadcast(shapes: Sequence[tuple[Size, ...] | None]) -> tuple[Size, ...] | None:
    whole: tuple[Size, ...] = ()
    for shape in shapes:
        if shape is None:
            return None
        rank = max(len(whole), len(shape))
        left = (ONE,) * (rank - len(whole)) + whole
        right = (ONE,) * (rank - len(shape)) + shape
        whole = tuple(_broadcast_sizes(a, b) for a, b in zip(left, right, strict=True))
    return whole


# Rules: a node -> its outputs


def keep_shape(node: ShapeNode) -> list[Tensor]:
    """The shape of the first input."""
    return [Tensor(node.input(0).shape)]


def _identity(node: ShapeNode) -> list[Tensor]:
    return [node.input(0)]


def _cast(node: ShapeNode) -> list[Tensor]:
    """The numbers that are followed are those of int64 and bool. In all other types they may change unseen."""
    given = node.input(0)
    target = node.integer("to", 0)
    exact = target == _INT64 or (target == _BOOL and all(each in (Term(0), ONE) for each in given.numbers or ()))
    return [given if exact else Tensor(given.shape)]


_ARITHMETIC: Final[Mapping[str, Callable[[Size, Size], Size]]] = MappingProxyType(
    {
        "Add": plus,
        "Sub": minus,
        "Mul": times,
        "Div": over,
        "Mod": rest,
        "Equal": equal,
        "Max": larger,
        "Min": smaller,
    }
)


def _elementwise(node: ShapeNode) -> list[Tensor]:
    given = [each for each in node.inputs if each is not None]
    shape = _broadcast([each.shape for each in given])
    compute = _ARITHMETIC.get(node.operator)
    numbers = [each.numbers for each in given]
    if compute is None or len(given) != 2 or shape is None or len(shape) > 1:
        return [Tensor(shape)]
    left, right = numbers
    if left is None or right is None:
        return [Tensor(shape)]
    count = max(len(left), len(right)) if left and right else 0
    pairs = zip(_stretched(left, count), _stretched(right, count), strict=True)
    return [Tensor(shape, tuple(compute(a, b) for a, b in pairs))]


def _stretched(numbers: tuple[Size, ...], count: int) -> tuple[Size, ...]:
    return numbers * count if len(numbers) == 1 else numbers[:count]


def _where(node: ShapeNode) -> list[Tensor]:
    chosen, left, right = node.input(0), node.input(1), node.input(2)
    shape = _broadcast([chosen.shape, left.shape, right.shape])
    if shape is None or len(shape) > 1 or None in (chosen.numbers, left.numbers, right.numbers):
        return [Tensor(shape)]
    parts = [each.numbers or () for each in (chosen, left, right)]
    count = max(map(len, parts))
    rows = zip(*(_stretched(part, count) for part in parts), strict=True)
    return [Tensor(shape, tuple(None if c is None else (a if c.factor else b) for c, a, b in rows))]


def _matmul(node: ShapeNode) -> list[Tensor]:
    a, b = node.input(0).shape, node.input(1).shape
    if not a or not b:
        return [UNKNOWN]
    left = a if len(a) > 1 else (ONE, *a)
    right = b if len(b) > 1 else (*b, ONE)
    batch = _broadcast([left[:-2], right[:-2]]) or ()
    rows = left[-2:-1] if len(a) > 1 else ()
    columns = right[-1:] if len(b) > 1 else ()
    return [Tensor((*batch, *rows, *columns))]


def _gemm(node: ShapeNode) -> list[Tensor]:
    a, b = node.input(0).shape, node.input(1).shape
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return [UNKNOWN]
    rows = a[1] if node.integer("transA", 0) else a[0]
    columns = b[0] if node.integer("transB", 0) else b[1]
    return [Tensor((rows, columns))]


def _concat(node: ShapeNode) -> list[Tensor]:
    given = [each for each in node.inputs if each is not None]
    shapes = [each.shape for each in given]
    first = shapes[0] if shapes else None
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return [UNKNOWN]
    axis = node.integer("axis", 0) % len(first)
    whole: Size = Term(0)
    for shape in shapes:
        whole = plus(whole, shape[axis] if shape is not None else None)
    sizes = [_agreed([shape[at] for shape in shapes if shape is not None]) for at in range(len(first))]
    sizes[axis] = whole
    numbers = None
    if len(first) == 1 and all(each.numbers is not None for each in given):
        numbers = tuple(number for each in given for number in each.numbers or ())
    return [Tensor(tuple(sizes), numbers if numbers is None or len(numbers) <= _MAX_FOLDED else None)]


def _agreed(sizes: Sequence[Size]) -> Size:
    """The size that all share; the known one where some are not known."""
    return next((size for size in sizes if size is not None), None)


def _constant_node(node: ShapeNode) -> list[Tensor]:
    for name in ("value_ints", "value_floats", "value_strings"):
        if (found := node.attribute(name)) is not None:
            numbers = tuple(Term(int(value)) for value in found.ints) if name == "value_ints" else None
            count = len(found.ints) if numbers is not None else len(found.floats)
            return [Tensor((Term(count),), numbers)]
    if (found := node.attribute("value")) is not None:
        return [read_constant(found.t)]
    numbers = (Term(node.integer("value_int", 0)),) if node.attribute("value_int") is not None else None
    return [Tensor((), numbers)]


def _constant_of_shape(node: ShapeNode) -> list[Tensor]:
    sizes = node.decides(0, "sizes") or ()
    count = product(sizes)
    value = node.attribute("value")
    filled = (Term(0),) if value is None else read_constant(value.t).numbers
    few = count is not None and count.power == 0 and count.factor <= _MAX_FOLDED and len(sizes) <= 1
    numbers = filled * count.factor if few and filled is not None and count is not None else None
    return [Tensor(tuple(sizes), numbers)]


def _shape(node: ShapeNode) -> list[Tensor]:
    shape = node.input(0).shape
    if shape is None:
        return [Tensor((None,))]
    end = node.attribute("end")
    part = shape[node.integer("start", 0) : None if end is None else int(end.i)]
    return [Tensor((Term(len(part)),), part)]


def _expand(node: ShapeNode) -> list[Tensor]:
    sizes = node.decides(1, "sizes") or ()
    return [Tensor(_broadcast([node.input(0).shape, sizes]))]


def _reshape(node: ShapeNode) -> list[Tensor]:
    given = node.input(0)
    sizes: list[Size] = list(node.decides(1, "shape") or ())
    if not node.integer("allowzero", 0):
        for at, size in enumerate(sizes):
            if size == Term(0):
                sizes[at] = given.shape[at] if given.shape is not None and at < len(given.shape) else None
    if Term(-1) in sizes:
        at = sizes.index(Term(-1))
        sizes[at] = over(given.size(), product(sizes[:at] + sizes[at + 1 :]))
    return [Tensor(tuple(sizes), given.numbers)]


def _gather(node: ShapeNode) -> list[Tensor]:
    data, indices = node.input(0), node.input(1)
    if not data.shape or indices.shape is None:
        return [UNKNOWN]
    axis = node.integer("axis", 0) % len(data.shape)
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    numbers = None
    if len(data.shape) == 1 and data.numbers and indices.numbers is not None:
        places = [index.factor if index is not None and index.power == 0 else None for index in indices.numbers]
        count = len(data.numbers)
        numbers = tuple(data.numbers[at] if at is not None and -count <= at < count else None for at in places)
    return [Tensor(shape, numbers)]


def _gather_elements(node: ShapeNode) -> list[Tensor]:
    return [Tensor(node.input(1).shape)]


def _gather_nd(node: ShapeNode) -> list[Tensor]:
    data, indices = node.input(0).shape, node.input(1).shape
    if data is None or not indices or indices[-1] is None or indices[-1].power:
        return [UNKNOWN]
    return [Tensor((*indices[:-1], *data[node.integer("batch_dims", 0) + indices[-1].factor :]))]


def _slice(node: ShapeNode) -> list[Tensor]:
    given = node.input(0)
    starts, ends = node.decides(1, "starts"), node.decides(2, "ends")
    shape = given.shape
    if shape is None or starts is None or ends is None:
        return [UNKNOWN]
    axes = node.axes(3, len(shape)) or list(range(len(starts)))
    steps = node.decides(4, "steps") or (ONE,) * len(starts)
    sizes = list(shape)
    numbers = given.numbers
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=False):
        sizes[axis] = _sliced(sizes[axis], start, end, step)
        if numbers is not None and all(term.power == 0 for term in (start, end, step)) and step.factor:
            numbers = numbers[_python_slice(start.factor, end.factor, step.factor, len(numbers))]
        else:
            numbers = None
    return [Tensor(tuple(sizes), numbers if len(shape) == 1 else None)]


def _sliced(size: Size, start: Term, end: Term, step: Term) -> Size:
    if size is None or start.power or step.power or step.factor == 0:
        return None
    if size.power == 0 and end.power == 0:
        return Term(len(range(*_python_slice(start.factor, end.factor, step.factor, size.factor).indices(size.factor))))
    forwards = step == ONE and start == Term(0) and (end.factor >= _FULL or end == size)
    backwards = step == Term(-1) and start == Term(-1) and end.factor <= -_FULL
    return size if forwards or backwards else None


def _python_slice(start: int, end: int, step: int, count: int) -> slice:
    """The slice of Python that takes the same. ONNX clamps an end far below zero, which Python takes for a place."""
    if step < 0 and end < -count:
        return slice(start, None, step)
    return slice(start, end, step)


def _split(node: ShapeNode) -> list[Tensor]:
    shape = node.input(0).shape
    given = node.decides(1, "split")
    if not shape:
        return [UNKNOWN] * node.outputs
    axis = node.integer("axis", 0) % len(shape)
    sizes: list[Size] = list(given) if given is not None else _equal_parts(shape[axis], node.outputs)
    sizes += [None] * (node.outputs - len(sizes))
    return [Tensor((*shape[:axis], size, *shape[axis + 1 :])) for size in sizes[: node.outputs]]


def _equal_parts(size: Size, count: int) -> list[Size]:
    if size is None or size.power:
        return [None] * count
    part = -(-size.factor // count)
    return [*[Term(part)] * (count - 1), Term(size.factor - part * (count - 1))]


def _squeeze(node: ShapeNode) -> list[Tensor]:
    given = node.input(0)
    if given.shape is None:
        node.decides(1, "axes")
        return [UNKNOWN]
    axes = node.axes(1, len(given.shape))
    if axes is None:
        if None in given.shape:
            return [UNKNOWN]
        axes = [at for at, size in enumerate(given.shape) if size == ONE]
    return [Tensor(tuple(size for at, size in enumerate(given.shape) if at not in axes), given.numbers)]


def _unsqueeze(node: ShapeNode) -> list[Tensor]:
    given = node.input(0)
    count = len(node.decides(1, "axes") or ())
    if given.shape is None:
        return [UNKNOWN]
    rank = len(given.shape) + count
    axes = node.axes(1, rank) or []
    rest = iter(given.shape)
    return [Tensor(tuple(ONE if at in axes else next(rest, None) for at in range(rank)), given.numbers)]


def _transpose(node: ShapeNode) -> list[Tensor]:
    shape = node.input(0).shape
    if shape is None:
        return [UNKNOWN]
    order = node.integers("perm", range(len(shape) - 1, -1, -1)) or []
    return [Tensor(tuple(shape[axis] for axis in order if axis < len(shape)))]


def _flatten(node: ShapeNode) -> list[Tensor]:
    shape = node.input(0).shape
    if shape is None:
        return [Tensor((None, None))]
    axis = node.integer("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [Tensor((product(shape[:axis]), product(shape[axis:])))]


def _reduce(node: ShapeNode) -> list[Tensor]:
    given = node.input(0)
    node.decides(1, "axes")
    if given.shape is None:
        return [UNKNOWN]
    axes = node.axes(1, len(given.shape))
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            return [given]
        axes = list(range(len(given.shape)))
    kept = node.integer("keepdims", 1)
    return [Tensor(_without(given.shape, axes, kept=bool(kept)), _reduced(node, given))]


def _reduced(node: ShapeNode, given: Tensor) -> tuple[Size, ...] | None:
    """The product, sum, or greatest or least of folded numbers."""
    fold = {"ReduceProd": times, "ReduceSum": plus, "ReduceMax": larger, "ReduceMin": smaller}.get(node.operator)
    if fold is None or not given.numbers or len(given.shape or ()) != 1:
        return None
    whole = given.numbers[0]
    for number in given.numbers[1:]:
        whole = fold(whole, number)
    return (whole,)


def _without(shape: tuple[Size, ...], axes: Sequence[int], *, kept: bool) -> tuple[Size, ...]:
    if kept:
        return tuple(ONE if at in axes else size for at, size in enumerate(shape))
    return tuple(size for at, size in enumerate(shape) if at not in axes)


def _argument(node: ShapeNode) -> list[Tensor]:
    shape = node.input(0).shape
    if not shape:
        return [UNKNOWN]
    axis = node.integer("axis", 0) % len(shape)
    return [Tensor(_without(shape, [axis], kept=bool(node.integer("keepdims", 1))))]


def _pad(node: ShapeNode) -> list[Tensor]:
    shape, pads = node.input(0).shape, node.decides(1, "pads") or ()
    if shape is None:
        node.decides(3, "axes")
        return [UNKNOWN]
    axes = node.axes(3, len(shape)) or list(range(len(shape)))
    sizes = list(shape)
    for at, axis in enumerate(axes):
        if at + len(axes) < len(pads):
            sizes[axis] = plus(sizes[axis], plus(pads[at], pads[at + len(axes)]))
    return [Tensor(tuple(sizes))]


def _conv(node: ShapeNode) -> list[Tensor]:
    return _convolved(node, _conv_size)


def _conv_transpose(node: ShapeNode) -> list[Tensor]:
    return _convolved(node, _conv_transpose_size)


def _convolved(node: ShapeNode, size_of: Callable[[int, int, int, int, int, int], int]) -> list[Tensor]:
    given, weight = node.input(0).shape, node.input(1).shape
    if given is None or weight is None or len(given) != len(weight) or len(given) < 3:
        return [UNKNOWN]
    axes = len(given) - 2
    transposed = node.operator == "ConvTranspose"
    channels = times(weight[1], Term(node.integer("group", 1))) if transposed else weight[0]
    automatic = node.attribute("auto_pad") is not None and node.attribute("auto_pad").s not in (b"", b"NOTSET")
    if automatic or node.attribute("output_shape") is not None:
        return [Tensor((given[0], channels, *(None,) * axes))]
    strides, dilations = (node.integers(name, [1] * axes) or [] for name in ("strides", "dilations"))
    pads = node.integers("pads", [0] * axes * 2) or []
    extra = node.integers("output_padding", [0] * axes) or []
    sizes: list[Size] = []
    for at in range(axes):
        size, kernel = given[2 + at], weight[2 + at]
        if size is None or kernel is None or size.power or kernel.power:
            sizes.append(None)
            continue
        around = pads[at] + pads[at + axes]
        reach = dilations[at] * (kernel.factor - 1) + 1
        sizes.append(Term(size_of(size.factor, around, reach, strides[at], extra[at], 0)))
    return [Tensor((given[0], channels, *sizes))]


def _conv_size(size: int, around: int, reach: int, stride: int, extra: int, _: int) -> int:
    del extra
    return (size + around - reach) // max(1, stride) + 1


def _conv_transpose_size(size: int, around: int, reach: int, stride: int, extra: int, _: int) -> int:
    return stride * (size - 1) + extra + reach - around


def _depth_to_space(node: ShapeNode) -> list[Tensor]:
    return _moved_blocks(node, into_space=True)


def _space_to_depth(node: ShapeNode) -> list[Tensor]:
    return _moved_blocks(node, into_space=False)


def _moved_blocks(node: ShapeNode, *, into_space: bool) -> list[Tensor]:
    shape, block = node.input(0).shape, node.integer("blocksize", 1)
    if shape is None or len(shape) != 4 or block < 1:
        return [UNKNOWN]
    many, one = Term(block * block), Term(block)
    if into_space:
        return [Tensor((shape[0], over(shape[1], many), times(shape[2], one), times(shape[3], one)))]
    return [Tensor((shape[0], times(shape[1], many), over(shape[2], one), over(shape[3], one)))]


RULES: Final[Mapping[str, Callable[[ShapeNode], list[Tensor]]]] = MappingProxyType(
    {
        **dict.fromkeys(
            "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Sum Xor".split(),  # noqa: SIM905
            _elementwise,
        ),
        **dict.fromkeys(
            (
                *("ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
                "ReduceSumSquare",
            ),
            _reduce,
        ),
        "ArgMax": _argument,
        "ArgMin": _argument,
        "Cast": _cast,
        "Concat": _concat,
        "Constant": _constant_node,
        "ConstantOfShape": _constant_of_shape,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "DepthToSpace": _depth_to_space,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "GatherND": _gather_nd,
        "Gemm": _gemm,
        "Identity": _identity,
        "MatMul": _matmul,
        "Pad": _pad,
        "Reshape": _reshape,
        "Shape": _shape,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }
)
"""Operator -> its rule. The others of the allow-list keep the shape of their first input."""

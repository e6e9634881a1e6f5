"""The shapes of a graph: inferred from constants and the number of rows, before ONNX Runtime reads it.

A shape that is computed from the values of rows would let one row ask for any memory and any time. So whatever decides
a shape (the target of a Reshape, the ends of a Slice, the amounts of a Pad) must fold to constants or to a multiple of
the number of rows, and a Loop must carry tensors that keep their shapes. A shape that cannot be told is refused. What a
graph costs then depends on the constants in it and grows with the number of rows, and can be tried.

Whatever could be read in two ways, by these rules and by ONNX Runtime, is refused too: two tensors or two attributes of
one name, and a node before those that it takes its inputs from.

`service.bundle.terms` has the numbers that sizes fold to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.bundle.shape_rules import (
    RULES,
    SCALAR,
    UNKNOWN,
    ShapeFault,
    ShapeNode,
    Tensor,
    keep_shape,
    read_constant,
)
from service.bundle.terms import Size, Term
from service.errors import ForbiddenGraph

__all__ = ["MAX_CONSTANT_BYTES", "MAX_ROW_VALUES", "check_shapes"]

MAX_CONSTANT_BYTES: Final = 256 << 20
"""The most bytes of all constants of a graph, and of any tensor that follows from constants alone."""

MAX_ROW_VALUES: Final = 1 << 24
"""The most values of a tensor for each row of a batch."""

_BYTES_EACH: Final = 4

_MAX_RANK: Final = 32
"""The most axes of a tensor."""


def check_shapes(graph: Any, file: str) -> dict[str, tuple[Size, ...] | None]:  # noqa: ANN401  a message
    """Infer the shapes of a graph that `service.bundle.operators` has found to hold allowed operators only.

    Args:
        graph: the message, of `service.bundle.model_message`.
        file: its name within the bundle, for the error.

    Returns:
        The name of each tensor -> its shape, as far as it is known.

    Raises:
        ForbiddenGraph: a shape does not fold to constants or to a multiple of the number of rows, a Loop carries a
            tensor that may change its shape, or a tensor is too large.
    """
    constants = sum(tensor.ByteSize() for tensor in graph.initializer)
    constants += sum(attribute.ByteSize() for node in graph.node for attribute in node.attribute)
    if constants > MAX_CONSTANT_BYTES:
        raise ForbiddenGraph(f"{file} holds {constants} bytes of constants; at most {MAX_CONSTANT_BYTES} are allowed")
    known = _read_constants(graph, file)
    for value in graph.input:
        known[value.name] = Tensor(_declared_shape(value))  # also where an initializer gives it a default
    _infer(graph.node, known, set(known), file)
    return {name: tensor.shape for name, tensor in known.items()}


def _declared_shape(value: Any) -> tuple[Size, ...] | None:  # noqa: ANN401  see `check_shapes`
    """The shape of an input: the rows come first, and may be any number."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes: list[Size] = [Term(size.dim_value) if size.dim_value > 0 else None for size in tensor.shape.dim]
    return (Term(1, 1), *sizes[1:]) if sizes else ()


def _read_constants(graph: Any, file: str) -> dict[str, Tensor]:  # noqa: ANN401  see `check_shapes`
    constants = {tensor.name: read_constant(tensor) for tensor in graph.initializer}
    if len(constants) < len(graph.initializer):
        raise ForbiddenGraph(f"{file} gives one name to two constants")
    return constants


def _infer(nodes: Sequence[Any], known: dict[str, Tensor], made: set[str], file: str) -> None:
    """Add the outputs of nodes, in order, to what is known.

    Args:
        nodes: of one graph.
        known: name -> tensor, of this graph and of those around it.
        made: the names of the inputs and constants of this graph.
        file: its name within the bundle, for an error.
    """
    for node in nodes:
        outputs = [name for name in node.output if name]
        if not made.isdisjoint(outputs) or len(set(outputs)) < len(outputs):
            raise ForbiddenGraph(f"{file} gives one name to two tensors")
        made.update(outputs)
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            raise ForbiddenGraph(f"{file}: a node {node.op_type} has two attributes of one name")
        if any(name and name not in known for name in node.input):
            raise ForbiddenGraph(f"{file}: a node {node.op_type} comes before the node that makes its input")
        try:
            inputs = [known[name] if name else None for name in node.input]
            if node.op_type == "Loop":
                tensors = _loop(node, inputs, known, file)
            else:
                tensors = RULES.get(node.op_type, keep_shape)(ShapeNode(node, inputs))
            for tensor in tensors:
                _check_size(tensor)
        except ShapeFault as fault:
            raise ForbiddenGraph(f"{file}: a node {node.op_type} {fault}") from fault
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            words = "has inputs or attributes that do not fit the operator"
            raise ForbiddenGraph(f"{file}: a node {node.op_type} {words}") from error
        known.update((name, tensor) for name, tensor in zip(node.output, tensors, strict=False) if name)


def _check_size(tensor: Tensor) -> None:
    if tensor.shape is not None and len(tensor.shape) > _MAX_RANK:
        raise ShapeFault(f"makes a tensor of {len(tensor.shape)} axes; at most {_MAX_RANK} may be")
    size = tensor.size()
    if size is None:
        raise ShapeFault("makes a tensor whose shape cannot be told from the constants and the number of rows")
    if size.power == 0 and size.factor * _BYTES_EACH > MAX_CONSTANT_BYTES:
        raise ShapeFault(
            f"makes a constant of {size.factor} values; at most {MAX_CONSTANT_BYTES // _BYTES_EACH} may be"
        )
    if size.power == 1 and size.factor > MAX_ROW_VALUES:
        raise ShapeFault(f"makes {size.factor} values for each row; at most {MAX_ROW_VALUES} may be")
    if size.power > 1:
        raise ShapeFault("makes a tensor that grows with the square of the number of rows")


def _loop(
    node: Any,  # noqa: ANN401  see `check_shapes`
    inputs: Sequence[Tensor | None],
    known: Mapping[str, Tensor],
    file: str,
) -> list[Tensor]:
    """The carried tensors, each of which must come out of a pass in the shape that it had before."""
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    carried = [Tensor(None if given is None else given.shape) for given in inputs[2:]]
    own = _read_constants(body, file)
    own |= zip((value.name for value in body.input), (SCALAR, SCALAR, *carried), strict=False)
    inner = {**known, **own}
    _infer(body.node, inner, set(own), file)
    for before, value in zip(carried, body.output[1:], strict=False):
        after = inner.get(value.name, UNKNOWN)
        if before.shape is None or None in before.shape or before.shape != after.shape:
            raise ShapeFault("carries a tensor that need not keep its shape from pass to pass")
    return carried

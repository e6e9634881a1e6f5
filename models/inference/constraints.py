"""The constraints of a target: those of `torch.distributions.constraints`, read through `biject_to`, as a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import torch
from torch.distributions import biject_to, constraints, transforms

from models.flows.constrained import Block, Constrained, Free, HalfLine, Interval, Simplex
from service.bundle.manifest import Support
from service.bundle.precision import Precision
from service.errors import DataError, Reason

__all__ = ["constrain", "support_of"]

_KNOWN: Final = (
    "real, positive, nonnegative, greater_than, greater_than_eq, less_than, interval, half_open_interval, "
    "unit_interval and simplex"
)


def constrain(given: Sequence[Any], dim: int, title: str, precision: Precision = "float32") -> Constrained | None:
    """The step from constrained coordinates to all of the reals; None where nothing is constrained.

    Args:
        given: none; one constraint, for all coordinates; or one a coordinate. A simplex stands once for each of the
            coordinates that it spans. ``(simplex, K)`` stands for K of them, and so do ``constraints.cat`` and
            ``constraints.independent``.
        dim: the number of coordinates.
        title: what the user calls the target.
        precision: of the flow.

    Raises:
        DataError: there are more or fewer constraints than coordinates, or one of a kind that is not known here.
    """
    if not given:
        return None
    entries = [entry for each in given for entry in _entries(each, title)]
    if len(entries) == 1 and dim > 1:
        entries = entries * dim
    if len(entries) != dim:
        raise DataError(
            f"{title} has constraints for {len(entries)} coordinates, and {dim} coordinates; expected one for all, or "
            "one a coordinate. A simplex stands once for each of its coordinates"
        )
    blocks: list[Block] = []
    place = 0
    for kind, group in groupby(entries):
        count = len(list(group))
        try:
            blocks.append(_block(kind, count, precision))
        except DataError as error:
            reason = Reason(("constraints",), f"from coordinate {place} on", column=place)
            raise DataError(f"{title}: {error.detail}", (reason,)) from error
        place += count
    return None if all(isinstance(block, Free) for block in blocks) else Constrained(blocks)


def support_of(step: Constrained | None) -> Support | None:
    """The box that all coordinates lie in, where it is one and the same for all of them."""
    blocks = [] if step is None else step.stated()
    if step is None or len(blocks) != 1 or blocks[0].kind == "simplex" or blocks[0].columns != step.columns:
        return None
    return Support(low=blocks[0].low, high=blocks[0].high)


_Kind = tuple[str, float, float, int]
"""A kind of block, its two ends, and the number of the simplex that it belongs to."""


def _entries(given: Any, title: str, number: int = 0) -> list[_Kind]:  # noqa: ANN401  of torch, which has no public types
    """What stands for each coordinate."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int):
        return _entries(given[0], title, id(given)) * given[1]
    if isinstance(given, constraints.cat):
        pairs = zip(given.cseq, given.lengths, strict=True)
        return [entry for at, (one, length) in enumerate(pairs) for entry in _entries((one, length), title, at + 1)]
    if isinstance(given, constraints.independent):
        return _entries(given.base_constraint, title, number)
    if not isinstance(given, constraints.Constraint):
        raise DataError(
            f"{title}: {given!r:.80} is no constraint; expected those of torch.distributions.constraints: {_KNOWN}"
        )
    try:
        transform = biject_to(given)
    except NotImplementedError as error:
        raise DataError(f"{title}: the constraint {given} has no bijection to the reals; known are {_KNOWN}") from error
    found = _kind(transform, number)
    if found is None:
        raise DataError(f"{title}: the constraint {given} is not known; known are {_KNOWN}")
    return [found]


def _kind(transform: Any, number: int) -> _Kind | None:  # noqa: ANN401  of torch, which has no public types
    """The kind of block that a bijection of torch's from the reals makes; None for one that is not known."""
    parts = list(transform.parts) if isinstance(transform, transforms.ComposeTransform) else [transform]
    head = parts[0] if parts else transforms.identity_transform
    shift, scale = 0.0, 1.0
    if len(parts) == 2 and isinstance(parts[1], transforms.AffineTransform):
        shift, scale = _number(parts[1].loc), _number(parts[1].scale)
    elif len(parts) > 1:
        return None
    if math.isnan(shift) or math.isnan(scale):
        return None
    if isinstance(head, transforms.ExpTransform):
        return ("above", shift, math.inf, 0) if scale > 0 else ("below", -math.inf, shift, 0)
    if isinstance(head, transforms.SigmoidTransform):
        return ("interval", shift, shift + scale, 0)
    if isinstance(head, transforms.StickBreakingTransform):
        return ("simplex", 0.0, 1.0, number)
    if isinstance(transform, transforms.ComposeTransform) and not parts:
        return ("free", -math.inf, math.inf, 0)
    return None


def _number(value: Any) -> float:  # noqa: ANN401  a number or a tensor
    """A bound as a number; NaN where it is one a coordinate."""
    tensor = torch.as_tensor(value, dtype=torch.float64)
    return float(tensor) if tensor.numel() == 1 else math.nan


def _block(kind: _Kind, count: int, precision: Precision) -> Block:
    name, low, high, _ = kind
    match name:
        case "above":
            return HalfLine(count, low, precision=precision)
        case "below":
            return HalfLine(count, high, above=False, precision=precision)
        case "interval":
            return Interval(count, low, high, precision=precision)
        case "simplex":
            return Simplex(count, precision=precision)
        case _:
            return Free(count)

"""The support of an imported flow: the box of data that its steps, or its base, are made for.

Outside of it a library refuses a row, or answers with what its clamps leave. A bundle says where it is, and answers
-inf outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from models.flows.flow import Bijection
from models.flows.precision import round_number
from service.bundle.bases import UniformBase
from service.bundle.manifest import Support
from service.bundle.precision import Precision

__all__ = ["box_of", "find_support", "place_rows", "support_of_constraint"]

_TRIED: Final = 64
_TOLERANCE: Final = 1e-10
"""Of the box's width, in float64."""


def find_support(
    steps: Sequence[Bijection], base: object, shape: Sequence[int], context: Tensor | None, precision: Precision
) -> tuple[Support | None, tuple[str, ...]]:
    """Find the box of data outside which a flow has no density.

    The first step that is made for a box decides, or else a uniform base. The steps before it are looked at by what
    they make of the box's faces: where these stay flat, the box of data is the one between them.

    Args:
        steps: from data to latent, in float64.
        base: the distribution of z.
        shape: of an event.
        context: of some rows, as the steps take it; None for a flow without.
        precision: of the graphs, which the ends are rounded to.

    Returns:
        The support, None where there is none or it is no box that a manifest can state; and notes for its reader.
    """
    found, notes = _find_box(steps, base, shape, context)
    if found is None:
        return None, notes
    low, high = (None if end is None else round_number(end, precision) for end in (found.low, found.high))
    return _with_ends(found, low, high), notes


def _find_box(
    steps: Sequence[Bijection], base: object, shape: Sequence[int], context: Tensor | None
) -> tuple[Support | None, tuple[str, ...]]:
    """The same, with the ends as float64 has them."""
    found = _bounding_box(steps, base)
    return (None, ()) if found is None else _behind(steps[: found[0]], found[1], shape, context)


def _bounding_box(steps: Sequence[Bijection], base: object) -> tuple[int, Support] | None:
    """The number of steps before the box that bounds the data, and the box; None where nothing bounds it."""
    image: Support | None = None
    for number, step in enumerate(steps):
        if step.domain is not None and not _lies_in(image, step.domain):
            return number, step.domain
        image = step.image
    if isinstance(base, UniformBase):
        box = box_of(base.low, base.high, closed=True)
        return None if _lies_in(image, box) else (len(steps), box)
    return None


def place_rows(steps: Sequence[Bijection], base: object, shares: Tensor, context: Tensor | None = None) -> Tensor:
    """Put rows to try a flow with inside the box of its data.

    Args:
        steps: from data to latent.
        base: the distribution of z.
        shares: ``[N, *event]`` of the box, between 0 and 1; of half a line the distance from its end.
        context: ``[N, C]`` as the steps take it, or None.

    Returns:
        Rows ``[N, *event]``: the shares themselves where nothing bounds the data, or the box cannot be reached.
    """
    found = _bounding_box(steps, base)
    if found is None:
        return shares
    number, box = found
    low = box.low if box.low is not None else (box.high or 0.0) - 1.0
    high = box.high if box.high is not None else low + 1.0
    inside = low + (high - low) * shares
    try:
        y = inside.reshape(len(shares), *_event_after(steps[:number], shares.shape[1:], context, shares.dtype))
        rows = _back(steps[:number], y, context).reshape(shares.shape)
    except Exception:  # whatever a library raises: log_prob, or the export, will tell it
        return shares
    return rows if bool(torch.isfinite(rows).all()) else shares


def _lies_in(image: Support | None, box: Support) -> bool:
    """Whether whatever a step gives lies in a box, so that the box bounds nothing."""
    if image is None:
        return False
    low = box.low is None or (image.low is not None and image.low >= box.low)
    return low and (box.high is None or (image.high is not None and image.high <= box.high))


def box_of(low: float | None, high: float | None, *, closed: bool = False) -> Support:
    """The box between two ends, which belong to it where it is closed."""
    return Support(low=low, high=high, low_closed=closed and low is not None, high_closed=closed and high is not None)


def support_of_constraint(constraint: Any) -> Support | None:  # noqa: ANN401  of torch, which has no public types
    """The open box of a constraint of torch's distributions; None where it is no box of the same ends for all columns.

    Args:
        constraint: such as `torch.distributions.constraints.interval(0, 1)`.
    """
    constraint = getattr(constraint, "base_constraint", constraint)
    given = [getattr(constraint, name, None) for name in ("lower_bound", "upper_bound")]
    ends: list[float | None] = []
    for end in given:
        values = [] if end is None else torch.as_tensor(end, dtype=torch.float64).flatten().tolist()
        if len(set(values)) > 1:
            return None
        ends.append(values[0] if values else None)
    return None if ends == [None, None] else box_of(*ends)


def _behind(
    steps: Sequence[Bijection], box: Support, shape: Sequence[int], context: Tensor | None
) -> tuple[Support | None, tuple[str, ...]]:
    """The box of data that some steps bring to another box."""
    if not steps:
        return _with_ends(box, box.low, box.high), ()
    if box.low is None or box.high is None or any(step.image is not None for step in steps):
        return None, ()  # data without an end goes into a bounded image
    generator = torch.Generator().manual_seed(0)
    rows = _TRIED if context is None else len(context)
    try:
        event = _event_after(steps, shape, context)
        side = torch.randint(3, (rows, *event), generator=generator)
        inner = box.low + (box.high - box.low) * torch.rand(rows, *event, generator=generator, dtype=torch.float64)
        mixed = torch.where(side == 0, box.low, torch.where(side == 1, box.high, inner))
        ends = [_back(steps, torch.full_like(mixed, end), context) for end in (box.low, box.high)]
        x = _back(steps, mixed, context)
    except Exception:  # whatever a library raises: the export will tell it, with the step
        return None, ()
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    near = _TOLERANCE * float((high - low).amax())
    at_an_end = ((x - low).abs() <= near) | ((x - high).abs() <= near)
    flat = bool((at_an_end.sum(1) == (side < 2).flatten(1).sum(1)).all())
    inside = bool(((x >= low - near) & (x <= high + near)).all())
    same_rows = all(float((end - end[:1]).abs().amax()) <= near for end in (low, high))
    if not (flat and inside and same_rows):  # NaN is none of these either
        return None, ()
    if any(float(end.amax() - end.amin()) > near for end in (low, high)):
        note = "the support is a box whose ends differ between the columns, and a manifest can state one pair of ends"
        return None, (note,)
    found = (float(end.amin()) for end in (low, high))
    return _with_ends(box, *(0.0 if abs(end) <= near else end for end in found)), ()


def _with_ends(box: Support, low: float | None, high: float | None) -> Support:
    """The same box with other ends."""
    return box.model_copy(update={"low": low, "high": high})


def _event_after(
    steps: Sequence[Bijection], shape: Sequence[int], context: Tensor | None, dtype: torch.dtype = torch.float64
) -> tuple[int, ...]:
    """The shape of an event behind some steps."""
    value = torch.full((1 if context is None else len(context), *shape), 0.5, dtype=dtype)
    for step in steps:
        value = step(value, context)[0]
    return tuple(value.shape[1:])


def _back(steps: Sequence[Bijection], y: Tensor, context: Tensor | None) -> Tensor:
    """What some steps make of data, taken back: ``[N, D]``."""
    for step in reversed(steps):
        y = step.inverse(y, context)[0]
    return y.flatten(1)

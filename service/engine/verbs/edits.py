"""Edits: rows moved along a direction of latent space and brought back.

x' = g(f(x) + s d) for each strength s, where f normalizes, g = f^-1 and d is a direction: one that the bundle names,
one that the caller gives, or the way from one row's latent to another's.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.engine.verbs.checks import check_inside, check_outputs
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.round_trips import round_trip_error
from service.errors import InvalidArgument, NotFinite, Reason, WrongShape
from service.plan import Floats, Plan, Rows, Run

__all__ = ["Between", "Direction", "Edited", "edit", "named_direction"]

Float64 = npt.NDArray[np.float64]

_LISTED: Final = 20
_COMPARED: Final = 256


class Edited(NamedTuple):
    """The answer of `edit`: x ``[S, N, *event]``, z ``[S, N, D]`` and log_prob ``[S, N]`` at x, in nats.

    round_trip_error ``[S, N]``, the greatest abs(f(x) - z) over the coordinates, is None where it was not asked for.
    """

    x: Floats
    z: Floats
    log_prob: Floats
    round_trip_error: Floats | None = None


class Between(NamedTuple):
    """The direction f(end) - f(start): strength 1 takes start to end.

    Args:
        start: ``[1, *event]``.
        end: the same.
    """

    start: Floats
    end: Floats


Direction: TypeAlias = str | Float64 | Between
"""The direction of an edit: the name of one of the bundle's, a vector ``[D]``, or the way between two rows."""


class _MovedLatents:
    """Each latent moved by each strength, strength by strength: computed slice by slice, in float64."""

    def __init__(self, latents: Floats, direction: Float64, strengths: Float64) -> None:
        self._latents = latents
        self._direction = direction
        self._strengths = strengths

    def __len__(self) -> int:
        return len(self._latents) * len(self._strengths)

    def __getitem__(self, index: slice, /) -> Floats:
        strength, row = np.divmod(np.arange(index.start, index.stop), len(self._latents))
        moved: Floats = (self._latents[row] + self._strengths[strength, None] * self._direction).astype(
            self._latents.dtype
        )
        return moved


class _RoundsRepeated:
    """All rows `times` over, round after round: the context of each strength's rows."""

    def __init__(self, rows: Rows, times: int) -> None:
        self._rows = rows[0 : len(rows)]
        self._times = times

    def __len__(self) -> int:
        return len(self._rows) * self._times

    def __getitem__(self, index: slice, /) -> Floats:
        rows: Floats = self._rows[np.arange(index.start, index.stop) % len(self._rows)]
        return rows


def named_direction(flow: ServedFlow, name: str) -> Float64:
    """A direction of the flow's bundle.

    Args:
        flow: with the bundle.
        name: of the direction.

    Returns:
        float64 ``[D]``.

    Raises:
        InvalidArgument: there is none of that name; the nearest is offered, or all are listed.
    """
    known = flow.manifest.directions
    if name in known:
        return np.asarray(known[name], np.float64)
    near = difflib.get_close_matches(name[:_COMPARED], known, 1)  # comparing texts takes longer than they are long
    listed = ", ".join(sorted(known)[:_LISTED]) + (" and more" if len(known) > _LISTED else "")
    hint = f"did you mean {near[0]!r}? " if near else ""
    offered = f"it has {listed}" if known else "it has none: give the direction itself, or two rows"
    detail = f"{flow.manifest.name} has no direction {name[:64]!r}; {hint}{offered}"
    raise InvalidArgument(detail, (Reason(("direction",), detail),))


def edit(
    flow: ServedFlow,
    x: Floats,
    direction: Direction,
    strengths: Sequence[float],
    context: Floats | None = None,
    *,
    round_trip: bool = False,
) -> Plan[Edited]:
    """Move rows along a direction: z = f(x), then z + s * direction, then g.

    Args:
        flow: whose latent space.
        x: ``[N, *event]``.
        direction: of the moves.
        strengths: s, at least one, finite; 0 is the round trip.
        context: ``[N, C]`` or ``[1, C]`` for all rows; None for a flow without. The way between two rows takes one.
        round_trip: whether to give round_trip_error, by a run of f.

    Raises:
        InvalidArgument: there is no direction of that name, or it is zero throughout.
        OutOfSupport: a row where the density is zero, so that it has no latent; the row is named.
        NotFinite: a row is moved beyond the range of the precision.
        WrongShape: as `ServedFlow.log_prob`.

    Example::

        walked = run_now(edit(flow, x, "8", [0.0, 0.5, 1.0]))
    """
    along = yield from _vector(flow, direction, context)
    z = yield from _latents(flow, x, context, "x")
    scale = np.asarray(strengths, np.float64)
    with np.errstate(over="ignore"):
        furthest = np.abs(z).max() + np.abs(scale).max() * np.abs(along).max()
    if not furthest < np.finfo(z.dtype).max:
        reason = f"a row would be moved beyond the range of {z.dtype}"
        raise NotFinite(f"strength: {reason}", (Reason(("strength",), reason),))
    moved = _MovedLatents(z, along, scale)
    given = flow.context_for(context, len(x))
    repeated = None if given is None else _RoundsRepeated(given, len(scale))
    outputs = yield Run(flow.inverse, moved, repeated)
    check_outputs(outputs, "x", NotFinite, period=len(x))
    lead = (len(scale), len(x))
    error = None
    if round_trip:
        back = Run(flow.forward, outputs.value, repeated)
        found = yield from round_trip_error(
            back, moved, "inverse", flow.round_trips, argument="x", error=NotFinite, period=len(x)
        )
        error = found.reshape(lead)
    return Edited(
        outputs.value.reshape(*lead, *flow.event_shape),
        moved[0 : len(moved)].reshape(*lead, flow.width),
        outputs.log_prob.reshape(lead),
        error,
    )


def _vector(flow: ServedFlow, direction: Direction, context: Floats | None) -> Plan[Float64]:
    """A direction as a vector ``[D]``.

    Args:
        flow: whose latent space.
        direction: in any of its forms.
        context: of the two rows; None for a flow without.

    Raises:
        InvalidArgument: there is no direction of that name, or it is zero throughout.
        OutOfSupport: one of two rows has no latent.
        WrongShape: two rows, and several rows of context.
    """
    if isinstance(direction, Between):
        if context is not None and len(context) > 1:
            detail = f"the way between two rows takes one row of context, and there are {len(context)}"
            raise WrongShape(f"context: {detail}", (Reason(("context",), detail),))
        ends = np.concatenate(direction)
        latents = yield from _latents(flow, ends, context, "direction")
        along: Float64 = latents[1].astype(np.float64) - latents[0]
        reason = "the two rows have the same latent, so that there is no way between them"
    else:
        along = named_direction(flow, direction) if isinstance(direction, str) else direction
        reason = "every value is zero, so that it leads nowhere"
    if not along.any():
        raise InvalidArgument(f"direction: {reason}", (Reason(("direction",), reason),))
    return along


def _latents(flow: ServedFlow, x: Floats, context: Floats | None, argument: str) -> Plan[Floats]:
    outputs = yield Run(flow.forward, x, flow.context_for(context, len(x)))
    check_outputs(outputs, argument, NotFinite)
    check_inside(outputs.log_prob, argument)
    return outputs.value

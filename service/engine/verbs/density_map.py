"""The density of a flow of one or two columns around some rows: a lattice of points run through it, for a picture."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.sampling.noise import BaseNoise
from service.engine.verbs.checks import check_outputs
from service.engine.verbs.flow import ServedFlow
from service.errors import EngineFailed, NotFinite
from service.plan import Float32, Plan, Run

__all__ = ["DRAWN", "SIDES", "Surroundings", "surroundings", "work"]

DRAWN: Final = 512
"""So many rows of seed 0 say where the flow itself lies."""

SIDES: Final = {1: 512, 2: 160}
"""Points of the lattice in each direction, for one column and for two."""

_MARGIN: Final = 0.1
_TRIMMED: Final = (0.005, 0.995)


class Surroundings(NamedTuple):
    """What lies around rows.

    Args:
        low: float64 ``[D]``, the lower corner, in the units of x.
        high: float64 ``[D]``, the upper corner, above it.
        log_prob: float32 ``[S]``, or ``[S, S]`` with x1 along the first axis and x0 along the second, in nats, at the
            middle of each cell; -inf where the density is zero, or has no float32.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    log_prob: Float32


class _Lattice:
    """The middles of the cells, row by row: computed slice by slice."""

    def __init__(self, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], side: int) -> None:
        self._low = low
        self._step = (high - low) / side
        self._side = side

    def __len__(self) -> int:
        return int(self._side ** len(self._low))

    def __getitem__(self, index: slice, /) -> Float32:
        at = np.arange(index.start, index.stop)
        places = np.stack([at // self._side**axis % self._side for axis in range(len(self._low))], axis=1)
        points: Float32 = (self._low + (places + 0.5) * self._step).astype(np.float32)
        return points


def work(width: int) -> int:
    """How many rows of so many columns `surroundings` runs."""
    return DRAWN + int(SIDES[width] ** width)


def surroundings(flow: ServedFlow, x: Float32, context: Float32 | None = None) -> Plan[Surroundings]:
    """Where rows lie in the flow's density: the box that holds them and nearly all that the flow would draw.

    Args:
        flow: of one or two columns.
        x: ``[N, D]``, finite.
        context: ``[C]``, whose density is meant; None for a flow without.

    Raises:
        WrongShape: the context is missing or superfluous.
        NotFinite: a row that was drawn has no float32, under the context that is given.
        EngineFailed: the same without a context.
    """
    flow.require_context(None if context is None else context[None])
    noise = BaseNoise(flow.manifest.base, flow.width, 0, 0, DRAWN, 1.0, 1, None, "random")
    drawn = yield Run(flow.inverse, noise, _everywhere(context, DRAWN), counted=False)
    check_outputs(drawn, *(("x", EngineFailed) if context is None else ("context", NotFinite)))
    ends = [np.quantile(drawn.value, share, axis=0).astype(np.float64) for share in _TRIMMED]
    low = np.minimum(ends[0], x.min(axis=0))
    high = np.maximum(ends[1], x.max(axis=0))
    scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    space = np.maximum((high - low) * _MARGIN, 1e-5 * scale)
    largest = float(np.finfo(np.float32).max)
    low, high = np.maximum(low - space, -largest), np.minimum(high + space, largest)
    side = SIDES[flow.width]
    lattice = _Lattice(low, high, side)
    outputs = yield Run(flow.forward, lattice, _everywhere(context, len(lattice)), value=False, counted=False)
    log_prob = np.where(np.isnan(outputs.log_prob), -math.inf, outputs.log_prob)
    return Surroundings(low, high, log_prob.reshape((side,) * flow.width))


def _everywhere(context: Float32 | None, count: int) -> Float32 | None:
    return None if context is None else np.broadcast_to(context, (count, len(context)))

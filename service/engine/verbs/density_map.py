"""The map of a density around rows, for a flow of one or two columns: a lattice of points run through the flow."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.sampling.noise import BaseNoise
from service.engine.verbs.checks import check_outputs
from service.engine.verbs.flow import ServedFlow
from service.errors import EngineFailed, NotFinite
from service.plan import Floats, Plan, Run

__all__ = ["SAMPLED_ROWS", "SIDES", "DensityMap", "density_map", "density_map_rows"]

Float64 = npt.NDArray[np.float64]

SAMPLED_ROWS: Final = 512
"""The number of rows of seed 0 that say where the flow itself lies."""

SIDES: Final = {1: 512, 2: 160}
"""The width of a table -> the number of cells in each direction."""

_MARGIN: Final = 0.1
"""On each side of the box, as a share of its width without the margins."""

_LEAST_MARGIN: Final = 1e-5
"""On each side, as a share of the greatest coordinate or of 1: the box around one point has a width in float32."""

_TRIMMED: Final = (0.005, 0.995)
"""The quantiles of the rows that are sampled between which the flow lies."""


class DensityMap(NamedTuple):
    """The density in the cells of a box around rows.

    Args:
        low: float64 ``[D]``, the lower corner, in the units of x.
        high: float64 ``[D]``, the upper corner, above it.
        log_prob: ``[S]``, or ``[S, S]`` with x1 along the first axis and x0 along the second, in nats, at the
            middle of each cell; -inf where the density is zero, or is beyond the range of the precision.
    """

    low: Float64
    high: Float64
    log_prob: Floats


class _Lattice:
    """The middles of the cells, row by row: computed slice by slice."""

    def __init__(self, low: Float64, high: Float64, side: int, dtype: npt.DTypeLike) -> None:
        self._dtype = dtype
        self._low = low
        self._step = (high - low) / side
        self._side = side

    def __len__(self) -> int:
        return int(self._side ** len(self._low))

    def __getitem__(self, index: slice, /) -> Floats:
        at = np.arange(index.start, index.stop)
        places = np.stack([at // self._side**axis % self._side for axis in range(len(self._low))], axis=1)
        points: Floats = (self._low + (places + 0.5) * self._step).astype(self._dtype)
        return points


def density_map_rows(width: int) -> int:
    """The number of rows of so many columns that `density_map` runs."""
    return SAMPLED_ROWS + int(SIDES[width] ** width)


def density_map(flow: ServedFlow, x: Floats, context: Floats | None = None) -> Plan[DensityMap]:
    """The density in a box that holds some rows and nearly all that the flow samples.

    Args:
        flow: of one or two columns.
        x: ``[N, D]``, finite.
        context: ``[C]``, whose density is meant; None for a flow without.

    Raises:
        WrongShape: the context is missing or superfluous.
        NotFinite: a row that was sampled is beyond the range of the precision, under the context that is given.
        EngineFailed: the same without a context.
    """
    flow.require_context(None if context is None else context[None])
    noise = BaseNoise(flow.manifest.base, flow.width, seed=0, offset=0, count=SAMPLED_ROWS, dtype=flow.dtype)
    sampled = yield Run(flow.inverse, noise, _repeated(context, SAMPLED_ROWS), counted=False)
    check_outputs(sampled, *(("x", EngineFailed) if context is None else ("context", NotFinite)))
    low, high = _box(x, sampled.value)
    side = SIDES[flow.event_width]
    lattice = _Lattice(low, high, side, x.dtype)
    outputs = yield Run(flow.forward, lattice, _repeated(context, len(lattice)), value=False, counted=False)
    log_prob = np.where(np.isnan(outputs.log_prob), -math.inf, outputs.log_prob)
    return DensityMap(low, high, log_prob.reshape((side,) * flow.event_width))


def _box(x: Floats, sampled: Floats) -> tuple[Float64, Float64]:
    """The lower and the upper corner ``[D]`` of the box around rows ``[N, D]`` and what the flow sampled ``[M, D]``."""
    ends = [np.quantile(sampled, share, axis=0).astype(np.float64) for share in _TRIMMED]
    low = np.minimum(ends[0], x.min(axis=0))
    high = np.maximum(ends[1], x.max(axis=0))
    scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    margin = np.maximum((high - low) * _MARGIN, _LEAST_MARGIN * scale)
    largest = float(np.finfo(x.dtype).max)
    return np.maximum(low - margin, -largest), np.minimum(high + margin, largest)


def _repeated(context: Floats | None, count: int) -> Floats | None:
    return None if context is None else np.broadcast_to(context, (count, len(context)))

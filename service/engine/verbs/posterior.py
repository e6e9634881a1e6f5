"""Posterior summaries: what the draws of a flow say of each coordinate under each context, without the draws.

The draws of a context are those of `service.engine.verbs.flow.ServedFlow.sample` with the same seed. They are drawn and
summarized some contexts at a time, so that never more of them are in memory than `_BLOCK_VALUES` numbers, or the draws
of one context where these alone are more. Sums are computed in float64.

A highest-density interval is the shortest that holds a given share of the draws of one coordinate (Chen and Shao,
"Monte Carlo estimation of Bayesian credible and HPD intervals", Journal of Computational and Graphical Statistics 8,
1999). Of a density with several modes it is the shortest single interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle.precision import FloatType
from service.engine.sampling.noise import ContextNoise, Method
from service.engine.verbs.flow import ServedFlow
from service.errors import NotFinite, OverWorkBudget, PushforwardError
from service.plan import Floats, Plan, followed

__all__ = ["Posterior", "posterior", "summarize"]

Float64 = npt.NDArray[np.float64]

_BLOCK_VALUES: Final = 1 << 18
"""The values of the draws that are summarized at a time: in float32 1 MiB, which a cache holds."""

_ROUNDING: Final = 1e-9
"""0.29 * 100 is a little above 29: a share of draws is rounded up from a little below."""


class Posterior(NamedTuple):
    """The answer of `posterior`, in the flow's precision: K contexts, D coordinates of an event.

    Args:
        mean: ``[K, *event]``.
        std: ``[K, *event]``, the root of the mean squared deviation.
        quantiles: ``[K, Q, *event]``, linear between draws; None where none was asked for.
        hpd: ``[K, H, 2, *event]``, the lower and the upper end of each interval; None where none was asked for.
        correlation: ``[K, D, D]``; 0 between a coordinate that does not vary and any other. None where it was not
            asked for.
        acceptance: ``[K]``, the share of the draws that lay inside the flow's prior; None of a flow without.
    """

    mean: Floats
    std: Floats
    quantiles: Floats | None = None
    hpd: Floats | None = None
    correlation: Floats | None = None
    acceptance: Floats | None = None


def posterior(
    flow: ServedFlow,
    n: int,
    seed: int,
    offset: int = 0,
    context: Floats | None = None,
    *,
    quantiles: Sequence[float] = (),
    hpd: Sequence[float] = (),
    correlation: bool = True,
    method: Method = "random",
    noise: ContextNoise = "independent",
) -> Plan[Posterior]:
    """Summarize the draws of each context.

    Args:
        flow: to draw from.
        n: how many draws of each context, at least 1.
        seed: as for `ServedFlow.sample`, as are offset, method and noise.
        offset: the row of the seed that comes first.
        context: ``[K, C]``, or ``[C]`` for one; None for a flow without, which has one posterior.
        quantiles: levels, from 0 to 1.
        hpd: the shares of the draws that the intervals hold, above 0 and at most 1.
        correlation: whether to give it: it has D^2 numbers for each context.
        method: of the draws.
        noise: of the draws.

    Raises:
        InvalidArgument, WrongShape, NotFinite, EngineFailed: from `ServedFlow.sample`; a row is that of a context.
    """
    contexts = None if context is None else np.atleast_2d(context)
    flow.require_context(contexts)
    count = 1 if contexts is None else len(contexts)
    each = max(1, _BLOCK_VALUES // (n * flow.event_width))
    numbers = flow.event_width * (2 + len(quantiles) + 2 * len(hpd) + (flow.event_width if correlation else 0))
    parts = []
    for start in range(0, count, each):
        part = None if contexts is None else contexts[start : start + each]
        summarized = count if start + each >= count else each  # the last ones are written with all before them
        draws = flow.sample(n, seed, offset, context=part, method=method, noise=noise)
        try:
            drawn = yield from followed(draws, summarized * numbers)
        except (NotFinite, OverWorkBudget) as error:
            raise _moved(error, start) from error
        found = summarize(drawn.x.reshape(-1, n, flow.event_width), quantiles, hpd, correlation=correlation)
        parts.append(found._replace(acceptance=drawn.acceptance))
    return _joined(parts, flow.event_shape)


def summarize(
    draws: Floats, quantiles: Sequence[float] = (), hpd: Sequence[float] = (), *, correlation: bool = True
) -> Posterior:
    """Summarize draws that lie in memory.

    Args:
        draws: ``[K, n, D]``, finite.
        quantiles: as for `posterior`.
        hpd: as for `posterior`.
        correlation: as for `posterior`.

    Returns:
        Events are flat: ``[K, D]`` and so on.

    Example:
        >>> found = summarize(np.array([[[0.0], [1.0], [5.0]]]), quantiles=[0.5], hpd=[0.6])
        >>> float(found.mean[0, 0]), found.quantiles.tolist(), found.hpd[0, 0].tolist()
        (2.0, [[[1.0]]], [[0.0], [1.0]])
    """
    columns = np.ascontiguousarray(draws.swapaxes(1, 2))  # each coordinate's draws lie next to each other
    peak = np.maximum(np.abs(columns).max(axis=2), np.finfo(columns.dtype).tiny)[:, :, None].astype(np.float64)
    scaled = columns / peak  # so that no square is beyond float64
    mean = scaled.mean(axis=2, keepdims=True)
    scaled -= mean
    deviation = np.sqrt((scaled * scaled).mean(axis=2, keepdims=True))
    related = None
    if correlation:
        scaled /= np.where(deviation > 0, deviation, 1.0)
        related = _correlation(scaled)
    columns.sort(axis=2)
    dtype = draws.dtype
    return Posterior(
        mean=_rounded((mean * peak)[:, :, 0], dtype),
        std=_rounded((deviation * peak)[:, :, 0], dtype),
        quantiles=_rounded(_quantiles(columns, quantiles), dtype) if quantiles else None,
        hpd=_rounded(_shortest(columns, hpd), dtype) if hpd else None,
        correlation=None if related is None else _rounded(related, dtype),
    )


def _rounded(values: Floats, dtype: FloatType) -> Floats:
    """Numbers in the flow's precision, in the order of their axes."""
    return values.astype(dtype, order="C")


def _correlation(standard: Float64) -> Float64:
    """The correlation ``[K, D, D]`` of standardized draws ``[K, D, n]``: 1 on the diagonal."""
    found: Float64 = standard @ standard.swapaxes(1, 2)
    found /= standard.shape[2]
    np.clip(found, -1.0, 1.0, out=found)
    at = np.arange(standard.shape[1])
    found[:, at, at] = 1.0
    return found


def _quantiles(ordered: Floats, levels: Sequence[float]) -> Float64:
    """Quantiles ``[K, Q, D]`` of sorted draws ``[K, D, n]``, linear between two of them."""
    last = ordered.shape[2] - 1
    places = np.asarray(levels, np.float64) * last
    low = np.floor(places).astype(np.intp)
    part = places - low
    found: Float64 = ordered[:, :, low].astype(np.float64) * (1.0 - part)
    found += ordered[:, :, np.minimum(low + 1, last)] * part
    return found.swapaxes(1, 2)


def _shortest(ordered: Floats, shares: Sequence[float]) -> Floats:
    """The shortest interval that holds each share of sorted draws ``[K, D, n]``: ``[K, H, 2, D]``."""
    n = ordered.shape[2]
    found = []
    for share in shares:
        held = max(1, math.ceil(share * n - _ROUNDING))
        with np.errstate(over="ignore"):  # an interval longer than the greatest number is not the shortest
            lengths = ordered[:, :, held - 1 :] - ordered[:, :, : n - held + 1]
        first = lengths.argmin(axis=2)[:, :, None]
        ends = [np.take_along_axis(ordered, at, axis=2)[:, :, 0] for at in (first, first + held - 1)]
        found.append(np.stack(ends, axis=1))
    return np.stack(found, axis=1)


def _joined(parts: Sequence[Posterior], event_shape: tuple[int, ...]) -> Posterior:
    """The summaries of consecutive contexts together, with events in their shape."""

    def joined(pieces: Sequence[Any]) -> Any:  # noqa: ANN401  arrays, or None of each
        if pieces[0] is None:
            return None
        whole = np.concatenate(pieces)
        return whole.reshape(*whole.shape[:-1], *event_shape)

    def plain(pieces: Sequence[Floats | None]) -> Floats | None:
        kept = [piece for piece in pieces if piece is not None]
        return np.concatenate(kept) if kept else None

    return Posterior(
        mean=joined([part.mean for part in parts]),
        std=joined([part.std for part in parts]),
        quantiles=joined([part.quantiles for part in parts]),
        hpd=joined([part.hpd for part in parts]),
        correlation=plain([part.correlation for part in parts]),
        acceptance=plain([part.acceptance for part in parts]),
    )


def _moved(error: NotFinite | OverWorkBudget, start: int) -> PushforwardError:
    """The error of contexts of which the first is number `start` of all."""
    if start == 0 or not error.errors:
        return error
    reasons = tuple(
        reason if reason.row is None else dataclasses.replace(reason, row=reason.row + start) for reason in error.errors
    )
    return type(error)(f"row {reasons[0].row}: {reasons[0].reason}", reasons)

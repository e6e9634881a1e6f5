"""The acceptance of a flow with a prior: how much of its mass lies inside the prior, under each context.

It is the share of Sobol points whose draws lie inside, over `_SHIFTS` sequences, each shifted by a seed of its own. The
seeds are fixed, so that a version has one acceptance under a context. Its standard error is that of the mean over the
shifts (Owen, "Monte Carlo, quasi-Monte Carlo, and randomized quasi-Monte Carlo", 2000). Where few points lie inside,
more are drawn. The density inside the prior is the flow's over the acceptance,

    log p(x) = log_prob(x) - log acceptance,  x inside the prior.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Manifest
from service.bundle.priors import Prior
from service.engine.sampling.latents import words_per_row
from service.engine.sampling.noise import BaseNoise
from service.engine.sampling.sobol import MAX_WIDTH
from service.errors import InvalidArgument, Reason
from service.plan import Floats, Lane, Plan, Run

__all__ = ["POINTS", "Acceptance", "AcceptanceCache", "measure_acceptance"]

Float64 = npt.NDArray[np.float64]

_SHIFTS: Final = 8
_POINTS_A_SHIFT: Final = 512
POINTS: Final = _SHIFTS * _POINTS_A_SHIFT
"""The rows that are run for each context."""

_MORE: Final = 16
"""Where fewer than `_FEW` of the points lie inside, so many times as many are drawn."""

_FEW: Final = 100
_BLOCK_VALUES: Final = 1 << 18
_CACHED: Final = 1 << 14
"""The contexts that a version remembers."""


class Acceptance(NamedTuple):
    """The share of the mass inside the prior.

    Args:
        share: ``[N]`` float64, above 0 and at most 1.
        standard_error: ``[N]`` float64.
    """

    share: Float64
    standard_error: Float64


class AcceptanceCache:
    """The acceptances of one version, by context; the oldest are forgotten. Safe to use from several threads."""

    def __init__(self, capacity: int = _CACHED) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> tuple[float, float] | None:
        """The share and its standard error, or None."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: bytes, value: tuple[float, float]) -> None:
        """Remember a share and its standard error."""
        with self._lock:
            self._known[key] = value
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)


def measure_acceptance(
    lane: Lane,
    manifest: Manifest,
    prior: Prior,
    context: Floats | None,
    cache: AcceptanceCache,
    check_points: Callable[[int], None] | None = None,
) -> Plan[Acceptance]:
    """The acceptance under each context.

    Args:
        lane: of the inverse direction.
        manifest: of the flow.
        prior: of the flow.
        context: ``[N, C]``; None for a flow without, which has one acceptance.
        cache: of the version. It keeps what has been measured, also where the whole is refused.
        check_points: called with the number of points before they are run; it raises where they are too many.

    Returns:
        ``[N]``; ``[1]`` without a context.

    Raises:
        PushforwardError: from `check_points`.
        InvalidArgument: under a context nothing lies inside; the row is named.
    """
    keys = [b""] if context is None else [row.tobytes() for row in context + context.dtype.type(0)]  # -0.0 is 0
    found = {key: known for key in dict.fromkeys(keys) if (known := cache.get(key)) is not None}
    missing = {key: at for at, key in reversed(list(enumerate(keys))) if key not in found}
    places = sorted(missing.values())
    each = max(1, _BLOCK_VALUES // (POINTS * manifest.latent_width))
    points = 0
    for start in range(0, len(places), each):
        block = places[start : start + each]
        rows = None if context is None else np.ascontiguousarray(context[block])
        points = _more_points(points, len(block) * POINTS, check_points)
        shares = yield from _shares(lane, manifest, prior, rows, _POINTS_A_SHIFT)
        for at, place in enumerate(block):
            share = shares[:, at]
            if share.mean() * POINTS < _FEW:
                points = _more_points(points, _MORE * POINTS, check_points)
                one = None if rows is None else rows[at : at + 1]
                share = (yield from _shares(lane, manifest, prior, one, _MORE * _POINTS_A_SHIFT))[:, 0]
            known = float(share.mean()), float(share.std(ddof=1) / np.sqrt(_SHIFTS))
            if known[0] == 0:
                reason = f"none of {_MORE * POINTS} draws lies inside the prior"
                where = Reason(("context",), reason, place) if context is not None else Reason(("correct",), reason)
                under = f"context, row {place}" if context is not None else "correct"
                raise InvalidArgument(f"{under}: {reason}, so that no density can be corrected for it", (where,))
            found[keys[place]] = known
            cache.put(keys[place], known)
    both = np.array([found[key] for key in keys], np.float64).reshape(-1, 2)
    return Acceptance(both[:, 0].copy(), both[:, 1].copy())


def _more_points(made: int, more: int, check: Callable[[int], None] | None) -> int:
    """The number of points with some more, which are checked first."""
    if check is not None:
        check(made + more)
    return made + more


def _shares(lane: Lane, manifest: Manifest, prior: Prior, contexts: Floats | None, points: int) -> Plan[Float64]:
    """The share of the points of each shift that lie inside, ``[shifts, K]``."""
    width = manifest.latent_width
    sobol = words_per_row(manifest.base, width) <= MAX_WIDTH
    count = 1 if contexts is None else len(contexts)
    found = []
    for shift in range(_SHIFTS):
        noise = BaseNoise(
            manifest.base,
            width,
            seed=shift,
            offset=0,
            count=points,
            method="sobol" if sobol else "random",
            contexts=contexts,
            dtype=manifest.dtype,
        )
        repeated = None if contexts is None else np.repeat(contexts, points, axis=0)
        outputs = yield Run(lane, noise.buffered(), repeated, counted=False)
        with np.errstate(invalid="ignore"):  # what is beyond the range of its precision is not inside
            inside = prior.inside(outputs.value.reshape(count * points, manifest.event_width))
        found.append(inside.reshape(count, points).mean(axis=1))
    return np.stack(found)

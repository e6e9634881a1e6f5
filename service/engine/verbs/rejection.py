"""Rejection: draws of a flow that lie outside its prior are drawn again, each until one lies inside.

A row's tries are a sequence of its own (`service.engine.sampling.retries`), and the first of them that lies inside is
the row. It is therefore one value of the seed, the context and the row's number, whatever is drawn with it. Where rows
need many tries, several of a row are made at once, and the first that lies inside counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle.priors import Prior
from service.engine.sampling.noise import BaseNoise
from service.engine.sampling.retries import retried_latents
from service.errors import OverWorkBudget, Reason
from service.plan import Floats, Lane, Outputs, Plan, Run

__all__ = ["MAX_TRIES", "Accepted", "reject"]

MAX_TRIES: Final = 1023
"""The most tries of a row: of a flow with 1% of its mass inside, one row in 30,000 needs more."""

_ROUND_VALUES: Final = 1 << 18
"""The values of the tries that are made at a time, where there are so many rows that each has but one."""

_TRIES_PER_ROW, _TRIES_ANYWAY = 16, 1 << 17
"""The tries that one call may make in all: so many for each of its rows, and so many more."""


class Accepted(NamedTuple):
    """Rows inside the prior.

    Args:
        z: ``[N, D]``, the latents.
        x: ``[N, *event]``.
        log_abs_det_jacobian: ``[N]``.
        log_prob: ``[N]``.
        tries: ``[N]``, the number of tries of each row.
    """

    z: Floats
    x: Floats
    log_abs_det_jacobian: Floats
    log_prob: Floats
    tries: npt.NDArray[np.intp]


def reject(lane: Lane, prior: Prior, noise: BaseNoise, outputs: Outputs) -> Plan[Accepted]:
    """Draw again what lies outside the prior. A try that is beyond the range of its precision lies outside too.

    Args:
        lane: of the inverse direction.
        prior: of the flow.
        noise: of the rows.
        outputs: of their first tries.

    Raises:
        OverWorkBudget: a row has none inside after `MAX_TRIES`, or all together need too many.
    """
    rows = len(noise)
    x, ladj, log_prob = (np.array(values) for values in outputs.arrays)
    z = np.array(noise[0:rows])
    tries = np.ones(rows, np.intp)
    left = np.flatnonzero(~prior.inside(x.reshape(rows, -1)))
    made, each, spent = 1, 1, rows
    while left.size:
        _check_budget(noise, left, made, spent, rows)
        each = max(1, min(2 * each, MAX_TRIES - made, _ROUND_VALUES // (left.size * noise.width)))
        places = np.repeat(left, each)
        latents = retried_latents(noise, places, np.tile(np.arange(made, made + each), left.size).tolist())
        context = None if noise.contexts is None else noise.contexts[places // noise.count]
        found = yield Run(lane, latents, context)
        usable = np.isfinite(found.log_prob) & np.isfinite(found.log_abs_det_jacobian)
        inside = (prior.inside(found.value.reshape(len(places), -1)) & usable).reshape(left.size, each)
        first = inside.argmax(axis=1)
        done = inside[np.arange(left.size), first]
        taken = (np.arange(left.size) * each + first)[done]
        at = left[done]
        z[at], x[at], ladj[at], log_prob[at] = (values[taken] for values in (latents, *found.arrays))
        tries[at] = made + 1 + first[done]
        left = left[~done]
        made, spent = made + each, spent + len(places)
    return Accepted(z, x, ladj, log_prob, tries)


def _check_budget(noise: BaseNoise, left: npt.NDArray[np.intp], made: int, spent: int, rows: int) -> None:
    """Refuse to go on where nearly nothing lies inside.

    Args:
        noise: of the rows.
        left: the places of the rows that have none yet.
        made: how often each of these was tried.
        spent: the tries of all rows.
        rows: how many there are.
    """
    if made < MAX_TRIES and spent <= _TRIES_PER_ROW * rows + _TRIES_ANYWAY:
        return
    context = int(left[0]) // noise.count
    share = (
        f"about {(rows - left.size) / spent:.2g} of the draws lie inside" if left.size < rows else "none lies inside"
    )
    under = "" if noise.contexts is None else " under this context"
    reason = f"{left.size} of {rows} rows have no draw inside the prior{under} after {made} tries, and {share}"
    hint = "this context may be unlike any that the flow was fitted to" if under else "ask for fewer rows"
    where = Reason(("n",), reason) if noise.contexts is None else Reason(("context",), reason, context)
    which = "" if noise.contexts is None else f"row {context}: "
    raise OverWorkBudget(f"{which}{reason}; {hint}", (where,))

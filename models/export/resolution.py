"""The resolution of a precision: which rows far outside the data an imported flow can be held to.

A flow of this project is finite however far out, for its conditioners see no further than the data. One of another
library may take the exponential of a network without bounds: 30 standard deviations out it overflows, in torch as in
any graph. That is a property of the flow, and no fault of its export. A step may also make NaN of
moderate numbers, which no overflow excuses: such a row stays, for the gate to refuse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.export.probes import Probes
from models.flows.flow import Flow
from service.bundle.parity import TOLERANCE

__all__ = ["keep_resolvable"]

_MARGIN = 0.1
"""A row counts as answered where torch's error in the flow's precision is below this share of the gate's bound."""
_LARGE = 1e3
"""From here on a step's exponential may overflow even in float64, and NaN be what becomes of infinity."""


def keep_resolvable(flow: Flow, exact: Flow, probes: Probes) -> Probes:
    """The probes without the far rows that torch itself, in the flow's precision, answers wrong.

    Held-out rows all stay, and those for which some step makes NaN of what is no large number.

    Args:
        flow: in its precision.
        exact: the same in float64.
        probes: the rows.

    Returns:
        Probes with as many or fewer rows.
    """
    answers = [_answer(flow, probes, flow.dtype), _answer(exact, probes, torch.float64)]
    good = torch.ones(len(probes.x), dtype=torch.bool)
    for found, expected in zip(*answers, strict=True):
        error = (found.double() - expected).abs() / (1 + expected.abs())
        close = torch.isfinite(expected) & (error <= _MARGIN * TOLERANCE)
        outside = (expected == -math.inf) & (found == -math.inf)  # log_prob, outside the support
        good &= (close | outside).reshape(len(probes.x), -1).all(dim=1)
    kept = good.numpy()
    kept[probes.held_out] = True
    kept |= _find_broken(exact, probes).numpy()
    return probes.select(kept)


def _answer(flow: Flow, probes: Probes, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Z ``[N, D]``, log|det df/dx| and log_prob ``[N]``."""
    x = torch.from_numpy(probes.x).to(dtype)
    context = None if probes.context is None else torch.from_numpy(probes.context).to(dtype)
    with torch.no_grad():
        z, ladj = flow(x, context)
        return z, ladj, flow.log_prob(x, context)


def _find_broken(exact: Flow, probes: Probes) -> Tensor:
    """For which rows the first step to fail makes NaN, in float64, of moderate numbers: bool ``[N]``."""
    x = torch.from_numpy(probes.x).double()
    context = None if probes.context is None else torch.from_numpy(probes.context).double()
    sound, broken = torch.ones(len(x), dtype=torch.bool), torch.zeros(len(x), dtype=torch.bool)
    with torch.no_grad():
        for value, term in zip(*exact.trace(x, context), strict=True):
            made = torch.cat((value.flatten(1), term.unsqueeze(1)), dim=1)
            broken |= sound & torch.isnan(made).any(dim=1)
            sound &= (made.abs() < _LARGE).all(dim=1)
    return broken

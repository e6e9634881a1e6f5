"""The benchmark of posteriors: what it holds a fit against is what exact draws have."""

from __future__ import annotations

import math

import torch
from torch.distributions import Beta, Dirichlet, Gamma

from benchmarks.posteriors import CASES, Bounded, ManyWell, summarize

BY_NAME = {case.name: case for case in CASES}


def test_exact_draws_of_the_bounded_target_have_its_moments():
    torch.manual_seed(0)
    count = 200_000
    x = torch.cat(
        [
            Dirichlet(torch.tensor(Bounded.concentration, dtype=torch.float64)).sample((count,)),
            Gamma(*map(torch.tensor, Bounded.gamma)).sample((count, 1)),
            4 * Beta(*map(torch.tensor, Bounded.beta)).sample((count, 1)) - 1,
        ],
        dim=1,
    )
    checks = BY_NAME["simplex, positive, interval"].moments(x)
    assert all(value <= bound for _, value, bound, _ in checks), checks
    moved = BY_NAME["simplex, positive, interval"].moments(x + 0.02)
    assert all(value > bound for name, value, bound, _ in moved if name != "deviations, relative")


def test_the_many_well_has_the_evidence_and_the_shares_that_are_named():
    axis = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    z = torch.zeros(len(axis), 6, dtype=torch.float64)
    z[:, 0] = axis
    one = ManyWell().log_density(z).exp()
    whole = torch.trapezoid(one, axis)
    case = BY_NAME["many-well"]
    assert math.isclose(3 * (float(whole.log()) + 0.5 * math.log(2 * math.pi)), case.log_z, abs_tol=1e-4)
    assert abs(float(torch.trapezoid(one * (axis > 0), axis) / whole) - 0.844) < 5e-4


def test_what_is_not_kept_is_told():
    case = BY_NAME["many-well"]
    fits = [([("ESS", value, 0.3, True), ("share", 0.5, 0.02, False)], "good", 1.0) for value in (0.9, 0.2, 0.8)]
    first, second = summarize(case, fits)
    assert "| 0.8000 | 0.2000 | yes |" in first
    assert "| NO |" in second

"""Annealing: its weights have the mean they should, and Metropolis steps leave their density as it is."""

from __future__ import annotations

import math

import torch

from models.inference.annealing import WideStart, anneal, metropolis, plan_schedule
from models.inference.evidence import annealed_evidence, log_mean
from tests.models.inference.targets import Gaussian, TwoModes


def schedule_for(target, generator, efficiency=0.95):
    return plan_schedule(
        WideStart(target.dim, 3.0),
        target.log_density,
        chains=500,
        steps=3,
        efficiency=efficiency,
        generator=generator,
        dtype=torch.float64,
    )


def run(target, schedule, generator, chains):
    return anneal(
        WideStart(target.dim, 3.0),
        target.log_density,
        schedule,
        chains=chains,
        steps=3,
        generator=generator,
        dtype=torch.float64,
    )


def test_the_mean_weight_is_the_constant_of_the_target_without_bias():
    target, generator = Gaussian(), torch.Generator().manual_seed(1)
    schedule = schedule_for(target, generator, 0.8)
    # the weights themselves are unbiased, not their logarithms: many short runs are averaged
    ratios = torch.stack(
        [(run(target, schedule, generator, 200).log_weights - target.log_z).exp().mean() for _ in range(20)]
    )
    error = float(ratios.std()) / math.sqrt(len(ratios))
    assert abs(float(ratios.mean()) - 1.0) < 4 * error
    assert error < 0.05


def test_both_modes_are_reached_and_the_error_holds_the_truth():
    target, generator = TwoModes(), torch.Generator().manual_seed(2)
    found = run(target, schedule_for(target, generator), generator, 2000)
    value, error = annealed_evidence([found])
    assert abs(value - target.log_z) < 4 * error
    assert error < 0.1
    weights = torch.softmax(found.log_weights, dim=0)
    assert abs(float(weights[found.u[:, 0] > 0].sum()) - 0.5) < 0.1


def test_the_schedule_ends_at_the_target():
    schedule = schedule_for(Gaussian(), torch.Generator().manual_seed(3))
    assert schedule.temperatures[-1] == 1.0
    assert all(a < b for a, b in zip(schedule.temperatures, schedule.temperatures[1:], strict=False))
    assert len(schedule.factors) == len(schedule.temperatures)


def test_metropolis_steps_leave_a_normal_as_it_is():
    generator = torch.Generator().manual_seed(4)
    density = WideStart(2, 1.0).log_prob
    u = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    moved, log_prob, accepted = metropolis(u, density(u), density, torch.eye(2, dtype=u.dtype), 10, generator)
    assert torch.equal(log_prob, density(moved))
    assert 0.2 < accepted < 0.8
    assert float(moved.std()) < 1.05
    assert float(moved.std()) > 0.95
    assert float(moved.mean().abs()) < 0.05


def test_a_row_without_density_takes_any_that_has_one():
    generator = torch.Generator().manual_seed(5)

    def positive(u):
        return torch.where(u[:, 0] > 0, -u[:, 0], -math.inf)

    u = torch.full((100, 1), -0.1, dtype=torch.float64)
    moved, log_prob, _ = metropolis(u, positive(u), positive, torch.eye(1, dtype=u.dtype), 20, generator)
    assert bool((moved > 0).all())
    assert bool(torch.isfinite(log_prob).all())


def test_log_mean_of_nothing_is_minus_infinity():
    value, error = log_mean(torch.full((3,), -math.inf, dtype=torch.float64).numpy())
    assert (value, error) == (-math.inf, math.inf)

"""Constraints: their densities integrate to one, they are torch's, and what does not fit is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Beta, Dirichlet, Gamma, biject_to, constraints

from models.flows.constrained import Constrained
from models.inference.constraints import constrain, support_of
from service.errors import DataError


def step_of(*given, dim) -> Constrained:
    step = constrain(given, dim, "mine", "float64")
    assert step is not None
    return step


SIMPLE = [
    (constraints.positive, Gamma(2.0, 1.5)),
    (constraints.nonnegative, Gamma(2.0, 1.5)),
    (constraints.unit_interval, Beta(2.0, 3.0)),
    (constraints.greater_than(0.0), Gamma(3.0, 1.0)),
]


@pytest.mark.parametrize(("constraint", "density"), SIMPLE)
def test_a_density_over_the_reals_integrates_to_one(constraint, density):
    y = torch.linspace(-40, 40, 40001, dtype=torch.float64)[:, None]
    x, ladj = step_of(constraint, dim=1).inverse(y)
    values = (density.log_prob(x[:, 0].double()) + ladj).exp()
    assert float(torch.trapezoid(values, y[:, 0])) == pytest.approx(1.0, abs=1e-6)


def test_a_dirichlet_over_the_reals_integrates_to_one():
    axis = torch.linspace(-25, 25, 801, dtype=torch.float64)
    y = torch.cartesian_prod(axis, axis)
    x, ladj = step_of(constraints.simplex, dim=3).inverse(y)
    density = Dirichlet(torch.tensor([1.5, 2.0, 3.0], dtype=torch.float64), validate_args=False)
    values = (density.log_prob(x) + ladj).exp().reshape(801, 801)
    whole = torch.trapezoid(torch.trapezoid(values, axis), axis)
    assert float(whole) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("constraint", "columns"),
    [
        (constraints.positive, 2),
        (constraints.less_than(3.0), 2),
        (constraints.greater_than(-2.0), 2),
        (constraints.interval(-1.0, 4.0), 2),
        (constraints.half_open_interval(0.0, 2.0), 2),
        (constraints.simplex, 4),
        (constraints.real, 2),
    ],
)
def test_the_map_and_its_jacobian_are_torchs(constraint, columns):
    step = step_of(*([constraint] * columns), constraints.positive, dim=columns + 1)
    reals = step.reals - 1
    y = torch.randn(50, reals + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, ladj = step.inverse(y)
    transform = biject_to(constraint)
    expected = transform(y[:, :reals])
    theirs = transform.log_abs_det_jacobian(y[:, :reals], expected)
    theirs = theirs if theirs.ndim == 1 else theirs.sum(dim=1)
    assert torch.allclose(x[:, :columns], expected, atol=1e-12)
    assert torch.allclose(ladj, theirs + y[:, reals], atol=1e-10)
    assert bool(constraint.check(x[:, :columns]).all())
    back, forward_ladj = step(x)
    assert torch.allclose(back, y, atol=1e-9)
    assert torch.allclose(forward_ladj, -ladj, atol=1e-9)
    assert bool(step.inside(x).all())


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_far_out_no_row_leaves_its_support(precision):
    kinds = [
        constraints.positive,
        constraints.interval(-1.0, 1.0),
        *[constraints.simplex] * 3,
        constraints.less_than(5.0),
    ]
    step = constrain(kinds, 6, "mine", precision)
    y = torch.tensor([[-300.0], [-50.0], [50.0], [300.0]], dtype=getattr(torch, precision)).expand(-1, step.reals)
    x, _ = step.inverse(y.clamp(max=80))
    assert bool(step.inside(x).all())
    assert bool(torch.isfinite(step(x)[0]).all())


def test_rows_outside_are_told_and_moved_inside():
    step = step_of(constraints.positive, *[constraints.simplex] * 2, dim=3)
    rows = torch.tensor(
        [[1.0, 0.4, 0.6], [-1.0, 0.4, 0.6], [1.0, 0.4, 0.5], [1.0, -0.4, 1.4], [0.0, 0.5, 0.5]], dtype=torch.float64
    )
    assert step.inside(rows).tolist() == [True, False, False, False, False]
    moved = step.nearest(rows)
    assert bool(step.inside(moved).all())
    assert torch.allclose(moved[0], rows[0])
    assert bool(torch.isfinite(step(moved)[0]).all())


def test_one_constraint_is_for_all_and_two_simplexes_may_stand_side_by_side():
    assert step_of(constraints.positive, dim=3).columns == 3
    two = constrain([(constraints.simplex, 2), (constraints.simplex, 3)], 5, "mine")
    assert (two.columns, two.reals) == (5, 3)
    assert [each.columns for each in two.stated()] == [2, 3]
    cat = constrain([constraints.cat([constraints.simplex, constraints.positive], 0, [3, 2])], 5, "mine")
    assert (cat.columns, cat.reals) == (5, 4)
    assert constrain((), 3, "mine") is None
    assert constrain([constraints.real], 3, "mine") is None


def test_a_box_of_all_columns_is_a_support():
    support = support_of(step_of(constraints.interval(-1.0, 2.0), dim=2))
    assert support is not None
    assert (support.low, support.high) == (-1.0, 2.0)
    assert support_of(step_of(constraints.positive, constraints.real, dim=2)) is None
    assert support_of(step_of(constraints.simplex, dim=2)) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([constraints.positive] * 2, "constraints for 2 coordinates, and 3 coordinates"),
        ([(constraints.simplex, 4)], "constraints for 4 coordinates, and 3 coordinates"),
        ([constraints.corr_cholesky], "is not known; known are"),
        ([constraints.integer_interval(0, 3)], "has no bijection to the reals"),
        (["positive"], "is no constraint"),
        ([constraints.simplex, constraints.real, constraints.real], "a simplex spans at least 2 coordinates"),
        ([constraints.interval(2.0, 1.0)], "low < high"),
    ],
)
def test_what_does_not_fit_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        constrain(given, 3, "mine")


def test_the_tangents_are_those_of_the_first_columns():
    step = step_of(constraints.positive, *[constraints.simplex] * 3, dim=4)
    y = torch.randn(1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, ladj = step.inverse(y)
    jacobian = torch.autograd.functional.jacobian(lambda row: step(row[None])[0][0], x[0])
    found = torch.linalg.slogdet(jacobian @ step.tangents())[1]
    assert math.isclose(float(found), -float(ladj), rel_tol=1e-9)

"""Splines and polynomials against zuko's, and where they end."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import zuko

from models.flows.univariate import Bernstein, OnePass, RationalQuadratic
from tests.laws.table import normal

BOUND, BINS = 4.0, 6
X = torch.linspace(-6.0, 6.0, 121, dtype=torch.float64)


def spline(scale: float = 2.0, dtype: torch.dtype = torch.float64) -> RationalQuadratic:
    sizes, slopes = scale * normal(121, 2, BINS), scale * normal(121, BINS - 1, seed=4)
    return RationalQuadratic(sizes.to(dtype), slopes.to(dtype), bound=BOUND)


def polynomial(scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Bernstein:
    return Bernstein((scale * normal(121, 9)).to(dtype), bound=BOUND)


BOTH = pytest.mark.parametrize("make", [spline, polynomial])


def test_the_spline_is_zuko_s() -> None:
    own = spline()
    sizes, slopes = 2 * normal(121, 2, BINS), 2 * normal(121, BINS - 1, seed=4)
    other = zuko.transforms.MonotonicRQSTransform(sizes[:, 0], sizes[:, 1], slopes, bound=BOUND, slope=1e-2)
    torch.testing.assert_close(own.call_and_ladj(X), other.call_and_ladj(X), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(own.inv(X), other.inv(X), rtol=1e-9, atol=1e-9)


def test_a_graph_s_form_of_the_spline_is_the_same_spline(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.cat((X[:-2], torch.tensor([-BOUND, BOUND], dtype=torch.float64)))
    own = spline()
    expected = own.call_and_ladj(x), own.inverse_and_ladj(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    exported = spline()
    for answer, other in zip((exported.call_and_ladj(x), exported.inverse_and_ladj(x)), expected, strict=True):
        torch.testing.assert_close(answer, other, rtol=1e-12, atol=1e-12)


def test_the_polynomial_is_zuko_s() -> None:
    inside = X[X.abs() < 0.99 * BOUND]  # zuko goes over into the identity a little before the bound
    raw = normal(inside.shape[0], 9)
    softened = raw / (1 + (2 * raw / math.log(0.01)).abs())
    own, other = Bernstein(raw, bound=BOUND), zuko.transforms.BoundedBernsteinTransform(softened, bound=BOUND)
    torch.testing.assert_close(own.call_and_ladj(inside), other.call_and_ladj(inside), rtol=1e-6, atol=1e-6)


@BOTH
def test_zeros_are_the_identity(make: Callable[[float], OnePass]) -> None:
    y, ladj = make(0.0).call_and_ladj(X)
    torch.testing.assert_close(y, X, rtol=0, atol=1e-12)
    torch.testing.assert_close(ladj, torch.zeros_like(X), rtol=0, atol=1e-12)


@BOTH
def test_outside_its_bound_it_is_the_identity_and_it_meets_it(make: Callable[[float], OnePass]) -> None:
    function = make(2.0)
    for x in (X * 1e30, torch.full_like(X, BOUND), torch.full_like(X, -BOUND)):
        for value, ladj in (function.call_and_ladj(x), function.inverse_and_ladj(x)):
            outside = x.abs() >= BOUND
            assert torch.equal(value[outside], x[outside])
            assert not bool(ladj[outside].any())
    near = torch.full_like(X, BOUND - 1e-9)
    torch.testing.assert_close(function.call_and_ladj(near)[0], near, rtol=0, atol=1e-6)
    torch.testing.assert_close(function.call_and_ladj(near)[1], torch.zeros_like(X), rtol=0, atol=1e-5)


@BOTH
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_it_increases_and_the_inverse_is_exact_whatever_the_parameters(
    make: Callable[[float], OnePass], scale: float
) -> None:
    function = make(scale)
    y, ladj = function.call_and_ladj(X)
    assert bool(torch.isfinite(ladj).all())
    x, inverse_ladj = function.inverse_and_ladj(y)
    torch.testing.assert_close(x, X, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(inverse_ladj, -ladj, rtol=1e-5, atol=1e-5)
    assert bool((function.call_and_ladj(X + 0.05)[0] > y).all())


@BOTH
def test_float32_is_the_same_function(make: Callable[[float, torch.dtype], OnePass]) -> None:
    exact, single = make(1.0, torch.float64), make(1.0, torch.float32)
    for one, other in (
        (exact.call_and_ladj(X), single.call_and_ladj(X.float())),
        (exact.inverse_and_ladj(X), single.inverse_and_ladj(X.float())),
    ):
        torch.testing.assert_close(other[0].double(), one[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other[1].double(), one[1], rtol=1e-4, atol=1e-4)


@BOTH
def test_parameters_may_be_the_same_for_every_row(make: Callable[[float], OnePass]) -> None:
    if make is spline:
        sizes, slopes = normal(1, 3, 2, BINS), normal(1, 3, BINS - 1)
        one = RationalQuadratic(sizes, slopes)
        many = RationalQuadratic(sizes.expand(5, -1, -1, -1), slopes.expand(5, -1, -1))
    else:
        one, many = Bernstein(normal(1, 3, 7)), Bernstein(normal(1, 3, 7).expand(5, -1, -1))
    x = 2 * normal(5, 3)
    torch.testing.assert_close(one.call_and_ladj(x), many.call_and_ladj(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(one.inverse_and_ladj(x), many.inverse_and_ladj(x), rtol=0, atol=1e-14)

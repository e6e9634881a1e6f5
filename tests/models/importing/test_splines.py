"""The splines of imports against nflows' own functions, also at their ends and knots, where a comparison decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nflows.transforms import splines as library
from torch import Tensor

from models.importing.splines import Knots, linear, quadratic, rational_quadratic
from tests.laws.table import normal

BINS = 4
POINTS = torch.tensor([-1.0, -0.8, -0.5, 0.0, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)
"""Both ends, knots of equal bins, and points between."""

SHAPES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[int]]] = {
    "linear": (linear, library.linear_spline, [BINS]),
    "quadratic": (quadratic, library.quadratic_spline, [BINS, BINS + 1]),
    "rational quadratic": (rational_quadratic, library.rational_quadratic_spline, [BINS, BINS, BINS + 1]),
}


def parameters(shapes: list[int]) -> list[Tensor]:
    return [normal(1, shape, seed=seed).expand(len(POINTS), -1) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("inverse", [False, True])
def test_a_spline_is_that_of_the_library_at_its_ends_and_knots_too(kind: str, *, inverse: bool) -> None:
    own, other, shapes = SHAPES[kind]
    given = parameters(shapes)
    expected = other(POINTS, *given, inverse=inverse, left=-1.0, right=1.0, bottom=-1.0, top=1.0)
    actual = own(POINTS, *given, Knots(-1.0, 1.0), inverse=inverse)
    # the library raises the last knot by 1e-6 to find the bin, and its slopes with it
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("inverse", [False, True])
def test_beyond_its_ends_a_spline_is_the_identity(kind: str, *, inverse: bool) -> None:
    own, _, shapes = SHAPES[kind]
    x = torch.tensor([-1e30, -1.0000001, 1.0000001, 1e30], dtype=torch.float64)
    y, ladj = own(x, *(given[:4] for given in parameters(shapes)), Knots(-1.0, 1.0), inverse=inverse)
    assert torch.equal(y, x)
    assert not bool(ladj.any())

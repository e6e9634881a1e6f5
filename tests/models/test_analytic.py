from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.analytic import square


@given(st.floats(2.0**-126, 4.0, width=32))
def test_square_has_its_closed_form(x: float) -> None:
    flow = square().double()
    assert flow.log_prob(torch.tensor([[x]], dtype=torch.float64)).item() == pytest.approx(-math.log(4 * math.sqrt(x)))


def test_square_is_a_density() -> None:
    """The integral over (0, 4], in u = sqrt(x), where it has no pole."""
    u = torch.linspace(1e-6, 2.0, 20_001, dtype=torch.float64)
    density = square().double().log_prob((u * u)[:, None]).exp().numpy()
    assert np.trapezoid(density * 2 * u.numpy(), u.numpy()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("x", [0.0, -1.0, 4.000001, 1e30])
def test_square_is_nothing_elsewhere(x: float) -> None:
    z, ladj = square()(torch.tensor([[x]]))
    assert square().log_prob(torch.tensor([[x]])).item() == -math.inf
    assert math.isfinite(z.item())
    assert math.isfinite(ladj.item())


@given(st.floats(0, 2, width=32))
def test_whatever_is_generated_lies_in_the_support(z: float) -> None:
    x, ladj, log_prob = square().inverse_log_prob(torch.tensor([[z]]))
    assert 0 < x.item() <= 4
    assert math.isfinite(ladj.item())
    assert log_prob.item() == pytest.approx(-math.log(4 * math.sqrt(x.item())), rel=1e-5, abs=1e-5)

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.flows.precision import round_number
from models.flows.preprocess import Logit, Standardize, Whiten, correlation_matrix, dequantize, quantized_support
from service.errors import DataError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_standardized_rows_have_mean_zero_and_deviation_one() -> None:
    rows = torch.randn(500, 3, generator=generator()) * torch.tensor([1e-3, 1.0, 1e4]) + 7
    y, ladj = Standardize.of(rows)(rows)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=2e-3, rtol=0)  # 7 is seven thousand of the first's
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(ladj[0].exp(), (1 / rows.std(0, correction=0)).prod(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_column_without_spread_is_named(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 3 columns") as raised:
        Standardize(torch.zeros(3), torch.tensor([1.0, bad, 2.0]))
    assert [reason.column for reason in raised.value.errors] == [1]


def test_a_mean_that_is_not_finite_is_named() -> None:
    with pytest.raises(DataError) as raised:
        Standardize(torch.tensor([0.0, math.nan]), torch.ones(2))
    assert [reason.column for reason in raised.value.errors] == [1]


def test_whitened_rows_are_uncorrelated() -> None:
    mixing = torch.randn(4, 4, generator=generator())
    rows = torch.randn(20_000, 4, generator=generator(1)) @ mixing
    standard = Standardize.of(rows)(rows)[0]
    y, ladj = Whiten.of(standard)(standard)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(4), atol=0.05, rtol=0)
    correlation = torch.from_numpy(np.corrcoef(standard.numpy(), rowvar=False))
    assert ladj[0].item() == pytest.approx(-0.5 * torch.logdet(correlation).item(), rel=0.02)


def test_whitening_few_rows_of_many_columns_is_well_defined() -> None:
    rows = torch.randn(10, 50, generator=generator())
    assert bool(torch.isfinite(Whiten.of(rows)(rows)[0]).all())


@pytest.mark.parametrize("narrowness", [0.1, 0.01, 0.005])
def test_a_narrow_direction_is_whitened_as_narrow_as_it_is(narrowness: float) -> None:
    x = torch.randn(4000, 2, generator=generator(), dtype=torch.float64)
    rows = torch.stack((x[:, 0], x[:, 0] + narrowness * x[:, 1]), dim=1)
    standard = Standardize.of(rows)(rows.float())[0]
    y, _ = Whiten.of(standard)(standard)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(2), atol=0.45, rtol=0)
    assert float(torch.linalg.eigvalsh(y.T @ y / len(y))[0]) > 0.5


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_whitening_reckons_with_noise_that_each_column_gets_by_itself(noise: float) -> None:
    x = torch.randn(4000, 3, generator=generator(), dtype=torch.float64)
    rows = torch.stack((x[:, 0], x[:, 0] + 0.01 * x[:, 1], x[:, 2]), dim=1)
    standard = Standardize.of(rows, torch.float64)(rows)[0]
    deviations = torch.tensor([noise, noise, 0.0], dtype=torch.float64)
    seen = standard + deviations * torch.randn(4000, 3, generator=generator(1), dtype=torch.float64)
    y, _ = Whiten.of(standard, torch.float64, deviations)(seen)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(3, dtype=torch.float64), atol=0.1, rtol=0)


def test_columns_that_determine_one_another_are_not_blown_up() -> None:
    x = torch.randn(1000, 1, generator=generator())
    matrix = Whiten.of(Standardize.of(x)(x)[0].expand(-1, 2)).matrix
    assert float(matrix.abs().max()) < 320


def test_correlations_of_few_rows_are_drawn_towards_none() -> None:
    rows = torch.randn(40, 30, generator=generator(), dtype=torch.float64)
    few = correlation_matrix(rows)
    sample = rows.T @ rows / len(rows)
    off = ~torch.eye(30, dtype=torch.bool)
    assert float(few[off].abs().mean()) < 0.5 * float(sample[off].abs().mean())


def test_a_singular_correlation_cannot_be_whitened() -> None:
    with pytest.raises(DataError, match="not positive definite"):
        Whiten(torch.ones(2, 2))


@given(st.floats(-30, 30, width=32))
def test_logit_inverse_stays_within_the_interval(y: float) -> None:
    x, ladj = Logit(-0.5, 16.5).inverse(torch.tensor([[y]]))
    assert -0.5 <= x.item() <= 16.5
    assert math.isfinite(ladj.item())


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_logit_log_determinant_is_finite_for_every_float32(y: float) -> None:
    assert math.isfinite(Logit(0.0, 1.0).inverse(torch.tensor([[y]]))[1].item())


def test_a_logit_is_that_of_the_share_of_the_interval() -> None:
    x = torch.tensor([[-0.4, 3.0], [8.0, 16.4]], dtype=torch.float64)
    y, ladj = Logit(-0.5, 16.5)(x)
    share = (x + 0.5) / 17.0
    torch.testing.assert_close(y, torch.logit(share))
    torch.testing.assert_close(ladj, -(17.0 * share * (1.0 - share)).log().sum(dim=1))


@given(st.floats(0, 16.5, exclude_min=True, exclude_max=True, width=32))
def test_logit_in_float32_is_exact_to_the_last_digits_at_both_ends(x: float) -> None:
    step = Logit(0.0, 16.5)
    y, ladj = step(torch.tensor([[x]], dtype=torch.float32))
    exact_y, exact_ladj = step(torch.tensor([[x]], dtype=torch.float64))
    assert y.item() == pytest.approx(exact_y.item(), rel=1e-5, abs=1e-6)
    assert ladj.item() == pytest.approx(exact_ladj.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_logit_needs_an_interval(low: float, high: float) -> None:
    with pytest.raises(DataError, match="low < high"):
        Logit(low, high)


@given(st.sampled_from([torch.float32, torch.float64]), st.integers(0, 1000), st.sampled_from([0.25, 1.0, 5.0]))
def test_dequantized_values_stay_strictly_in_their_bins(dtype: torch.dtype, seed: int, step: float) -> None:
    centres = step * torch.arange(-20, 21, dtype=dtype).repeat(50, 1)
    x = dequantize(centres, step, generator(seed))
    assert x.dtype == dtype
    assert bool(((x - centres).abs() < step / 2).all())


def test_rounding_moves_no_value_onto_the_edge_of_its_bin() -> None:
    """At 1000 the float32 numbers lie 6e-5 apart: of 300,000 draws some would be rounded to the edge."""
    centres = torch.full((300_000, 1), 1000.0)
    assert bool(((dequantize(centres, 1.0, generator()) - centres).abs() < 0.5).all())


def test_dequantization_noise_is_uniform_over_the_bin() -> None:
    x = dequantize(torch.zeros(100_000, 1, dtype=torch.float64), 1.0, generator())
    assert x.mean().item() == pytest.approx(0, abs=0.005)
    assert x.var().item() == pytest.approx(1 / 12, rel=0.01)
    assert x.min().item() < -0.4999
    assert x.max().item() > 0.4999


def test_dequantization_by_column_leaves_columns_without_a_step() -> None:
    rows = torch.arange(12.0).reshape(4, 3)
    x = dequantize(rows, torch.tensor([1.0, 0.0, 1.0]), generator())
    assert torch.equal(x[:, 1], rows[:, 1])
    assert bool((x[:, [0, 2]] != rows[:, [0, 2]]).all())


def test_dequantization_is_drawn_by_the_generator_alone() -> None:
    rows = torch.zeros(5, 2)
    assert torch.equal(dequantize(rows, 1.0, generator(3)), dequantize(rows, 1.0, generator(3)))
    assert not torch.equal(dequantize(rows, 1.0, generator(3)), dequantize(rows, 1.0, generator(4)))


@pytest.mark.parametrize("step", [-1.0, math.inf, math.nan])
def test_a_bin_needs_a_width(step: float) -> None:
    with pytest.raises(DataError) as raised:
        dequantize(torch.zeros(2, 3), torch.tensor([1.0, step, 1.0]), generator())
    assert [reason.column for reason in raised.value.errors] == [1]


def test_values_too_large_for_their_precision_are_refused() -> None:
    with pytest.raises(DataError, match="float32"):
        dequantize(torch.full((2, 1), 1e7), 1.0, generator())


def test_no_rows_are_no_rows() -> None:
    assert dequantize(torch.zeros(0, 3), 1.0, generator()).shape == (0, 3)


def test_quantized_support_is_the_union_of_the_bins() -> None:
    support = quantized_support(0, 16)
    assert (support.low, support.high, support.low_closed, support.high_closed) == (-0.5, 16.5, False, False)


@given(st.floats(-1e30, 1e30))
def test_bounds_are_float32(value: float) -> None:
    assert np.float32(round_number(value, "float32")) == round_number(value, "float32")

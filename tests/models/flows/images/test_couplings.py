from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models.flows.conditional import Coupling
from models.flows.images.couplings import Convolutions, affine_coupling, channel_halves, checkerboard, spline_coupling
from models.flows.images.layers import Squeeze
from tests.laws.table import normal, randomize


def convolutions(channels: tuple[int, int], context: int = 0, reach: float = 3.0) -> Convolutions:
    return Convolutions(channels, (4, 4), context, hidden=6, blocks=1, activation=nn.ReLU, reach=reach)


def test_after_a_squeeze_a_checkerboard_is_a_choice_of_channels() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    squeezed, _ = Squeeze()(board.reshape(1, 1, 8, 8).float())
    mask = checkerboard(4)
    assert not bool(squeezed[:, mask].any())
    assert bool(squeezed[:, ~mask].all())


@pytest.mark.parametrize("mask", [checkerboard(8), ~checkerboard(8), channel_halves(8), ~channel_halves(8)])
def test_what_conditions_stays_and_the_rest_moves(mask: torch.Tensor) -> None:
    coupling = affine_coupling(mask, convolutions, 0.05)
    randomize(coupling)
    x = normal(3, 8, 4, 4)
    y, _ = coupling(x)
    assert torch.equal(y[:, mask], x[:, mask])
    assert not torch.isclose(y[:, ~mask], x[:, ~mask], rtol=0, atol=1e-9).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda mask: affine_coupling(mask, convolutions, 0.05),
        lambda mask: spline_coupling(mask, convolutions, 5, 3.0, 0.01),
    ],
    ids=["affine", "spline"],
)
def test_as_built_it_is_the_identity(make) -> None:
    x = 2 * normal(3, 4, 4, 4).float()
    y, ladj = make(channel_halves(4))(x)
    torch.testing.assert_close(y, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(ladj, torch.zeros(3), atol=1e-4, rtol=0)


def test_the_scale_is_bounded() -> None:
    coupling = affine_coupling(channel_halves(4), convolutions, 0.1)
    randomize(coupling, scale=100.0)
    _, ladj = coupling(normal(5, 4, 4, 4))
    moved = 2 * 4 * 4
    assert bool((ladj.abs() < moved * -math.log(0.1)).all())
    assert bool((ladj.abs() > 0.5 * -math.log(0.1)).any())


def test_far_outside_the_data_a_conditioner_says_what_it_says_at_its_reach() -> None:
    network = convolutions((2, 3), context=2)
    randomize(network)
    x, context = normal(1, 2, 4, 4), normal(1, 2)
    at, beyond = (network(sign * torch.ones_like(x), sign * torch.ones_like(context)) for sign in (3.0, 1e6))
    assert torch.equal(at, beyond)
    assert not torch.equal(at, network(x, context))


def test_a_conditioner_knows_where_it_is() -> None:
    """Equal pixels at two places in the middle: without a bias for each place they would give the same."""
    network = convolutions((1, 1))
    randomize(network)
    with torch.no_grad():
        network.last.weight.zero_()
    assert len(torch.unique(network(torch.zeros(1, 1, 4, 4, dtype=torch.float64)))) == 16


def spline() -> Coupling:
    coupling = spline_coupling(channel_halves(2), convolutions, 5, 3.0, 0.01)
    randomize(coupling)
    coupling.requires_grad_(requires_grad=False)
    with torch.no_grad():  # parameters that depend on the place alone
        coupling.transform.conditioner.last.weight.zero_()
    return coupling


def along_a_pixel(coupling: Coupling, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """y and its log-derivative at the place (0, 0), for a row of values there."""
    x = torch.zeros(len(values), 2, 4, 4, dtype=torch.float64)
    x[:, 1, 0, 0] = values
    y, ladj = coupling(x)
    return y[:, 1, 0, 0], ladj - coupling(torch.zeros_like(x[:1]))[1]


def test_a_spline_rises_and_its_slope_goes_on_without_a_jump() -> None:
    values = torch.linspace(-3.5, 3.5, 7_001, dtype=torch.float64)
    y, ladj = along_a_pixel(spline(), values)
    assert bool((y.diff() > 0).all())
    assert float(ladj.diff().abs().max()) < 0.1
    numeric = (y.diff() / values.diff()).log()
    middle = (ladj[1:] + ladj[:-1]) / 2
    offset = (numeric - middle).mean()  # the slope at 0, which `along_a_pixel` has taken away
    assert float((numeric - middle - offset).abs().max()) < 0.02


def test_outside_its_box_a_spline_is_the_identity() -> None:
    values = torch.tensor([-1e6, -3.0, 3.0, 100.0], dtype=torch.float64)
    y, ladj = along_a_pixel(spline(), values)
    assert torch.equal(y, values)
    assert len(torch.unique(ladj)) == 1


def test_context_moves_every_pixel() -> None:
    coupling = spline_coupling(channel_halves(4), lambda c: convolutions(c, context=2), 4, 3.0, 0.01)
    randomize(coupling)
    x = normal(1, 4, 4, 4)
    one, other = (coupling(x, context)[0] for context in (torch.zeros(1, 2).double(), torch.ones(1, 2).double()))
    inside = x[:, 2:].abs() < 3
    assert bool((one[:, 2:] != other[:, 2:])[inside].all())

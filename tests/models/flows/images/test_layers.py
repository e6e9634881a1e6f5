from __future__ import annotations

import pytest
import torch

from models.flows.images.layers import (
    ActNorm,
    ChannelsFirst,
    FixedConvolution,
    InvertibleConvolution,
    MultiScale,
    Squeeze,
)
from service.errors import DataError
from tests.laws.table import normal, randomize


def test_channels_come_to_the_front() -> None:
    image = normal(3, 4, 2, 5)  # N, H, W, C
    planes, _ = ChannelsFirst((4, 2, 5))(image.flatten(1))
    assert planes.shape == (3, 5, 4, 2)
    assert torch.equal(planes[1, 3], image[1, :, :, 3])


def test_a_squeeze_is_where_its_formula_says() -> None:
    x = normal(2, 3, 4, 6)
    y, _ = Squeeze()(x)
    assert y.shape == (2, 12, 2, 3)
    for c, i, j in ((0, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)):
        assert torch.equal(y[:, 4 * c + 2 * i + j], x[:, c, i::2, j::2])


def test_an_actnorm_begins_with_mean_0_and_deviation_1() -> None:
    layer = ActNorm(3)
    x = (normal(50, 3, 4, 4) * torch.tensor([0.1, 1.0, 30.0])[:, None, None] + 7).float()
    with torch.no_grad():
        y = layer.initialize(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer(x)[0], y)


def test_an_actnorm_leaves_a_constant_channel_at_its_size() -> None:
    layer = ActNorm(2)
    x = normal(50, 2, 4, 4).float()
    x[:, 1] = 5.0
    with torch.no_grad():
        y = layer.initialize(x)
    assert bool(torch.isfinite(y).all())
    assert float(layer.log_scale[1].detach()) == 0.0
    assert float(y[:, 1].abs().max()) < 1e-5


def test_a_1x1_convolution_begins_as_its_permutation() -> None:
    order = torch.tensor([2, 0, 3, 1])
    x = normal(2, 4, 3, 3).float()
    y, ladj = InvertibleConvolution(order)(x)
    assert torch.equal(y, x[:, order])
    assert not bool(ladj.any())


def test_folded_it_is_the_same_map_with_an_inverse_of_float64() -> None:
    layer = InvertibleConvolution(torch.tensor([2, 0, 3, 1]))
    randomize(layer, scale=0.3)
    layer.float()
    folded = layer.folded()
    assert isinstance(folded, FixedConvolution)
    assert not list(folded.parameters())
    x = normal(5, 4, 3, 3).float()
    torch.testing.assert_close(folded(x), layer(x))
    torch.testing.assert_close(folded.inverse(x), layer.inverse(x))
    exact = folded.matrix.double()
    assert torch.equal(folded.inverse_matrix, torch.linalg.inv(exact).float())


def levels() -> MultiScale:
    return MultiScale([[Squeeze(), ActNorm(4)], [Squeeze(), ActNorm(8)]], (1, 8, 8))


def test_z_is_laid_out_as_documented() -> None:
    """The second half of the first level's channels leaves first; then all of the last level."""
    x = normal(3, 1, 8, 8).float()
    z, _ = levels()(x)
    first, _ = Squeeze()(x)
    assert z.shape == (3, 64)
    assert torch.equal(z[:, :32], first[:, 2:].flatten(1))
    assert torch.equal(z[:, 32:], Squeeze()(first[:, :2])[0].flatten(1))


def test_half_of_the_channels_leave_after_each_level_and_all_after_the_last() -> None:
    assert levels().shapes == [(2, 4, 4), (8, 2, 2)]


def test_an_actnorm_leaves_images_that_do_not_vary_at_all_at_their_size() -> None:
    layer = ActNorm(2)
    with torch.no_grad():
        y = layer.initialize(torch.full((5, 2, 3, 3), 7.0))
    assert not bool(y.any())
    assert not bool(layer.log_scale.any())


def test_every_level_is_initialized_on_what_reaches_it() -> None:
    chain = levels()
    x = 9.0 * normal(200, 1, 8, 8).float() - 3.0
    with torch.no_grad():
        z = chain.initialize(x)
    assert torch.equal(z, chain(x)[0])
    assert abs(float(z.mean())) < 1e-3
    assert abs(float(z.std()) - 1) < 1e-3


def test_folding_reaches_into_levels() -> None:
    chain = MultiScale([[Squeeze(), InvertibleConvolution(torch.arange(4))]], (1, 4, 4))
    assert any(isinstance(step, FixedConvolution) for step in chain.folded().modules())


@pytest.mark.parametrize(
    ("chain", "shape", "words"),
    [
        ([[Squeeze()], [Squeeze()]], (1, 6, 4), "3 x 2 pixels cannot be cut into squares of 2 x 2, as level 2 does"),
        ([[ActNorm(3)], [ActNorm(2)]], (3, 4, 4), "half of 3 channels cannot leave after level 1"),
    ],
)
def test_a_level_that_cannot_be(chain: list, shape: tuple[int, int, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        MultiScale(chain, shape)

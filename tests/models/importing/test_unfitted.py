"""Layers that take their scale from the first rows: fitted to the data given, as their library does, or refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import nflows.flows
import normflows as nf
import numpy as np
import pytest
import torch
from nflows import distributions, transforms
from safetensors.torch import save_file
from torch import Tensor, nn

from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import load_weights
from models.importing.take import take
from models.importing.unfitted import find_unfitted
from tests.models.importing.families import network

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what torch says of the libraries' code
G = np.random.default_rng(0)
ROWS = (G.normal(size=(200, 2)) * [3.0, 0.2] + [5.0, -1.0]).astype(np.float32)
CONTEXT = G.normal(size=(200, 3)).astype(np.float32)
IMAGES = G.normal(size=(40, 4, 4, 4)).astype(np.float32) * 2 + 1  # rows, columns, channels


def of_nflows(context: int = 0) -> nn.Module:
    torch.manual_seed(0)
    steps = [
        transforms.ActNorm(2),
        transforms.AffineCouplingTransform(torch.tensor([0, 1]), network(context)),
        transforms.ActNorm(2),
    ]
    return nflows.flows.Flow(transforms.CompositeTransform(steps), distributions.StandardNormal([2]))


def of_normflows() -> nn.Module:
    torch.manual_seed(0)
    flows = [nf.flows.ActNorm((2,)), nf.flows.LULinearPermute(2), nf.flows.ActNorm(2)]
    return nf.NormalizingFlow(nf.distributions.base.DiagGaussian(2), flows)


def of_images() -> nn.Module:
    torch.manual_seed(0)
    blocks = [nf.flows.GlowBlock(16, 8, net_actnorm=True, init_zeros=False), nf.flows.Squeeze()]
    return nf.NormalizingFlow(nf.distributions.base.DiagGaussian((16, 2, 2)), blocks)


def of_freia(*, branches: bool = False) -> nn.Module:
    torch.manual_seed(0)
    start = Ff.InputNode(2)
    norm = Ff.Node(start, Fm.ActNorm, {})
    if not branches:
        turned = Ff.Node(norm, Fm.PermuteRandom, {})
        return Ff.GraphINN([start, norm, turned, Ff.OutputNode(turned)])
    split = Ff.Node(norm, Fm.Split, {})
    inner = Ff.Node(split.out0, Fm.ActNorm, {})
    joined = Ff.Node([inner.out0, split.out1], Fm.Concat, {})
    return Ff.GraphINN([start, norm, split, inner, joined, Ff.OutputNode(joined)])


def own(flow: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """The library's own log_prob, in training mode, whose first call sets the scales."""
    flow.train()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(flow, "log_prob"):
            result: Tensor = flow.log_prob(x, *(() if context is None else (context,)))
            return result
        z, ladj = flow(x)
        return -0.5 * (z**2).sum(dim=1) - np.log(2 * np.pi) + ladj


CASES: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "nflows": (of_nflows, 0, r"nflows ActNorm '_transform._transforms.0' cannot .* has seen no data, as has another,"),
    "nflows, conditional": (lambda: of_nflows(3), 3, "nflows ActNorm"),
    "normflows": (of_normflows, 0, "normflows ActNorm 'flows.0' cannot be exported: it has seen no data, as has anoth"),
    "FrEIA": (of_freia, 0, "FrEIA ActNorm 'module_list.0' cannot be exported: it has seen no data and its first batch"),
    "FrEIA, branches": (lambda: of_freia(branches=True), 0, "FrEIA ActNorm 'module_list.0'"),
}


@pytest.mark.parametrize("name", CASES)
def test_without_data_it_is_refused_with_the_ways_out(name: str) -> None:
    make, _, message = CASES[name]
    with pytest.raises(Unsupported, match=message) as raised:
        take(make())
    assert raised.value.detail.endswith(
        "Give rows of the data by --data, import the flow after it was fitted, or load its weights"
    )


@pytest.mark.parametrize("name", CASES)
def test_with_data_it_takes_its_scale_as_its_library_does(name: str) -> None:
    make, width, _ = CASES[name]
    source = make()
    asked = []

    def read(event_shape: tuple[int, ...], context_width: int) -> tuple[Any, Any]:
        asked.append((event_shape, context_width))
        return ROWS, CONTEXT if context_width else None

    imported = take(source, read_rows=read)
    assert asked == [((2,), width)]
    assert len(find_unfitted(source)) >= 1, "the flow that was handed over has changed"
    given = CONTEXT if width else None
    assert check_agreement(imported, ROWS, given) < 1e-6
    x, context = torch.from_numpy(ROWS).double(), None if given is None else torch.from_numpy(given).double()
    expected = own(copy.deepcopy(source).double(), x, context)
    torch.testing.assert_close(imported.flow.log_prob(x, context), expected, rtol=1e-6, atol=1e-6)
    assert "had seen no data" in imported.notes[-1]
    assert "took the scale from 200 rows of the data given" in imported.notes[-1]


def test_inside_a_network_too_and_images_in_the_library_s_order() -> None:
    source = of_images()
    paths = [layer.path for layer in find_unfitted(source)]
    assert len(paths) == 3
    assert any("param_map" in path for path in paths)
    with pytest.raises(Unsupported, match="it has seen no data, as have 2 others, and"):
        take(source)
    imported = take(source, read_rows=lambda *_: (IMAGES, None))
    assert imported.flow.event_shape == (4, 4, 4)
    x = torch.from_numpy(IMAGES).double()
    expected = own(copy.deepcopy(source).double(), x.movedim(3, 1).contiguous(), None)
    torch.testing.assert_close(imported.flow.log_prob(x), expected, rtol=1e-6, atol=1e-6)
    check_agreement(imported, IMAGES, None)


class Mine(nn.Module):
    """A module of no library with a library's layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nf.flows.ActNorm((2,))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.norm.inverse(x)  # type: ignore[no-any-return]

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.norm.forward(z)  # type: ignore[no-any-return]


def test_in_a_module_of_anyone_s() -> None:
    with pytest.raises(Unsupported, match="normflows ActNorm 'norm' cannot be exported: it has seen no data"):
        take(Mine(), event_shape=(2,))
    imported = take(Mine(), event_shape=(2,), read_rows=lambda *_: (ROWS, None))
    z, _ = imported.flow(torch.from_numpy(ROWS).double())
    torch.testing.assert_close(z.std(dim=0), torch.ones(2).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [of_nflows, of_normflows, of_freia])
def test_rows_that_do_not_vary_are_refused(make: Callable[[], nn.Module]) -> None:
    rows = ROWS.copy()
    rows[:, 1] = 3.0
    with pytest.raises(Unsupported, match=r"do not vary in one of its columns or channels\. Give other rows by --data"):
        take(make(), read_rows=lambda *_: (rows, None))


class Unreached(nn.Module):
    """A flow with an ActNorm that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.norm = transforms.ActNorm(2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.shape[0] > 150:
            raise ValueError("too many rows")
        return x * self.scale, self.scale.log().sum()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z / self.scale, -self.scale.log().sum()


def test_rows_that_do_not_reach_a_layer_or_fail_are_refused() -> None:
    with pytest.raises(Unsupported, match="log_prob of the data given does not reach it"):
        take(Unreached(), event_shape=(2,), read_rows=lambda *_: (ROWS[:100], None))
    with pytest.raises(Unsupported, match="On the data given log_prob fails: ValueError: too many rows"):
        take(Unreached(), event_shape=(2,), read_rows=lambda *_: (ROWS, None))


@pytest.mark.parametrize("make", [of_nflows, of_normflows, of_freia])
def test_weights_of_a_fitted_flow_are_enough(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    fitted, flow = make(), make()
    own(fitted, torch.from_numpy(ROWS), None)
    save_file(fitted.state_dict(), tmp_path / "flow.safetensors")
    load_weights(flow, tmp_path / "flow.safetensors")
    assert not find_unfitted(flow)
    imported = take(flow)
    assert check_agreement(imported, ROWS, None) < 1e-6


class Lazily(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.LazyLinear(4)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + 0 * self.net(x).sum(), 0 * x[:, 0]

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z, 0 * z[:, 0]


def test_a_layer_without_weights_is_named() -> None:
    with pytest.raises(Unsupported, match="torch LazyLinear 'net' has no weights yet"):
        take(Lazily(), event_shape=(2,))

"""Flows with a latent at each of several scales, and flows with classes: Glow of normflows, and levels of nflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import normflows as nf
import numpy as np
import pytest
import torch
from nflows import distributions, flows, transforms
from nflows.nn.nets import ConvResidualNet
from torch import Tensor

from models.export.exported_graph import ExportedGraph
from models.export.gate import check_flow, reference
from models.export.graph import export_graph
from models.export.probes import Probes
from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.images import ChannelSwap, Checkerboard
from models.importing.load import draw_rows, export_imported
from models.importing.take import ImportedFlow, take
from service.bundle.bases import NormalBase
from service.bundle.manifest import Manifest
from service.bundle.store import Repository

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch says of the libraries' code
Base = Callable[[tuple[int, ...]], Any]
CLASSES = 3


def by_class(shape: tuple[int, ...]) -> Any:
    return nf.distributions.base.ClassCondDiagGaussian(shape, CLASSES)


def plain(shape: tuple[int, ...]) -> Any:
    return nf.distributions.base.DiagGaussian(shape)


def glow(
    shape: tuple[int, int, int] = (1, 4, 8),
    levels: int = 2,
    blocks: int = 1,
    *,
    base: Base = by_class,
    merge: str = "channel",
    transform: Any = None,
    class_cond: bool = True,
    **options: Any,
) -> nf.MultiscaleFlow:
    """A Glow as in normflows' own example, with random weights, whose ActNorms have seen images."""
    torch.manual_seed(0)
    bases, chains, merges = [], [], []
    channels, height, width = shape
    for level in range(levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        steps = [nf.flows.GlowBlock(channels, 8, **options) for _ in range(blocks)]
        chains.append([*steps, nf.flows.Squeeze()])
        if level < levels - 1:
            if "checkerboard" in merge:
                width //= 2
                bases.append(base((channels, height, width)))
            else:
                bases.append(base((channels // 2, height, width)))
                channels //= 2
            merges.append(nf.flows.Merge(merge))
    bases.append(base((channels, height, width)))
    # the first level of normflows is the last one from data to latent
    flow = nf.MultiscaleFlow(bases[::-1], chains[::-1], merges[::-1], transform, class_cond)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
        flow.log_prob(0.1 + 0.8 * torch.rand(30, *shape), torch.eye(CLASSES)[torch.arange(30) % CLASSES])
    return flow.eval()


GLOWS: dict[str, Callable[[], nf.MultiscaleFlow]] = {
    "classes": glow,
    "three levels": lambda: glow((1, 8, 8), 3),
    "one level, two blocks, two channels": lambda: glow((2, 4, 4), levels=1, blocks=2),
    "exp, channels the other way round": lambda: glow(
        scale_map="exp", split_mode="channel_inv", merge="channel_inv"),
    "additive, full matrix": lambda: glow(scale=False, use_lu=False),
    "ActNorm in the networks": lambda: glow(net_actnorm=True),
    "checkerboards": lambda: glow((1, 4, 16), split_mode="checkerboard", merge="checkerboard"),
    "checkerboards the other way round": lambda: glow(
        (1, 4, 16), split_mode="checkerboard_inv", merge="checkerboard_inv"),
    "GlowBase by class": lambda: glow(base=lambda shape: nf.distributions.base.GlowBase(shape, CLASSES)),
    "AffineGaussian by class": lambda: glow(
        base=lambda shape: nf.distributions.base.AffineGaussian(shape, (shape[0], 1, 1), CLASSES)),
    "no classes": lambda: glow(base=plain, class_cond=False),
    "no classes, though it hands them on": lambda: glow(base=plain),
    "no classes, GlowBase": lambda: glow(base=nf.distributions.base.GlowBase, class_cond=False),
    "no classes, AffineGaussian, logit": lambda: glow(
        base=lambda shape: nf.distributions.base.AffineGaussian(shape, (shape[0], 1, 1)),
        class_cond=False, transform=nf.transforms.Logit(0.05)),
    "shift": lambda: glow(transform=nf.transforms.Shift()),
}  # fmt: skip


def check(imported: ImportedFlow, *, bound: float = 1e-6) -> None:
    """It is the library's own flow, and is a flow: its inverse undoes it, and its log-determinant is the Jacobian's."""
    rows = draw_rows(imported, 12)
    assert check_agreement(imported, rows.x, rows.context) < bound
    check_flow(reference(imported.flow.float()), Probes(rows.x, rows.context, ()))


@pytest.mark.parametrize("name", GLOWS)
def test_a_glow_of_normflows(name: str) -> None:
    source: Any = GLOWS[name]()
    imported = take(source)
    shape = {"three levels": (8, 8, 1), "one level, two blocks, two channels": (4, 4, 2)}.get(
        name, (4, 16 if "checkerboards" in name else 8, 1)
    )
    classes = 0 if name.startswith("no classes") else CLASSES
    assert (imported.flow.event_shape, imported.flow.context_width, imported.classes) == (shape, classes, classes > 0)
    assert imported.flow.base == NormalBase()
    check(imported)


def test_a_class_is_a_column_each_and_the_number_of_a_class_is_its_column() -> None:
    source: Any = glow().double()
    imported = take(source)
    rows = draw_rows(imported, 9)
    assert rows.context is not None
    assert rows.context.sum(axis=1).tolist() == [1.0] * 9
    assert rows.context.sum(axis=0).tolist() == [3.0] * CLASSES
    x, numbers = torch.from_numpy(rows.x).double(), torch.from_numpy(rows.context.argmax(axis=1))
    with torch.no_grad():
        own = source.log_prob(x.movedim(3, 1).contiguous(), numbers)
    found = imported.flow.log_prob(x, torch.from_numpy(rows.context).double())
    torch.testing.assert_close(found, own, rtol=1e-9, atol=1e-9)


def test_the_rows_that_a_library_is_asked_about_stay_what_they_are() -> None:
    """normflows' Shift adds in place, to what it is handed."""
    imported = take(glow(transform=nf.transforms.Shift()))
    x, context = torch.rand(3, 4, 8, 1).double(), torch.eye(CLASSES).double()
    before = x.clone()
    imported.log_prob(x, context)
    imported.flow.log_prob(x, context)
    assert torch.equal(x, before)


def test_a_flow_of_columns_whose_base_knows_the_class() -> None:
    torch.manual_seed(0)
    layers = [nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8), nf.flows.LULinearPermute(2)]
    base = nf.distributions.base.ClassCondDiagGaussian(2, CLASSES)
    with torch.no_grad():
        base.loc.normal_()
        base.log_scale.normal_(std=0.3)
    base.temperature = 0.7
    imported = take(nf.ClassCondFlow(base, layers))
    assert (imported.flow.event_shape, imported.flow.context_width) == ((2,), CLASSES)
    check(imported)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: glow(base=lambda s: nf.distributions.base.Uniform(s, -9.0, 9.0), class_cond=False),
         "the base Uniform of a normflows flow with levels or classes is not one that a bundle can hold"),
        (lambda: glow(base=lambda s: nf.distributions.base.GlowBase(s, 2 + s[1])), r"know \[3, 4\] classes"),
        (lambda: _no_class_cond(glow()), "knows 3 classes, and the flow has class_cond=False"),
        (lambda: _merged(glow(), nf.flows.Squeeze()), "levels are put together by a Merge or a Split"),
        (lambda: _merged(glow(), nf.flows.Split()), "levels are put together by a Merge or a Split"),
        (lambda: nf.NormalizingFlowVAE(None, flows=[]), "NormalizingFlowVAE cannot be imported: a NormalizingFlow"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused(make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # classes of two numbers cannot be evaluated by the library either
    monkeypatch.setattr(nf.MultiscaleFlow, "log_prob", _quiet(nf.MultiscaleFlow.log_prob))
    with pytest.raises(Unsupported, match=message):
        take(make())


def _quiet(log_prob: Callable[..., Tensor]) -> Callable[..., Tensor | None]:
    def call(self: Any, x: Tensor, y: Any) -> Tensor | None:
        try:
            return log_prob(self, x, y)
        except RuntimeError:
            for layer in self.modules():
                if isinstance(layer, nf.flows.ActNorm):
                    layer.data_dep_init_done.fill_(1.0)
            return None

    return call


def _no_class_cond(flow: Any) -> Any:
    flow.class_cond = False
    return flow


def _merged(flow: Any, merge: Any) -> Any:
    flow.merges[0] = merge
    return flow


def test_a_split_taken_the_other_way_round_is_a_merge() -> None:
    flow = _merged(glow(), nf.flows.Reverse(nf.flows.Split("channel")))
    check(take(flow))


def convolution(inputs: int, outputs: int) -> Any:
    return ConvResidualNet(inputs, outputs, hidden_channels=6, num_blocks=1)


def level(channels: int) -> Any:
    return transforms.CompositeTransform([
        transforms.SqueezeTransform(),
        transforms.ActNorm(4 * channels),
        transforms.OneByOneConvolution(4 * channels, identity_init=False),
        transforms.AffineCouplingTransform(torch.arange(4 * channels) % 2, convolution),
    ])  # fmt: skip


def of_nflows() -> flows.Flow:
    """Levels of images; after the second one channel of three leaves."""
    torch.manual_seed(0)
    whole = transforms.MultiscaleCompositeTransform(3)
    whole.add_transform(level(1), (4, 4, 4))
    whole.add_transform(transforms.CompositeTransform([level(2), transforms.ReversePermutation(8)]), (8, 2, 2))
    whole.add_transform(transforms.OneByOneConvolution(4, identity_init=False), (4, 2, 2))
    flow = flows.Flow(whole, distributions.StandardNormal([64]))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
        flow.train().log_prob(torch.randn(30, 1, 8, 8))
    return flow.eval()


def test_levels_of_nflows_say_the_shape_of_their_images() -> None:
    imported = take(of_nflows())
    assert imported.flow.event_shape == (8, 8, 1)
    check(imported)


def test_levels_of_nflows_of_columns_of_which_an_odd_number_is_cut() -> None:
    torch.manual_seed(0)
    whole = transforms.MultiscaleCompositeTransform(2)
    assert whole.add_transform(transforms.LULinear(7, identity_init=False), (7,)) == (3,)
    whole.add_transform(transforms.MaskedAffineAutoregressiveTransform(3, 8), (3,))
    check(take(flows.Flow(whole, distributions.StandardNormal([7]))))
    check(take(transforms.InverseTransform(transforms.InverseTransform(whole)), event_shape=(7,)))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (3, 5, 4), (1, 2, 2)])
@pytest.mark.parametrize("odd_first", [True, False])
def test_a_checkerboard_is_cut_into_its_colours(shape: tuple[int, ...], odd_first: bool) -> None:
    mode = "checkerboard" if odd_first else "checkerboard_inv"
    x = torch.randn(5, *shape)
    one, other = nf.flows.Split(mode)(x)[0]
    y, ladj = Checkerboard(odd_first=odd_first)(x)
    assert torch.equal(y, torch.cat((one, other), dim=1))
    assert torch.equal(Checkerboard(odd_first=odd_first).inverse(y)[0], x)
    assert not bool(ladj.any())


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_halves_are_swapped_as_torch_cuts_them(channels: int) -> None:
    x = torch.randn(4, channels, 3)
    y, _ = ChannelSwap()(x)
    assert torch.equal(y, torch.cat(x.chunk(2, dim=1)[::-1], dim=1))
    assert torch.equal(ChannelSwap().inverse(y)[0], x)


def test_a_glow_in_its_graphs() -> None:
    imported = take(glow(split_mode="checkerboard", net_actnorm=True))
    rows = draw_rows(imported, 9)
    context = torch.from_numpy(rows.context)
    flow = imported.flow.float().fold()
    with torch.no_grad():
        expected = flow.log_prob(torch.from_numpy(rows.x), context)
    forward = ExportedGraph(export_graph(flow, "forward"), "forward")(rows.x, rows.context, 7)
    np.testing.assert_allclose(forward.log_prob, expected, rtol=1e-4, atol=1e-4)
    inverse = ExportedGraph(export_graph(flow, "inverse"), "inverse")
    back = inverse(forward.value.astype(np.float32), rows.context, 7)
    np.testing.assert_allclose(back.value, rows.x, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "checkerboards", "no classes, AffineGaussian, logit"])
def test_a_glow_becomes_a_bundle(name: str, tmp_path: Path) -> None:
    imported = take(GLOWS[name]())
    rows = draw_rows(imported, 200)
    bundle = export_imported(imported, rows, repository=Repository(tmp_path), name="glow", source="test")
    manifest = Manifest.from_json((bundle / "flow.json").read_bytes())
    assert manifest.event_shape == [4, 16 if name == "checkerboards" else 8, 1]
    assert manifest.latent_width == math.prod(manifest.event_shape)
    names = [f"class={number}" for number in range(imported.flow.context_width)]
    assert [feature.name for feature in manifest.context_features] == names

"""Layers of torch in a conditioner: what goes through export, in both precisions, and what is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from models.export.exported_graph import ExportedGraph
from models.export.graph import export_graph
from models.export.invariance import check_invariance
from models.export.layers import replace_layers
from models.flows.flow import Bijection, Flow
from service.bundle.bases import NormalBase
from service.bundle.parity import relative_error
from service.errors import ForbiddenGraph

WIDTH: Final = 6


class Reshaped(nn.Module):
    """A layer for events of two axes or more, given rows ``[N, 6]`` in another shape."""

    def __init__(self, layer: nn.Module, *shape: int) -> None:
        super().__init__()
        self.layer = layer
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        made: Any = self.layer(x.reshape(-1, *self.shape))
        first: Tensor = made[0] if isinstance(made, tuple) else made
        return first.reshape(x.shape[0], -1)


class Called(nn.Module):
    """A layer that is not called with one argument."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def rank_three(x: Tensor) -> Tensor:
    return x.reshape(-1, 2, 3)


LAYERS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    **{
        name: getattr(nn, name)
        for name in [
            "AlphaDropout",
            "CELU",
            "Dropout",
            "Dropout1d",
            "ELU",
            "FeatureAlphaDropout",
            "Flatten",
            "GELU",
            "Hardshrink",
            "Hardsigmoid",
            "Hardswish",
            "Hardtanh",
            "Identity",
            "LeakyReLU",
            "LogSigmoid",
            "Mish",
            "PReLU",
            "RReLU",
            "ReLU",
            "ReLU6",
            "SELU",
            "SiLU",
            "Sigmoid",
            "Softplus",
            "Softshrink",
            "Softsign",
            "Tanh",
            "Tanhshrink",
        ]
    },
    "BatchNorm1d": lambda: nn.BatchNorm1d(WIDTH),
    "BatchNorm1d, no affine": lambda: nn.BatchNorm1d(WIDTH, affine=False),
    "BatchNorm1d of channels": lambda: Reshaped(nn.BatchNorm1d(2), 2, 3),
    "BatchNorm2d": lambda: Reshaped(nn.BatchNorm2d(2), 2, 1, 3),
    "BatchNorm3d": lambda: Reshaped(nn.BatchNorm3d(2), 2, 1, 3, 1),
    "Bilinear": lambda: Called(nn.Bilinear(3, 3, WIDTH), lambda layer, x: layer(x[:, :3], x[:, 3:])),
    "CELU, alpha": lambda: nn.CELU(0.7),
    "CosineSimilarity": lambda: Called(nn.CosineSimilarity(), lambda layer, x: layer(x, x + 1)[:, None] + x),
    "ELU, alpha": lambda: nn.ELU(0.3),
    "Embedding": lambda: Called(nn.Embedding(4, WIDTH), lambda layer, x: layer(x[:, 0].clamp(0, 3).long())),
    "GELU, tanh": lambda: nn.GELU("tanh"),
    "GLU": lambda: nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GLU()),
    "GRUCell": lambda: nn.GRUCell(WIDTH, WIDTH),
    "GroupNorm": lambda: nn.GroupNorm(2, WIDTH),
    "GroupNorm of channels": lambda: Reshaped(nn.GroupNorm(2, 2), 2, 3),
    "InstanceNorm1d": lambda: Reshaped(nn.InstanceNorm1d(2), 2, 3),
    "InstanceNorm1d of rows": lambda: Called(
        nn.Identity(), lambda _, x: nn.functional.instance_norm(x.unsqueeze(0)).squeeze(0)
    ),
    "InstanceNorm1d, affine": lambda: Reshaped(nn.InstanceNorm1d(2, affine=True), 2, 3),
    "InstanceNorm1d, running": lambda: Reshaped(nn.InstanceNorm1d(2, affine=True, track_running_stats=True), 2, 3),
    "InstanceNorm2d": lambda: Reshaped(nn.InstanceNorm2d(1, affine=True), 1, 2, 3),
    "InstanceNorm3d": lambda: Reshaped(nn.InstanceNorm3d(1, affine=True), 1, 2, 3, 1),
    "LSTMCell": lambda: Called(nn.LSTMCell(WIDTH, WIDTH), lambda layer, x: layer(x)[0]),
    "LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "LayerNorm, no affine": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "LayerNorm, two axes": lambda: Reshaped(nn.LayerNorm((2, 3)), 2, 3),
    "LeakyReLU, slope": lambda: nn.LeakyReLU(0.37),
    "Linear": lambda: nn.Linear(WIDTH, WIDTH),
    "LogSoftmax": lambda: nn.LogSoftmax(1),
    "MultiheadAttention": lambda: Called(
        nn.MultiheadAttention(3, 1, batch_first=True),
        lambda layer, x: layer(rank_three(x), rank_three(x), rank_three(x))[0].flatten(1),
    ),
    "PReLU, one for each": lambda: nn.PReLU(WIDTH),
    "PairwiseDistance": lambda: Called(nn.PairwiseDistance(), lambda layer, x: layer(x, x + 1)[:, None] + x),
    "RMSNorm": lambda: nn.RMSNorm(WIDTH),
    "RNNCell": lambda: nn.RNNCell(WIDTH, WIDTH),
    "ReflectionPad1d": lambda: Called(
        nn.ReflectionPad1d(1), lambda layer, x: layer(rank_three(x))[:, :, 1:4].flatten(1)
    ),
    "Softmax": lambda: nn.Softmax(1),
    "Softmin": lambda: nn.Softmin(1),
    "Softplus, beta": lambda: nn.Softplus(2.0),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(WIDTH),
    "Threshold": lambda: nn.Threshold(0.1, 20.0),
    "TransformerEncoderLayer": lambda: Reshaped(nn.TransformerEncoderLayer(3, 1, 8, batch_first=True), 2, 3),
    "Unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()),
    "atan, tan": lambda: Called(nn.Identity(), lambda _, x: torch.atan(5 * x) + torch.tan(x / 30)),
    "erf": lambda: Called(nn.Identity(), lambda _, x: torch.erf(x) + torch.erf(3 * x) + torch.erf(x / 9)),
    "repeat": lambda: Called(nn.Identity(), lambda _, x: x[:, :3].repeat(1, 2)),
}
"""What a conditioner of rows may be made of, ``[N, 6]`` -> ``[N, 6]``: name -> the layer."""

LOWERED: Final = (
    "BatchNorm1d",
    "CELU, alpha",
    "ELU, alpha",
    "GroupNorm",
    "InstanceNorm1d, affine",
    "InstanceNorm1d, running",
    "LayerNorm",
    "LeakyReLU, slope",
    "Mish",
    "PReLU, one for each",
    "RMSNorm",
    "RReLU",
    "SELU",
    "atan, tan",
    "erf",
    "repeat",
)
"""Those that the export rewrites; the others are tried among the slow tests."""

NOT_FOR_ROWS: Final = frozenset(
    """
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveLogSoftmaxWithLoss AdaptiveMaxPool1d AdaptiveMaxPool2d
    AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d Buffer ChannelShuffle CircularPad1d CircularPad2d CircularPad3d
    ConstantPad1d ConstantPad2d ConstantPad3d Container Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d
    ConvTranspose3d CrossMapLRN2d DataParallel Dropout2d Dropout3d EmbeddingBag Fold FractionalMaxPool2d
    FractionalMaxPool3d GRU LPPool1d LPPool2d
    LPPool3d LSTM LocalResponseNorm MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d Module ModuleDict
    ModuleList Parameter ParameterDict ParameterList PixelShuffle PixelUnshuffle RNN RNNBase RNNCellBase ReflectionPad2d
    ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d Sequential Softmax2d Transformer
    TransformerDecoder TransformerDecoderLayer TransformerEncoder Unfold Upsample UpsamplingBilinear2d
    UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d UninitializedBuffer UninitializedParameter
    """.split()  # noqa: SIM905
)
"""The classes of torch.nn that are made for series and images, that hold other modules, or that are no layers."""


class Beside(Bijection):
    """Each layer's output of the same rows, one after the other: one graph for all of them."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers.values())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.cat([layer(x) for layer in self.layers], dim=1), torch.zeros_like(x[:, 0])

    inverse = forward


def made(name: str, dtype: torch.dtype) -> nn.Module:
    """A layer with weights and running statistics that are not those of its start."""
    torch.manual_seed(3)
    layer = LAYERS[name]().to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
        for key, buffer in layer.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return layer.eval().requires_grad_(requires_grad=False)


@dataclass(frozen=True)
class Answers:
    graph: ExportedGraph
    rows: npt.NDArray[Any]
    found: Mapping[str, npt.NDArray[np.float64]]
    expected: Mapping[str, npt.NDArray[np.float64]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((torch.float32, LOWERED), id="float32"),
        pytest.param((torch.float64, LOWERED), id="float64"),
        pytest.param((torch.float32, tuple(LAYERS)), id="all, float32", marks=pytest.mark.slow),
        pytest.param((torch.float64, tuple(LAYERS)), id="all, float64", marks=pytest.mark.slow),
    ],
)
def answers(request: pytest.FixtureRequest) -> Answers:
    dtype, names = request.param
    layers = {name: made(name, dtype) for name in names}
    flow = Flow((WIDTH,), [Beside(layers)], NormalBase()).eval()
    graph = ExportedGraph(export_graph(flow, "forward", dtype), "forward")
    rows = 3 * torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = np.split(graph(rows.numpy(), None, 20).value, len(layers), axis=1)
    expected = {name: layer.double()(rows.double()).numpy() for name, layer in layers.items()}
    return Answers(graph, rows.numpy(), dict(zip(layers, found, strict=True)), expected)


def test_a_layer_is_what_torch_computes(answers: Answers) -> None:
    bound = 1e-5 if answers.rows.dtype == np.float32 else 1e-13
    # The exporter writes the scale of an attention as a constant of float32.
    bounds = {"MultiheadAttention": max(bound, 1e-7), "TransformerEncoderLayer": max(bound, 1e-7)}
    errors = {name: relative_error(found, answers.expected[name]) for name, found in answers.found.items()}
    assert {name: error for name, error in errors.items() if error > bounds.get(name, bound)} == {}


def test_a_row_has_the_same_bits_in_any_batch(answers: Answers) -> None:
    check_invariance(answers.graph, answers.rows)


def test_every_layer_of_torch_is_known() -> None:
    tried = {name.partition(",")[0].partition(" ")[0] for name in LAYERS}
    layers = {
        name
        for name, found in vars(nn).items()
        if isinstance(found, type) and issubclass(found, (nn.Module, Tensor)) and not name.startswith("Lazy")
    }
    unknown = {name for name in layers - tried - NOT_FOR_ROWS if "Loss" not in name}
    assert unknown == set(), "try them in a conditioner, or say why not"


@pytest.mark.parametrize(
    ("layer", "dtype", "words"),
    [
        (nn.LSTM(3, 3, batch_first=True), torch.float32, r"operator 'LSTM'.*: it comes from the layer 'net.1', LSTM"),
        (
            nn.AdaptiveMaxPool1d(2),
            torch.float32,
            r"adaptive_max_pool.*: it comes from the layer 'net.1', AdaptiveMaxPool1d",
        ),
        (
            nn.Conv1d(2, 2, 1),
            torch.float64,
            r"operator 'Conv', which ONNX Runtime does not compute in float64: it comes from the layer 'net.1', Conv1d",
        ),
    ],
    ids=["LSTM", "AdaptiveMaxPool1d", "Conv1d in float64"],
)
def test_another_layer_is_refused_by_its_place(layer: nn.Module, dtype: torch.dtype, words: str) -> None:
    class Net(Bijection):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Unflatten(1, (2, 3)), layer)

        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            made = self.net(x)
            first = made[0] if isinstance(made, tuple) else made
            return x + first.flatten(1)[:, :1], torch.zeros_like(x[:, 0])

        inverse = forward

    flow = Flow((WIDTH,), [Net()], NormalBase()).to(dtype).eval().requires_grad_(requires_grad=False)
    with pytest.raises(ForbiddenGraph, match=words):
        export_graph(flow, "forward", dtype)


def test_a_module_with_nothing_to_replace_is_left_alone() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert replace_layers(plain) is plain
    noisy = nn.Sequential(nn.RReLU(), nn.ReLU()).eval()
    changed = replace_layers(noisy)
    assert isinstance(noisy[0], nn.RReLU), "the module given stays as it is"
    assert isinstance(changed[0], nn.LeakyReLU)

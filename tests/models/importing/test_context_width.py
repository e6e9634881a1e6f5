"""The width of a context is read or asked for, never the first that happens to run."""

from __future__ import annotations

from collections.abc import Callable

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import normflows as nf
import pytest
import torch
import zuko
from nflows import flows, transforms
from nflows.distributions import ConditionalDiagonalNormal, StandardNormal
from torch import Tensor, nn

from models.importing.adapted import Unsupported
from models.importing.take import take
from service.errors import DataError
from tests.models.importing.estimators import Standardize, of_nflows, standardizing
from tests.models.importing.families import perceptron

Shift = Callable[[nn.Module, Tensor], Tensor]


class Shifted(nn.Module):
    """z = x + shift(context): a flow of no library whose context does what the function says."""

    def __init__(self, shift: Shift, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.shift = shift
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.shift(self, context), x[:, 0] * 0

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return z - self.shift(self, context), z[:, 0] * 0


class Optional(Shifted):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x, x[:, 0] * 0) if context is None else super().forward(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (z, z[:, 0] * 0) if context is None else super().inverse(z, context)


def width(source: nn.Module, given: int | None = None, shape: tuple[int, ...] | None = None) -> int:
    return take(source, event_shape=shape, context_width=given).flow.context_width


@pytest.mark.parametrize(
    ("embedding", "context"),
    [
        (standardizing(), 3),
        (standardizing(std=2.0), 3),
        (standardizing(0.3, 2.0), 3),
        (standardizing(torch.tensor([0.3]), torch.tensor([2.0])), 3),
        (standardizing(embedding=nn.Linear(3, 5)), 5),
        (standardizing(0.3, 2.0, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))), 5),
        (nn.Linear(3, 5), 5),
    ],
)
def test_an_embedding_that_standardizes_as_sbi_has_it(embedding: nn.Module, context: int) -> None:
    assert width(of_nflows(embedding, context).net) == 3


def test_a_width_that_is_not_the_standardizing_layer_s_is_refused() -> None:
    source = of_nflows(standardizing()).net
    assert width(source, 3) == 3
    with pytest.raises(
        DataError, match=r"--context is 1, and the flow takes 3 columns .*: Standardize '_embedding_net.0'"
    ):
        take(source, context_width=1)


def test_layers_that_look_alike_and_are_none_are_asked_about() -> None:
    """Random features of one number by as many frequencies run with one column, and with three."""

    class Waves(Standardize):
        def forward(self, tensor: Tensor) -> Tensor:
            return torch.sin((tensor - self._mean) / self._std)

    source = of_nflows(Waves(torch.zeros(3), torch.ones(3))).net
    with pytest.raises(DataError, match=r"runs with 1 and 3 columns, and no layer says which.* give --context N"):
        take(source)
    assert width(source, 1) == 1
    assert width(source, 3) == 3


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        (Shifted(lambda m, c: c), "1 and 2 columns"),
        (Shifted(lambda m, c: c * m.weight, weight=torch.tensor([1.0, 2.0])), "1 and 2 columns"),
        (Shifted(lambda m, c: c.sum(dim=1, keepdim=True)), "1, 2, 3 and 4 columns"),
        (Shifted(lambda m, c: c[:, :2]), "1, 2, 3 and 4 columns"),
        (Shifted(lambda m, c: c[:, 1:2]), "2, 3 and 4 columns|1, 2, 3 and 4 columns"),
        (Optional(lambda m, c: c), "no context, 1 and 2 columns"),
    ],
    ids=["added", "scaled", "summed", "first two", "the second", "not needed"],
)
def test_several_widths_that_run_are_asked_about(source: nn.Module, seen: str) -> None:
    with pytest.raises(DataError, match=rf"the number of columns of context cannot be told: .* runs with ({seen})"):
        take(source, event_shape=(2,))
    assert width(source, 2, (2,)) == 2


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        (zuko.flows.MAF(3, 2, hidden_features=(8,)), 2),
        (zuko.flows.NSF(3, 1, hidden_features=(8,)), 1),
        (zuko.flows.RealNVP(4, 5, hidden_features=(8,)), 5),
        (zuko.flows.MAF(3, hidden_features=(8,)), 0),
        (of_nflows(nn.Identity()).net, 3),
        (of_nflows(None, 0).net, 0),
        (flows.Flow(transforms.LULinear(2), ConditionalDiagonalNormal([2], nn.Linear(7, 4))), 7),
        (Shifted(lambda m, c: m.layer(c), layer=nn.Linear(6, 2)), 6),
        (Shifted(lambda m, c: c @ m.weight, weight=torch.ones(5, 2)), 5),
        (Optional(lambda m, c: m.layer(c), layer=nn.Linear(6, 2)), 6),
        (Optional(lambda m, c: 0 * c[:, :1]), 0),
    ],
)  # fmt: skip
def test_a_width_that_the_layers_say(source: nn.Module, columns: int) -> None:
    shape = (2,) if isinstance(source, Shifted) else None
    assert width(source, None, shape) == columns
    assert width(source, columns, shape) == columns


@pytest.mark.parametrize("columns", [1, 3])
def test_a_network_of_nflows_behind_an_embedding_of_its_own(columns: int) -> None:
    """Its context layer says what it takes, which is not what the flow takes."""

    class Behind(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.embed = inner, nn.Linear(columns, 4)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return self.inner(x, None if context is None else self.embed(context))

    source = of_nflows(nn.Identity(), 4).net
    for step in source.modules():
        if isinstance(step, transforms.AffineCouplingTransform):
            step.transform_net = Behind(step.transform_net)
    assert width(source) == columns


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_normflows_and_freia(columns: int) -> None:
    spline = nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8, num_context_channels=columns)
    assert width(nf.ConditionalNormalizingFlow(nf.distributions.DiagGaussian(2), [spline])) == columns
    inn = Ff.SequenceINN(4)
    inn.append(Fm.GLOWCouplingBlock, cond=0, cond_shape=(columns,), subnet_constructor=perceptron)
    assert width(inn) == columns


@pytest.mark.parametrize(
    "shift",
    [
        lambda m, c: c.mean(dim=0),
        lambda m, c: c[:1],
        lambda m, c: c.roll(1, 0),
        lambda m, c: c.softmax(dim=0),
    ],
    ids=["mean", "first row", "rolled", "over rows"],
)
@pytest.mark.parametrize("given", [2, None])
def test_a_context_that_reaches_another_row_is_refused(shift: Shift, given: int | None) -> None:
    with pytest.raises(Unsupported, match="the context of one row changes log_prob of another"):
        take(Shifted(shift), event_shape=(2,), context_width=given)


def test_one_column_of_context_that_lies_along_the_columns_of_x_is_refused() -> None:
    """[N, D] + [N] runs where N is D, and gives row i the context of row j in column j."""
    with pytest.raises(DataError, match="does not run on rows of shape"):
        take(Shifted(lambda m, c: c[:, 0]), event_shape=(3,), context_width=1)


def test_a_column_that_has_no_effect() -> None:
    source = Shifted(lambda m, c: c[:, :2])
    with pytest.raises(Unsupported, match=r"--context is 4, .* does not depend on columns 2, 3 of the context"):
        take(source, event_shape=(2,), context_width=4)
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[:, 1] = 0
    imported = take(Shifted(lambda m, c: m.layer(c), layer=layer), event_shape=(2,))
    assert imported.flow.context_width == 3
    assert "log_prob was not seen to depend on column 1 of the context" in imported.notes


def test_a_saturating_embedding_far_from_zero_is_looked_at_where_it_moves() -> None:
    embedding = standardizing(MEAN_FAR, torch.tensor([1.0, 2.0, 3.0]), nn.Sequential(nn.Tanh(), nn.Linear(3, 3)))
    imported = take(of_nflows(embedding).net)
    assert imported.flow.context_width == 3
    assert not imported.notes


class Strict(Shifted):
    """A flow of a user's on (2, 4), which refuses a row outside, as nflows' own inverses do."""

    support = (2.0, 4.0)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        if bool(((x <= 2) | (x >= 4)).any()):
            raise ValueError("a row lies outside (2, 4)")
        z = (x - 2).log() - (4 - x).log()
        return z + self.shift(self, context), (2 / ((x - 2) * (4 - x))).log().sum(1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        share = (z - self.shift(self, context)).sigmoid()
        return 2 + 2 * share, (2 * share * (1 - share)).log().sum(1)


def on_an_interval(low: float, high: float, context: int | None) -> nn.Module:
    """A flow of nflows on (low, high): an affine transform to (0, 1), a logit, a network."""
    scale = 1 / (high - low)
    logit = transforms.InverseTransform(transforms.Sigmoid())
    steps = [transforms.PointwiseAffineTransform(-low * scale, scale), logit]
    network = transforms.MaskedAffineAutoregressiveTransform(2, 4, context_features=context, num_blocks=1)
    return flows.Flow(transforms.CompositeTransform([*steps, network]), StandardNormal([2])).double()


@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("ends", [(2.0, 4.0), (-1e4, -9e3), (0.0, 1e-3)])
def test_a_flow_on_an_interval_is_tried_inside_it(ends: tuple[float, float], columns: int) -> None:
    imported = take(on_an_interval(*ends, columns or None))
    assert imported.flow.context_width == columns
    support = imported.flow.support
    assert support is not None
    assert (support.low, support.high) == pytest.approx(ends, rel=1e-6, abs=1e-12)


def test_a_module_that_refuses_rows_outside_its_support() -> None:
    source = Strict(lambda m, c: m.layer(c), layer=nn.Linear(3, 2))
    assert width(source, None, (2,)) == 3
    with pytest.raises(DataError, match="--context is 4, and the flow takes 3 columns"):
        take(source, event_shape=(2,), context_width=4)


MEAN_FAR = torch.tensor([5000.0, -700.0, 1e6])

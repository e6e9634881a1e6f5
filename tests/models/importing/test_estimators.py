"""An estimator around a flow is taken as a whole or refused, and what was taken is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import zuko
from torch import Tensor, nn

from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.take import take
from models.importing.user_code import load_user_flow
from service.errors import DataError
from tests.models.importing.estimators import MEAN, STD, Estimator, ZukoFlow, of_nflows, of_zuko, standardizing


@pytest.mark.parametrize(
    "estimator",
    [
        of_nflows(standardizing()),
        of_nflows(standardizing(0.3, 2.0, nn.Linear(3, 5)), 5),
        of_zuko(standardizing()),
        of_zuko(standardizing(embedding=nn.Linear(3, 4)), 4),
        of_zuko(nn.Identity()),
    ],
)
def test_an_estimator_of_sbi_s_structure_is_taken_as_a_whole(estimator: Estimator) -> None:
    imported = take(estimator)
    assert (imported.flow.event_shape, imported.flow.context_width) == ((2,), 3)
    rows = draw_rows(imported, 40)
    check_agreement(imported, rows.x, rows.context)
    x, context = torch.from_numpy(rows.x), MEAN + STD * torch.from_numpy(rows.context)
    with torch.no_grad():
        own = estimator.log_prob(x.unsqueeze(0), context)[0]
    torch.testing.assert_close(imported.flow.log_prob(x.double(), context.double()).float(), own, rtol=1e-4, atol=1e-4)
    assert f"{type(estimator).__name__}, around the " in imported.summary[0]
    assert not any(line.startswith("Around:") for line in imported.summary)


def test_a_part_of_an_estimator_says_that_it_is_all_there_is() -> None:
    lines = take(of_zuko(standardizing()).net).summary
    assert lines[0].startswith("Flow:   zuko MAF, rows of 2 columns, ")
    assert lines[0].endswith("; base: normal")
    assert lines[1] == "Scales: no first step inside scales the rows"
    assert lines[2] == "Given:  a context of 3 columns (no other width runs); no embedding inside"
    assert lines[3].startswith("Around: nothing around it was taken. Where it is the .net of an estimator, as in sbi")
    assert len(lines) == 4


def test_a_flow_that_holds_its_scaling_and_its_embedding_says_so() -> None:
    lines = take(of_nflows(standardizing()).net).summary
    assert lines[1].startswith("Scales: ")
    assert lines[1].endswith(" standardizes the rows, inside")
    assert "; embedded inside, by Sequential, which standardizes it" in lines[2]
    assert "a context of 3 columns (Standardize '_embedding_net.0' takes so many)" in lines[2]
    assert len(lines) == 3


def test_a_flow_without_context_says_so() -> None:
    assert "Given:  no context (the flow takes no context)" in take(zuko.flows.MAF(2, hidden_features=(8,))).summary


class Scaled(nn.Module):
    """An estimator that scales its rows before its flow sees them, and counts that in."""

    def __init__(self, log_prob: bool = True) -> None:
        super().__init__()
        self.flow = zuko.flows.MAF(2, hidden_features=(8,))
        self.scaler = nn.Linear(2, 2)
        if log_prob:
            self.log_prob = self._log_prob

    def _log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x / 3) - 2 * torch.log(torch.tensor(3.0))


def test_an_estimator_that_scales_its_rows_outside_is_refused() -> None:
    with pytest.raises(
        Unsupported, match=r"log_prob of Scaled, around the zuko MAF in its \.flow is .*: it scales rows or"
    ):
        take(Scaled())


def test_an_estimator_that_scales_the_context_outside_of_its_embedding_is_refused() -> None:
    class Halved(ZukoFlow):
        def log_prob(self, rows: Tensor, condition: Tensor) -> Tensor:
            return super().log_prob(rows, condition / 2)

    source = of_zuko(standardizing())
    with pytest.raises(Unsupported, match=r"with the embedding beside it has .*: it scales rows or context elsewhere"):
        take(Halved(source.net, source.embedding_net, (2,), (3,)))


def test_an_estimator_without_a_log_prob_is_refused_with_what_lies_beside_its_flow() -> None:
    with pytest.raises(
        Unsupported, match=r"around the zuko MAF in its \.flow, with \.scaler beside it.*Write a module"
    ):
        take(Scaled(log_prob=False))


def test_an_estimator_of_two_flows_is_refused() -> None:
    class Two(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.other = zuko.flows.MAF(2, hidden_features=(8,))

    with pytest.raises(Unsupported, match=r"Two holds several flows, \.flow, \.other"):
        take(Two())


def test_a_condition_that_is_an_image_is_refused() -> None:
    source = of_zuko(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))
    source.condition_shape = torch.Size((3, 3))
    with pytest.raises(Unsupported, match=r"takes a context of shape \[3, 3\]"):
        take(source)


def test_a_posterior_names_its_estimator(tmp_path: Path) -> None:
    (tmp_path / "posteriors.py").write_text(
        "from torch import nn\nclass DirectPosterior:\n    posterior_estimator = nn.Linear(1, 1)\n"
        "make = DirectPosterior\n"
    )
    with pytest.raises(DataError, match=r"returned a DirectPosterior.*Give its \.posterior_estimator"):
        load_user_flow(f"{tmp_path / 'posteriors.py'}:make")

    class DirectPosterior:
        posterior_estimator = of_zuko(nn.Identity())

    with pytest.raises(Unsupported, match=r"DirectPosterior is not a torch module.*Give its \.posterior_estimator"):
        take(DirectPosterior())

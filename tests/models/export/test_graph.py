from __future__ import annotations

import logging
import re

import onnx
import pytest
import torch
from torch import Tensor

from models.architectures import build_flow
from models.export.exported_graph import ExportedGraph
from models.export.gate import reference
from models.export.graph import OPSET, export_graph
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Standardize
from service.bundle.bases import NormalBase
from service.errors import ForbiddenGraph
from tests.laws.table import normal, randomize


class LooksAtValues(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x if x.sum() > 0 else -x), torch.zeros_like(x[:, 0])

    inverse = forward


class Sorts(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.sort(dim=1).values, torch.zeros_like(x[:, 0])

    inverse = forward


class Doubled(Bijection):
    """y = x, by way of twice the same."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + x.exp() - x.exp(), torch.zeros_like(x[:, 0])

    inverse = forward


def flow_of(bijection: Bijection) -> Flow:
    return Flow((2,), [bijection], NormalBase())


@pytest.fixture(scope="module")
def flow() -> Flow:
    built = build_flow("real_nvp", {"transforms": 2, "hidden": [8]}, rows=normal(30, 3), context=normal(30, 2))
    randomize(built.bijections)
    return built.float().eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def forward(flow: Flow) -> bytes:
    return export_graph(flow, "forward")


def test_inputs_and_outputs_are_the_contract_s(forward: bytes) -> None:
    model = onnx.load_from_string(forward)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "x": ["N", 3],
        "context": ["N", 2],
        "z": ["N", 3],
        "log_abs_det_jacobian": ["N"],
        "log_prob": ["N"],
    }
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_a_graph_says_nothing_of_the_machine_that_made_it(forward: bytes) -> None:
    model = onnx.load_from_string(forward)
    assert not model.metadata_props
    assert not model.doc_string
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not any(v.metadata_props for v in (*model.graph.input, *model.graph.output, *model.graph.value_info))
    assert not any(t.metadata_props for t in model.graph.initializer)
    assert not model.graph.metadata_props
    assert re.search(rb"/\w+/|\.py|stack_trace|site-packages", forward) is None


def test_the_same_weights_give_the_same_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    small = flow_of(Standardize(torch.zeros(2), torch.full((2,), 3.0)))
    assert export_graph(small, "forward") == export_graph(small, "forward")
    assert capfd.readouterr() == ("", ""), "the exporter keeps its remarks to itself"


def test_a_flow_that_cannot_be_traced_is_refused_with_the_cause() -> None:
    with pytest.raises(ForbiddenGraph, match=r"forward\.onnx cannot be written, torch's exporter says: \w+: "):
        export_graph(flow_of(LooksAtValues()), "forward")


def test_an_operator_outside_the_allow_list_is_refused() -> None:
    with pytest.raises(ForbiddenGraph, match="'TopK'"):
        export_graph(flow_of(Sorts()), "forward")


def test_the_exporter_s_loggers_are_left_as_they_were(forward: bytes) -> None:
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
    assert logging.getLogger("onnx_ir").level == logging.NOTSET


def test_nothing_is_held_or_computed_twice() -> None:
    half = Standardize(torch.zeros(2), torch.full((2,), 2.0))
    twice = Flow((2,), [half, Standardize(torch.zeros(2), torch.full((2,), 2.0)), Doubled()], NormalBase())
    graph = onnx.load_from_string(export_graph(twice, "forward")).graph
    constants = [(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in graph.initializer]
    assert len(set(constants)) == len(constants)
    assert [node.op_type for node in graph.node].count("Exp") == 1


def test_the_graph_runs_as_the_flow(flow: Flow, forward: bytes) -> None:
    x, context = normal(5, 3).float(), normal(5, 2).float()
    answers = ExportedGraph(forward, "forward")(x.numpy(), context.numpy(), 2)
    expected = reference(flow).log_prob(x.double(), context.double())
    torch.testing.assert_close(torch.from_numpy(answers.log_prob), expected, rtol=1e-4, atol=1e-4)

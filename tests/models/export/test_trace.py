from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from models.architectures import build_flow
from models.export.exported_graph import ExportedGraph
from models.export.gate import reference
from models.export.graph import export_forward_and_trace, export_graph
from models.export.probes import make_probes
from models.export.trace import check_trace, trace_steps
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import quantized_support
from service.bundle.bases import NormalBase
from service.bundle.manifest import Step
from service.errors import ParityFailed
from tests.laws.table import normal, randomize

ROWS = torch.randint(0, 17, (40, 2, 2, 1), generator=torch.Generator().manual_seed(0)).float()


@pytest.fixture(scope="module")
def flow() -> Flow:
    options = {"transforms": 2, "hidden": [8]}
    context = normal(40, 2, seed=3).float()
    built = build_flow("real_nvp", options, rows=ROWS, context=context, support=quantized_support(0, 16))
    for bijection in built.bijections:
        randomize(bijection, scale=0.2)
    return built.float().eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def exported(flow: Flow) -> ExportedGraph:
    graph = ExportedGraph(export_graph(flow, "trace"), "trace")
    check_trace(reference(flow), graph, make_probes(ROWS.numpy(), normal(40, 2, seed=3).float().numpy(), flow.support))
    return graph


def test_the_steps_have_names_and_shapes(flow: Flow) -> None:
    assert trace_steps(flow, flow.steps) == [
        Step(name="flatten", shape=[4]),
        Step(name="logit", shape=[4]),
        Step(name="standardize", shape=[4]),
        Step(name="coupling 1", shape=[4]),
        Step(name="coupling 2", shape=[4]),
    ]


def test_the_forward_graph_that_is_cut_from_a_trace_is_the_flow_s(flow: Flow) -> None:
    context = normal(40, 2, seed=3).float()
    forward, _ = export_forward_and_trace(flow)
    session = ort.InferenceSession(forward, providers=["CPUExecutionProvider"])
    found = session.run(["z", "log_abs_det_jacobian", "log_prob"], {"x": ROWS.numpy(), "context": context.numpy()})
    z, ladj = flow(ROWS, context)
    for one, exact in zip(found, (z, ladj, flow.log_prob(ROWS, context)), strict=True):
        np.testing.assert_allclose(one, exact.numpy(), rtol=1e-4, atol=1e-5)


def test_the_graph_gives_the_event_after_each_step(flow: Flow, exported: ExportedGraph) -> None:
    context = normal(40, 2, seed=3).float()
    found = exported(ROWS.numpy(), context.numpy(), 40)
    values, terms = flow.trace(ROWS, context)
    assert found.value.shape == (40, 5, 4)
    for at, (value, term) in enumerate(zip(values, terms, strict=True)):
        np.testing.assert_allclose(found.value[:, at], value.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.log_abs_det_jacobian[:, at], term.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_prob, flow.log_prob(ROWS, context).numpy(), rtol=1e-4)


class Shift(Bijection):
    """Y = x + 1, whose log-determinant is said to be something else."""

    def __init__(self, said: float) -> None:
        super().__init__()
        self.said = said

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + 1, torch.full_like(x[:, 0], self.said) + 0 * x[:, 0]

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y - 1, torch.full_like(y[:, 0], -self.said) + 0 * y[:, 0]


@pytest.mark.parametrize(
    ("chain", "quantity"),
    [
        ([Shift(0.5), Shift(-0.5), Shift(0.0)], "log_abs_det_jacobians of trace.onnx"),
        ([Shift(0.0), Shift(0.0), Shift(0.0), Shift(0.0)], "values of trace.onnx"),
        ([Shift(0.0), Shift(0.0), Shift(0.1)], "log_abs_det_jacobians of trace.onnx"),
    ],
)
def test_a_trace_of_another_flow_is_refused(chain: list[Bijection], quantity: str) -> None:
    rows = normal(20, 2).float()
    right = Flow([2], [Shift(0.0), Shift(0.0), Shift(0.0)], NormalBase())
    probes = make_probes(rows.numpy(), None, None)
    graph = ExportedGraph(export_graph(right, "trace"), "trace")
    check_trace(reference(right), graph, probes)
    with pytest.raises(ParityFailed, match=quantity):
        check_trace(reference(Flow([2], chain, NormalBase())), graph, probes)


def test_a_class_name_is_read_as_words() -> None:
    class LUDecomposed1x1Convolution(Shift):
        pass

    chain = [LUDecomposed1x1Convolution(0.0), Shift(0.0), LUDecomposed1x1Convolution(0.0)]
    steps = Flow([2], chain, NormalBase()).steps
    assert steps == ["lu decomposed1x1 convolution 1", "shift", "lu decomposed1x1 convolution 2"]

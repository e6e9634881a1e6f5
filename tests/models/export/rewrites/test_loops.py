"""Autoregressive inverses as Loops: the sequential answer, and no row that depends on its neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
import zuko
from torch import Tensor

from models.export.exported_graph import ExportedGraph
from models.export.gate import reference
from models.export.graph import export_graph
from models.export.invariance import check_invariance
from models.flows.flow import Bijection, Flow
from models.flows.jacobi import jacobi
from models.flows.zuko_steps import from_zuko
from service.bundle.bases import NormalBase
from service.bundle.operators import check_graph
from tests.laws.table import SPLINE, normal, randomize

Float32 = npt.NDArray[np.float32]
WIDTH, CONTEXT = 16, 3
TOLERANCE = 1e-6
SMALL: dict[str, Any] = {"hidden_features": (32,)}

FLOWS: dict[str, tuple[Callable[[], zuko.lazy.LazyTransform], int, int]] = {
    "affine": (lambda: zuko.flows.MAF(WIDTH, transforms=2, **SMALL).transform, WIDTH, 0),
    "affine, conditional, in blocks": (
        lambda: zuko.flows.MAF(2 * WIDTH, CONTEXT, transforms=1, **SMALL).transform,
        2 * WIDTH,
        CONTEXT,
    ),
    "spline, conditional": (
        lambda: zuko.flows.MAF(WIDTH, CONTEXT, transforms=1, **SMALL, **SPLINE).transform,
        WIDTH,
        CONTEXT,
    ),
}


class Backwards(Bijection):
    """A bijection with its directions exchanged: what makes an inverse autoregressive flow."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, ladj = self.inner(y, context)
        return y, ladj


class Doubling(Bijection):
    """x_i = y_i + x_{i-1} where x_{i-1} is above 3, else y_i: rows that never meet it rest after one pass."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x - self._shift(x), torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return jacobi(lambda x: (y + self._shift(x), x[:, 0] * 0.0), y, WIDTH)

    def _shift(self, x: Tensor) -> Tensor:
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        return torch.where(before > 3.0, before, torch.zeros_like(before))


def flow_of(*bijections: Bijection, width: int = WIDTH, context: int = 0) -> Flow:
    flow = Flow((width,), bijections, NormalBase(), context_width=context)
    return flow.float().eval().requires_grad_(requires_grad=False)


@cache
def built(name: str) -> tuple[Flow, bytes]:
    make, width, context = FLOWS[name]
    transform = make()
    randomize(transform, scale=0.15)
    flow = flow_of(*from_zuko(transform), width=width, context=context)
    return flow, export_graph(flow, "inverse")


def rows(name: str, count: int) -> tuple[Float32, Float32 | None]:
    _, width, context = FLOWS[name]
    given = normal(count, context, seed=2).float().numpy() if context else None
    return normal(count, width).float().numpy(), given


def passes_of(data: bytes, feed: dict[str, Float32]) -> list[int]:
    """How many passes each Loop makes: its body is made to put out the number of each."""
    model, names = onnx.load_from_string(data), []
    for number, loop in enumerate(node for node in model.graph.node if node.op_type == "Loop"):
        body = loop.attribute[0].g
        body.node.append(onnx.helper.make_node("Identity", [body.input[0].name], [f"number_{number}"]))
        body.output.append(onnx.helper.make_tensor_value_info(f"number_{number}", onnx.TensorProto.INT64, []))
        loop.output.append(f"numbers_{number}")
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(f"numbers_{number}", onnx.TensorProto.INT64, [None])
        )
        names.append(f"numbers_{number}")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [len(numbers) for numbers in session.run(names, feed)]


def restless(data: bytes) -> bytes:
    """The same graph with rows that never rest: it makes every pass, and gives the sequential answer."""
    model = onnx.load_from_string(data)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(-1.0, np.float32), "never"))
    for loop in (node for node in model.graph.node if node.op_type == "Loop"):
        *_, rests = (node for node in loop.attribute[0].g.node if node.op_type == "Greater")
        rests.input[1] = "never"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("name", "apart", "rounding"),
    [
        ("affine", TOLERANCE, 1e-6),
        ("affine, conditional, in blocks", TOLERANCE, 1e-6),
        ("spline, conditional", 0.0, 1e-5),  # float32 leaves the sequential answer 1.5e-6 from the exact one
    ],
)
def test_a_loop_gives_the_sequential_answer(name: str, apart: float, rounding: float) -> None:
    flow, data = built(name)
    z, context = rows(name, 200)
    answers = ExportedGraph(data, "inverse")(z, context, 200)
    sequential = ExportedGraph(restless(data), "inverse")(z, context, 200)
    np.testing.assert_allclose(answers.value, sequential.value, rtol=apart, atol=apart)
    np.testing.assert_allclose(answers.log_prob, sequential.log_prob, rtol=TOLERANCE, atol=10 * TOLERANCE)
    feed = {"z": z} if context is None else {"z": z, "context": context}
    assert max(passes_of(data, feed)) < WIDTH - 1, "the rows should rest before the last pass, or this shows nothing"
    x, ladj = reference(flow).inverse(*(None if a is None else torch.from_numpy(a).double() for a in (z, context)))
    np.testing.assert_allclose(answers.value, x.numpy(), rtol=rounding, atol=rounding)
    np.testing.assert_allclose(answers.log_abs_det_jacobian, ladj.numpy(), rtol=10 * rounding, atol=10 * rounding)


@pytest.mark.parametrize("name", FLOWS)
def test_a_row_has_the_same_bits_in_every_batch(name: str) -> None:
    _, data = built(name)
    z, context = rows(name, 252)
    z[::7] *= 8.0  # rows that take long beside others that do not
    check_invariance(ExportedGraph(data, "inverse"), z, context)


@pytest.mark.parametrize("name", FLOWS)
def test_rows_far_outside_stay_finite(name: str) -> None:
    _, data = built(name)
    z, context = rows(name, 8)
    far = np.concatenate((30.0 * np.sign(z), z, np.full_like(z, 30.0)))
    far[8:16, 0] = (1e30, -1e30, 1e20, -1e20, 1e10, 1e5, 1e3, 1e2)
    answers = ExportedGraph(data, "inverse")(far, None if context is None else np.tile(context, (3, 1)), 24)
    for array in (answers.value[:, 0], answers.value[:8], answers.value[16:], answers.log_abs_det_jacobian):
        assert np.isfinite(array).all()
    assert not np.isnan(answers.value).any()


def test_a_row_that_rests_keeps_its_bits_beside_one_that_takes_every_pass() -> None:
    data = export_graph(flow_of(Doubling()), "inverse")
    still, hard = np.full((4, WIDTH), 0.5, np.float32), np.full((4, WIDTH), 4.0, np.float32)
    assert passes_of(data, {"z": still}) == [2]
    assert passes_of(data, {"z": hard}) == [WIDTH]
    graph = ExportedGraph(data, "inverse")
    alone, beside = graph(still, None, 4), graph(np.concatenate((still, hard)), None, 8)
    np.testing.assert_array_equal(alone.value, beside.value[:4])
    np.testing.assert_array_equal(beside.value[4:], np.tile(4.0 * np.arange(1, WIDTH + 1), (4, 1)))


def test_an_inverse_autoregressive_flow_has_its_loop_forward() -> None:
    flow, _ = built("affine")
    swapped = flow_of(*(Backwards(step) for step in flow.bijections))  # type: ignore[arg-type]  # ModuleList forgets
    assert check_graph(export_graph(swapped, "forward"), "forward.onnx").passes == (WIDTH - 1,) * 2


def test_what_does_not_depend_on_the_passes_stays_outside_of_the_body() -> None:
    model = onnx.load_from_string(built("affine")[1])
    (body, *_) = [node.attribute[0].g for node in model.graph.node if node.op_type == "Loop"]
    assert not body.initializer
    assert sum(node.op_type == "Gemm" for node in body.node) == len(SMALL["hidden_features"]) + 1
    assert not {node.op_type for node in body.node} & {"ReduceSum", "Constant"}


def test_a_body_says_nothing_of_the_machine_that_made_it_and_comes_out_the_same_twice() -> None:
    flow, data = built("affine")
    assert re.search(rb"/\w+/|\.py|stack_trace|site-packages|pkg\.", data) is None
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    bodies = [node.attribute[0].g for node in model.graph.node if node.op_type == "Loop"]
    assert not any(node.metadata_props or node.doc_string for body in bodies for node in body.node)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert export_graph(flow, "inverse") == data


@pytest.mark.slow
def test_a_wide_flow_takes_few_nodes_and_few_passes() -> None:
    torch.manual_seed(0)
    flow = flow_of(*from_zuko(zuko.flows.MAF(64, transforms=5, hidden_features=(128, 128)).transform), width=64)
    data = export_graph(flow, "inverse")
    summary = check_graph(data, "inverse.onnx")
    assert summary.passes == (31, 32) * 5
    assert summary.nodes <= 5 * 100
    z = normal(1000, 64).float()
    assert max(passes_of(data, {"z": z.numpy()})) <= 24
    answers = ExportedGraph(data, "inverse")(z.numpy(), None, 1000)
    np.testing.assert_allclose(answers.value, flow.inverse(z)[0].numpy(), rtol=TOLERANCE, atol=TOLERANCE)

"""The gate lets a flow through, and refuses one that is broken in each way that an export can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.export.exported_graph import GraphOutputs
from models.export.gate import BATCHES, check_flow, check_graphs, reference
from models.export.probes import Probes, make_probes
from models.flows.analytic import square
from models.flows.flow import Bijection, Flow
from service.bundle.bases import NormalBase
from service.bundle.parity import TOLERANCE
from service.errors import ParityFailed


class Scale(Bijection):
    """y = 3 x in each of two columns, and ways to get it wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ladj = torch.full_like(x[:, 0], 2 * np.log(3))
        if self.fault in ("sign", "sign of both"):
            ladj = -ladj
        if self.fault == "nan":
            return torch.where(x > 50, torch.nan, 3 * x), ladj
        if self.fault == "infinite":
            return 3 * x, ladj / (x[:, 0] < 50)
        if self.fault == "neighbours":
            return 3 * x + 1e-2 * x.mean(dim=0), ladj
        return 3 * x, ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ladj = torch.full_like(y[:, 0], -2 * np.log(3))
        if self.fault == "sign of both":
            ladj = -ladj
        return (y / 3.001 if self.fault == "inverse" else y / 3), ladj


def make_flow(fault: str = "") -> Flow:
    return Flow((2,), [Scale(fault)], NormalBase())


def probes_of(flow: Flow) -> Probes:
    rows = np.random.default_rng(0).normal(1, 2, (50, flow.width)).astype(np.float32)
    if flow.support is not None:
        rows = rows.clip(0.1, 3.9)
    return make_probes(rows, None, flow.support)


class InTorch:
    """A graph's place taken by the flow itself, in float32; `change` spoils what it answers."""

    def __init__(
        self, flow: Flow, direction: str, change: Callable[[GraphOutputs, int], GraphOutputs] | None = None
    ) -> None:
        self.flow, self.direction, self.change = flow, direction, change
        self.output = "z" if direction == "forward" else "x"

    def __call__(self, rows: Any, context: Any, batch: int) -> GraphOutputs:
        parts = []
        for start in range(0, len(rows), batch):
            x = torch.from_numpy(rows[start : start + batch])
            if self.direction == "forward":
                parts.append((*self.flow(x), self.flow.log_prob(x)))
            else:
                parts.append(self.flow.inverse_log_prob(x))
        answers = GraphOutputs(
            *(torch.cat(part).detach().numpy().astype(np.float64) for part in zip(*parts, strict=True))
        )
        return self.change(answers, batch) if self.change else answers


def gate(flow: Flow, graph_of: Flow | None = None, **changes: Callable[[GraphOutputs, int], GraphOutputs]) -> Any:
    exact, probes = reference(flow), probes_of(flow)
    check_flow(exact, probes)
    graphs: list[Any] = [
        InTorch(graph_of or flow, direction, changes.get(direction)) for direction in ("forward", "inverse")
    ]
    return check_graphs(exact, graphs[0], graphs[1], probes)


@pytest.mark.parametrize("flow", [make_flow(), square()], ids=["normal", "uniform"])
def test_a_sound_flow_passes_and_its_errors_are_measured(flow: Flow) -> None:
    parity = gate(flow)
    assert parity.tolerance == TOLERANCE
    assert parity.batches == list(BATCHES)
    for value in (parity.log_prob, parity.log_abs_det_jacobian, parity.z, parity.x, parity.round_trip):
        assert 0 <= value < 1e-6


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sign", "log_abs_det_jacobian of the inverse, negated, in float64 is"),
        ("sign of both", "against the Jacobian by differentiation"),
        ("inverse", "x after f and its inverse in float64 is"),
        ("nan", "the flow's z is not finite in float64 for a row 30 standard deviations from the mean"),
        ("infinite", "the flow's log_abs_det_jacobian is not finite in float64"),
    ],
)
def test_a_flow_that_is_none_is_refused_before_any_graph(fault: str, message: str) -> None:
    with pytest.raises(ParityFailed, match=message):
        gate(make_flow(fault))


@pytest.mark.parametrize("fault", ["sign", "nan", "neighbours", "infinite"])
def test_a_graph_that_is_another_flow_is_refused(fault: str) -> None:
    with pytest.raises(ParityFailed):
        gate(make_flow(), graph_of=make_flow(fault))


def spoil(
    field: str, batch: int, row: int, change: Callable[[Any], Any]
) -> Callable[[GraphOutputs, int], GraphOutputs]:
    def spoiled(answers: GraphOutputs, size: int) -> GraphOutputs:
        values = {name: getattr(answers, name).copy() for name in ("value", "log_abs_det_jacobian", "log_prob")}
        if size == batch:
            values[field][row] = change(values[field][row])
        return GraphOutputs(**values)

    return spoiled


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("field", ["value", "log_abs_det_jacobian", "log_prob"])
def test_one_wrong_number_in_one_batch_size_is_found_and_named(field: str, direction: str, batch: int) -> None:
    name = field if field != "value" else ("z" if direction == "forward" else "x")
    change = spoil(field, batch, 5, lambda value: value + 0.1 * (1 + np.abs(value)))
    row = "held-out row 5 of the probes" if direction == "forward" else "row 5 drawn from the base"
    with pytest.raises(
        ParityFailed, match=rf"^{name} of {direction}.onnx in batches of {batch} is .* for {row}"
    ) as raised:
        gate(make_flow(), **{direction: change})
    assert "float64 gives" in raised.value.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_density_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ParityFailed, match="without bound"):
        gate(make_flow(), forward=spoil("log_prob", 7, 3, lambda _: value))


def test_minus_infinity_must_be_where_float64_has_it() -> None:
    def outside_is_tiny(answers: GraphOutputs, batch: int) -> GraphOutputs:
        log_prob = np.where(np.isneginf(answers.log_prob), -1e30, answers.log_prob)
        return GraphOutputs(answers.value, answers.log_abs_det_jacobian, log_prob)

    with pytest.raises(ParityFailed, match="float64 gives -inf"):
        gate(square(), forward=outside_is_tiny)


def test_the_two_graphs_must_undo_each_other() -> None:
    """Held-out rows go through both: an inverse that is right on draws from the base may be wrong on their latents."""
    exact, probes = reference(make_flow()), probes_of(make_flow())

    class WrongOnHeldOut(InTorch):
        def __call__(self, rows: Any, context: Any, batch: int) -> GraphOutputs:
            answers = super().__call__(rows, context, batch)
            factor = 1.01 if rows.shape[0] == probes.held_out.stop else 1.0
            return GraphOutputs(answers.value * factor, answers.log_abs_det_jacobian, answers.log_prob)

    graphs: list[Any] = [InTorch(make_flow(), "forward"), WrongOnHeldOut(make_flow(), "inverse")]
    with pytest.raises(ParityFailed, match=r"^x after forward\.onnx and inverse\.onnx is .* held-out row"):
        check_graphs(exact, graphs[0], graphs[1], probes)


def test_the_reference_is_a_copy_in_float64_and_evaluation_mode() -> None:
    flow = make_flow().train()
    flow.bijections.append(torch.nn.Linear(2, 2))  # something with weights
    exact = reference(flow)
    assert flow.training
    assert flow.bijections[-1].weight.dtype == torch.float32
    assert not exact.training
    assert all(p.dtype == torch.float64 and not p.requires_grad for p in exact.parameters())

"""The gate lets a flow through, and refuses one that is broken in each way that an export can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.export import gate as gate_module
from models.export.exported_graph import GraphOutputs
from models.export.float32_errors import Float32Errors, answer_forward
from models.export.gate import BATCHES, RowFails, check_flow, check_graphs, reference
from models.export.probes import Probes, make_probes
from models.flows.analytic import square
from models.flows.flow import Bijection, Flow
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.parity import TOLERANCE
from service.errors import ParityFailed
from tests.models.export.steep import Steep, Thirds


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


def test_a_wrong_log_determinant_is_told_with_the_row_that_was_differentiated() -> None:
    flow = make_flow("sign of both")
    exact, probes = reference(flow), probes_of(flow)
    with pytest.raises(RowFails, match="against the Jacobian by differentiation") as raised:
        check_flow(exact, probes)
    assert raised.value.row in np.random.default_rng(0).choice(50, 4, replace=False)
    assert f"for held-out row {raised.value.row};" in raised.value.detail


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
    row = "held-out row 5" if direction == "forward" else "row 5 drawn from the base"
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


def steep(factor: float = 7.0, above: float = -np.inf) -> Flow:
    return Flow((2,), [Steep(3e4, factor, above)], NormalBase())


def test_a_graph_may_be_off_where_torch_itself_is_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph in float32 keeps 1e-4 there. Another order of products stands for ONNX Runtime's arithmetic."""
    parity = gate(steep(), graph_of=steep(factor=3.0))
    assert parity.rows == 50
    assert 0 < parity.rows_beyond <= 50
    assert parity.log_prob_beyond > TOLERANCE
    assert parity.torch_log_prob > TOLERANCE / 2
    assert f"{parity.rows_beyond} of 50 held-out rows" in parity.warning
    assert f"{parity.log_prob_beyond:.1e}" in parity.warning
    assert f"{parity.torch_log_prob:.1e}" in parity.warning
    assert "--precision float64" in parity.warning
    monkeypatch.setattr(gate_module, "OWN_ERRORS", 0.0)
    with pytest.raises(RowFails, match=r"may be 0\.00"):
        gate(steep(), graph_of=steep(factor=3.0))


def test_a_sound_flow_has_nothing_to_be_told() -> None:
    parity = gate(make_flow())
    assert (parity.rows, parity.rows_beyond, parity.rows_left_out) == (50, 0, 0)
    assert (parity.log_prob_beyond, parity.torch_log_prob, parity.warning) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda o, _: GraphOutputs(o.value, -o.log_abs_det_jacobian, o.log_prob),
        lambda o, _: GraphOutputs(o.value, o.log_abs_det_jacobian, o.log_prob - 2 * o.log_abs_det_jacobian),
        lambda o, _: GraphOutputs(o.value * 1.01, o.log_abs_det_jacobian, o.log_prob),
        lambda o, _: GraphOutputs(o.value, o.log_abs_det_jacobian, o.log_prob + 0.05),
        lambda o, _: GraphOutputs(o.value, o.log_abs_det_jacobian, np.roll(o.log_prob, 1)),
        lambda o, size: GraphOutputs(o.value, o.log_abs_det_jacobian, o.log_prob + 0.1 * (size == 1000)),
        lambda o, _: GraphOutputs(o.value, o.log_abs_det_jacobian, np.where(o.value[:, 0] > 1, np.nan, o.log_prob)),
    ],
    ids=[
        "log-determinant's sign",
        "its sign in log_prob",
        "value",
        "a constant",
        "rows moved",
        "one batch",
        "nan",
    ],
)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_wrong_graph_of_a_steep_flow_is_caught(direction: str, wrong: Any) -> None:
    with pytest.raises(RowFails):
        gate(steep(), graph_of=steep(factor=3.0), **{direction: wrong})


def test_a_steep_place_excuses_nothing_elsewhere() -> None:
    flow = steep(above=1.0)
    gentle = int(np.flatnonzero(probes_of(flow).x[:50, 0] < 0.5)[0])
    gate(flow, graph_of=steep(3.0, above=1.0))
    change = spoil("log_prob", 7, gentle, lambda value: value + 3e-4 * (1 + np.abs(value)))
    with pytest.raises(RowFails, match=rf"held-out row {gentle}.* may be 0.0001$") as raised:
        gate(flow, graph_of=steep(3.0, above=1.0), forward=change)
    assert (raised.value.row, raised.value.drawn, raised.value.own) == (gentle, False, False)


def test_what_torch_is_off_by_is_told_where_a_graph_is_off_by_more() -> None:
    flow = steep()
    own = Float32Errors(reference(flow), answer_forward, probes_of(flow).x)("log_prob", range(50))
    change = spoil("log_prob", 7, int(own.argmax()), lambda value: value + 1)
    with pytest.raises(RowFails, match=r"may be 0\.\d+: torch's own float32 is off by .* there$") as raised:
        gate(flow, forward=change)
    assert raised.value.own


def box() -> tuple[Flow, Probes]:
    flow = Flow((2,), [Thirds()], UniformBase(low=-1.0, high=1.0))
    rows = np.random.default_rng(0).uniform(-2.9, 2.9, (20, 2)).astype(np.float32)
    rows[3] = 3.0, 0.5
    return flow, make_probes(rows, None, None)


def test_rows_at_the_edge_of_a_box_are_left_out_and_counted() -> None:
    flow, probes = box()
    graphs: list[Any] = [InTorch(flow, "forward"), InTorch(flow, "inverse")]
    parity = check_graphs(reference(flow), graphs[0], graphs[1], probes)
    assert (parity.rows_left_out, parity.rows_beyond) == (1, 0)
    assert "1 of 20 held-out rows tried lie so near an edge" in parity.warning
    assert np.isfinite(parity.log_prob)


@pytest.mark.parametrize(("row", "value"), [(0, -np.inf), (-1, -2.0), (3, np.nan)])
def test_what_lies_well_inside_or_outside_a_box_is_not_left_out(row: int, value: float) -> None:
    flow, probes = box()
    row %= len(probes.x)
    change = spoil("log_prob", 7, row, lambda _: value)
    graphs: list[Any] = [InTorch(flow, "forward", change), InTorch(flow, "inverse")]
    with pytest.raises(RowFails, match=r"log_prob of forward\.onnx"):
        check_graphs(reference(flow), graphs[0], graphs[1], probes)

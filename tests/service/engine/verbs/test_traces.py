from __future__ import annotations

import numpy as np
import pytest

from service.bundle.store import Bundle
from service.engine.canary import check_trace, measure_parity
from service.engine.loading import load_flow
from service.engine.runtime.graph import CpuGraph
from service.engine.verbs.traces import Tracer, trace
from service.errors import BundleError, NotTraceable, ParityFailed, WrongShape
from service.plan import Outputs, run_now
from tests.service.bundles import affine, bundle, traced
from tests.service.engine.verbs.test_flow import some_rows

TRACED = ["two-moons", "conditional", "image"]


@pytest.mark.parametrize("name", TRACED)
def test_a_trace_leads_from_x_to_z_and_its_terms_sum_to_the_whole(flows, parts, name):
    flow = flows[name]
    x, context = some_rows(parts[name], 150)
    found = run_now(trace(flow, x, context))
    assert [step.name for step in found.steps] == ["x", "centre", "scale"]
    assert [step.value.shape for step in found.steps] == [x.shape, x.shape, (150, flow.width)]
    np.testing.assert_array_equal(found.steps[0].value, x)
    there = run_now(flow.encode(x, context))
    np.testing.assert_allclose(found.steps[-1].value, there.z, rtol=1e-5, atol=1e-6)
    whole = np.sum([step.log_abs_det_jacobian for step in found.steps], axis=0)
    np.testing.assert_allclose(whole, there.log_abs_det_jacobian, rtol=1e-5)
    np.testing.assert_allclose(found.log_prob, there.log_prob, rtol=1e-5)


def test_a_row_is_the_same_bits_in_every_batch(flows, parts):
    flow = flows["image"]
    x, _ = some_rows(parts["image"], 131)
    many = run_now(trace(flow, x))
    for at in (0, 63, 64, 130):
        alone = run_now(trace(flow, x[at : at + 1]))
        for one, step in zip(alone.steps, many.steps, strict=True):
            np.testing.assert_array_equal(one.value[0], step.value[at])
            assert one.log_abs_det_jacobian[0] == step.log_abs_det_jacobian[at]
        assert alone.log_prob[0] == many.log_prob[at]


def test_a_bundle_without_a_trace_says_so(flows, parts):
    x, _ = some_rows(parts["coupling"], 2)
    with pytest.raises(NotTraceable, match="coupling version 1 was exported without its chain; export it anew"):
        run_now(trace(flows["coupling"], x))


def test_a_context_is_held_against_the_flow(flows, parts):
    x, _ = some_rows(parts["conditional"], 2)
    with pytest.raises(WrongShape, match="a context of 2 columns is needed"):
        run_now(trace(flows["conditional"], x))


def test_the_graph_is_opened_when_it_is_first_asked_for(tmp_path, monkeypatch):
    opened: list[str] = []

    class Counted(CpuGraph):
        def __init__(self, of: Bundle, direction: str) -> None:
            opened.append(direction)
            super().__init__(of, direction)

    read = bundle(tmp_path, traced(affine()))
    monkeypatch.setattr("service.engine.verbs.traces.CpuGraph", Counted)
    flow = load_flow(read)
    assert opened == []
    for _ in range(2):
        run_now(trace(flow, np.zeros((3, 2), np.float32)))
        assert opened == ["trace"]


def test_long_traces_run_in_small_batches(tmp_path):
    assert Tracer(bundle(tmp_path, traced(affine()))).chunk_rows == 1024
    wide = Tracer(bundle(tmp_path, traced(affine("wide", 1, (1000,)))))
    assert wide.width == 2000
    assert wide.chunk_rows == (1 << 20) // 2000


@pytest.mark.parametrize(
    ("changed", "quantity"),
    [("value", "trace z"), ("log_abs_det_jacobian", "trace log_abs_det_jacobian"), ("log_prob", "trace log_prob")],
)
def test_a_trace_that_does_not_end_where_the_golden_rows_do_is_not_served(tmp_path, monkeypatch, changed, quantity):
    read = bundle(tmp_path, traced(affine()))
    whole = CpuGraph.__call__

    def off(self: CpuGraph, rows: np.ndarray, context: np.ndarray | None) -> Outputs:
        outputs = whole(self, rows, context)
        return outputs._replace(**{changed: getattr(outputs, changed) + np.float32(0.01)})

    check_trace(read)
    monkeypatch.setattr("service.engine.canary.CpuGraph.__call__", off)
    with pytest.raises(ParityFailed) as caught:
        check_trace(read)
    assert [reason.loc for reason in caught.value.errors] == [("golden", quantity)]


def test_a_trace_that_is_another_graph_is_not_served(tmp_path):
    parts = traced(affine())
    parts.files["trace.onnx"] = parts.files["forward.onnx"]
    with pytest.raises(BundleError, match=r"trace.onnx must have the outputs \['values'"):
        load_flow(bundle(tmp_path, parts))


def test_the_parity_table_has_a_line_for_the_trace(tmp_path):
    rows = measure_parity(bundle(tmp_path, traced(affine())), (1, 7))
    assert [row.quantity for row in rows if row.quantity.startswith("trace")] == [
        "trace z",
        "trace log_abs_det_jacobian",
        "trace log_prob",
    ] * 2
    assert all(row.passed for row in rows)

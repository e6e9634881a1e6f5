"""The graphs by hand are the same flow, and a graph of another flow is told apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.by_hand import HandWrittenGraph
from benchmarks.flow import FAMILIES, TRANSFORMS, make_flow
from benchmarks.graphs import ONE_PASS, check_equal_outputs, measure
from benchmarks.measure import MeasurementFailed
from benchmarks.table import Table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "direction"),
    [(family, direction) for family in FAMILIES for direction in ONE_PASS.get(family, ("forward", "inverse"))],
)
def test_both_graphs_are_measured(family, direction):
    table = Table()
    measure(table, family, 2, direction, rounds=1)
    assert [line.failure for line in table.lines] == [None] * 4
    ratio = table.lines[0].values[0]
    assert 0.5 < ratio <= 1.05, "the exported graph has nodes that nobody would write"


def test_another_answer_is_told_apart():
    one = [np.zeros(3, np.float32)]
    check_equal_outputs(one, [np.full(3, 5e-6, np.float32)])
    for other in (np.full(3, 5e-5, np.float32), np.full(3, np.nan, np.float32)):
        with pytest.raises(MeasurementFailed, match="differ by"):
            check_equal_outputs(one, [other])


def test_a_graph_by_hand_has_a_product_for_each_layer():
    flow = make_flow(2).eval().requires_grad_(requires_grad=False)
    nodes = onnx.load_from_string(HandWrittenGraph(flow, "forward").graph()).graph.node
    assert [node.op_type for node in nodes].count("Gemm") == 3 * TRANSFORMS


def test_a_step_that_has_no_graph_by_hand_is_refused():
    flow = make_flow(2, "maf").eval().requires_grad_(requires_grad=False)
    with pytest.raises(MeasurementFailed, match="no graph by hand"):
        HandWrittenGraph(flow, "inverse").graph()

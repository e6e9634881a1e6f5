"""ONNX against the float64 flow, for every architecture: the gate itself, on random weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from models.export.exported_graph import ExportedGraph
from models.export.gate import BATCHES, check_flow, check_graphs, reference
from models.export.graph import OPSET, export_graph
from models.export.invariance import check_invariance
from models.export.probes import make_probes
from models.flows.analytic import ANALYTIC
from models.flows.bases import sample_base
from service.bundle.operators import check_graph
from service.bundle.parity import TOLERANCE
from tests.laws.table import FLOWS

COUPLINGS, LAYERS = 2, 2  # of every flow in the table that is made of couplings alone
COUPLED = ("real_nvp", "nice", "neural_spline_coupling", "bernstein")


# An export takes seconds of a core: what these add to the others is left to `make test-slow`. Each kind has one
# that is not: couplings by scale and by spline, a Loop and a constant matrix (in neural_spline_mixed), convolutions.
SLOW = {
    "real_nvp, image, conditional",
    "real_nvp, D = 3, dropout",
    "nice, D = 6, conditional",
    "iaf, D = 6, conditional",  # tests/models/export/rewrites/test_loops.py has a Loop in forward.onnx
    "maf, D = 1, conditional",
    "maf, D = 3, without an order, conditional",
    "neural_spline_autoregressive, D = 1",
    "neural_spline_autoregressive, D = 6, conditional",  # and there a spline's Loop
    "neural_spline_mixed, affine couplings, spline autoregression",
    "bernstein, D = 6, conditional",
    *(name for name in FLOWS if name.endswith(", D = 2")),
    *(name for name in FLOWS if ", base " in name),  # tests/models/flows/test_bases.py exports each base alone
    *(name for name in ANALYTIC if name != "square"),  # so does tests/models/flows/test_analytic.py
    "image_real_nvp, bounded",
    "image_real_nvp, two channels",
    "glow",
    "image_spline, bounded",
    "image_spline, two channels, conditional",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FLOWS])
def test_graphs_give_the_flow_in_every_batch(name: str) -> None:
    case = FLOWS[name]
    flow = case.build().float().requires_grad_(requires_grad=False).freeze_base().fold()
    context = None if case.context is None else case.context.float().numpy()
    exact = reference(flow)
    probes = make_probes(case.x.float().numpy(), context, flow.support)
    check_flow(exact, probes)
    graphs = {direction: export_graph(flow, direction) for direction in ("forward", "inverse")}
    forward, inverse = ExportedGraph(graphs["forward"], "forward"), ExportedGraph(graphs["inverse"], "inverse")
    parity = check_graphs(exact, forward, inverse, probes)
    assert parity.batches == list(BATCHES) == [1, 7, 1000]
    assert parity.log_prob <= TOLERANCE
    check_invariance(forward, probes.x, probes.context)
    latents = sample_base(flow.base, probes.x.shape[0], flow.width, torch.Generator().manual_seed(0))
    check_invariance(inverse, latents.numpy(), probes.context)
    for direction, graph in graphs.items():
        summary = check_graph(graph, direction)
        assert summary.opset == OPSET
        if name.startswith(COUPLED):
            assert layers(graph) == COUPLINGS * LAYERS, "a conditioner runs once in each direction"
            assert not np.any([summary.operators[o] for o in ("Loop", "If", "GatherND", "NonZero", "ScatterND")])


def layers(graph: bytes) -> int:
    """The dense layers: bias and all, one Gemm each, its weight as torch has it."""
    gemms = [node for node in onnx.load_from_string(graph).graph.node if node.op_type == "Gemm"]
    return sum(any(attribute.name == "transB" and attribute.i for attribute in gemm.attribute) for gemm in gemms)

from __future__ import annotations

import onnxruntime as ort
import pytest

from service.engine.runtime.graph import CpuGraph
from service.onnx.session import CPU_PROVIDER, open_on_cpu
from tests.service.bundles import affine, bundle, in_float64


def test_a_session_on_the_processor_takes_one_core_a_call_and_keeps_no_memory():
    session = open_on_cpu(affine().files["forward.onnx"], "float32")
    options = session.get_session_options()
    assert session.get_providers() == [CPU_PROVIDER]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert not options.enable_cpu_mem_arena


@pytest.mark.parametrize(
    ("precision", "level"),
    [("float32", ort.GraphOptimizationLevel.ORT_ENABLE_ALL), ("float64", ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)],
)
def test_exporter_and_server_open_a_graph_with_the_same_options(tmp_path, monkeypatch, precision, level):
    from models.export.exported_graph import ExportedGraph

    opened = []
    true = ort.InferenceSession

    def session(data, options, **rest):
        names = (
            "intra_op_num_threads",
            "inter_op_num_threads",
            "execution_mode",
            "graph_optimization_level",  # the fourth
            "enable_cpu_mem_arena",
            "enable_mem_pattern",
            "log_severity_level",
        )
        entries = [f"session.{kind}_op.allow_spinning" for kind in ("intra", "inter")]
        opened.append(
            [*(getattr(options, name) for name in names), *map(options.get_session_config_entry, entries), rest]
        )
        return true(data, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    parts = affine() if precision == "float32" else in_float64(affine(), "wide")
    ExportedGraph(parts.files["forward.onnx"], "forward", precision)
    CpuGraph(bundle(tmp_path, parts), "forward")
    assert len(opened) == 2
    assert opened[0] == opened[1]
    assert opened[0][3] == level

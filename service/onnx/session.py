"""The sessions of ONNX Runtime: the options that the exporter's gate and the server both run a graph with.

A session is made from bytes that were checked, never from a path. This module imports onnxruntime, which only the
extras `cpu` and `gpu` install, so that the exporter imports it where a session is needed.
"""

from __future__ import annotations

from typing import Any, Final

import onnxruntime as ort

from service.bundle.precision import Precision

__all__ = ["CPU_PROVIDER", "open_on_cpu", "session_options"]

CPU_PROVIDER: Final = "CPUExecutionProvider"

_QUIET: Final = 4  # ONNX Runtime's severity "fatal": its messages hold node names and would go to stderr unasked


def session_options(precision: Precision) -> ort.SessionOptions:
    """The options of every session: one core a call, for several calling threads.

    In float64 ONNX Runtime keeps to the operators of the standard. Its own fused operators hold numbers as attributes,
    which are float32: a product with a constant would be off by 3e-8.

    Args:
        precision: of the graph.
    """
    options = ort.SessionOptions()
    if precision == "float64":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # an arena keeps the largest batch's memory for ever
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def open_on_cpu(data: bytes, precision: Precision) -> Any:  # noqa: ANN401  onnxruntime has no types
    """A session of a graph on the processor.

    ONNX Runtime raises a dozen unrelated classes where it cannot load a graph.

    Args:
        data: the bytes of the ONNX file.
        precision: of the graph.
    """
    return ort.InferenceSession(data, session_options(precision), providers=[CPU_PROVIDER])

"""The exported graph: one direction of a flow, run as it will be served, for the parity gate and the calibration.

ONNX Runtime is imported where a graph is opened: the extra `cpu` or `gpu` installs it, and `train` does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.bundle.precision import Precision
from service.errors import DataError, ParityFailed
from service.onnx.signature import CONTEXT, TENSORS, Direction

__all__ = ["ExportedGraph", "GraphFails", "GraphOutputs"]

_NUMBERS: Final = frozenset({"log_abs_det_jacobian", "log_prob"})

_TRIED_BATCHES: Final = 8

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


class GraphFails(ParityFailed):
    """A graph that ONNX Runtime does not load, or does not run."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphOutputs:
    """Three outputs of one direction, float64, by row.

    Args:
        value: z or x; of a trace the event after each step, ``[N, S, D]``.
        log_abs_det_jacobian: ``[N]``; of a trace each step's, ``[N, S]``.
        log_prob: ``[N]``.
    """

    value: Float64
    log_abs_det_jacobian: Float64
    log_prob: Float64


class ExportedGraph:
    """One exported direction in a session such as the server opens on the CPU.

    Args:
        data: the bytes of the ONNX file.
        direction: the one that they hold.
        precision: of the graph.

    Raises:
        DataError: where ONNX Runtime is not installed.
        GraphFails: where ONNX Runtime cannot load the graph.
    """

    def __init__(self, data: bytes, direction: Direction, precision: Precision = "float32") -> None:
        try:
            from service.onnx.session import open_on_cpu
        except ImportError as error:
            raise DataError("exporting needs ONNX Runtime: install the extra `cpu` or `gpu` of pushforward") from error
        self.direction: Direction = direction
        self._names = TENSORS[direction]
        self.output = self._names.outputs[0]
        try:
            self._session = open_on_cpu(data, precision)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise GraphFails(
                f"ONNX Runtime cannot load {direction}.onnx: {_node(error)}{_first_line(error)}"
            ) from error

    def __call__(self, rows: Floats, context: Floats | None, batch: int) -> GraphOutputs:
        """Run all rows in batches of one size; the last one is filled up with rows from the start.

        Args:
            rows: ``[N, *event]`` or ``[N, D]``, in the graph's precision.
            context: ``[N, C]``, or None for a flow without.
            batch: rows in a batch.

        Returns:
            The outputs of the N rows, in their order.

        Raises:
            ParityFailed: where a run fails, or an output has another shape than its batch.
        """
        parts = []
        for start in range(0, rows.shape[0], batch):
            index = np.arange(start, start + batch) % rows.shape[0]
            parts.append(self._run(rows[index], None if context is None else context[index], batch))
        columns = (np.concatenate(p)[: rows.shape[0]] for p in zip(*parts, strict=True))
        return GraphOutputs(*(column.astype(np.float64) for column in columns))

    def _run(self, rows: Floats, context: Floats | None, batch: int) -> list[Floats]:
        feed: Mapping[str, Floats] = {self._names.rows: rows} | ({} if context is None else {CONTEXT: context})
        names = self._names.outputs
        try:
            outputs: list[Floats] = self._session.run(names, feed)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            frozen = (
                "A frozen batch size is the usual cause: take it by x.shape[0], which an export follows, and not by "
                "len(x). "
            )
            raise GraphFails(
                f"{self.direction}.onnx fails on a batch of {batch}. {frozen if self._runs_elsewhere(feed) else ''}"
                f"{_node(error)}{_first_line(error)}"
            ) from error
        for name, output in zip(names, outputs, strict=True):
            fits = output.shape[:1] == (batch,) and (output.ndim == 1 or name not in _NUMBERS)
            if not fits:
                raise ParityFailed(
                    f"{self.direction}.onnx gives {name} of shape {list(output.shape)} for a batch of {batch}"
                )
        return outputs

    def _runs_elsewhere(self, feed: Mapping[str, Floats]) -> bool:
        """Whether the graph runs on another number of the same rows: then it has frozen that number."""
        for batch in range(1, _TRIED_BATCHES + 1):
            try:
                self._session.run(
                    None, {name: np.resize(rows, (batch, *rows.shape[1:])) for name, rows in feed.items()}
                )
            except Exception:  # noqa: S112  ONNX Runtime's exceptions share no other base
                continue
            return True
        return False


def _node(error: Exception) -> str:
    """The node that ONNX Runtime names, in words to put before its message; "" where it names none."""
    found = re.search(r"Name:'([^']+)'|[Nn]ode \(([^)]+)\)|node with name '([^']+)'", str(error))
    return f"at the node {next(name for name in found.groups() if name)}: " if found else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]

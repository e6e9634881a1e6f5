"""One exported direction run as it will be served, for the parity gate and the calibration.

ONNX Runtime is imported when it is needed: it belongs to the extra `cpu` or `gpu`, not to `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import DataError, ParityFailed

__all__ = ["IN_AND_OUT", "Answers", "Graph", "InAndOut"]

_NUMBERS: Final = frozenset({"log_abs_det_jacobian", "log_prob"})

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class InAndOut(NamedTuple):
    """The names of a graph's input, beside the context, and of its outputs."""

    given: str
    outputs: tuple[str, str, str]


IN_AND_OUT: Final[Mapping[str, InAndOut]] = MappingProxyType(
    {
        "forward": InAndOut("x", ("z", "log_abs_det_jacobian", "log_prob")),
        "inverse": InAndOut("z", ("x", "log_abs_det_jacobian", "log_prob")),
        "trace": InAndOut("x", ("values", "log_abs_det_jacobians", "log_prob")),
    }
)
"""Direction -> what goes in and comes out."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Three outputs of one direction, float64, by row.

    Args:
        value: z or x; of a trace the event after each step, ``[N, S, D]``.
        log_abs_det_jacobian: ``[N]``; of a trace each step's, ``[N, S]``.
        log_prob: ``[N]``.
    """

    value: Float64
    log_abs_det_jacobian: Float64
    log_prob: Float64


class Graph:
    """One exported direction, as it will be served: ONNX Runtime on the CPU, one thread.

    Args:
        data: the bytes of the ONNX file.
        direction: of `IN_AND_OUT`.

    Raises:
        DataError: where ONNX Runtime is not installed.
        ParityFailed: where ONNX Runtime cannot load the graph.
    """

    def __init__(self, data: bytes, direction: str) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise DataError("exporting needs ONNX Runtime: install the extra `cpu` or `gpu` of pushforward") from error
        self.direction = direction
        self.input, self._outputs = IN_AND_OUT[direction]
        self.output = self._outputs[0]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ParityFailed(f"ONNX Runtime cannot load {direction}.onnx: {_first_line(error)}") from error

    def __call__(self, rows: Float32, context: Float32 | None, batch: int) -> Answers:
        """Run all rows in batches of `batch`; the last one is filled up with rows from the start.

        Raises:
            ParityFailed: where a run fails, or an output has another shape than its batch.
        """
        parts = []
        for start in range(0, rows.shape[0], batch):
            index = np.arange(start, start + batch) % rows.shape[0]
            parts.append(self._run(rows[index], None if context is None else context[index], batch))
        columns = (np.concatenate(p)[: rows.shape[0]] for p in zip(*parts, strict=True))
        return Answers(*(column.astype(np.float64) for column in columns))

    def _run(self, rows: Float32, context: Float32 | None, batch: int) -> list[Float32]:
        feed: Mapping[str, Float32] = {self.input: rows} | ({} if context is None else {"context": context})
        names = self._outputs
        try:
            outputs: list[Float32] = self._session.run(names, feed)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ParityFailed(
                f"{self.direction}.onnx fails on a batch of {batch}. A frozen batch size is the usual cause: take it "
                f"by x.shape[0], which an export follows, and not by len(x). {_first_line(error)}"
            ) from error
        for name, output in zip(names, outputs, strict=True):
            fits = output.shape[:1] == (batch,) and (output.ndim == 1 or name not in _NUMBERS)
            if not fits:
                raise ParityFailed(
                    f"{self.direction}.onnx gives {name} of shape {list(output.shape)} for a batch of {batch}"
                )
        return outputs


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]

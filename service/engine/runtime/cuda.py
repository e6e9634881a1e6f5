"""A direction of a flow on a CUDA device: a few sizes of batch, each with its memory there and a recorded graph.

A recorded graph replays at fixed addresses and shapes, so that a batch is padded to the next of the sizes. A device
may compute another size with another kernel, and a row would then have other last digits alone than in company.
Which sizes give the same bits is tried with the golden rows when the flow is loaded, and only those are used.

This has run with a processor in the place of the device, and on no GPU.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from service.bundle.operators import check_graph
from service.engine.runtime.devices import CUDA_PROVIDER, Gpu
from service.errors import EngineFailed, PushforwardError
from service.onnx.signature import Signature
from service.plan import Float32, Outputs

__all__ = ["LADDER", "CudaRunner", "ladder"]

_log = logging.getLogger(__name__)

LADDER: Final = (4, 16, 64, 256, 1024, 4096, 16384)
"""The sizes of batches."""

_MOST_VALUES: Final = 1 << 22
"""The largest size has at most so many values, so that a flow of images does not fill the device."""

_RECORDING_RUNS: Final = 4
"""ONNX Runtime records a run after two others, on some versions three."""

_SHIFTS: Final = (0, 1, 3)

Trial = tuple[Float32, Float32 | None]


def ladder(width: int, chunk_rows: int = 0) -> tuple[int, ...]:
    """The sizes of batches for a flow of this width.

    Args:
        width: values in one row.
        chunk_rows: the most rows that a batch will have; 0 where that is not settled, for as many as do well.

    Example:
        >>> ladder(2, 1000)
        (4, 16, 64, 256, 1000)
    """
    if chunk_rows:
        return (*(size for size in LADDER if size < chunk_rows), chunk_rows)
    return tuple(size for size in LADDER if size * width <= _MOST_VALUES) or LADDER[:1]


class CudaRunner:
    """Runs batches on a device; to be made and called on its `Stream` only.

    Args:
        data: the graph.
        signature: what goes in and comes out.
        gpu: the device.
        sizes: ascending, of `ladder`.
        trial: rows and their context, to try the sizes with.

    Raises:
        EngineFailed: ONNX Runtime does not run the graph there.
        BundleError: the graph is not that of the signature.
    """

    def __init__(
        self,
        data: bytes,
        signature: Signature,
        gpu: Gpu,
        sizes: tuple[int, ...],
        trial: Trial,
    ) -> None:
        self._session, self.recorded = _opened(data, signature, gpu)
        signature.check(self._session)
        rungs = [_Rung(self._session, signature, gpu, size, number) for number, size in enumerate(sizes, 1)]
        for rung in rungs:
            for _ in range(_RECORDING_RUNS):
                rung(*_first(trial, 1))
        self._rungs, self.invariant = _alike(rungs, trial)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that are used, ascending."""
        return tuple(rung.size for rung in self._rungs)

    def __call__(self, rows: Float32, context: Float32 | None) -> Outputs:
        """Run a batch of at least one row; what is more than the largest size has room for runs after it."""
        most = self._rungs[-1].size
        pieces = []
        for start in range(0, len(rows), most):
            part = slice(start, min(start + most, len(rows)))
            count = part.stop - start
            rung = next(rung for rung in self._rungs if rung.size >= count)
            pieces.append(rung(rows[part], None if context is None else context[part]))
        if len(pieces) == 1:
            return pieces[0]
        value, ladj, log_prob = (np.concatenate(arrays) for arrays in zip(*(p.arrays for p in pieces), strict=True))
        return Outputs(value, ladj, log_prob)


class _Rung:
    """One size of batch: its memory on the device, bound to the session once and for all."""

    def __init__(self, session: Any, signature: Signature, gpu: Gpu, size: int, number: int) -> None:  # noqa: ANN401
        self.size = size
        self._session = session
        self._binding = session.io_binding()
        self._host = [np.zeros((size, *shape), np.float32) for shape in signature.inputs.values()]
        self._inputs = [gpu.buffer(array.shape) for array in self._host]
        self._outputs = [gpu.buffer((size, *shape)) for shape in signature.outputs.values()]
        for name, buffer in zip(signature.inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, buffer)
        for name, buffer in zip(signature.outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, buffer)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(number))

    def __call__(self, rows: Float32, context: Float32 | None) -> Outputs:
        """Run at most `size` rows; behind them lie those of an earlier batch, whose outputs are dropped."""
        count = len(rows)
        given = [rows] if context is None else [rows, context]
        for array, host, buffer in zip(given, self._host, self._inputs, strict=True):
            host[:count] = array
            buffer.update_inplace(host)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        value, ladj, log_prob = (buffer.numpy()[:count].copy() for buffer in self._outputs)
        return Outputs(value, ladj, log_prob)


def _opened(data: bytes, signature: Signature, gpu: Gpu) -> tuple[Any, bool]:
    """A session on the device, and whether it records its runs: it does where every node has a kernel there.

    How often a Loop goes round is decided by the rows, so that its run cannot be recorded.
    """
    name = gpu.options.name
    recorded = not check_graph(data, signature.file).passes
    try:
        session = gpu.open(data, capture=recorded)
    except PushforwardError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        _log.info("%s is run on %s without a recorded graph: %s", signature.file, name, type(error).__name__)
        try:
            session, recorded = gpu.open(data, capture=False), False
        except Exception as second:
            raise EngineFailed(f"ONNX Runtime cannot load {signature.file} on {name}") from second
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise EngineFailed(f"ONNX Runtime found no {CUDA_PROVIDER} that works: a driver or a library is missing")
    return session, recorded


def _alike(rungs: list[_Rung], trial: Trial) -> tuple[list[_Rung], bool]:
    """The largest size, and those below it that give each row the bits that it has there.

    Returns:
        Those, and whether in the largest itself a row has the same bits at every place that was tried.
    """
    largest = rungs[-1]
    rows = _first(trial, min(len(trial[0]), largest.size))
    expected = _bits(largest, rows, 0)
    invariant = all(_bits(largest, rows, shift) == expected for shift in _SHIFTS)
    kept = [rung for rung in rungs[:-1] if all(_bits(rung, rows, shift) == expected for shift in _SHIFTS)]
    return [*kept, largest], invariant


def _bits(rung: _Rung, trial: Trial, shift: int) -> list[bytes]:
    """The bytes of every output of the rows, moved on by some places and run in batches of the rung."""
    rows = np.roll(trial[0], shift, axis=0)
    context = None if trial[1] is None else np.roll(trial[1], shift, axis=0)
    runs = [
        rung(rows[at : at + rung.size], None if context is None else context[at : at + rung.size])
        for at in range(0, len(rows), rung.size)
    ]
    columns = (np.concatenate(arrays) for arrays in zip(*(run.arrays for run in runs), strict=True))
    return [np.roll(column, -shift, axis=0).tobytes() for column in columns]


def _first(trial: Trial, count: int) -> Trial:
    rows, context = trial
    return rows[:count], None if context is None else context[:count]

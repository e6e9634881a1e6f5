"""One direction of a flow on a CUDA device: a few batch sizes, each with its memory there and a recorded graph.

A recorded graph replays at fixed addresses and shapes, so that a batch is padded to the next of the sizes. A device may
compute another size with another kernel, and a row alone would then have other last digits than among others. The sizes
that give the same bits are found with the golden rows when the flow is loaded, and only those are used.

This code has run with a processor in the place of the device, and on no GPU.
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
from service.plan import Floats, Outputs

__all__ = ["BATCH_SIZES", "CudaGraph", "batch_sizes"]

_log = logging.getLogger(__name__)

BATCH_SIZES: Final = (4, 16, 64, 256, 1024, 4096, 16384)
"""The sizes of batches, at most."""

_MAX_VALUES: Final = 1 << 22
"""The most values of a batch, so that a flow of images does not fill the device."""

_RECORDING_RUNS: Final = 4
"""The runs of a new batch size. ONNX Runtime records the third one, and in some versions the fourth."""

_SHIFTS: Final = (0, 1, 3)
"""The places by which rows are moved within a batch, to see whether their bits depend on the place."""

Trial = tuple[Floats, Floats | None]


def batch_sizes(width: int, chunk_rows: int = 0) -> tuple[int, ...]:
    """The batch sizes for a flow of this width.

    Args:
        width: the values of one row.
        chunk_rows: the most rows of a batch; 0 where that is yet to be measured.

    Returns:
        The sizes, ascending.

    Example:
        >>> batch_sizes(2, 1000)
        (4, 16, 64, 256, 1000)
    """
    if chunk_rows:
        return (*(size for size in BATCH_SIZES if size < chunk_rows), chunk_rows)
    return tuple(size for size in BATCH_SIZES if size * width <= _MAX_VALUES) or BATCH_SIZES[:1]


class CudaGraph:
    """A graph on a device, to be made and called on the device's `DeviceThread` only.

    Args:
        data: the bytes of the graph.
        signature: of its inputs and outputs.
        gpu: the device.
        sizes: ascending, from `batch_sizes`.
        trial: rows and their context, to compare the sizes with.

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
        self._session, self.recorded = _open_session(data, signature, gpu)
        signature.check(self._session)
        batches = [
            _FixedBatch(self._session, signature, gpu, size=size, number=number) for number, size in enumerate(sizes, 1)
        ]
        for batch in batches:
            for _ in range(_RECORDING_RUNS):
                batch(*_first_rows(trial, 1))
        self._batches, self.invariant = _find_invariant(batches, trial)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that are used, ascending."""
        return tuple(batch.size for batch in self._batches)

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run at least one row. More rows than the largest size are run in several batches.

        Args:
            rows: ``[N, *event]`` or ``[N, D]``.
            context: ``[N, C]``, or None for a flow without.
        """
        most = self._batches[-1].size
        pieces = []
        for start in range(0, len(rows), most):
            part = slice(start, min(start + most, len(rows)))
            count = part.stop - start
            batch = next(batch for batch in self._batches if batch.size >= count)
            pieces.append(batch(rows[part], None if context is None else context[part]))
        if len(pieces) == 1:
            return pieces[0]
        value, ladj, log_prob = (np.concatenate(arrays) for arrays in zip(*(p.arrays for p in pieces), strict=True))
        return Outputs(value, ladj, log_prob)


class _FixedBatch:
    """A batch of one size: its memory on the device, bound to the session for good."""

    def __init__(self, session: Any, signature: Signature, gpu: Gpu, size: int, number: int) -> None:  # noqa: ANN401
        self.size = size
        self._session = session
        self._binding = session.io_binding()
        self._host = [np.zeros((size, *shape), signature.dtype) for shape in signature.inputs.values()]
        self._inputs = [gpu.buffer(array.shape, signature.dtype) for array in self._host]
        self._outputs = [gpu.buffer((size, *shape), signature.dtype) for shape in signature.outputs.values()]
        for name, buffer in zip(signature.inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, buffer)
        for name, buffer in zip(signature.outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, buffer)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(number))

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run at most `size` rows. The rest of the batch holds rows of an earlier one, whose outputs are dropped."""
        count = len(rows)
        inputs = [rows] if context is None else [rows, context]
        for array, host, buffer in zip(inputs, self._host, self._inputs, strict=True):
            host[:count] = array
            buffer.update_inplace(host)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        value, ladj, log_prob = (buffer.numpy()[:count].copy() for buffer in self._outputs)
        return Outputs(value, ladj, log_prob)


def _open_session(data: bytes, signature: Signature, gpu: Gpu) -> tuple[Any, bool]:
    """Open a session on the device.

    It records its runs where every node has a kernel there. The rows decide on the number of passes of a Loop, so that
    a graph with one cannot be recorded.

    Returns:
        The session, and whether it records its runs.

    Raises:
        EngineFailed: ONNX Runtime does not run the graph there.
    """
    name = gpu.options.name
    recorded = not check_graph(data, signature.file).passes
    try:
        session = gpu.open(data, signature.precision, capture=recorded)
    except PushforwardError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        _log.info("%s is run on %s without a recorded graph: %s", signature.file, name, type(error).__name__)
        try:
            session, recorded = gpu.open(data, signature.precision, capture=False), False
        except Exception as second:
            raise EngineFailed(f"ONNX Runtime cannot load {signature.file} on {name}") from second
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise EngineFailed(f"ONNX Runtime found no {CUDA_PROVIDER} that works: a driver or a library is missing")
    return session, recorded


def _find_invariant(batches: list[_FixedBatch], trial: Trial) -> tuple[list[_FixedBatch], bool]:
    """Find the sizes that give each row the bits that it has in the largest size.

    Args:
        batches: of ascending sizes.
        trial: rows and their context.

    Returns:
        The batches of those sizes, and whether in the largest itself a row has the same bits at every tried place.
    """
    largest = batches[-1]
    rows = _first_rows(trial, min(len(trial[0]), largest.size))
    expected = _output_bytes(largest, rows, 0)
    invariant = all(_output_bytes(largest, rows, shift) == expected for shift in _SHIFTS)
    kept = [batch for batch in batches[:-1] if all(_output_bytes(batch, rows, shift) == expected for shift in _SHIFTS)]
    return [*kept, largest], invariant


def _output_bytes(batch: _FixedBatch, trial: Trial, shift: int) -> list[bytes]:
    """The bytes of every output of the rows, moved by some places and run in batches of one size.

    Args:
        batch: of the size.
        trial: rows and their context.
        shift: the places.
    """
    rows = np.roll(trial[0], shift, axis=0)
    context = None if trial[1] is None else np.roll(trial[1], shift, axis=0)
    runs = [
        batch(rows[at : at + batch.size], None if context is None else context[at : at + batch.size])
        for at in range(0, len(rows), batch.size)
    ]
    columns = (np.concatenate(arrays) for arrays in zip(*(run.arrays for run in runs), strict=True))
    return [np.roll(column, -shift, axis=0).tobytes() for column in columns]


def _first_rows(trial: Trial, count: int) -> Trial:
    rows, context = trial
    return rows[:count], None if context is None else context[:count]

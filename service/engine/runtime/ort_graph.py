"""One graph of ONNX Runtime on the CPU, from its bytes and its signature: padded, so that a row's bits never change.

The vector units of a processor treat the last rows of an odd batch in another way, so that a row's digits would depend
on its neighbours. Every batch is therefore padded to a multiple of `BATCH_MULTIPLE` rows, and a row's answer has the
same bits in any batch. The exporter's gate proves it for each bundle.

The processes of isolated engines import this module, and start as fast as it does: it must not import pydantic.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.precision import FloatType
from service.errors import BundleError
from service.onnx.session import open_on_cpu
from service.onnx.signature import Signature
from service.plan import Floats, Outputs

__all__ = ["OrtGraph", "is_finite"]


class OrtGraph:
    """A graph on the CPU, ready to run; safe to call from several threads at once.

    Args:
        data: the bytes of the ONNX file.
        signature: of its inputs and outputs.

    Raises:
        BundleError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of the signature.
    """

    def __init__(self, data: bytes, signature: Signature) -> None:
        self._signature = signature
        try:
            self._session = open_on_cpu(data, signature.precision)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes, with paths and nodes in them
            raise BundleError(f"ONNX Runtime cannot load {signature.file}") from error
        signature.check(self._session)
        self._outputs = list(signature.outputs)
        self._per_thread = threading.local()

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch.

        Args:
            rows: ``[N, *event]`` or ``[N, D]``, N at least 1.
            context: ``[N, C]``, or None for a flow without.
        """
        count = len(rows)
        inputs = [rows] if context is None else [rows, context]
        if count <= BATCH_MULTIPLE:
            return self._smallest_batch()(inputs, count)
        feeds = {
            name: _pad(array, self._signature.dtype) for name, array in zip(self._signature.inputs, inputs, strict=True)
        }
        value, ladj, log_prob = self._session.run(self._outputs, feeds)
        finite = is_finite(log_prob) and is_finite(ladj) and is_finite(value)
        return Outputs(value, ladj, log_prob, finite).part(0, count)

    def _smallest_batch(self) -> _SmallestBatch:
        """The smallest batch of this thread."""
        try:
            batch: _SmallestBatch = self._per_thread.batch
        except AttributeError:
            batch = self._per_thread.batch = _SmallestBatch(self._session, self._signature)
        return batch


class _SmallestBatch:
    """The smallest batch, bound to arrays of its own, for one thread. It saves a tenth of the time of a single row."""

    def __init__(self, session: Any, signature: Signature) -> None:  # noqa: ANN401  onnxruntime has no types
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [np.zeros((BATCH_MULTIPLE, *shape), signature.dtype) for shape in signature.inputs.values()]
        for name, array in zip(signature.inputs, self._inputs, strict=True):
            self._binding.bind_cpu_input(name, array)
        shapes = [(BATCH_MULTIPLE, *shape) for shape in signature.outputs.values()]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self._all = np.zeros(ends[-1], signature.dtype)  # one array, so that it is one copy
        self._views = [(int(end - np.prod(shape)), int(end), shape) for end, shape in zip(ends, shapes, strict=True)]
        for name, (start, end, shape) in zip(signature.outputs, self._views, strict=True):
            place = self._all[start:end].ctypes.data
            self._binding.bind_output(name, "cpu", 0, signature.dtype.type, shape, place)

    def __call__(self, inputs: list[Floats], count: int) -> Outputs:
        """Run at most `BATCH_MULTIPLE` rows.

        Args:
            inputs: the rows, and their context where the flow has one.
            count: the number of rows.

        Returns:
            The outputs, in memory of their own.
        """
        for bound, array in zip(self._inputs, inputs, strict=True):
            bound[:count] = array
            bound[count:] = array[-1]
        self._session.run_with_iobinding(self._binding)
        every = self._all.copy()
        value, ladj, log_prob = (every[start:end].reshape(shape)[:count] for start, end, shape in self._views)
        return Outputs(value, ladj, log_prob, is_finite(every))


def _pad(rows: Floats, dtype: FloatType) -> Floats:
    """Repeat the last row up to a multiple of `BATCH_MULTIPLE`: a copy of a row cannot fail where the row does not."""
    count = len(rows)
    missing = -count % BATCH_MULTIPLE
    if missing == 0:
        return np.ascontiguousarray(rows, dtype)
    padded = np.empty((count + missing, *rows.shape[1:]), dtype)
    padded[:count] = rows
    padded[count:] = rows[-1]
    return padded


def is_finite(array: Floats) -> bool:
    """Whether every number is finite. For a few numbers, `all` of an array takes five times as long."""
    return 0 not in np.isfinite(array).tobytes()

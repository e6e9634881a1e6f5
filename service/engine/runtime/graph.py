"""Graphs of a bundle in ONNX Runtime, on the CPU or on a device: checked against the manifest, and batch-invariant.

The vector units of a processor treat the last rows of an odd batch in another way, so that a row's digits would depend
on its neighbours. Every batch is therefore padded to a multiple of `BATCH_MULTIPLE` rows, and a row's answer has the
same bits in any batch. The exporter's gate proves it for each bundle.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

import numpy as np

from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.precision import FloatType
from service.bundle.store import Bundle
from service.engine.runtime.cuda import CudaGraph, batch_sizes
from service.engine.runtime.device_thread import DeviceThread
from service.engine.runtime.devices import CUDA_PROVIDER, Gpu
from service.engine.runtime.execution import Execution
from service.errors import BundleError, EngineFailed
from service.onnx.session import CPU_PROVIDER, open_on_cpu
from service.onnx.signature import Direction, Signature
from service.plan import Floats, Outputs

__all__ = ["CpuGraph", "Device", "DeviceGraph", "open_graphs"]

_log = logging.getLogger(__name__)

CPU_BATCH_SIZES: Final = (4, 16, 64, 256, 512, 1024, 2048, 4096)
"""The sizes of batches that are timed on a processor."""


class CpuGraph:
    """One direction of a flow on the CPU, ready to run; safe to call from several threads at once.

    Args:
        bundle: checked by `service.bundle.store.read_bundle`.
        direction: of its graph.

    Raises:
        BundleError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of the manifest.
    """

    sizes = CPU_BATCH_SIZES
    clock = staticmethod(time.thread_time)
    """The clock that times its batches, which are computed on the calling thread."""

    def __init__(self, bundle: Bundle, direction: Direction) -> None:
        self.width = bundle.manifest.latent_width
        self._signature = Signature.of(bundle.manifest, direction)
        file = self._signature.file
        try:
            self._session = open_on_cpu(bundle.graphs[file], bundle.manifest.precision)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes, with paths and nodes in them
            raise BundleError(f"ONNX Runtime cannot load {file}") from error
        self._signature.check(self._session)
        self._outputs = list(self._signature.outputs)
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
        finite = _is_finite(log_prob) and _is_finite(ladj) and _is_finite(value)
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
        return Outputs(value, ladj, log_prob, _is_finite(every))


class Device:
    """A device and its thread.

    Args:
        gpu: the device.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.name = gpu.options.name
        self.thread = DeviceThread(self.name)


class DeviceGraph:
    """One direction of a flow on a device. Several threads may call it at once: they take turns.

    Args:
        bundle: as for `CpuGraph`.
        direction: of its graph.
        device: of the computation.
        chunk_rows: the most rows of a batch; 0 where that is yet to be measured.

    Raises:
        EngineFailed: ONNX Runtime does not run it there.
        BundleError: as for `CpuGraph`.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, bundle: Bundle, direction: Direction, device: Device, chunk_rows: int = 0) -> None:
        self.width = bundle.manifest.latent_width
        self._thread = device.thread
        signature = Signature.of(bundle.manifest, direction)
        golden = bundle.golden
        rows = golden.x if direction == "forward" else golden.latents()
        sizes = batch_sizes(self.width, chunk_rows)
        data = bundle.graphs[signature.file]
        trial = (rows, golden.context)
        self._graph = device.thread(lambda: CudaGraph(data, signature, gpu=device.gpu, sizes=sizes, trial=trial))
        self.sizes = self._graph.sizes
        self.invariant = self._graph.invariant

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch, as `CpuGraph` does."""
        outputs = self._thread(lambda: self._graph(rows, context))
        return outputs._replace(finite=all(_is_finite(array) for array in outputs.arrays))


def open_graphs(
    bundle: Bundle, device: Device | None = None, chunk_rows: int = 0
) -> tuple[CpuGraph | DeviceGraph, CpuGraph | DeviceGraph, Execution]:
    """Open both directions of a flow, both on the device or both on the CPU.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        device: None for the CPU.
        chunk_rows: see `DeviceGraph`.

    Returns:
        The forward graph, the inverse graph, and their execution.

    Raises:
        BundleError: as for `CpuGraph`.
        EngineFailed: the device will not run it, and is required.
    """
    fallback = None
    if device is not None:
        try:
            forward = DeviceGraph(bundle, "forward", device, chunk_rows=chunk_rows)
            inverse = DeviceGraph(bundle, "inverse", device, chunk_rows=chunk_rows)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime has classes of its own for a device that is full, or lost
            if device.gpu.options.required:
                raise
            reason = error.detail if isinstance(error, EngineFailed) else type(error).__name__
            fallback = f"{device.name}: {reason}"
            manifest = bundle.manifest
            cause = error.__cause__ if isinstance(error, EngineFailed) else error
            text = "%s version %d runs on the CPU, not on %s"
            _log.warning(text, manifest.name, manifest.version, fallback, exc_info=cause)
        else:
            return forward, inverse, Execution(CUDA_PROVIDER, forward.invariant and inverse.invariant)
    proved = bundle.manifest.parity.batch_multiple
    invariant = proved is not None and BATCH_MULTIPLE % proved == 0
    return CpuGraph(bundle, "forward"), CpuGraph(bundle, "inverse"), Execution(CPU_PROVIDER, invariant, fallback)


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


def _is_finite(array: Floats) -> bool:
    """Whether every number is finite. For a few numbers, `all` of an array takes five times as long."""
    return 0 not in np.isfinite(array).tobytes()

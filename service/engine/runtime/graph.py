"""ONNX Runtime: a graph of a bundle, held against its manifest, batch-invariant, on the CPU or on a device.

The vector units of a processor take another way through the last rows of an odd batch, so that a row's digits would
depend on its neighbours; every batch is therefore padded to a multiple of `BATCH_MULTIPLE` rows, and a row's answer
is the same bits whatever it rode with. The exporter's gate shows it of each bundle.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

import numpy as np

from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.store import Bundle
from service.engine.runtime.cuda import CudaRunner, ladder
from service.engine.runtime.devices import CUDA_PROVIDER, Gpu
from service.engine.runtime.execution import Execution
from service.engine.runtime.stream import Stream
from service.errors import BundleError, EngineFailed
from service.onnx.session import CPU_PROVIDER, open_on_cpu
from service.onnx.signature import Direction, Signature
from service.plan import Float32, Outputs

__all__ = ["Device", "Graph", "OnDevice", "open_graphs"]

_log = logging.getLogger(__name__)

SIZES: Final = (4, 16, 64, 256, 512, 1024, 2048, 4096)
"""The sizes of batches that are timed on a processor."""


class Graph:
    """One direction of a flow on the CPU, ready to run; safe to call from several threads at once.

    Args:
        bundle: checked by `service.bundle.store.read_bundle`.
        direction: which of its graphs.

    Raises:
        BundleError: where ONNX Runtime refuses the graph, or its inputs and outputs are not those of the manifest.
    """

    sizes = SIZES
    clock = staticmethod(time.thread_time)
    """What its batches are timed with: they are computed on the calling thread."""

    def __init__(self, bundle: Bundle, direction: Direction) -> None:
        self.width = bundle.manifest.latent_width
        self._signature = Signature.of(bundle.manifest, direction)
        file = self._signature.file
        try:
            self._session = open_on_cpu(bundle.graphs[file])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes, with paths and nodes in them
            raise BundleError(f"ONNX Runtime cannot load {file}") from error
        self._signature.check(self._session)
        self._outputs = list(self._signature.outputs)
        self._of_thread = threading.local()

    def __call__(self, rows: Float32, context: Float32 | None) -> Outputs:
        """Run one batch.

        Args:
            rows: ``[N, *event]`` or ``[N, D]``, N at least 1.
            context: ``[N, C]``, or None for a flow without.
        """
        count = len(rows)
        given = [rows] if context is None else [rows, context]
        if count <= BATCH_MULTIPLE:
            return self._few()(given, count)
        feeds = {name: _padded(array) for name, array in zip(self._signature.inputs, given, strict=True)}
        value, ladj, log_prob = self._session.run(self._outputs, feeds)
        finite = _finite(log_prob) and _finite(ladj) and _finite(value)
        return Outputs(value, ladj, log_prob, finite).part(0, count)

    def _few(self) -> _Few:
        """The smallest batch of this thread."""
        try:
            few: _Few = self._of_thread.few
        except AttributeError:
            few = self._of_thread.few = _Few(self._session, self._signature)
        return few


class _Few:
    """The smallest batch, bound to arrays of its own: for one thread. It spares a single row a tenth of its time."""

    def __init__(self, session: Any, signature: Signature) -> None:  # noqa: ANN401  onnxruntime has no types
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [np.zeros((BATCH_MULTIPLE, *shape), np.float32) for shape in signature.inputs.values()]
        for name, array in zip(signature.inputs, self._inputs, strict=True):
            self._binding.bind_cpu_input(name, array)
        shapes = [(BATCH_MULTIPLE, *shape) for shape in signature.outputs.values()]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self._all = np.zeros(ends[-1], np.float32)  # one array, so that it is one copy
        self._views = [(int(end - np.prod(shape)), int(end), shape) for end, shape in zip(ends, shapes, strict=True)]
        for name, (start, end, shape) in zip(signature.outputs, self._views, strict=True):
            place = self._all[start:end].ctypes.data
            self._binding.bind_output(name, "cpu", 0, np.float32, shape, place)

    def __call__(self, given: list[Float32], count: int) -> Outputs:
        """Run at most `BATCH_MULTIPLE` rows, and give what belongs to nobody else."""
        for bound, array in zip(self._inputs, given, strict=True):
            bound[:count] = array
            bound[count:] = array[-1]
        self._session.run_with_iobinding(self._binding)
        every = self._all.copy()
        value, ladj, log_prob = (every[start:end].reshape(shape)[:count] for start, end, shape in self._views)
        return Outputs(value, ladj, log_prob, _finite(every))


class Device:
    """A device with its one thread.

    Args:
        gpu: the device.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.name = gpu.options.name
        self.stream = Stream(self.name)


class OnDevice:
    """One direction of a flow on a device; safe to call from several threads at once: they take turns.

    Args:
        bundle: as for `Graph`.
        direction: which of its graphs.
        device: where.
        chunk_rows: the most rows that a batch will have; 0 where that is not settled.

    Raises:
        EngineFailed: ONNX Runtime does not run it there.
        BundleError: as for `Graph`.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, bundle: Bundle, direction: Direction, device: Device, chunk_rows: int = 0) -> None:
        self.width = bundle.manifest.latent_width
        self._stream = device.stream
        signature = Signature.of(bundle.manifest, direction)
        golden = bundle.golden
        rows = golden.x if direction == "forward" else golden.z.astype(np.float32)
        sizes = ladder(self.width, chunk_rows)
        data = bundle.graphs[signature.file]
        self._runner = device.stream(lambda: CudaRunner(data, signature, device.gpu, sizes, (rows, golden.context)))
        self.sizes = self._runner.sizes
        self.invariant = self._runner.invariant

    def __call__(self, rows: Float32, context: Float32 | None) -> Outputs:
        """Run one batch, as `Graph` does."""
        outputs = self._stream(lambda: self._runner(rows, context))
        return outputs._replace(finite=all(_finite(array) for array in outputs.arrays))


def open_graphs(
    bundle: Bundle, device: Device | None = None, chunk_rows: int = 0
) -> tuple[Graph | OnDevice, Graph | OnDevice, Execution]:
    """Both directions of a flow, and how they are run: both on the device, or both on the CPU.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        device: None for the CPU.
        chunk_rows: see `OnDevice`.

    Raises:
        BundleError: as for `Graph`.
        EngineFailed: the device will not run it, and is required.
    """
    fallback = None
    if device is not None:
        try:
            there = OnDevice(bundle, "forward", device, chunk_rows)
            back = OnDevice(bundle, "inverse", device, chunk_rows)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime has classes of its own for a device that is full, or lost
            if device.gpu.options.required:
                raise
            told = error.detail if isinstance(error, EngineFailed) else type(error).__name__
            fallback = f"{device.name}: {told}"
            manifest = bundle.manifest
            cause = error.__cause__ if isinstance(error, EngineFailed) else error
            text = "%s version %d runs on the CPU, not on %s"
            _log.warning(text, manifest.name, manifest.version, fallback, exc_info=cause)
        else:
            return there, back, Execution(CUDA_PROVIDER, there.invariant and back.invariant)
    shown = bundle.manifest.parity.batch_multiple
    invariant = shown is not None and BATCH_MULTIPLE % shown == 0
    return Graph(bundle, "forward"), Graph(bundle, "inverse"), Execution(CPU_PROVIDER, invariant, fallback)


def _padded(rows: Float32) -> Float32:
    """The rows, with the last one repeated up to a multiple of `BATCH_MULTIPLE`: a row that is known to be servable."""
    count = len(rows)
    missing = -count % BATCH_MULTIPLE
    if missing == 0:
        return np.ascontiguousarray(rows, np.float32)
    padded = np.empty((count + missing, *rows.shape[1:]), np.float32)
    padded[:count] = rows
    padded[count:] = rows[-1]
    return padded


def _finite(array: Float32) -> bool:
    """Whether every number is finite. Over a few numbers, `all` of an array takes five times as long."""
    return 0 not in np.isfinite(array).tobytes()

"""Graphs of a bundle in ONNX Runtime, on the CPU or on a device: checked against the manifest, and batch-invariant."""

from __future__ import annotations

import logging
import time
from typing import Final

from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.store import Bundle
from service.engine.runtime.cuda import CudaGraph, batch_sizes
from service.engine.runtime.device_thread import DeviceThread
from service.engine.runtime.devices import CUDA_PROVIDER, Gpu
from service.engine.runtime.execution import Execution
from service.engine.runtime.ort_graph import OrtGraph, is_finite
from service.errors import BundleError, EngineFailed
from service.onnx.session import CPU_PROVIDER
from service.onnx.signature import Direction, Signature
from service.plan import Floats, Outputs

__all__ = ["CpuGraph", "Device", "DeviceGraph", "cpu_execution", "open_graphs"]

_log = logging.getLogger(__name__)

CPU_BATCH_SIZES: Final = (4, 16, 64, 256, 512, 1024, 2048, 4096)
"""The sizes of batches that are timed on a processor."""


class CpuGraph(OrtGraph):
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
        signature = Signature.of(bundle.manifest, direction)
        super().__init__(bundle.graphs[signature.file], signature)


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
        return outputs._replace(finite=all(is_finite(array) for array in outputs.arrays))


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
    return CpuGraph(bundle, "forward"), CpuGraph(bundle, "inverse"), cpu_execution(bundle, fallback)


def cpu_execution(bundle: Bundle, fallback: str | None = None) -> Execution:
    """The execution of a flow on the CPU.

    Args:
        bundle: of the flow.
        fallback: the reason why it is not on the device of the settings; None where it is.
    """
    proved = bundle.manifest.parity.batch_multiple
    return Execution(CPU_PROVIDER, proved is not None and BATCH_MULTIPLE % proved == 0, fallback)

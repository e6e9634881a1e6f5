"""Graphs of a bundle in ONNX Runtime, on the CPU or on a device: checked against the manifest, and batch-invariant."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from service.bundle.manifest import Manifest
from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.store import Bundle
from service.engine.runtime.cuda import CudaGraph, batch_sizes
from service.engine.runtime.device_thread import DeviceHung, DeviceThread
from service.engine.runtime.devices import CUDA_PROVIDER, Gpu
from service.engine.runtime.execution import Execution
from service.engine.runtime.ort_graph import OrtGraph, is_finite
from service.errors import BundleError, EngineFailed, EngineLost
from service.onnx.session import CPU_PROVIDER
from service.onnx.signature import Direction, Signature
from service.plan import Floats, Outputs

__all__ = ["CpuGraph", "Device", "DeviceGraph", "cpu_execution", "open_graphs"]

_log = logging.getLogger(__name__)

CPU_BATCH_SIZES: Final = (4, 16, 64, 256, 512, 1024, 2048, 4096)
"""The sizes of batches that are timed on a processor."""

LOAD_SECONDS: Final = 120.0
"""The time for a device to load a graph and to record its runs."""


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
    """A device, its thread, and what follows where it is lost: a batch hangs, or the simplest one fails.

    Args:
        gpu: the device.
        hang_seconds: a batch that takes longer hangs.
        leave: is called with the reason once the device is lost, where it is required; None for nothing.
    """

    def __init__(self, gpu: Gpu, hang_seconds: float = math.inf, leave: Callable[[str], None] | None = None) -> None:
        self.gpu = gpu
        self.name = gpu.options.name
        self.thread = DeviceThread(self.name)
        self.hang_seconds = hang_seconds
        self.lost: str | None = None
        """The reason why it is used no more; None while it is used."""
        self._leave = leave
        self._lock = threading.Lock()
        self._listeners: list[Callable[[str], None]] = []

    def lose(self, reason: str) -> None:
        """Use the device no more. Its flows run on the CPU from now on, or, where it is required, the server leaves.

        Args:
            reason: without the device's name, a path or an internal name.
        """
        with self._lock:
            if self.lost is not None:
                return
            self.lost = reason
            listeners = list(self._listeners)
        required = self.gpu.options.required
        _log.error(
            "%s is lost: %s; %s", self.name, reason, "the server ends" if required else "its flows run on the CPU"
        )
        for listener in listeners:
            listener(reason)
        if required and self._leave is not None:
            self._leave(f"{self.name} is lost: {reason}")

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call a function once the device is lost, with the reason; at once where it is lost already.

        Args:
            listener: the function.

        Returns:
            A function that takes it back.
        """
        with self._lock:
            self._listeners.append(listener)
            lost = self.lost
        if lost is not None:
            listener(lost)
        return lambda: self._forget(listener)

    def _forget(self, listener: Callable[[str], None]) -> None:
        with suppress(ValueError):  # forgotten already
            self._listeners.remove(listener)


class DeviceGraph:
    """One direction of a flow on a device. Several threads may call it at once: they take turns.

    Once the device is lost it runs on the CPU, where the device is not required.

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
        self._device = device
        signature = Signature.of(bundle.manifest, direction)
        golden = bundle.golden
        rows = golden.x if direction == "forward" else golden.latents()
        sizes = batch_sizes(self.width, chunk_rows)
        data = bundle.graphs[signature.file]
        trial = (rows, golden.context)
        self._graph = device.thread(
            lambda: CudaGraph(data, signature, gpu=device.gpu, sizes=sizes, trial=trial), LOAD_SECONDS
        )
        self._first = (rows[:1], None if golden.context is None else golden.context[:1])
        self._data, self._signature = data, signature
        self._on_cpu: OrtGraph | None = None
        self._lock = threading.Lock()
        self.sizes = self._graph.sizes
        self.invariant = self._graph.invariant

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch, as `CpuGraph` does.

        Raises:
            EngineLost: the device is lost, and is required.
        """
        if self._device.lost is None:
            try:
                outputs = self._run(rows, context)
            except Exception as error:  # ONNX Runtime has classes of its own for a device that is full, or lost
                if not isinstance(error, DeviceHung) and self._answers():
                    raise  # of this batch alone
                _log.warning("a batch of %d rows failed on %s", len(rows), self._device.name, exc_info=error)
                self._device.lose(str(error) if isinstance(error, DeviceHung) else type(error).__name__)
            else:
                return outputs._replace(finite=all(is_finite(array) for array in outputs.arrays))
        return self._run_on_cpu(rows, context)

    def _run(self, rows: Floats, context: Floats | None) -> Outputs:
        return self._device.thread(lambda: self._graph(rows, context), self._device.hang_seconds)

    def _answers(self) -> bool:
        """Whether the device still runs a golden row."""
        try:
            self._run(*self._first)
        except Exception:  # as above
            return False
        return True

    def _run_on_cpu(self, rows: Floats, context: Floats | None) -> Outputs:
        if self._device.gpu.options.required:
            raise EngineLost(f"{self._device.name} is lost, and the settings let nothing take its place")
        with self._lock:
            if self._on_cpu is None:
                self._on_cpu = OrtGraph(self._data, self._signature)
        return self._on_cpu(rows, context)


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
            if device.lost is not None:
                raise EngineFailed(f"the device is lost: {device.lost}")
            forward = DeviceGraph(bundle, "forward", device, chunk_rows=chunk_rows)
            inverse = DeviceGraph(bundle, "inverse", device, chunk_rows=chunk_rows)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime has classes of its own for a device that is full, or lost
            if device.gpu.options.required:
                raise
            reason = error.detail if isinstance(error, EngineFailed) else type(error).__name__
            if isinstance(error, DeviceHung):
                reason = str(error)
                device.lose(reason)
            fallback = f"{device.name}: {reason}"
            manifest = bundle.manifest
            cause = error.__cause__ if isinstance(error, EngineFailed) else error
            text = "%s version %d runs on the CPU, not on %s"
            _log.warning(text, manifest.name, manifest.version, fallback, exc_info=cause)
        else:
            return forward, inverse, Execution(CUDA_PROVIDER, forward.invariant and inverse.invariant)
    return CpuGraph(bundle, "forward"), CpuGraph(bundle, "inverse"), cpu_execution(bundle.manifest, fallback)


def cpu_execution(manifest: Manifest, fallback: str | None = None) -> Execution:
    """The execution of a flow on the CPU.

    Args:
        manifest: of the flow.
        fallback: the reason why it is not on the device of the settings; None where it is.
    """
    proved = manifest.parity.batch_multiple
    return Execution(CPU_PROVIDER, proved is not None and BATCH_MULTIPLE % proved == 0, fallback)

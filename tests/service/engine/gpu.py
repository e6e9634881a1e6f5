"""A device for tests: ONNX Runtime's binding and buffers for real, on the processor, under the name of CUDA."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from service.bundle.precision import Precision
from service.engine.runtime.devices import CUDA_PROVIDER, CudaOptions
from service.onnx.session import CPU_PROVIDER, open_on_cpu

__all__ = ["CpuGpu"]


class CpuGpu:
    """A device that is the processor; says what was done on it, and on which threads.

    Args:
        options: as of a CUDA device.
        captures: whether it can record a graph.
        fails: what opening a graph raises.
        providers: what its sessions say they run on.
        spoils: is given the size of a batch and an output of it, to change it as another kernel would.
    """

    def __init__(
        self,
        options: CudaOptions | None = None,
        *,
        captures: bool = True,
        fails: Exception | None = None,
        providers: Sequence[str] = (CUDA_PROVIDER, CPU_PROVIDER),
        spoils: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        self.options = options or CudaOptions()
        self.captures, self.fails, self.providers, self.spoils = captures, fails, list(providers), spoils
        self.threads: set[str] = set()
        self.opened: list[bool] = []
        self.runs: list[tuple[str, int]] = []
        """Of each run the number of its graph and the size of its batch."""

    def open(self, data: bytes, precision: Precision, *, capture: bool) -> Any:
        self.threads.add(threading.current_thread().name)
        self.opened.append(capture)
        if self.fails is not None:
            raise self.fails
        if capture and not self.captures:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        return _Session(self, open_on_cpu(data, precision))

    def buffer(self, shape: Sequence[int], dtype: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cpu", 0)


class _Session:
    def __init__(self, gpu: CpuGpu, session: Any) -> None:
        self._gpu, self._session = gpu, session
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def get_providers(self) -> list[str]:
        return self._gpu.providers

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._gpu.threads.add(threading.current_thread().name)
        self._session.run_with_iobinding(binding, options)
        outputs = [value.numpy() for value in binding.get_outputs()]  # the buffers themselves
        size = len(outputs[0])
        self._gpu.runs.append((options.get_run_config_entry("gpu_graph_id"), size))
        if self._gpu.spoils is not None:
            self._gpu.spoils(size, outputs[-1])

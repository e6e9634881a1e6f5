"""The CUDA devices that flows run on, and how ONNX Runtime opens a graph there.

ONNX Runtime's own fallback is switched off: it would move a flow to the CPU with a line on standard output and nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import onnxruntime as ort

from service.bundle.precision import FloatType, Precision
from service.errors import EngineFailed
from service.onnx.session import CPU_PROVIDER, session_options
from service.plan import Floats

__all__ = ["CUDA_PROVIDER", "Buffer", "CudaOptions", "Gpu", "OrtGpu"]

CUDA_PROVIDER: Final = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """The options of a CUDA device.

    Args:
        index: of the device.
        memory_bytes: the most memory that ONNX Runtime may take on it for one direction of one flow; 0 for no bound.
        tf32: whether products may round their factors to 10 bits of mantissa. Errors of 1e-3 in each layer add up
            over the layers of a flow, so that a density needs it off.
        required: whether a flow that cannot run there is not served, instead of running on the CPU.
    """

    index: int = 0
    memory_bytes: int = 0
    tf32: bool = False
    required: bool = False

    @property
    def name(self) -> str:
        """The name in the setting `device`."""
        return f"cuda:{self.index}"

    def provider(self, *, capture: bool) -> tuple[str, dict[str, str]]:
        """ONNX Runtime's execution provider with its options.

        Args:
            capture: whether runs are recorded as CUDA graphs.
        """
        options = {
            "device_id": str(self.index),
            # The default doubles the arena each time, up to twice of what is needed.
            "arena_extend_strategy": "kSameAsRequested",
            # Neither timed nor guessed from the shape: a convolution chosen by either has other digits next time.
            "cudnn_conv_algo_search": "DEFAULT",
            "use_tf32": str(int(self.tf32)),
            "enable_cuda_graph": str(int(capture)),
        }
        if self.memory_bytes:
            options["gpu_mem_limit"] = str(self.memory_bytes)
        return CUDA_PROVIDER, options


class Buffer(Protocol):
    """Memory at a fixed place of the device."""

    def update_inplace(self, data: Floats) -> None:
        """Copy an array of its shape into it."""
        ...

    def numpy(self) -> Floats:
        """Its content; may be the very memory, where that is the host's."""
        ...


class Gpu(Protocol):
    """A device that opens sessions and holds memory; tests have their own."""

    options: CudaOptions

    def open(self, data: bytes, precision: Precision, *, capture: bool) -> Any:  # noqa: ANN401  onnxruntime has no types
        """A session of a graph, like `onnxruntime.InferenceSession`."""
        ...

    def buffer(self, shape: Sequence[int], dtype: FloatType) -> Buffer:
        """Memory for numbers of that shape and precision."""
        ...


class OrtGpu:
    """A CUDA device, by ONNX Runtime.

    Args:
        options: of the device.
    """

    def __init__(self, options: CudaOptions) -> None:
        self.options = options

    def open(self, data: bytes, precision: Precision, *, capture: bool) -> Any:  # noqa: ANN401  onnxruntime has no types
        """A session of a graph on it.

        Where the driver or a library of CUDA is missing, ONNX Runtime returns one on the CPU: `get_providers` tells.

        Raises:
            EngineFailed: this ONNX Runtime was built without CUDA.
        """
        if CUDA_PROVIDER not in ort.get_available_providers():
            raise EngineFailed("the ONNX Runtime that is installed has no CUDA; the extra `gpu` brings one that has")
        providers = [self.options.provider(capture=capture), CPU_PROVIDER]
        return ort.InferenceSession(data, session_options(precision), providers=providers, enable_fallback=0)

    def buffer(self, shape: Sequence[int], dtype: FloatType) -> Buffer:
        """Memory of the device for numbers of that shape and precision."""
        made: Buffer = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cuda", self.options.index)
        return made

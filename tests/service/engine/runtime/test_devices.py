from __future__ import annotations

import onnxruntime as ort

from service.engine.runtime.devices import CUDA_PROVIDER, CudaOptions, OrtGpu
from service.onnx.session import CPU_PROVIDER


def test_a_density_is_computed_in_full_precision_unless_that_is_given_up():
    assert CudaOptions().provider(capture=True)[1]["use_tf32"] == "0"
    assert CudaOptions(tf32=True).provider(capture=True)[1]["use_tf32"] == "1"


def test_memory_is_bounded_where_a_bound_is_set():
    assert CudaOptions(memory_bytes=1 << 30).provider(capture=False)[1]["gpu_mem_limit"] == "1073741824"
    assert "gpu_mem_limit" not in CudaOptions().provider(capture=False)[1]
    assert CudaOptions().provider(capture=False)[1]["arena_extend_strategy"] == "kSameAsRequested"


def test_the_device_and_the_recording_are_as_asked_for():
    provider, options = CudaOptions(index=2).provider(capture=True)
    assert (provider, options["device_id"], options["enable_cuda_graph"]) == (CUDA_PROVIDER, "2", "1")
    assert CudaOptions().provider(capture=False)[1]["enable_cuda_graph"] == "0"


def test_onnxruntime_does_not_make_up_for_a_device_on_its_own(monkeypatch):
    made = []
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(ort, "InferenceSession", lambda *given, **named: made.append(named))
    OrtGpu(CudaOptions(index=1)).open(b"", "float32", capture=False)
    assert made == [{"providers": [CudaOptions(index=1).provider(capture=False), CPU_PROVIDER], "enable_fallback": 0}]

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from service.engine.batching.queues import Limits
from service.engine.loading import load_flow
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.cuda import BATCH_SIZES, batch_sizes
from service.engine.runtime.devices import CUDA_PROVIDER, CudaOptions, OrtGpu
from service.engine.runtime.graph import CpuGraph, Device, DeviceGraph, open_graphs
from service.errors import BundleError, EngineFailed, EngineLost
from service.onnx.session import CPU_PROVIDER
from service.plan import run_now
from tests.service.bundles import affine, bundle, coupling, image
from tests.service.engine.gpu import CpuGpu


@pytest.fixture
def flow(tmp_path):
    return bundle(tmp_path, coupling(width=3))


def rows_of(count, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def bits(outputs):
    return [array.tobytes() for array in outputs.arrays]


@pytest.mark.parametrize("count", [1, 4, 5, 100, 130, 300])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_it_gives_what_the_processor_gives(flow, direction, count):
    there, here = DeviceGraph(flow, direction, Device(CpuGpu()), 128), CpuGraph(flow, direction)
    rows = rows_of(count)
    assert bits(there(rows, None)) == bits(here(rows, None))
    assert there(rows, None).finite


@pytest.mark.parametrize("parts", [affine(context_width=2), image()])
def test_contexts_and_events_are_taken(tmp_path, parts):
    made = bundle(tmp_path, parts)
    x, context = made.golden.x, made.golden.context
    outputs = DeviceGraph(made, "forward", Device(CpuGpu()))(x, context)
    np.testing.assert_allclose(outputs.log_prob, made.golden.log_prob, rtol=1e-5)
    back = DeviceGraph(made, "inverse", Device(CpuGpu()))(outputs.value, context)
    np.testing.assert_allclose(back.value, x, rtol=1e-5, atol=1e-6)


def test_each_size_of_batch_has_one_graph_and_is_recorded_before_it_serves(flow):
    gpu = CpuGpu()
    there = DeviceGraph(flow, "forward", Device(gpu), 64)
    assert there.sizes == (4, 16, 64)
    assert set(gpu.runs) == {("1", 4), ("2", 16), ("3", 64)}
    assert gpu.runs[:12] == [("1", 4)] * 4 + [("2", 16)] * 4 + [("3", 64)] * 4
    assert gpu.opened == [True]
    gpu.runs.clear()
    for count in (1, 4, 5, 17, 64):
        there(rows_of(count), None)
    assert [size for _, size in gpu.runs] == [4, 4, 16, 64, 64]


def test_a_graph_that_cannot_be_recorded_runs_all_the_same(flow):
    gpu = CpuGpu(captures=False)
    there = DeviceGraph(flow, "forward", Device(gpu), 64)
    assert gpu.opened == [True, False]
    assert bits(there(rows_of(9), None)) == bits(CpuGraph(flow, "forward")(rows_of(9), None))


def with_a_loop(data):
    """The same graph with its z carried once round a Loop."""
    model = onnx.load_from_string(data)
    (last,) = [node for node in model.graph.node if "z" in node.output]
    last.output[list(last.output).index("z")] = "z_before"
    value, copy = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    body = onnx.helper.make_graph(
        [copy("Identity", ["go_in"], ["go_out"]), copy("Identity", ["z_in"], ["z_out"])],
        "body",
        [value("number", 7, []), value("go_in", 9, []), value("z_in", 1, ["N", 3])],
        [value("go_out", 9, []), value("z_out", 1, ["N", 3])],
    )
    for name, array in (("passes", np.array(2)), ("go", np.array(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.node.append(onnx.helper.make_node("Loop", ["passes", "go", "z_before"], ["z"], body=body))
    return model.SerializeToString()


def test_a_graph_with_a_loop_is_never_recorded(flow):
    looped = dataclasses.replace(flow, graphs={**flow.graphs, "forward.onnx": with_a_loop(flow.graphs["forward.onnx"])})
    gpu = CpuGpu()
    there = DeviceGraph(looped, "forward", Device(gpu), 64)
    assert gpu.opened == [False]
    assert bits(there(rows_of(9), None)) == bits(CpuGraph(flow, "forward")(rows_of(9), None))


def test_all_that_touches_the_device_happens_on_one_thread(flow, tmp_path):
    gpu = CpuGpu(CudaOptions(index=1))
    device = Device(gpu)
    graphs = [DeviceGraph(flow, "forward", device, 16), DeviceGraph(flow, "inverse", device, 16)]
    rows = [rows_of(7, seed=seed) for seed in range(8)]
    expected = [[bits(CpuGraph(flow, d)(x, None)) for x in rows] for d in ("forward", "inverse")]
    found = {}

    def ask(number):
        found[number] = [[bits(graph(x, None)) for x in rows] for graph in graphs]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gpu.threads == {"cuda:1"}
    assert list(found.values()) == [expected] * 4


def test_an_answer_stays_what_it_is_when_the_next_batch_runs(flow):
    there = DeviceGraph(flow, "forward", Device(CpuGpu()), 16)
    first = there(rows_of(4), None)
    before = bits(first)
    there(rows_of(4, seed=1), None)
    assert bits(first) == before


def test_sizes_that_give_other_bits_are_not_used(flow):
    def spoils(size, log_prob):
        if size == 16:
            log_prob[3:] += np.float32(1e-5)

    there, _, execution = open_graphs(flow, Device(CpuGpu(spoils=spoils)), 64)
    assert there.sizes == (4, 64)
    assert execution.batch_invariant
    assert bits(there(rows_of(5), None)) == bits(CpuGraph(flow, "forward")(rows_of(5), None))


def test_a_device_on_which_the_place_of_a_row_matters_is_told_of(flow):
    def spoils(size, log_prob):
        log_prob[0] += np.float32(1e-5)

    there, _, execution = open_graphs(flow, Device(CpuGpu(spoils=spoils)), 64)
    assert (execution.provider, execution.batch_invariant, execution.fallback) == (CUDA_PROVIDER, False, None)
    assert there.sizes[-1] == 64


def test_what_is_not_finite_is_noticed(flow):
    def spoils(size, log_prob):
        log_prob[:] = np.nan

    assert not DeviceGraph(flow, "forward", Device(CpuGpu(spoils=spoils)), 16)(rows_of(3), None).finite


@pytest.mark.parametrize(
    ("gpu", "why"),
    [
        (CpuGpu(fails=RuntimeError("CUDA error at /a/path")), "ONNX Runtime cannot load forward.onnx on cuda:0"),
        (CpuGpu(providers=[CPU_PROVIDER]), "ONNX Runtime found no CUDAExecutionProvider that works"),
    ],
)
def test_a_device_that_does_not_work_is_made_up_for_by_the_processor_and_said(flow, caplog, gpu, why):
    with caplog.at_level(logging.WARNING):
        there, back, execution = open_graphs(flow, Device(gpu))
    assert isinstance(there, CpuGraph)
    assert isinstance(back, CpuGraph)
    assert execution.provider == CPU_PROVIDER
    assert execution.fallback is not None
    assert execution.fallback.startswith(f"cuda:0: {why}")
    assert "a/path" not in execution.fallback
    assert "coupling version 1 runs on the CPU, not on cuda:0" in caplog.text


def test_a_device_that_fails_in_the_middle_is_made_up_for_too(flow, caplog):
    def spoils(size, log_prob):
        raise MemoryError

    assert open_graphs(flow, Device(CpuGpu(spoils=spoils)))[2].fallback == "cuda:0: MemoryError"


def test_where_the_device_is_required_nothing_makes_up_for_it(flow):
    gpu = CpuGpu(CudaOptions(required=True), fails=RuntimeError("no"))
    with pytest.raises(EngineFailed, match=r"ONNX Runtime cannot load forward\.onnx on cuda:0"):
        open_graphs(flow, Device(gpu))


def test_a_wrong_graph_is_the_bundles_fault_and_not_the_devices(flow, caplog):
    wrong = dataclasses.replace(flow, graphs={**flow.graphs, "forward.onnx": affine().files["inverse.onnx"]})
    with pytest.raises(BundleError, match=r"forward\.onnx must have the inputs"):
        open_graphs(wrong, Device(CpuGpu()))
    assert "runs on the CPU" not in caplog.text


@pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_an_onnxruntime_without_cuda_says_which_has_it(flow, caplog):
    fallback = open_graphs(flow, Device(OrtGpu(CudaOptions())))[2].fallback
    assert fallback == "cuda:0: the ONNX Runtime that is installed has no CUDA; the extra `gpu` brings one that has"


def test_a_flow_on_a_device_answers(flow, workers):
    gpu = CpuGpu()
    served = load_flow(flow, workers, Limits(chunk_rows=0), device=Device(gpu))
    assert served.execution is not None
    assert served.execution.provider == CUDA_PROVIDER
    gpu.runs.clear()
    x = rows_of(40)
    here = run_now(load_flow(flow, workers).log_prob(x))
    assert run_now(served.log_prob(x)).log_prob.tobytes() == here.log_prob.tobytes()
    assert [size for _, size in gpu.runs] == [64]


class Faults:
    """What a device does with a batch: nothing, raise, or hang until the end of the test."""

    def __init__(self):
        self.error, self.hangs, self.over = None, False, threading.Event()

    def __call__(self, size, log_prob):
        if self.hangs:
            assert self.over.wait(60)
        if self.error is not None:
            raise self.error


@pytest.fixture
def faults():
    made = Faults()
    yield made
    made.over.set()


def test_a_flow_whose_device_is_lost_goes_on_on_the_processor(flow, workers, faults, caplog):
    gpu = CpuGpu(spoils=faults)
    metrics = Metrics()
    served = load_flow(flow, workers, Limits(chunk_rows=64), metrics, device=Device(gpu))
    x = rows_of(40)
    expected = run_now(load_flow(flow, workers, Limits(chunk_rows=64)).log_prob(x)).log_prob.tobytes()
    faults.error = RuntimeError("CUDA failure 700 at /a/path")
    assert run_now(served.log_prob(x)).log_prob.tobytes() == expected
    assert served.execution == (CPU_PROVIDER, False, "cuda:0: RuntimeError")
    gpu.runs.clear()
    assert run_now(served.log_prob(x)).log_prob.tobytes() == expected
    assert len(run_now(served.sample(3, 1)).x) == 3
    assert gpu.runs == [], "a device that is lost is asked no more"
    cells = metrics.counters.read().cells
    labels = ("pushforward_flow_provider", "coupling", "1")
    assert (cells[*labels, CUDA_PROVIDER], cells[*labels, CPU_PROVIDER]) == ([0.0], [1.0])
    assert caplog.text.count("cuda:0 is lost: RuntimeError; its flows run on the CPU") == 1


def test_a_device_that_fails_on_a_batch_alone_is_kept(flow, faults):
    device = Device(CpuGpu(spoils=lambda size, _: faults(size, _) if size == 64 else None))
    there = DeviceGraph(flow, "forward", device, 64)
    faults.error = RuntimeError("of this batch")
    with pytest.raises(RuntimeError, match="of this batch"):
        there(rows_of(40), None)
    assert device.lost is None
    assert len(there(rows_of(4), None).log_prob) == 4


def test_a_device_that_hangs_is_made_up_for_by_the_processor(flow, faults, caplog):
    device = Device(CpuGpu(spoils=faults), hang_seconds=0.2)
    graphs = [DeviceGraph(flow, direction, device, 64) for direction in ("forward", "inverse")]
    faults.hangs = True
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda at: bits(graphs[at % 2](rows_of(5), None)), range(6)))
    assert found == [bits(CpuGraph(flow, direction)(rows_of(5), None)) for direction in ("forward", "inverse")] * 3
    assert device.lost == "no answer within 0.2 s"


def test_a_device_that_is_required_and_lost_lets_the_server_leave(flow, faults, caplog):
    left = []
    device = Device(CpuGpu(CudaOptions(required=True), spoils=faults), leave=left.append)
    graphs = [DeviceGraph(flow, direction, device, 64) for direction in ("forward", "inverse")]
    faults.error = RuntimeError("CUDA failure 700 at /a/path")
    for graph in graphs:
        with pytest.raises(EngineLost, match="cuda:0 is lost, and the settings let nothing take its place"):
            graph(rows_of(5), None)
    assert left == ["cuda:0 is lost: RuntimeError"]


def test_a_device_that_hangs_while_it_loads_holds_up_nothing(flow, faults, caplog, monkeypatch):
    monkeypatch.setattr("service.engine.runtime.graph.LOAD_SECONDS", 0.2)
    faults.hangs = True
    device = Device(CpuGpu(spoils=faults))
    for _ in range(2):
        there, _, execution = open_graphs(flow, device)
        assert isinstance(there, CpuGraph)
        assert execution.fallback.endswith("no answer within 0.2 s")


@pytest.mark.parametrize("required", [False, True])
def test_a_flow_that_is_loaded_after_the_loss_does_without_the_device(flow, required, caplog):
    gpu = CpuGpu(CudaOptions(required=required))
    device = Device(gpu)
    device.lose("gone")
    if required:
        with pytest.raises(EngineFailed, match="the device is lost: gone"):
            open_graphs(flow, device)
    else:
        assert open_graphs(flow, device)[2].fallback == "cuda:0: the device is lost: gone"
    assert gpu.opened == []


def test_a_flow_that_is_served_no_more_is_kept_by_no_device(flow, workers, faults):
    device, metrics = Device(CpuGpu(spoils=faults)), Metrics()
    served = load_flow(flow, workers, Limits(chunk_rows=64), metrics, device=device)
    known = weakref.ref(served)
    del served
    assert known() is None
    metrics.forget(flow.manifest.name, flow.manifest.version)
    device.lose("gone")
    providers = {key: cells for key, cells in metrics.counters.read().cells.items() if "provider" in key[0]}
    assert set(map(tuple, providers.values())) == {(0.0,)}


def test_who_listens_too_late_is_told_at_once():
    device, told = Device(CpuGpu()), []
    device.lose("gone")
    device.lose("twice")
    device.listen(told.append)
    assert told == ["gone"]


def test_the_sizes_of_a_flow():
    assert batch_sizes(2) == BATCH_SIZES
    assert batch_sizes(3 * 32 * 32) == (4, 16, 64, 256, 1024)
    assert batch_sizes(1 << 30) == (4,)
    assert batch_sizes(2, 64) == (4, 16, 64)
    assert batch_sizes(2, 3) == (3,)

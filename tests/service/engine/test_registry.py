from __future__ import annotations

import gc
import os
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest

from service.bundle.catalogue import find_versions
from service.bundle.store import Repository
from service.engine import loading
from service.engine import registry as registry_module
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.changes import Reload, next_catalogue
from service.engine.isolation.options import Isolation
from service.engine.loading import load_flow
from service.engine.registry import Registry
from service.engine.runtime.execution import Execution
from service.engine.runtime.graph import CPU_BATCH_SIZES, CpuGraph, Device
from service.engine.verbs.traces import trace
from service.errors import (
    BundleError,
    EngineLost,
    FlowNotFound,
    NotReady,
    ParityFailed,
    VersionNotFound,
)
from service.plan import run_now
from tests.processes import children
from tests.service.bundles import affine, bundle, coupling, install, square, traced
from tests.service.engine.gpu import CpuGpu
from tests.waiting import until


@pytest.fixture
def made(tmp_path, workers):
    def make(*parts, default=None):
        return Registry(install(tmp_path, *parts), default, workers, Limits())

    return make


def test_flows_are_found_loaded_and_looked_up(made):
    registry = made(affine("one"), affine("two"), affine("two", 3), default="two")
    registry.load()
    assert [(e.name, e.version, e.state) for e in registry.entries()] == [
        ("one", 1, "ready"),
        ("two", 1, "ready"),
        ("two", 3, "ready"),
    ]
    assert registry.find().manifest.version == 3
    assert registry.find("two", 1).manifest.version == 1
    assert registry.find("one").manifest.name == "one"
    assert registry.loaded


def test_a_lone_flow_is_the_default(made):
    registry = made(affine("one"))
    registry.load()
    assert registry.find().manifest.name == "one"


def test_a_default_that_is_absent_is_none(made):
    registry = made(affine("one"), affine("two"), default="three")
    registry.load()
    assert registry.default is None
    with pytest.raises(FlowNotFound, match=r"no default: 'three' is not in the repository; there are \['one', 'two'\]"):
        registry.find()


def test_without_a_default_a_name_is_needed(made):
    registry = made(affine("one"), affine("two"))
    registry.load()
    with pytest.raises(FlowNotFound, match=r"no flow is named.*\['one', 'two'\]"):
        registry.find()


def test_what_is_not_there(made):
    registry = made(affine("one"), affine("one", 2))
    registry.load()
    with pytest.raises(FlowNotFound, match="there is no flow 'other'"):
        registry.find("other")
    with pytest.raises(VersionNotFound, match=r"no version 3; it has \[1, 2\]"):
        registry.find("one", 3)


def corrupt(repository, name, version):
    file = repository.path(name, version) / "forward.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")


def test_a_bad_bundle_is_listed_and_its_neighbours_are_served(tmp_path, workers, caplog):
    repository = install(tmp_path, affine("one"), affine("one", 2), square())
    corrupt(repository, "one", 2)
    registry = Registry(repository, "one", workers, Limits())
    registry.load()
    failed = registry.entry("one", 2)
    assert failed.state == "failed"
    assert failed.error.code == "digest_mismatch"
    assert str(tmp_path) not in failed.error.detail
    assert registry.find("one").manifest.version == 1
    assert registry.find("square").manifest.name == "square"
    with pytest.raises(NotReady, match="flow 'one' version 2 is not served"):
        registry.find("one", 2)


def test_a_bundle_in_anothers_place_is_not_served(tmp_path, workers, caplog):
    repository = install(tmp_path, affine("one"))
    (tmp_path / "one" / "1").rename(tmp_path / "one" / "2")
    registry = Registry(repository, None, workers, Limits())
    registry.load()
    assert "is of one version 1" in registry.entry("one").error.detail


def test_while_loading_it_says_so(made):
    registry = made(affine("one"))
    with pytest.raises(NotReady, match="still loading"):
        registry.find()
    assert not registry.loaded


def test_closed_it_loads_nothing_further(made):
    registry = made(affine("one"), affine("two"))
    registry.close()
    registry.load()
    assert {entry.state for entry in registry.entries()} == {"loading"}
    with pytest.raises(NotReady, match="'one' version 1 is still loading"):
        registry.find("one")


def test_a_flow_whose_golden_rows_do_not_come_back_is_refused(tmp_path, workers):
    good = bundle(tmp_path, affine())
    wrong = replace(good, golden=replace(good.golden, z=good.golden.z + 1))
    with pytest.raises(ParityFailed):
        load_flow(wrong, workers)


def test_a_flow_that_cannot_run_is_refused(tmp_path, workers, monkeypatch, caplog):
    good = bundle(tmp_path, affine())

    def fails(*_):
        raise RuntimeError("at node 7 of /a/path")

    monkeypatch.setattr("service.engine.runtime.graph.CpuGraph.__call__", fails)
    with pytest.raises(BundleError, match=r"^the flow could not be run on its golden rows$"):
        load_flow(good, workers)


def test_an_unforeseen_failure_is_listed_too(made, monkeypatch, caplog):
    def fails(_):
        raise MemoryError

    registry = made(affine("one"))
    monkeypatch.setattr("service.engine.registry.read_bundle", fails)
    registry.load()
    assert registry.entry("one").state == "failed"


class Ticking:
    """A clock on which each look takes a hundredth of a millisecond, so that larger batches are better.

    Where each look takes so many times as long as the one before, smaller ones are.
    """

    def __init__(self, times=1.0):
        self.now, self.step, self.times = 0.0, 1e-5, times

    def __call__(self):
        self.now += self.step
        self.step *= self.times
        return self.now


def test_the_size_of_a_batch_is_measured_for_each_direction(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(CpuGraph, "clock", Ticking())
    flow = load_flow(bundle(tmp_path, affine()), workers, Limits(chunk_rows=0, max_queued_rows=77))
    assert flow.forward.queue.limits == flow.inverse.queue.limits == Limits(CPU_BATCH_SIZES[-1], 77)


def test_a_size_that_is_given_is_warmed_up_to(tmp_path, workers, monkeypatch):
    ran = []
    run = CpuGraph.__call__
    monkeypatch.setattr(
        CpuGraph, "__call__", lambda graph, rows, context: ran.append(len(rows)) or run(graph, rows, context)
    )
    monkeypatch.setattr(CpuGraph, "clock", Ticking())
    flow = load_flow(bundle(tmp_path, affine()), workers, Limits(chunk_rows=100))
    assert set(ran) == {4, 16, 64, 100, len(flow.golden.x)}


def test_a_size_that_is_given_is_kept_where_another_would_do_better(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(CpuGraph, "clock", Ticking(2.0))
    made = bundle(tmp_path, affine())
    assert load_flow(made, workers, Limits(chunk_rows=0)).forward.queue.limits.chunk_rows < 100
    assert load_flow(made, workers, Limits(chunk_rows=100)).forward.queue.limits.chunk_rows == 100


def test_a_flow_is_warm_and_knows_how_long_its_rows_take_before_the_first_request(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(CpuGraph, "clock", Ticking())
    monkeypatch.setattr("service.engine.loading.check_golden", lambda _: iter(()))
    flow = load_flow(bundle(tmp_path, affine()), workers, Limits(chunk_rows=0))
    assert flow.forward.queue.least_seconds(CPU_BATCH_SIZES[-1]) == pytest.approx(1e-5, rel=0.2)
    assert flow.forward.queue.mean_seconds(1) > 0


@pytest.mark.parametrize("chunk_rows", [4, 7, 64, 1000])
def test_answers_do_not_depend_on_the_size_of_a_batch(tmp_path, workers, chunk_rows):
    made = bundle(tmp_path, coupling(width=3))
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    found, whole = (
        run_now(load_flow(made, workers, Limits(chunk_rows=rows)).log_prob(x)).log_prob for rows in (chunk_rows, 4096)
    )
    assert found.tobytes() == whole.tobytes()


@pytest.mark.parametrize(("shown", "invariant"), [(None, False), (1, True), (4, True), (8, False)])
def test_what_the_exporter_has_shown_is_told(tmp_path, workers, shown, invariant):
    good = bundle(tmp_path, affine())
    parity = good.manifest.parity.model_copy(update={"batch_multiple": shown})
    flow = load_flow(replace(good, manifest=good.manifest.model_copy(update={"parity": parity})), workers)
    assert flow.execution == Execution("CPUExecutionProvider", invariant)


def test_a_flow_can_be_used_without_a_server(tmp_path):
    parts = affine()
    threads = Workers(1)
    flow = load_flow(bundle(tmp_path, parts), threads)
    x = np.array([[0.5, 1.0]], np.float32)
    np.testing.assert_allclose(run_now(flow.log_prob(x)).log_prob, parts.log_prob(x), rtol=1e-5)
    threads.close(10)


def test_a_repository_that_is_not_there_serves_nothing(tmp_path, workers):
    registry = Registry(Repository(tmp_path / "nowhere"), None, workers, Limits())
    registry.load()
    assert registry.entries() == []
    assert registry.default is None


def test_a_limit_of_hangs_that_a_sound_batch_may_reach_is_warned_of(tmp_path, workers, caplog, monkeypatch):
    monkeypatch.setattr("service.engine.loading._HANG_MARGIN", 1e9)
    made = bundle(tmp_path, affine())
    load_flow(made, workers, isolation=Isolation(None, processes=1, hang_seconds=60.0))
    assert "a batch of affine version 1 took" in caplog.text
    assert "raise --engine-hang-seconds (60)" in caplog.text
    caplog.clear()
    load_flow(made, workers)
    assert caplog.text == ""


def test_a_flow_apart_whose_golden_rows_do_not_come_back_leaves_no_process(tmp_path, workers):
    before = children(os.getpid())
    good = bundle(tmp_path, affine())
    wrong = replace(good, golden=replace(good.golden, z=good.golden.z + 1))
    with pytest.raises(ParityFailed):
        load_flow(wrong, workers, isolation=Isolation(None))
    assert children(os.getpid()) == before


def test_a_version_that_is_quarantined_while_it_is_loaded_is_not_served(made, monkeypatch):
    registry = made(affine("one"), affine("one", 2))

    def load(found, **given):
        if found.manifest.version == 2:
            registry.quarantine(("one", 2), 0, EngineLost("as told"))
        return load_flow(found, **given)

    monkeypatch.setattr(registry_module, "load_flow", load)
    registry.load()
    assert [(e.version, e.state) for e in registry.entries()] == [(1, "ready"), (2, "quarantined")]
    assert registry.catalogue.failed == {}
    assert registry.find("one").manifest.version == 1
    registry.quarantine(("one", 1), 0, EngineLost("as told"))
    with pytest.raises(NotReady, match="is not served: as told"):
        registry.find("one")


class TestChanges:
    """What is served changes in two phases."""

    @pytest.fixture
    def registry(self, tmp_path, workers):
        registry = Registry(install(tmp_path, affine("one"), affine("two")), "one", workers, Limits())
        registry.load()
        return registry

    def wanted(self, tmp_path, registry):
        install(tmp_path, traced(affine("one", 2)))
        return next_catalogue(registry.catalogue, Reload(), Repository(tmp_path))

    def test_what_is_prepared_serves_once_it_is_committed(self, registry, tmp_path):
        old = registry.find("one")
        wanted = self.wanted(tmp_path, registry)
        assert registry.prepare(wanted) == {}
        assert registry.find("one") is old
        with pytest.raises(VersionNotFound):
            registry.find("one", 2)
        registry.commit(wanted)
        assert registry.find("one").manifest.version == 2
        assert registry.find("one", 1) is old  # what has not changed is not loaded again
        assert registry.catalogue == wanted

    def test_what_is_aborted_leaves_no_trace(self, registry, tmp_path):
        before = registry.entries()
        registry.prepare(self.wanted(tmp_path, registry))
        registry.abort()
        registry.commit(registry.catalogue)
        assert registry.entries() == before

    def test_the_same_number_with_other_content_is_another_version(self, registry, tmp_path):
        old = registry.find("one")
        manifest = tmp_path / "one" / "1" / "flow.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        wanted = next_catalogue(registry.catalogue, Reload(), Repository(tmp_path))
        assert registry.prepare(wanted) == {}
        registry.commit(wanted)
        assert registry.find("one") is not old

    def test_a_bundle_that_changes_between_the_look_and_the_load_is_refused(self, registry, tmp_path):
        wanted = self.wanted(tmp_path, registry)
        manifest = tmp_path / "one" / "2" / "flow.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        failures = registry.prepare(wanted)
        assert "it changed meanwhile" in failures["one", 2].detail

    def test_a_look_up_sees_all_of_a_change_or_nothing(self, registry, tmp_path):
        """One flow goes in the moment in which another comes."""
        install(tmp_path, affine("three"))
        catalogues = [replace(registry.catalogue, digests=digests) for digests in self.halves(registry, tmp_path)]
        registry.prepare(replace(registry.catalogue, digests={**catalogues[0].digests, **catalogues[1].digests}))
        seen, stop = set(), threading.Event()

        def look():
            while not stop.is_set():
                seen.add(frozenset(entry.name for entry in registry.entries()))

        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(20):
            for catalogue in catalogues:
                registry.prepare(catalogue)
                registry.commit(catalogue)
        stop.set()
        looking.join()
        assert seen <= {frozenset({"one", "two"}), frozenset({"one", "three"})}

    def halves(self, registry, tmp_path):
        found = find_versions(Repository(tmp_path))
        return [{key: found[key] for key in (("one", 1), (name, 1))} for name in ("two", "three")]

    def test_the_old_one_answers_what_came_before_and_is_then_freed(self, tmp_path):
        """Its sessions too, without a collection; what has failed is freed as well."""
        threads = Workers(2)
        registry = Registry(install(tmp_path, traced(affine("one"))), None, threads, Limits())
        registry.load()
        flow = registry.find("one")
        x = np.zeros((5, 2), np.float32)
        run_now(trace(flow, x))
        whole = run_now(flow.log_prob(x)).log_prob
        kept = [weakref.ref(each) for each in (flow, flow.forward, flow.inverse, flow.tracer, flow.forward.runner)]
        plan = flow.log_prob(x)  # a request that has come before the change
        wished = next(plan)
        del flow
        gc.collect()
        gc.disable()
        try:
            install(tmp_path, affine("one", 2))
            wanted = next_catalogue(registry.catalogue, Reload(), Repository(tmp_path))
            digests = {key: digest for key, digest in wanted.digests.items() if key == ("one", 2)}
            wanted = replace(wanted, digests=digests)
            registry.prepare(wanted)
            registry.commit(wanted)
            threads.expire()
            assert all(each() is not None for each in kept)
            assert registry.draining() == [("one", 1)]
            with pytest.raises(StopIteration) as ended:
                plan.send(run_now(one_run(wished)))
            assert ended.value.value.log_prob.tobytes() == whole.tobytes()
            del plan, wished, ended
            assert registry.draining() == []
            threads.expire()
            assert [each() for each in kept] == [None] * len(kept)
        finally:
            gc.enable()
        threads.close(10)

    def test_what_cannot_be_served_is_not_held_in_memory(self, registry, tmp_path, workers, monkeypatch):
        made = []
        open_graphs = loading.open_graphs

        def opened(*given):
            graphs = open_graphs(*given)
            made.extend(weakref.ref(graph) for graph in graphs[:2])
            return graphs

        def fails(_):
            raise ParityFailed("wrong")

        monkeypatch.setattr(loading, "open_graphs", opened)
        monkeypatch.setattr(loading, "check_golden", fails)
        wanted = self.wanted(tmp_path, registry)
        failures = registry.prepare(wanted)
        registry.commit(wanted.with_failures(failures))
        workers.expire()
        gc.collect()
        assert [graph() for graph in made] == [None, None]
        assert registry.entry("one", 2).error.detail == "wrong"


def one_run(run):
    return (yield run)


def test_a_quarantine_outlives_a_change_of_another_version_and_not_a_load_of_its_own(made):
    registry = made(affine("one"), affine("one", 2))
    registry.load()
    before, key = registry.catalogue, ("one", 2)
    registry.quarantine(key, 0, EngineLost("as told"))
    for catalogue, state in (
        (before, "quarantined"),
        (replace(before, digests={("one", 1): before.digests["one", 1]}), None),
        (before, "ready"),
    ):
        assert registry.prepare(catalogue) == {}
        registry.commit(catalogue)
        assert {entry.key: entry.state for entry in registry.entries()}.get(key) == state


def test_the_processes_of_a_flow_that_is_served_no_more_end(tmp_path, workers):
    before = children(os.getpid())
    registry = Registry(
        install(tmp_path, affine("one")), None, workers, Limits(), isolation=Isolation(None, processes=1)
    )
    registry.load()
    assert len(children(os.getpid())) > len(before)
    registry.commit(replace(registry.catalogue, digests={}))
    workers.expire()
    until(lambda: children(os.getpid()) == before)
    until(lambda: registry.draining() == [])


def test_a_flow_apart_that_nobody_holds_leaves_no_process(tmp_path):
    workers, before = Workers(1), children(os.getpid())
    flow = load_flow(bundle(tmp_path, affine()), workers, isolation=Isolation(None))
    run_now(flow.log_prob(np.zeros((1, 2), np.float32)))
    assert children(os.getpid()) != before
    kept = weakref.ref(flow)
    del flow
    gc.collect()
    assert kept() is None
    workers.expire()
    until(lambda: children(os.getpid()) == before)
    workers.close(10)


def test_a_flow_on_a_device_that_nobody_holds_is_forgotten(tmp_path, workers):
    device = Device(CpuGpu())
    flow = load_flow(bundle(tmp_path, affine()), workers, Limits(chunk_rows=64), device=device)
    kept = weakref.ref(flow)
    del flow
    gc.collect()
    assert kept() is None
    assert device._listeners == []

"""What is served changes, and flows run in processes of their own: the processes follow, and so does a quarantine."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from service.bundle.store import Repository
from service.engine import registry as registry_module
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.changes import Load, Reload, Unload, next_catalogue, settle
from service.engine.isolation.engine import QUARANTINED
from service.engine.isolation.options import Isolation
from service.engine.isolation.quarantine import MAX_ENDS
from service.engine.loading import load_flow
from service.engine.local_changes import LocalChanges
from service.engine.metrics.metrics import Metrics
from service.engine.metrics.shared_counters import SharedCounters
from service.engine.registry import Registry
from service.errors import BundleError, BundleRefused, EngineLost, NotReady
from service.plan import run_now
from tests.processes import children, lives
from tests.service.bundles import affine, coupling, install, traced
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes of an engine")

LOST = EngineLost("as told")
X = np.zeros((5, 2), np.float32)


class Served:
    """A registry, and what changes it."""

    def __init__(self, root, *parts, flows=frozenset({"one"}), counters=None, worker=0, catalogue=None):
        self.root = root
        self.workers = Workers(2)
        self.metrics = Metrics(counters, worker) if counters is not None else Metrics()
        repository = install(root, *parts)
        isolation = Isolation(flows, processes=1, hang_seconds=60.0)
        self.registry = Registry(
            repository, None, self.workers, Limits(), self.metrics, isolation=isolation, catalogue=catalogue
        )
        self.registry.load()
        self.changes = LocalChanges(self.registry, repository)

    def states(self):
        return {entry.key: entry.state for entry in self.registry.entries()}

    def gauge(self, name, *labels):
        return self.metrics.counters.read().cells.get((name, *labels), [0.0])[0]


@pytest.fixture
def served(tmp_path):
    made = []

    def make(*parts, **more):
        made.append(Served(tmp_path / "repository", *parts, **more))
        return made[-1]

    yield make
    for one in made:
        one.workers.close(10)


def processes():
    return set(children(os.getpid()))


def another(root, parts):
    """Another content of a version that is there."""
    manifest = root / parts.manifest.name / str(parts.manifest.version)
    for file in sorted(manifest.rglob("*"), reverse=True):
        file.unlink()
    manifest.rmdir()
    install(root, parts)


def test_an_unloaded_flow_ends_its_processes_after_its_last_request(served):
    before = processes()
    one = served(traced(affine("one")), affine("two"))
    (process,) = processes() - before
    flow = one.registry.find("one")
    expected = run_now(flow.log_prob(X)).log_prob.tobytes()
    plan = flow.log_prob(X)  # a request that has come before the change
    run = next(plan)
    del flow
    one.changes.apply(Unload("one", 1))
    one.workers.expire()
    assert lives(process)
    assert one.registry.draining() == [("one", 1)]
    assert one.gauge("pushforward_engine_processes", "one", "1") == 1
    with pytest.raises(StopIteration) as ended:
        plan.send(run_now(one_run(run)))
    assert ended.value.value.log_prob.tobytes() == expected
    del plan, run, ended
    closed = one.workers.closed_lanes
    one.workers.expire()
    until(lambda: not lives(process))
    until(lambda: one.workers.closed_lanes == closed + 3)
    until(lambda: one.gauge("pushforward_engine_processes", "one", "1") == 0)  # told by the thread that saw it end
    assert one.registry.draining() == []
    assert run_now(one.registry.find("two").log_prob(X)) is not None


def one_run(run):
    return (yield run)


def test_a_quarantined_flow_ends_what_it_had(served):
    before = processes()
    one = served(affine("one"), affine("two"))
    (process,) = processes() - before
    one.registry.quarantine(("one", 1), 0, LOST)
    assert one.states() == {("one", 1): "quarantined", ("two", 1): "ready"}
    one.workers.expire()
    until(lambda: not lives(process))


def test_a_quarantine_outlives_changes_of_others_and_ends_with_a_load(served):
    one = served(affine("one"), affine("one", 2), affine("two"))
    two = one.registry.find("two")
    one.registry.quarantine(("one", 2), 0, LOST)
    install(one.root, affine("three"))
    one.changes.apply(Reload())
    one.changes.apply(Load("two", 1))
    one.changes.apply(Unload("three", 1))
    assert one.states() == {("one", 1): "ready", ("one", 2): "quarantined", ("two", 1): "ready"}
    assert one.gauge("pushforward_flow_state", "one", "2", "quarantined") == 1
    assert one.registry.find("two") is two
    with pytest.raises(NotReady, match="as told"):
        one.registry.find("one", 2)
    before = processes()
    one.changes.apply(Load("one", 2))
    assert one.states()["one", 2] == "ready"
    assert len(processes() - before) == 1
    assert run_now(one.registry.find("one", 2).log_prob(X)) is not None
    one.registry.quarantine(("one", 2), 0, LOST)  # of the load before
    assert one.states()["one", 2] == "ready"
    load = one.registry.catalogue.load_of(("one", 2))
    assert load > 0
    one.registry.quarantine(("one", 2), load, LOST)
    assert one.states()["one", 2] == "quarantined"


def test_a_quarantine_ends_with_its_content(served):
    one = served(coupling("one", 1, seed=1), affine("two"))
    one.registry.quarantine(("one", 1), 0, LOST)
    one.changes.apply(Reload())
    assert one.states()["one", 1] == "quarantined"
    another(one.root, coupling("one", 1, seed=2))
    one.changes.apply(Reload())
    assert one.states()["one", 1] == "ready"


def test_a_content_that_cannot_be_served_leaves_a_quarantined_version_as_it_is(served):
    one = served(coupling("one", 1, seed=1), affine("two"))
    one.registry.quarantine(("one", 1), 0, LOST)
    another(one.root, coupling("one", 1, seed=2))
    (one.root / "one" / "1" / "inverse.onnx").write_bytes(b"none")
    assert set(one.changes.apply(Reload()).failures) == {("one", 1)}
    assert one.states() == {("one", 1): "quarantined", ("two", 1): "ready"}
    assert one.registry.entry("one", 1).error is LOST


def test_an_unloaded_version_leaves_no_quarantine_behind(served):
    one = served(affine("one"), affine("two"))
    one.registry.quarantine(("one", 1), 0, LOST)
    one.changes.apply(Unload("one", 1))
    assert one.states() == {("two", 1): "ready"}
    assert one.gauge("pushforward_flow_state", "one", "1", "quarantined") == 0
    one.changes.apply(Load("one", 1))
    assert one.states()["one", 1] == "ready"


@pytest.mark.parametrize("when", ["under way", "prepared"])
def test_what_crashes_while_a_change_is_prepared_fails_alone(served, monkeypatch, when):
    """The content that is served goes on, and no other version is affected."""
    one = served(coupling("one", 1, seed=1), affine("two"))
    old = one.registry.find("one")
    another(one.root, coupling("one", 1, seed=2))
    install(one.root, affine("three"))
    wanted = next_catalogue(one.registry.catalogue, Reload(), Repository(one.root))
    load = wanted.load_of(("one", 1))

    def crashes(found, **given):
        if found.manifest.name == "one" and when == "under way":
            one.registry.quarantine(("one", 1), load, LOST)
        return load_flow(found, **given)

    monkeypatch.setattr(registry_module, "load_flow", crashes)
    failures = one.registry.prepare(wanted)
    assert one.registry.find("one") is old
    if when == "under way":
        assert [(key, str(error)) for key, error in failures.items()] == [(("one", 1), "as told")]
        one.registry.commit(settle(one.registry.catalogue, wanted, Reload(), failures))
        assert one.states() == {("one", 1): "ready", ("two", 1): "ready", ("three", 1): "ready"}
        assert one.registry.find("one") is old
    else:
        one.registry.quarantine(("one", 1), load, LOST)
        one.registry.commit(wanted)
        assert one.states() == {("one", 1): "quarantined", ("two", 1): "ready", ("three", 1): "ready"}


def test_the_old_content_may_crash_while_the_new_is_prepared(served):
    one = served(coupling("one", 1, seed=1), affine("two"))
    another(one.root, coupling("one", 1, seed=2))
    wanted = next_catalogue(one.registry.catalogue, Reload(), Repository(one.root))
    assert one.registry.prepare(wanted) == {}
    one.registry.quarantine(("one", 1), 0, LOST)
    assert one.states()["one", 1] == "quarantined"
    one.registry.commit(wanted)
    assert one.states()["one", 1] == "ready"


def test_a_load_that_crashes_can_be_asked_for_again(served, monkeypatch):
    one = served(affine("two"))
    install(one.root, affine("one"))
    before = processes()

    def crashes(found, **given):
        given["metrics"].engine("one", 1, MAX_ENDS, given["load"]).count_quarantine()
        return load_flow(found, **given)

    monkeypatch.setattr(registry_module, "load_flow", crashes)
    with pytest.raises(BundleRefused, match="crashed or hung 3 times"):
        one.changes.apply(Load("one", 1))
    assert one.states() == {("two", 1): "ready"}
    monkeypatch.undo()
    one.workers.expire()
    until(lambda: processes() == before)
    one.changes.apply(Load("one", 1))
    assert one.states()["one", 1] == "ready"


def test_a_version_that_others_could_not_load_stays_what_it_was(served):
    """This worker has loaded it; another one has not."""
    one = served(coupling("one", 1, seed=1), coupling("two", 1, seed=1))
    kept = [one.registry.find("one"), one.registry.find("two")]
    for name in ("one", "two"):
        another(one.root, coupling(name, 1, seed=2))
    current = one.registry.catalogue
    wanted = next_catalogue(current, Reload(), Repository(one.root))
    assert one.registry.prepare(wanted) == {}
    failures = {(name, 1): BundleError("elsewhere") for name in ("one", "two")}
    one.registry.commit(settle(current, wanted, Reload(), failures))
    assert [one.registry.find("one"), one.registry.find("two")] == kept


def test_a_worker_that_joins_serves_no_version_that_the_others_have_quarantined(served):
    counters = SharedCounters(2)
    first = served(affine("one"), affine("two"), counters=counters)
    first.metrics.engine("one", 1, MAX_ENDS).count_quarantine()
    before = processes()
    second = served(counters=counters, worker=1, catalogue=first.registry.catalogue)
    assert second.states() == {("one", 1): "quarantined", ("two", 1): "ready"}
    assert second.registry.entry("one", 1).error.detail == QUARANTINED
    assert second.registry.catalogue.failed == {}
    assert processes() == before
    wanted = next_catalogue(second.registry.catalogue, Load("one", 1), Repository(second.root))
    for one in (first, second):
        assert one.registry.prepare(wanted) == {}
        one.registry.commit(wanted)
        assert one.states() == {("one", 1): "ready", ("two", 1): "ready"}


def test_what_others_count_between_two_looks_is_not_missed(served, monkeypatch):
    counters = SharedCounters(2)
    other = Metrics(counters, 1)

    def quarantined_meanwhile(found, **given):
        other.engine("one", 1, MAX_ENDS).count_quarantine()
        return load_flow(found, **given)

    monkeypatch.setattr(registry_module, "load_flow", quarantined_meanwhile)
    assert served(affine("one"), counters=counters).states() == {("one", 1): "quarantined"}


def test_a_version_that_runs_in_the_server_is_loaded_once(served):
    one = served(affine("one"), affine("two"))
    flows = [one.registry.find("one"), one.registry.find("two")]
    for name in ("one", "two"):
        one.changes.apply(Load(name, 1))
    assert one.registry.find("two") is flows[1]
    assert one.registry.find("one") is not flows[0]
    one.changes.apply(Reload())
    assert one.registry.find("two") is flows[1]


def test_numbers_of_changes_that_fail_are_not_given_again(served):
    one = served(affine("one"), affine("two"))
    install(one.root, affine("two", 2))
    (one.root / "two" / "2" / "inverse.onnx").write_bytes(b"none")
    with pytest.raises(BundleRefused):
        one.changes.apply(Load("two", 2))
    assert one.changes.apply(Load("two", 1)).catalogue.load_of(("two", 1)) == 2
    assert replace(one.registry.catalogue).number == 2

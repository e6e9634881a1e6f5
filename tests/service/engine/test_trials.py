from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from service.bundle.store import Repository
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.registry import Registry
from service.engine.trials import Trial, TrialFailure, TrialLimits, Trials, measure_in_child
from service.errors import DigestMismatch, Draining, ParityFailed
from tests.service.bundles import affine, coupling, install, traced
from tests.service.hanging import hanging
from tests.waiting import until


def try_bundle(folder: Path, limits: TrialLimits | None = None) -> Trial:
    """Try one bundle in a child of its own, which ends with it."""
    trials = Trials(limits)
    try:
        return trials.run(folder)
    finally:
        trials.close()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return install(tmp_path, traced(affine("one")), coupling("two"), hanging("long"))


def test_a_good_bundle_passes_and_is_timed(repository):
    found = try_bundle(repository.path("one"))
    assert {name: timings[0].rows for name, timings in found.timings.items()} == {"forward": 4, "inverse": 4}
    assert all(timing.seconds > 0 for timings in found.timings.values() for timing in timings)


def test_a_flow_whose_loops_may_run_long_is_never_run_on_the_event_loop(tmp_path):
    repository = install(tmp_path, affine("one"), hanging("late", passes=40))
    workers = Workers(1)
    registry = Registry(repository, "one", workers, Limits())
    registry.load()
    assert registry.find("one").forward.inline
    assert not registry.find("late").forward.inline
    assert registry.find("late").inverse.inline
    workers.close(10)


def test_one_child_tries_one_bundle_after_the_other(repository):
    trials = Trials()
    assert isinstance(trials.run(repository.path("one")), Trial)
    table = measure_in_child(repository.path("two"), trials).parity
    assert {row.batch for row in table} == {1, 7, 1000}
    assert all(row.passed for row in table)
    trials.close()


def test_a_bundle_that_is_refused_leaves_the_child_to_the_next(repository):
    graph = repository.path("one") / "trace.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    trials = Trials()
    with pytest.raises(TrialFailure, match=r"trace\.onnx") as caught:
        trials.run(repository.path("one"))
    assert isinstance(caught.value.error, DigestMismatch)
    assert not caught.value.read
    trials.run(repository.path("two"))
    trials.close()


def test_wrong_answers_are_named(tmp_path):
    one = affine("one")
    swapped = {**one.files, "inverse.onnx": coupling("one").files["inverse.onnx"]}
    folder = Repository(tmp_path).install(one.manifest, swapped)
    with pytest.raises(TrialFailure) as caught:
        try_bundle(folder)
    assert caught.value.read
    assert isinstance(caught.value.error, ParityFailed)
    assert ("golden", "inverse x") in [reason.loc for reason in caught.value.error.errors]


def test_a_bundle_that_takes_too_long_is_given_up(repository):
    with pytest.raises(TrialFailure, match=r"within 3 s \(--load-seconds\)"):
        try_bundle(repository.path("long"), TrialLimits(seconds=3.0))


def test_a_bundle_that_takes_too_much_memory_is_refused_and_the_next_one_is_tried(tmp_path, repository):
    """A batch of 4,096 rows of 512 numbers and more takes some MB beside the graph itself."""
    large = install(tmp_path / "large", coupling("large", width=512, hidden=2048)).path("large")
    trials = Trials(TrialLimits(bytes=1 << 20))
    with pytest.raises(TrialFailure, match=r"more memory than 1048576 bytes .*\(--load-bytes\)"):
        trials.run(large)
    trials.close()
    try_bundle(large, TrialLimits(bytes=1 << 30))


def test_a_bundle_that_is_changed_after_its_trial_is_not_served(tmp_path):
    repository, other = install(tmp_path / "a", affine("one")), install(tmp_path / "b", coupling("one"))

    class Changing(Trials):
        def run(self, folder: Path, **options: Any) -> Trial:
            found = super().run(folder, **options)
            shutil.rmtree(folder)
            shutil.copytree(other.path("one"), folder)
            return found

    workers, trials = Workers(1), Changing()
    registry = Registry(repository, "one", workers, Limits(), trials=trials)
    registry.load()
    assert registry.entry("one").state == "failed"
    assert "was changed while it was being checked" in str(registry.entry("one").error)
    workers.close(10)
    trials.close()


def test_the_end_does_not_wait_for_a_bundle(repository):
    trials, ended = Trials(), []

    def run() -> None:
        try:
            trials.run(repository.path("long"))
        except Draining as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: trials._children)
    trials.close()
    thread.join(60)
    assert ended
    with pytest.raises(Draining):
        trials.run(repository.path("one"))


def test_a_bundle_that_hangs_delays_no_other_and_not_the_end(repository):
    workers = Workers(1)
    registry = Registry(repository, "long", workers, Limits())
    loading = threading.Thread(target=registry.load)
    loading.start()
    until(lambda: len(registry.entries()) == 3 and {e.name for e in registry.entries() if e.flow} == {"one", "two"})
    assert registry.entry("long").state == "loading"
    assert not registry.loaded
    registry.close()
    loading.join(60)
    assert not loading.is_alive()
    workers.close(10)

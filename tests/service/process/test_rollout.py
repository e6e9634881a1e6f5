"""Changes of what several workers serve: together or not at all, whatever one of them does."""

from __future__ import annotations

import pytest

from service.bundle.catalogue import read_catalogue
from service.engine.changes import Load, Outcome, Reload, SetAlias, Unload
from service.errors import BundleError, BundleRefused, Draining, NotReady, VersionNotFound
from service.process.messages import Abort, Commit, Committed, Prepare, Prepared
from service.process.rollout import Rollout
from tests.service.bundles import affine, install

KEY = ("wine", 2)


class Worker:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def repository(tmp_path):
    return install(tmp_path, affine("wine"))


@pytest.fixture
def made(repository):
    rollout = Rollout(repository, read_catalogue(repository), Clock())
    install(repository.root, affine("wine", 2))
    return rollout, [Worker(), Worker(), Worker()]


def begun(made, change):
    rollout, workers = made
    replies = []
    rollout.ask(change, replies.append)
    rollout.begin(workers)
    return replies


def kinds(worker):
    return [type(message) for message in worker.sent]


def prepare(rollout, worker, failures=()):
    rollout.take(worker, Prepared(worker.sent[0].catalogue.number, dict(failures)))


def test_all_prepare_before_one_commits(made):
    rollout, workers = made
    replies = begun(made, Load(*KEY))
    for worker in workers[:2]:
        prepare(rollout, worker)
        assert all(kinds(each) == [Prepare] for each in workers)
    assert rollout.busy
    prepare(rollout, workers[2])
    assert all(kinds(each) == [Prepare, Commit] for each in workers)
    assert rollout.catalogue.digests.keys() == {("wine", 1), KEY}
    for worker in workers:
        assert replies == []
        rollout.take(worker, Committed(worker.sent[1].catalogue.number))
    (outcome,) = replies
    assert isinstance(outcome, Outcome)
    assert outcome.catalogue == rollout.catalogue == workers[0].sent[1].catalogue
    assert not rollout.busy


def test_what_one_cannot_load_none_serves(made, caplog):
    rollout, workers = made
    before = rollout.catalogue
    replies = begun(made, Load(*KEY))
    prepare(rollout, workers[0])
    prepare(rollout, workers[1], {KEY: BundleError("out of memory")})
    prepare(rollout, workers[2])
    assert all(kinds(each) == [Prepare, Abort] for each in workers)
    assert rollout.catalogue is before
    assert isinstance(replies[0], BundleRefused)
    assert len([record for record in caplog.records if "out of memory" in record.message]) == 1


def test_a_late_answer_to_a_change_that_was_given_up_passes_for_none_to_the_next(made):
    rollout, workers = made
    begun(made, Load(*KEY))
    rollout.lose(workers[2])
    replies = begun((rollout, workers[:2]), Load(*KEY))
    for worker in workers[:2]:
        prepare(rollout, worker)  # what it was first asked for
    assert rollout.busy
    assert [kinds(worker) for worker in workers[:2]] == [[Prepare, Abort, Prepare]] * 2
    for worker in workers[:2]:
        rollout.take(worker, Prepared(worker.sent[-1].catalogue.number, {}))
    assert kinds(workers[0])[-1] is Commit
    assert replies == []


def test_a_reload_lists_what_fails_and_serves_the_rest(made, repository):
    rollout, workers = made
    install(repository.root, affine("wine", 3))
    replies = begun(made, Reload())
    prepare(rollout, workers[0], {KEY: BundleError("broken")})
    for worker in workers[1:]:
        prepare(rollout, worker)
    committed = workers[0].sent[1].catalogue
    assert committed.failed.keys() == {KEY}
    assert committed.digests.keys() == {("wine", 1), KEY, ("wine", 3)}
    for worker in workers:
        rollout.take(worker, Committed(committed.number))
    assert replies[0].failures.keys() == {KEY}


def test_a_version_that_is_replaced_by_a_broken_one_stays(made, repository):
    rollout, workers = made
    before = rollout.catalogue.digests["wine", 1]
    manifest = repository.path("wine", 1) / "flow.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    begun(made, Reload())
    for worker in workers:
        prepare(rollout, worker, {("wine", 1): BundleError("broken")})
    assert rollout.catalogue.digests["wine", 1] == before
    assert rollout.catalogue.failed == {}


def test_where_a_worker_ends_while_it_loads_nothing_changes(made):
    rollout, workers = made
    before = rollout.catalogue
    replies = begun(made, Load(*KEY))
    prepare(rollout, workers[0])
    rollout.lose(workers[1])
    assert kinds(workers[0]) == kinds(workers[2]) == [Prepare, Abort]
    assert isinstance(replies[0], NotReady)
    assert rollout.catalogue is before
    prepare(rollout, workers[2])  # too late
    assert not rollout.busy


def test_where_a_worker_ends_while_it_commits_the_others_go_on(made):
    rollout, workers = made
    replies = begun(made, Load(*KEY))
    for worker in workers:
        prepare(rollout, worker)
    number = rollout.catalogue.number
    rollout.take(workers[0], Committed(number))
    rollout.lose(workers[1])
    assert replies == []
    rollout.take(workers[2], Committed(number))
    assert isinstance(replies[0], Outcome)


def test_who_does_not_come_back_is_given_up(made):
    rollout, workers = made
    replies = begun(made, Load(*KEY))
    prepare(rollout, workers[0])
    rollout._clock.now = rollout.deadline - 1
    assert (rollout.expire(), replies) == ([], [])
    rollout._clock.now += 1
    assert rollout.expire() == []
    assert isinstance(replies[0], NotReady)
    assert kinds(workers[0]) == [Prepare, Abort]


def test_who_does_not_commit_is_to_be_ended(made):
    rollout, workers = made
    replies = begun(made, Load(*KEY))
    for worker in workers:
        prepare(rollout, worker)
    rollout.take(workers[0], Committed(rollout.catalogue.number))
    rollout._clock.now = rollout.deadline
    assert set(rollout.expire()) == set(workers[1:])
    assert isinstance(replies[0], Outcome)


def test_changes_are_made_one_after_the_other(made):
    rollout, workers = made
    first, second = begun(made, Load(*KEY)), begun(made, Unload("wine", 1))
    assert [len(worker.sent) for worker in workers] == [1, 1, 1]
    for worker in workers:
        prepare(rollout, worker)
    for worker in workers:
        rollout.take(worker, Committed(rollout.catalogue.number))
    assert (len(first), second) == (1, [])
    rollout.begin(workers)
    assert workers[0].sent[-1].catalogue.digests.keys() == {KEY}


def test_a_change_that_makes_no_sense_is_refused_and_the_next_begins(made):
    rollout, _workers = made
    wrong = begun(made, SetAlias("wine", "stable", 9))
    assert isinstance(wrong[0], VersionNotFound)
    assert not rollout.busy
    begun(made, SetAlias("wine", "stable", 1))
    assert rollout.busy


def test_at_the_end_whoever_asked_is_told(made):
    rollout, _ = made
    replies = begun(made, Load(*KEY)) + begun(made, Reload())
    assert replies == []
    one, other = [], []
    rollout.ask(Reload(), one.append)
    rollout.ask(Reload(), other.append)
    rollout.close(Draining("over"))
    assert isinstance(one[0], Draining)
    assert isinstance(other[0], Draining)


def test_a_repository_that_has_gone_changes_nothing(made, repository):
    _rollout, _ = made
    repository.root.rename(repository.root.with_name("elsewhere"))
    replies = begun(made, Reload())
    assert "what is served stays" in replies[0].detail


def test_what_one_worker_could_not_load_at_first_all_withhold(made):
    rollout, workers = made
    rollout.withhold({("wine", 1): BundleError("out of memory")}, workers)
    assert all(kinds(each) == [Commit] for each in workers)
    committed = workers[0].sent[0].catalogue
    assert committed.failed.keys() == {("wine", 1)}
    assert committed == rollout.catalogue
    for worker in workers:
        assert rollout.busy
        rollout.take(worker, Committed(committed.number))
    assert not rollout.busy


def test_a_worker_that_ends_says_nothing_of_a_bundle(made):
    rollout, workers = made
    before = rollout.catalogue
    replies = begun(made, Reload())
    prepare(rollout, workers[0])
    prepare(rollout, workers[1], {KEY: Draining("the server is shutting down")})
    prepare(rollout, workers[2])
    assert isinstance(replies[0], Draining)
    assert rollout.catalogue is before

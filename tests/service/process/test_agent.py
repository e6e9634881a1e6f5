"""The worker's end of the connection to the supervisor."""

from __future__ import annotations

import queue
import threading

import pytest

from service.bundle.catalogue import Catalogue
from service.engine.changes import Outcome, Reload
from service.errors import BundleError, Draining, NotReady
from service.process.agent import Agent
from service.process.messages import Abort, ChangeAnswer, ChangeRequest, Commit, Committed, Loaded, Prepare, Prepared


class Supervisor:
    """The other end, in this process."""

    def __init__(self):
        self.sent, self.received = queue.SimpleQueue(), queue.SimpleQueue()
        self.agent = Agent(self.sent.put, self._receive)
        self._listener = threading.Thread(target=self.agent.listen, daemon=True)
        self._listener.start()

    def _receive(self):
        message = self.received.get()
        if message is None:
            raise EOFError
        return message

    def tell(self, message):
        self.received.put(message)

    def hear(self):
        return self.sent.get(timeout=30)

    def end(self):
        self.received.put(None)
        self._listener.join(30)


class Registry:
    """What is asked of a registry, in order."""

    def __init__(self):
        self.catalogue = Catalogue(failed={("wine", 2): BundleError("broken")})
        self.asked = []

    def wait_until_loaded(self):
        self.asked.append("wait")

    def prepare(self, catalogue):
        self.asked.append(("prepare", catalogue.number))
        return {("wine", 3): BundleError("worse")}

    def commit(self, catalogue):
        self.asked.append(("commit", catalogue.number))

    def abort(self):
        self.asked.append("abort")


@pytest.fixture
def supervisor():
    made = Supervisor()
    yield made
    made.end()


def test_it_says_what_it_serves_and_then_does_as_it_is_told(supervisor):
    registry = Registry()
    supervisor.agent.serve(registry)
    loaded = supervisor.hear()
    assert isinstance(loaded, Loaded)
    assert loaded.failures.keys() == {("wine", 2)}
    supervisor.tell(Prepare(Catalogue(1)))
    prepared = supervisor.hear()
    assert isinstance(prepared, Prepared)
    assert (prepared.number, list(prepared.failures)) == (1, [("wine", 3)])
    supervisor.tell(Commit(Catalogue(1)))
    assert supervisor.hear() == Committed(1)
    supervisor.tell(Abort())
    supervisor.tell(Prepare(Catalogue(2)))
    assert supervisor.hear().number == 2
    assert registry.asked == ["wait", ("prepare", 1), ("commit", 1), "abort", ("prepare", 2)]


def ask(agent):
    """A change on a thread of its own, and where its result comes."""
    results = queue.SimpleQueue()

    def run():
        try:
            results.put(agent.apply(Reload()))
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    return results


def test_each_answer_reaches_whoever_asked(supervisor):
    results = {}
    for _ in range(2):
        asked = ask(supervisor.agent)
        request = supervisor.hear()
        assert isinstance(request, ChangeRequest)
        results[request.number] = asked
    first, second = results
    outcome = Outcome(Catalogue(5), {})
    supervisor.tell(ChangeAnswer(second, NotReady("no")))
    supervisor.tell(ChangeAnswer(first, outcome))
    assert results[first].get(timeout=30) == outcome
    assert isinstance(results[second].get(timeout=30), NotReady)


def test_without_a_supervisor_nobody_waits(supervisor):
    asked = ask(supervisor.agent)
    supervisor.hear()
    supervisor.end()
    assert isinstance(asked.get(timeout=30), Draining)
    assert isinstance(ask(supervisor.agent).get(timeout=30), Draining)

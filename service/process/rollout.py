"""The rollout of changes: all workers serve the same, and change it together or not at all.

A change has two phases. In the first, every worker loads what is new, and serves what it served before. Once all of
them have, each is told to serve the new: on one connection, which belongs to one worker, no version goes back. Where a
worker cannot load a version, none serves it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from service.bundle.catalogue import Catalogue, Key
from service.bundle.store import Repository
from service.engine.changes import Change, Outcome, keep_aliases, next_catalogue, settle, tell
from service.errors import NotReady, PushforwardError
from service.process.messages import Abort, Commit, Committed, Prepare, Prepared, ToWorker

__all__ = ["Participant", "Rollout"]

_log = logging.getLogger(__name__)

_PREPARE_SECONDS: Final = 600.0
"""The time for all workers to load what is new."""

_COMMIT_SECONDS: Final = 30.0
"""The time for a worker to take over what it has loaded: it only exchanges references."""


class Participant(Protocol):
    """A worker."""

    def send(self, message: ToWorker) -> None:
        """Send a message; nothing happens where the worker has ended."""
        ...


Reply: TypeAlias = Callable[[Outcome | PushforwardError], None]


@dataclass(slots=True, eq=False)
class _Progress:
    """A change under way.

    Args:
        before: the catalogue that is served.
        change: of it; None for one that the workers' own failures make.
        wanted: the catalogue that they are to serve.
        workers: that take part.
        reply: takes the result.
        deadline: of this phase.
        waiting: the workers that have not answered in this phase.
        failures: of all workers.
        committed: whether it is in its second phase.
    """

    before: Catalogue
    change: Change | None
    wanted: Catalogue
    workers: list[Participant]
    reply: Reply
    deadline: float
    waiting: set[Participant] = field(default_factory=set)
    failures: dict[Key, PushforwardError] = field(default_factory=dict)
    committed: bool = False


class Rollout:
    """Changes of what all workers serve, one after the other. Knows no process and no connection.

    Args:
        repository: that is served.
        catalogue: what is served at first.
        clock: seconds.
    """

    def __init__(
        self, repository: Repository, catalogue: Catalogue, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.catalogue = catalogue
        self._repository = repository
        self._clock = clock
        self._asked: deque[tuple[Change, Reply]] = deque()
        self._progress: _Progress | None = None
        self._tried = catalogue.number

    @property
    def busy(self) -> bool:
        """Whether a change is under way: no worker may be started meanwhile."""
        return self._progress is not None

    @property
    def deadline(self) -> float | None:
        """The time, on the clock, at which `expire` has something to do."""
        return None if self._progress is None else self._progress.deadline

    def ask(self, change: Change, reply: Reply) -> None:
        """Ask for a change.

        Args:
            change: of what is served.
            reply: takes what it has led to, or why it was not made.
        """
        self._asked.append((change, reply))

    def begin(self, workers: Collection[Participant]) -> None:
        """Begin the next change that was asked for, if none is under way.

        Args:
            workers: all that serve.
        """
        while self._asked and self._progress is None and workers:
            change, reply = self._asked.popleft()
            try:
                wanted = next_catalogue(replace(self.catalogue, number=self._tried), change, self._repository)
            except PushforwardError as error:
                _refuse(reply, error)
                continue
            except OSError as error:
                _refuse(reply, NotReady(f"the repository cannot be read: {error.strerror}"))
                continue
            self._tried = wanted.number  # a late answer to a change that is given up passes for none to the next one
            deadline = self._clock() + _PREPARE_SECONDS
            self._progress = _Progress(self.catalogue, change, wanted, list(workers), reply, deadline)
            self._send(self._progress, Prepare(wanted))

    def withhold(self, failures: Mapping[Key, PushforwardError], workers: Collection[Participant]) -> None:
        """Let no worker serve versions that one of them could not load at the server's start.

        Args:
            failures: of all workers.
            workers: all of them.
        """
        wanted = self.catalogue.with_failures(failures)
        self._progress = _Progress(self.catalogue, None, wanted, list(workers), lambda _: None, 0.0)
        self._commit(self._progress, wanted)

    def take(self, worker: Participant, message: Prepared | Committed) -> None:
        """Take the answer of a worker in a phase."""
        progress = self._progress
        if progress is None or message.number != progress.wanted.number:
            return  # of a change that was given up
        if isinstance(message, Prepared) and not progress.committed:
            progress.failures.update(message.failures)
        elif isinstance(message, Prepared):
            return
        progress.waiting.discard(worker)
        self._go_on(progress)

    def lose(self, worker: Participant) -> None:
        """Note that a worker has ended. What it was about to load may be the cause, so that no other takes it over."""
        progress = self._progress
        if progress is None or worker not in progress.workers:
            return
        progress.workers.remove(worker)
        progress.waiting.discard(worker)
        if not progress.committed:
            self._give_up(progress, NotReady("a worker ended while it loaded what is new"))
        else:
            self._go_on(progress)

    def expire(self) -> list[Participant]:
        """End a phase that takes too long.

        Returns:
            The workers to be ended: they do not serve what the others do.
        """
        progress = self._progress
        if progress is None or self._clock() < progress.deadline:
            return []
        if not progress.committed:
            detail = f"the workers did not load what is new within {_PREPARE_SECONDS:g} seconds"
            self._give_up(progress, NotReady(detail))
            return []
        late = list(progress.waiting)
        progress.waiting.clear()
        self._go_on(progress)
        return late

    def close(self, error: PushforwardError) -> None:
        """Give up what is under way, and what was asked for.

        Args:
            error: the answer to whoever asked.
        """
        progress, self._progress = self._progress, None
        replies = [] if progress is None else [progress.reply]
        for reply in [*replies, *(reply for _, reply in self._asked)]:
            reply(error)
        self._asked.clear()

    def _send(self, progress: _Progress, message: ToWorker) -> None:
        progress.waiting = set(progress.workers)
        for worker in progress.workers:
            worker.send(message)

    def _go_on(self, progress: _Progress) -> None:
        if progress.waiting:
            return
        if progress.committed:
            self._progress = None
            if progress.change is not None:
                self._finish(progress, progress.change)
            return
        if progress.change is None:
            return
        try:
            settled = settle(progress.before, progress.wanted, progress.change, progress.failures)
        except PushforwardError as error:
            self._give_up(progress, error)
            return
        self._commit(progress, keep_aliases(settled, progress.change, self._repository))

    def _commit(self, progress: _Progress, settled: Catalogue) -> None:
        progress.wanted = self.catalogue = settled
        progress.committed = True
        progress.deadline = self._clock() + _COMMIT_SECONDS
        self._send(progress, Commit(settled))

    def _finish(self, progress: _Progress, change: Change) -> None:
        outcome = Outcome.of(change, progress.wanted, progress.failures)
        tell(progress.before, change, outcome)
        progress.reply(outcome)

    def _give_up(self, progress: _Progress, error: PushforwardError) -> None:
        self._progress = None
        for worker in progress.workers:
            worker.send(Abort())
        _refuse(progress.reply, error)


def _refuse(reply: Reply, error: PushforwardError) -> None:
    _log.error("%s; what was served before still is", error.detail)
    reply(error)

"""The plan of a verb: a generator that asks for runs of a flow and returns its answer, whoever drives it.

A plan knows no event loop and no thread. The driver of the server, the command line and a test drive the very same
generator: each `Run` that it yields is answered by `Outputs`, or by an error thrown into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGE_RUN",
    "Computed",
    "Done",
    "Finished",
    "Floats",
    "Lane",
    "Outputs",
    "Plan",
    "Rows",
    "Run",
    "Ticket",
    "advance",
    "followed",
    "run_now",
]

LARGE_RUN: Final = 1 << 13
"""After runs of more values than this, a plan goes on, and encodes, on a helper thread."""

T = TypeVar("T")
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
"""Rows, contexts or answers in the precision of their flow: float32 or float64."""


class Rows(Protocol):
    """Rows that can be had by slices: an array, or something that computes them when they are wanted.

    Noise and paths are computed slice by slice, on the thread that runs them, so that a million rows never lie
    in memory at once. A slice must give the same rows every time.
    """

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def __getitem__(self, index: slice, /) -> Floats:
        """The rows of a slice with both ends given and no step."""
        ...


class Computed(Rows, Protocol):
    """Rows that are computed, and for many short slices of many such objects more cheaply in one go."""

    @staticmethod
    def computed(parts: Sequence[tuple[Any, int, int]]) -> Floats:
        """The rows start to stop of each object of this type, one after the other: bit for bit those of its slices."""
        ...


class Outputs(NamedTuple):
    """What a run of a flow gives, row for row.

    Args:
        value: z ``[N, D]`` from the forward direction, x ``[N, *event]`` from the inverse.
        log_abs_det_jacobian: of that direction, ``[N]``, in nats.
        log_prob: the density at x, in either direction, ``[N]``, in nats.
        finite: whether every number in them is known to be finite. Found once a batch, it spares each of the
            requests in it a look at every array.
    """

    value: Floats
    log_abs_det_jacobian: Floats
    log_prob: Floats
    finite: bool = False

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """The three arrays."""
        return self.value, self.log_abs_det_jacobian, self.log_prob

    def part(self, start: int, stop: int) -> Outputs:
        """The outputs of the rows start to stop."""
        value, ladj, log_prob = self.arrays
        return Outputs(value[start:stop], ladj[start:stop], log_prob[start:stop], self.finite)


Done = Callable[[Outputs | Exception], None]
"""What a lane calls once with the answer, on any thread; it must return at once and not raise."""


class Ticket(Protocol):
    """Rows on their way."""

    abandoned: bool
    """Set it where nobody waits for the answer any more: what has not run yet is dropped, and answered `ClientGone`."""


class Lane(Protocol):
    """One direction of one flow, as something that takes rows and answers later."""

    @property
    def width(self) -> int:
        """The number of values in one row, for a door that weighs a run."""
        ...

    def submit(self, run: Run, done: Done, deadline: float = math.inf) -> Ticket:
        """Take the rows of a run, and call `done` exactly once.

        Args:
            run: what to run; its lane is this one.
            done: gets the outputs of its rows in their order, or the error.
            deadline: on `time.monotonic`, in seconds; rows that would not be back by then are dropped. Where none has
                been run because too much was before them they are answered `QueueFull`, else `DeadlineExceeded`.

        Raises:
            QueueFull: too much is waiting for an answer by the deadline; `done` is not called.
            DeadlineExceeded: it has passed; `done` is not called.
            Draining: the lane is closed; `done` is not called.
        """
        ...

    def admit(self, deadline: float) -> None:
        """Look whether a single row would be taken now, before any work is put into it.

        Raises:
            QueueFull: as `submit`.
        """
        ...


class Run(NamedTuple):
    """A plan's wish: these rows through that lane.

    Args:
        lane: which direction of which flow.
        rows: ``[N, ...]``.
        context: ``[N, C]``, or None for a flow without.
        bounded: whether the bounds on what may wait hold; a canary passes them by.
        value: whether z or x themselves are wanted, and not only what is known of each row. Where they are not,
            `Outputs.value` may be empty, ``[N, 0]``: a million rows then need no memory for them.
        counted: whether their log_prob is counted among what was served; of points that nobody sent or gets, not.
        follows: the number of values that its plan computes out of the outputs, beside them: a few rows may have a
            long summary.
    """

    lane: Lane
    rows: Rows
    context: Rows | None = None
    bounded: bool = True
    value: bool = True
    counted: bool = True
    follows: int = 0

    @property
    def size(self) -> int:
        """The number of values in its answer and of those that follow: what there is to check and to write."""
        return len(self.rows) * (self.lane.width if self.value else 1) + self.follows


Plan = Generator[Run, Outputs, T]


class Finished(NamedTuple, Generic[T]):
    """A plan's answer, once it has returned."""

    value: T


def advance(plan: Plan[T], message: Outputs | Exception | None = None) -> Run | Finished[T]:
    """Move a plan on by one step.

    A plan's return comes as a value, not as StopIteration, which no future may carry.

    Args:
        plan: the generator.
        message: the outputs of the run it wished for, or the error to throw into it; None to start it.

    Returns:
        Its next wish, or its answer.
    """
    try:
        if isinstance(message, Exception):
            return plan.throw(message)
        return next(plan) if message is None else plan.send(message)
    except StopIteration as stop:
        return Finished(stop.value)


def followed(plan: Plan[T], values: int) -> Plan[T]:
    """The same plan, with more to do after each run.

    Args:
        plan: to be driven.
        values: the number of values that are computed out of the outputs of a run, beside those of the plan itself.
    """
    step = advance(plan)
    try:
        while isinstance(step, Run):
            try:
                outputs = yield step._replace(follows=step.follows + values)
            except Exception as error:
                step = advance(plan, error)
            else:
                step = advance(plan, outputs)
    finally:
        plan.close()
    return step.value


def run_now(plan: Plan[T]) -> T:
    """Drive a plan to its end on the calling thread: for the command line, for loading and for tests.

    Example::

        densities = run_now(flow.log_prob(x))
    """
    step = advance(plan)
    while isinstance(step, Run):
        step = advance(plan, _outcome(step))
    return step.value


def _outcome(run: Run) -> Outputs | Exception:
    answered: Future[Outputs | Exception] = Future()
    try:
        run.lane.submit(run, answered.set_result)
    except Exception as error:  # the plan, not its driver, decides what an error means
        return error
    return answered.result()

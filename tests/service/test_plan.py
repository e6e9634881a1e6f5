from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from service.errors import EngineFailed, QueueFull
from service.plan import Finished, Outputs, Run, advance, followed, run_now

ROWS = np.ones((2, 1), np.float32)
OUTPUTS = Outputs(ROWS, ROWS[:, 0], ROWS[:, 0])


class Answers:
    """A lane that gives what it was told to give."""

    width = 1

    def __init__(self, answer):
        self.answer = answer

    def submit(self, run, done):
        if isinstance(self.answer, QueueFull):
            raise self.answer
        done(self.answer)


def asks_twice(lane):
    first = yield Run(lane, ROWS)
    second = yield Run(lane, ROWS)
    return first, second


def test_a_plan_is_driven_to_its_answer():
    assert run_now(asks_twice(Answers(OUTPUTS))) == (OUTPUTS, OUTPUTS)


@pytest.mark.parametrize("error", [EngineFailed("in a run"), QueueFull("at the door")])
def test_an_error_is_thrown_into_the_plan(error):
    def mends(lane):
        with pytest.raises(type(error)):
            yield Run(lane, ROWS)
        return "mended"

    assert run_now(mends(Answers(error))) == "mended"
    with pytest.raises(type(error)):
        run_now(asks_twice(Answers(error)))


def test_a_plan_without_a_run_is_finished_at_once():
    def plan():
        return 3
        yield

    assert advance(plan()) == Finished(3)


@pytest.mark.parametrize(("value", "size"), [(True, 30), (False, 10)])
def test_the_size_of_a_run_is_that_of_its_answer(value, size):
    lane = SimpleNamespace(width=3)
    assert Run(lane, np.zeros((10, 3), np.float32), value=value).size == size


def test_what_follows_a_run_counts_as_its_size_and_changes_no_answer():
    first = advance(followed(asks_twice(SimpleNamespace(width=3)), 100))
    assert first.size == 2 * 3 + 100
    assert run_now(followed(asks_twice(Answers(OUTPUTS)), 100)) == (OUTPUTS, OUTPUTS)
    with pytest.raises(EngineFailed, match="in a run"):
        run_now(followed(asks_twice(Answers(EngineFailed("in a run"))), 100))


def test_a_plan_with_more_to_do_is_closed_with_the_one_inside():
    closed = []

    def waits():
        try:
            yield Run(Answers(OUTPUTS), ROWS)
        finally:
            closed.append(True)

    plan = followed(waits(), 1)
    advance(plan)
    plan.close()
    assert closed == [True]

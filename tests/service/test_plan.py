from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from service.errors import EngineFailed, QueueFull
from service.plan import Finished, Outputs, Run, advance, run_now

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

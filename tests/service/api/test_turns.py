"""The turns of an event loop, on a clock and a loop that the test moves."""

from __future__ import annotations

import pytest

from service.api.turns import Turns


class Loop:
    """An event loop of which a test makes each turn."""

    def __init__(self):
        self.now = 100.0
        self.soon = []
        self.turns = Turns(self.soon.append, lambda: self.now)

    def turn(self, *reads, waits=0.0):
        """A poll, then so many seconds for each connection that is read. Gives `since` and the time of each."""
        self.now += waits
        found = []
        for seconds in reads:
            found.append((self.turns.since(), self.now))
            self.now += seconds
        due, self.soon[:] = list(self.soon), []
        for call in due:
            call()
        return found


def test_what_comes_to_a_loop_that_waits_is_as_old_as_its_poll():
    loop = Loop()
    for waits in (60.0, 1.0, 0.01):
        assert loop.turn(0.001, 0.001, waits=waits) == [(loop.now - 0.002, loop.now - 0.002 + i / 1000) for i in (0, 1)]
        assert loop.turns.seconds == pytest.approx(0.002)


def test_what_comes_during_a_turn_is_as_old_as_that_turn():
    loop = Loop()
    loop.turn(0.05, 0.05, waits=1.0)
    began = loop.now - 0.1
    found = loop.turn(0.02, 0.02)
    assert [since for since, _ in found] == [began, began], "they may have come just after the poll before"
    assert [round(now - since, 6) for since, now in found] == [0.1, 0.12]
    assert [since for since, _ in loop.turn(0.01)] == [began + 0.1]


def test_a_loop_that_has_waited_is_behind_no_more():
    loop = Loop()
    loop.turn(0.1, waits=1.0)
    assert loop.turns.seconds == pytest.approx(0.1)
    ((since, now),) = loop.turn(0.001, waits=0.5)
    assert since == now


def test_a_turn_asks_the_loop_once():
    loop = Loop()
    loop.turns.since()
    loop.turns.since()
    assert len(loop.soon) == 1

"""Workers are replaced one after the other, and none ends before its successor answers."""

from __future__ import annotations

import pytest

from service.process.preflight import ServerStatus
from service.process.renewal import Renewal
from service.process.slots import Slot

ANSWERS = ServerStatus(frozenset(), True)


def running(number):
    slot = Slot(number, 5.0)
    slot.record_start(object(), 0.0)
    slot.status, slot.loaded = ANSWERS, True
    return slot


@pytest.fixture
def slots():
    return [running(number) for number in range(3)]


@pytest.fixture
def renewal(slots):
    made = Renewal(len(slots), drain_seconds=5.0, new_slot=lambda number: Slot(number, 5.0))
    made.ask(slots)
    return made


def succeed(renewal, slots, now=0.0):
    """One worker is replaced: the slots of the new and of the old one."""
    new = renewal.next_successor(slots)
    new.record_start(object(), now)
    assert renewal.take_over(slots, now) is None
    new.status = ANSWERS
    assert renewal.take_over(slots, now) is None  # it answers, and does not have everything yet
    new.loaded = True
    return new, renewal.take_over(slots, now)


def test_each_is_replaced_in_turn(renewal, slots):
    first = list(slots)
    for at, old in enumerate(first):
        new, gone = succeed(renewal, slots)
        assert (gone, slots[at]) == (old, new)
        assert renewal.next_successor(slots) is None  # not before the old one has ended
        assert renewal.end(old) is False
        assert len({slot.number for slot in slots}) == 3
    assert renewal.next_successor(slots) is None
    assert not renewal.busy
    assert set(first).isdisjoint(slots)


def test_a_successor_that_ends_stops_the_renewal(renewal, slots):
    before = list(slots)
    new = renewal.next_successor(slots)
    assert renewal.end(new) is True
    assert (slots, renewal.busy) == (before, False)
    assert renewal.next_successor(slots) is None


def test_who_drains_for_too_long_is_told_of_again_and_again(renewal, slots):
    _, old = succeed(renewal, slots, now=10.0)
    assert renewal.deadline == 15.0
    assert renewal.late(14.9) == []
    assert renewal.late(15.0) == [old]
    assert renewal.late(16.0) == []
    assert renewal.late(20.0) == [old]
    renewal.end(old)
    assert (renewal.late(30.0), renewal.deadline) == ([], None)


def test_a_worker_that_is_gone_needs_no_successor(renewal, slots):
    slots[0].record_exit(0.0)
    _, old = succeed(renewal, slots)
    assert old.number == 1


def test_a_worker_that_ends_before_its_successor_answers_leaves_its_place(renewal, slots):
    old = slots[0]
    new = renewal.next_successor(slots)
    new.record_start(object(), 0.0)
    old.record_exit(0.0)
    new.status, new.loaded = ANSWERS, True
    assert renewal.take_over(slots, 0.0) is old
    assert slots[0] is new
    assert renewal.slots == []  # nobody is waited for


def test_asked_again_it_begins_anew(renewal, slots):
    succeed(renewal, slots)
    renewal.ask(slots)
    renewal.end(renewal.slots[0])
    for _ in slots:
        _, old = succeed(renewal, slots)
        renewal.end(old)
    assert not renewal.busy

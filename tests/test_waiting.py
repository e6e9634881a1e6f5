"""The limits of what tests wait for."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.waiting import steady, turns_until, until

TESTS = Path(__file__).parent
SLEEPS = re.compile(r"\btime\.sleep\(|\basyncio\.sleep\([^0)]|\bperf_counter\(|\btime\.monotonic\(")
SPINS = re.compile(r"^ *while not .*:\n +(?:pass|continue|await asyncio\.sleep\(0\))\n", re.MULTILINE)
PATIENT = {
    "waiting.py",
    "test_waiting.py",
    "watched.py",  # waits for what holds in a page, with a limit
    "test_delivery.py",  # its clock is its own
    "test_killed.py",  # any moment to kill at is as good as another
    "test_listening.py",  # a loop that is slow to accept; and an end that is far away
}


def test_it_waits_until_something_holds():
    looks = iter([False, False, True])
    until(lambda: next(looks), pause=0)
    assert list(looks) == []


def test_it_fails_at_its_limit():
    with pytest.raises(AssertionError, match="not so within 0 s"):
        until(lambda: False, seconds=0)
    with pytest.raises(TimeoutError):
        asyncio.run(turns_until(lambda: False, seconds=0))


def test_a_reading_is_steady_once_it_stays_the_same():
    readings = iter([1, 2, 2, 3, 3, 3, 4])
    holds = steady(lambda: next(readings), looks=3)
    assert [holds() for _ in range(5)] == [False, False, False, False, True]


def test_no_test_sleeps_spins_or_measures_time():
    found = [
        f"{path.relative_to(TESTS)}: {text.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name not in PATIENT and "faults" not in path.parts  # `make faults` measures on purpose
        for text in (*SLEEPS.findall(path.read_text()), *SPINS.findall(path.read_text()))
    ]
    assert found == []

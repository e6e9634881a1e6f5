"""The watch over a worker's loop, on a clock that the test moves."""

from __future__ import annotations

import os
import sys

import pytest

from service.process.loop_watch import LOOK_SECONDS, LoopWatch, ThreadActivity, main_thread_activity

WAITS = ThreadActivity(runnable=False, cpu_seconds=1.0)


class Watched:
    """A process under watch, looked at as often as the supervisor does."""

    def __init__(self):
        self.now = 100.0
        self.watch = LoopWatch(5.0, self.now)
        self.beat = 0.0

    def look(self, activity=WAITS, after=LOOK_SECONDS):
        self.now += after
        return self.watch.hangs(self.now, self.beat, activity)

    def silent_for(self, seconds, activity=lambda _: WAITS):
        """The time after which it is found to hang, within so many seconds; None where it is not."""
        for looks in range(1, int(seconds / LOOK_SECONDS) + 1):
            if self.look(activity(looks * LOOK_SECONDS)):
                return looks * LOOK_SECONDS
        return None


def beating():
    watched = Watched()
    watched.beat = watched.now
    assert not watched.look()
    return watched


def test_a_loop_that_turns_does_not_hang():
    watched = beating()
    for _ in range(100):
        watched.beat = watched.now
        assert watched.silent_for(4.5) is None


def test_a_loop_that_stands_still_hangs():
    assert beating().silent_for(60) == 5.0
    assert beating().silent_for(60, activity=lambda _: None) == 5.0


def test_a_late_beat_is_a_beat():
    watched = beating()
    assert watched.silent_for(4.75) is None
    watched.beat = watched.now - 4  # it was on its way
    assert not watched.look()
    assert watched.silent_for(60) == 5.0


def test_time_in_which_the_supervisor_did_not_run_does_not_count():
    watched = beating()
    for _ in range(9):  # the whole machine stood still, again and again
        assert not watched.look(after=60)
    assert watched.look(after=60)


def test_who_waits_for_a_processor_does_not_hang():
    starved = beating()
    assert starved.silent_for(600, lambda seconds: ThreadActivity(True, 1.0 + seconds / 1000)) is None


def test_an_endless_loop_hangs_after_as_much_processor_time():
    alone, crowded = beating(), beating()
    assert alone.silent_for(60, lambda seconds: ThreadActivity(True, 1.0 + seconds)) == 5.0
    assert crowded.silent_for(60, lambda seconds: ThreadActivity(True, 1.0 + seconds / 4)) == 20.0


def test_before_its_first_beat_a_process_has_longer():
    assert Watched().silent_for(100) is None
    assert Watched().silent_for(200) == 120.0


@pytest.mark.skipif(sys.platform != "linux", reason="as /proc tells it")
def test_the_system_tells_what_a_thread_does():
    before = main_thread_activity(os.getpid())
    while main_thread_activity(os.getpid()).cpu_seconds <= before.cpu_seconds:
        pass
    assert main_thread_activity(os.getpid()).runnable
    assert main_thread_activity(2**22 + 1) is None

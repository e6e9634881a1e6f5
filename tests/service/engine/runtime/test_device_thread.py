from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.engine.runtime.device_thread import DeviceHung, DeviceThread


def test_everything_is_done_on_one_thread_of_that_name():
    device = DeviceThread("cuda:0")
    found = {device(threading.current_thread) for _ in range(3)}
    assert [thread.name for thread in found] == ["cuda:0"]
    assert threading.current_thread() not in found


def test_an_error_comes_back_and_the_thread_lives_on():
    device = DeviceThread("cuda:0")

    def fails():
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        device(fails)
    assert device(lambda: 7) == 7


def test_one_thing_is_done_after_the_other_for_whoever_asks():
    device = DeviceThread("cuda:0")
    inside, most, together = [], [], threading.Barrier(8)

    def work():
        inside.append(1)
        most.append(len(inside))
        inside.pop()
        return threading.get_ident()

    found = []

    def ask():
        together.wait()
        found.extend(device(work) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert len(set(found)) == 1
    assert max(most) == 1


def test_who_waits_behind_a_function_that_hangs_is_told_with_its_caller():
    device, over, entered = DeviceThread("cuda:0"), threading.Event(), threading.Event()

    def hangs():
        entered.set()
        assert over.wait(60)
        return 7

    with ThreadPoolExecutor(3) as callers:
        stuck = callers.submit(device, hangs, 0.2)
        assert entered.wait(60)
        waiting = [callers.submit(device, lambda: 8, seconds) for seconds in (60.0, 0.2)]
        for call in (stuck, *waiting):
            with pytest.raises(DeviceHung, match=r"no answer within 0\.2 s"):
                call.result(60)
    with pytest.raises(DeviceHung):
        device(lambda: 9)
    over.set()


def test_the_time_of_those_before_does_not_count():
    now = [0.0]
    device = DeviceThread("cuda:0", lambda: now[0])

    def slow():
        now[0] += 100.0
        return 1

    assert device(slow, 1000.0) == 1
    assert device(lambda: 2, 1.0) == 2


def test_a_timeout_of_the_function_itself_is_its_own():
    device = DeviceThread("cuda:0")

    def fails():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        device(fails, 60.0)
    assert device(lambda: 7, 60.0) == 7

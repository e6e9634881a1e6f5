from __future__ import annotations

import threading

import pytest

from service.engine.runtime.device_thread import DeviceThread


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

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.isolation.quarantine import MAX_ENDS, WINDOW_SECONDS, QuarantineRule


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_it_holds_once_so_many_ends_lie_within_the_window(pauses):
    rule, now, times = QuarantineRule(), 0.0, []
    for pause in pauses:
        now += pause
        times.append(now)
        within = sum(now - time <= WINDOW_SECONDS for time in times)
        assert rule.record_end(now) == (within >= MAX_ENDS)


@pytest.mark.parametrize("pause", [0.0, 10 * WINDOW_SECONDS])
def test_starts_that_fail_in_a_row_count_however_long_each_takes(pause):
    rule = QuarantineRule()
    assert [rule.record_failed_start(pause * at) for at in range(MAX_ENDS)] == [False] * (MAX_ENDS - 1) + [True]


def test_a_start_that_succeeds_ends_the_row():
    rule = QuarantineRule()
    for at in range(3 * MAX_ENDS):
        assert not rule.record_failed_start(at * WINDOW_SECONDS)
        rule.record_start()

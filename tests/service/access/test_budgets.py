from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.budgets import Bucket


def test_a_bucket_holds_a_minute_and_is_filled_again():
    bucket = Bucket(60, now=0.0)
    assert [bucket.take(20, 0.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(1, 0.0) == pytest.approx(1.0)
    assert bucket.take(30, 0.0) == pytest.approx(30.0)
    assert bucket.take(30, 29.9) > 0
    assert bucket.take(30, 30.1) == 0
    assert bucket.used == 90


def test_what_is_more_than_a_minute_is_never_taken():
    bucket = Bucket(10, now=0.0)
    assert bucket.take(11, 1e6) == 60.0
    assert bucket.take(10, 1e6) == 0


def test_without_a_budget_all_is_taken_and_counted():
    bucket = Bucket(None, now=0.0)
    assert bucket.take(1 << 40, 0.0) == 0
    assert bucket.used == 1 << 40


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 40)), max_size=60), st.integers(1, 100))
def test_no_stretch_of_time_gives_more_than_it_fills(asked, budget):
    bucket, now, taken = Bucket(budget, now=0.0), 0.0, 0
    for pause, count in asked:
        now += pause
        wait = bucket.take(count, now)
        assert wait >= 0
        if wait == 0:
            taken += count
        elif count <= budget:
            assert 0 < wait <= 60 + 1e-6
    assert taken <= budget + now * budget / 60 + 1e-6


@given(st.lists(st.integers(0, 3), max_size=200), st.integers(1, 50))
def test_workers_that_share_stay_near_one_budget(turns, budget):
    """Whatever worker a request meets, together they let through no more than one would, but for what each has not
    heard of yet."""
    workers = [Bucket(budget, now=0.0) for _ in range(4)]
    for each in workers:
        each.share(0, 0.0)
    for turn in turns:
        workers[turn].take(1, 0.0)
        for each in workers:
            each.share(sum(other.used for other in workers) - each.used, 0.0)
    assert sum(each.used for each in workers) <= budget

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BodyTooLarge, MalformedBody, OverWorkBudget, QueueFull
from service.guard import BodyBudget, HeldBody, WorkLimit, check_work, read_body

LOC = ("query", "n")


async def pieces(*sizes, read=None):
    for size in sizes:
        if read is not None:
            read.append(size)
        yield b"x" * size


def read(headers, stream, cap=100):
    held = HeldBody(BodyBudget(1 << 20))
    asyncio.run(read_body(headers, stream, cap, held))
    return held.body


@pytest.mark.parametrize("sizes", [(), (100,), (1, 99), (0, 0)])
def test_a_body_within_the_cap_is_read_whole(sizes):
    assert len(read({}, pieces(*sizes))) == sum(sizes)


def test_a_body_that_says_too_much_is_not_read_at_all():
    seen = []
    with pytest.raises(BodyTooLarge, match="has 101 bytes; the cap is 100"):
        read({"content-length": "101"}, pieces(101, read=seen))
    assert seen == []


def test_a_body_that_says_little_and_sends_much_is_cut_off():
    seen = []
    with pytest.raises(BodyTooLarge, match="more than 100 bytes"):
        read({"content-length": "3"}, pieces(60, 60, 60, read=seen))
    assert seen == [60, 60]


@pytest.mark.parametrize("told", ["-1", "1e3", "ten", "٣"])
def test_a_length_that_is_no_number_is_malformed(told):
    with pytest.raises(MalformedBody):
        read({"content-length": told}, pieces(1))


def test_the_budget_is_a_bound_and_names_its_factors():
    check_work(10, 5, 2, 100, LOC)
    with pytest.raises(OverWorkBudget, match=r"11 rows of 5 values, 2 steps each, make 110 values; .* is 100"):
        check_work(11, 5, 2, 100, LOC)
    with pytest.raises(OverWorkBudget, match="101 rows of 1 values make 101"):
        check_work(101, 1, 1, 100, LOC)


def test_the_budget_holds_while_rows_are_read():
    limit = WorkLimit(5, 2, 100, LOC)
    limit.check(10)
    with pytest.raises(OverWorkBudget, match="11 rows of 5 values and more, 2 steps each, make more than 100 values"):
        limit.check(11)


def test_bodies_share_a_budget_and_one_alone_is_taken():
    large = BodyBudget.LARGE
    budget = BodyBudget(4 * large)
    first, second, small = HeldBody(budget), HeldBody(budget), HeldBody(budget)
    first.add(bytes(large))
    assert budget.held == 0, "it may stay small"
    first.add(bytes(2 * large))
    assert budget.held == 3 * large
    second.add(bytes(large + 1)[:large])
    with pytest.raises(QueueFull, match=f"the bodies of other requests take {3 * large} bytes, and {4 * large} may be"):
        second.add(b"x")
    small.add(bytes(large))
    first.release()
    first.release()
    assert budget.held == 0
    second.add(bytes(9 * large))
    assert budget.held == 10 * large, "it is alone"
    second.release()
    assert budget.held == 0


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=60))
def test_the_budget_counts_what_is_held(most, steps):
    large = BodyBudget.LARGE
    budget = BodyBudget(most * large)
    bodies = [HeldBody(budget) for _ in range(6)]
    for which, size in steps:
        body = bodies[which]
        if size == 0:
            body.release()
        else:
            with suppress(QueueFull):
                body.add(bytes(size * large))
        counted = [len(each.body) for each in bodies if len(each.body) > large]
        assert budget.held == sum(counted)
        assert budget.held <= most * large or len(counted) == 1

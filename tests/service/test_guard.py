from __future__ import annotations

import asyncio

import pytest

from service.errors import BodyTooLarge, MalformedBody, OverWorkBudget
from service.guard import check_work, read_body

LOC = ("query", "n")


async def pieces(*sizes, read=None):
    for size in sizes:
        if read is not None:
            read.append(size)
        yield b"x" * size


def read(headers, stream, cap=100):
    return asyncio.run(read_body(headers, stream, cap))


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

from __future__ import annotations

import math

import pytest

from benchmarks.measure import MeasurementFailed
from benchmarks.serving import NotAnswered
from benchmarks.table import Table, at_least, at_most, number, record_failures


def test_a_ratio_is_of_each_round_and_its_median_meets_the_target():
    line = Table().line(16, "work", "ours / theirs", at_least(2), "requests/s")
    for ours, theirs in ((10, 10), (30, 10), (50, 20)):
        line.ratio(ours, theirs)
    assert line.values == [1, 3, 2.5]
    assert line.met is True
    assert line.cells()[3:] == ("2.50", "1.00 to 3.00", "30.0 : 10.0 requests/s", ">= 2.00", "yes")


@pytest.mark.parametrize(("target", "value", "met"), [(at_least(2), 1.9, False), (at_most(2), 1.9, True)])
def test_targets_have_a_side(target, value: float, met: bool):
    line = Table().line(16, "work", "figure", target)
    line.add(value)
    assert line.met is met


def test_a_failure_stays_is_shown_and_misses_the_target():
    table = Table()
    line, other = table.line(2, "work", "figure", at_most(3)), table.line(2, "work", "another")
    line.add(1)
    with record_failures(line):
        raise NotAnswered("not answered (415)")
    with record_failures(line, other):
        other.add(1)
    assert line.met is False
    assert "not answered (415)" in table.markdown()
    assert other.met is None
    assert other.failure is None
    assert table.wrong == []


def test_a_wrong_answer_is_more_than_a_missing_one():
    table = Table()
    with record_failures(table.line(2, "work", "figure")):
        raise MeasurementFailed("3 wrong")
    assert [line.failure for line in table.wrong] == ["3 wrong"]


def test_other_errors_are_not_taken_for_a_missed_figure():
    with pytest.raises(ZeroDivisionError), record_failures(Table().line(2, "work", "figure")):
        raise ZeroDivisionError


def test_a_line_is_made_once():
    table = Table()
    assert table.line(2, "work", "figure") is table.line(2, "work", "figure")
    assert table.line(2, "work", "figure") is not table.line(3, "work", "figure")


def test_nothing_divided_by_nothing_is_no_ratio_that_meets_a_target():
    line = Table().line(2, "work", "figure", at_most(5))
    line.ratio(0, 0)
    assert line.met is False


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.0123"), (1.5, "1.50"), (19.96, "20.0"), (123456.7, "123,457"), (math.inf, "inf")],
)
def test_numbers_have_three_digits(value: float, text: str):
    assert number(value) == text

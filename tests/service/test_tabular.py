from __future__ import annotations

import csv
import doctest
import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.tabular
from service.tabular import Header, NotCsv, is_number, parse_number, read_heading, read_lines, split_lines
from tests import tabular

GRAMMAR = re.compile(r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)\s*", re.IGNORECASE)


@pytest.mark.parametrize(("text", "value"), tabular.NUMBERS.items())
def test_a_number(text, value):
    assert is_number(text)
    found = parse_number(text)
    assert found == value or (math.isnan(found) and math.isnan(value))
    assert math.copysign(1, found) == math.copysign(1, value) or math.isnan(value)


@pytest.mark.parametrize("text", tabular.TEXTS)
def test_no_number(text):
    assert not is_number(text)
    with pytest.raises(ValueError, match=re.escape(text.strip()) or None):
        parse_number(text)


@given(st.text("0123456789+-._eExX infatyINFATY\t\xa0\u0661\xb2") | st.text(max_size=4) | st.floats().map(str))
def test_a_number_is_what_the_grammar_says(text):
    assert is_number(text) == (GRAMMAR.fullmatch(text.strip()) is not None and text.strip().isascii())


def test_a_heading_holds_no_number():
    assert read_heading([" a ", "", "b_1"]) == ["a", "", "b_1"]
    assert read_heading(["a", " nan"]) is None
    assert read_heading(["a", "1_000"]) == ["a", "1_000"]


def test_names_are_matched_exactly():
    header = Header(["a", "b", "a", "C"])
    assert "b" in header
    assert "c" not in header
    assert header.missing(["b", "c", "a", "d"]) == ["c", "d"]
    assert header.repeated(["b", "a", "d"]) == ["a"]
    assert (header.place("b"), header.place("C")) == (1, 3)
    with pytest.raises(KeyError):
        header.place("c")


def test_lines_that_hold_nothing_are_passed_over_and_counted():
    assert list(read_lines(split_lines('\n a \n"x\ny";2\r\n;\r3'), ";")) == [
        (2, [" a "]),
        (4, ["x\ny", "2"]),
        (6, ["3"]),
    ]


def test_what_is_no_csv_is_told_with_its_line():
    lines = read_lines(split_lines('1,2\n3,"4'))
    assert next(lines) == (1, ["1", "2"])
    with pytest.raises(NotCsv, match="line 2: unexpected end of data") as caught:
        next(lines)
    assert (caught.value.line, caught.value.reason) == (2, "unexpected end of data")


def test_no_more_is_taken_than_is_given():
    taken = split_lines('a,"b\n"\n1,2\n3,4\n')
    assert next(read_lines(taken)) == (2, ["a", "b\n"])
    assert list(taken) == ["1,2\n", "3,4\n"]


@given(st.text('a,"\r\n', max_size=12))
def test_a_text_is_cut_as_a_file_is(text):
    assert list(split_lines(text)) == list(io.StringIO(text, newline=""))
    assert "".join(split_lines(text)) == text


@given(st.lists(st.lists(st.text('a,"\r\n _1', max_size=4), min_size=1, max_size=3), max_size=4))
def test_what_is_written_as_csv_is_read_back(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    found = [cells for _, cells in read_lines(split_lines(text.getvalue()))]
    assert found == [row for row in rows if any(cell.strip() for cell in row)]


def test_the_examples():
    found = doctest.testmod(service.tabular)
    assert found.attempted >= 2
    assert found.failed == 0

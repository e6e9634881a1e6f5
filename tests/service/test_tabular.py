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
from service.tabular import (
    Header,
    NotCsv,
    explain_text,
    find_index,
    is_number,
    pandas_index,
    parse_number,
    read_heading,
    read_lines,
    read_table,
    split_lines,
    write_heading,
)
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


def test_spaces_around_a_name_do_not_count():
    header = Header([" a", "b "])
    assert header.missing(["a ", "b", "c"]) == ["c"]
    assert header.place("  b") == 1
    assert Header(["a", " a"]).repeated(["a"]) == ["a"]


@pytest.mark.parametrize("names", [["x0", "x1"], ["x0"], ["X0", "b"], ["a", "Z1", "z0"]])
def test_columns_stand_in_order_where_their_names_say_nothing(names):
    assert not Header(names).may_stand_in_order(["x0", "x1"], named=False, others=["z0", "z1"])
    assert Header(["u", "v"]).may_stand_in_order(["x0", "x1"], named=False, others=["z0", "z1"])
    assert not Header(["u", "v"]).may_stand_in_order(["x0", "x1"], named=True)


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


def table(text, **options):
    found = read_table(split_lines(text), **options)
    return found if found is None else (found.delimiter, found.names, sorted(found.index), list(found.rows))


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1;2\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a\n1\n", ","),
        ("1\n", ","),
        ("1;2", ";"),
        ("a;b\n1,5;2,5\n", ";"),
        ('"a,b,c";d\n1;2\n', ";"),
        ('"a;b\n;;",d\n1,2\n', ","),
        ("weight, kg;height, cm\n1;2\n", ";"),
        ("a,b\n1,2,3\n", ","),
        ("a;b\n1;2;3\n", ";"),
        (" a ,\tb\n1 , 2\n", ","),
        ("# of a; b; c\na,b\n1,2\n", ","),
        ("# a;b\n1;2\n", ";"),
        ("# a;b\n", ";"),
        ('a,b\n"1', ","),
    ],
)
def test_the_first_lines_show_the_delimiter(text, delimiter):
    assert read_table(split_lines(text)).delimiter == delimiter


def test_few_lines_are_taken_to_find_the_delimiter():
    taken = split_lines("a;b\n1;2\n3;4\n5;6\n")
    read_table(taken)
    assert list(taken) == ["3;4\n", "5;6\n"]


def test_the_first_lines():
    assert table("a,b\n1,2") == (",", ["a", "b"], [], [(2, ["1", "2"])])
    assert table("1,2\n") == (",", None, [], [(1, ["1", "2"])])
    assert table("\n# a,b\n1,2\n") == (",", ["a", "b"], [], [(3, ["1", "2"])])
    assert table("# a\n1,2\n") == (",", None, [], [(2, ["1", "2"])])
    assert table("# c,d\na,b\n1,2\n") == (",", ["a", "b"], [], [(3, ["1", "2"])])
    assert table('"# a",b\n1,2\n') == (",", ["# a", "b"], [], [(2, ["1", "2"])])
    assert table("# a,b\n") == (",", ["a", "b"], [], [])
    assert table("# 1,2\n") is None
    assert table("\n,\n") is None
    assert table("a,b\n1,2", header=False) == (",", None, [], [(1, ["a", "b"]), (2, ["1", "2"])])
    assert table("1,2\n3,4\n", header=True) == (",", ["1", "2"], [], [(2, ["3", "4"])])
    assert table("a|b\n1|2\n", delimiter="|") == ("|", ["a", "b"], [], [(2, ["1", "2"])])


def test_an_index():
    assert table(",a\n0,1\n") == (",", ["", "a"], [0], [(2, ["0", "1"])])
    assert table(",0,1\n0,1,2\n") == (",", None, [0], [(2, ["0", "1", "2"])])
    assert table(",2019,2020\n0,1,2\n") == (",", ["", "2019", "2020"], [0], [(2, ["0", "1", "2"])])
    assert table(",0.5,1.5\n0,1,2\n")[1:3] == (None, [])  # a row with an empty cell
    assert find_index(["a", "__index_level_10__", "Unnamed: 0", "Unnamed: 01", "when"], ["when"]) == {1, 2, 4}
    assert find_index(["a", ""]) == find_index([""]) == frozenset()


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (None, []),
        (b'{"index_columns": ["when", {"kind": "range"}, "__index_level_0__"]}', ["when", "__index_level_0__"]),
        (b'{"index_columns": null}', []),
        (b"[1]", []),
        (b"\xff", []),
        (b"[" * 100_000, []),
    ],
)
def test_the_index_that_metadata_names(metadata, names):
    assert pandas_index(metadata) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,5", "decimal point"),
        ("1.234,5", "decimal point"),
        ("1 234", "thousands"),
        ("-1'234'567.5", "thousands"),
        ("n/a", "missing value"),
        ("1.0 2.5e0", "not by spaces"),
        ("x", ""),
        ("", ""),
        ("1.2.3", ""),
    ],
)
def test_what_a_cell_may_mean(text, words):
    assert words in explain_text(text)
    assert bool(explain_text(text)) == bool(words)


@given(st.lists(st.text('a,;"\r\n #_', min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=3))
def test_a_heading_that_is_written_is_read_back(names):
    found = read_table(split_lines(write_heading(names) + ",".join(["1"] * len(names))), ",")
    assert found.names == [name.strip() for name in names]
    assert next(found.rows)[1] == ["1"] * len(names)


def test_the_examples():
    found = doctest.testmod(service.tabular)
    assert found.attempted >= 2
    assert found.failed == 0

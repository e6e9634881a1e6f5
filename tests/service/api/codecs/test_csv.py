from __future__ import annotations

import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs import csv as codec
from service.api.codecs.csv import Csv
from service.errors import InvalidArgument, MalformedBody, PushforwardError, WrongShape
from tests import tabular
from tests.service.api.codecs.tables import FORM, densities, mutated, read_or_refused, rows_of_three, taken

CSV = Csv()


@given(rows_of_three)
def test_an_answer_is_read_back_bit_for_bit(x):
    body = CSV.encode({"x": x, "log_prob": x[:, 0]}, FORM)
    assert taken(CSV, body, list(FORM.features)).tobytes() == x.tobytes()
    assert taken(CSV, body, list(FORM.features)[::-1]).tobytes() == x[:, ::-1].copy().tobytes()


@given(rows_of_three, st.data())
def test_what_is_written_is_csv(x, data):
    log_prob = data.draw(arrays.arrays(np.float32, len(x), elements=densities))
    answer = {"model": "m", "x": x, "log_prob": log_prob, "quantile": log_prob.astype(float), "anomaly": log_prob < 0}
    header, *lines = csv.reader(io.StringIO(CSV.encode(answer, FORM).decode()))
    assert header == [*FORM.features, "log_prob", "quantile", "anomaly"]
    assert np.array([line[:4] for line in lines], np.float32).tobytes() == np.c_[x, log_prob].tobytes()
    assert [line[5] == "true" for line in lines] == (log_prob < 0).tolist()


@given(rows_of_three, st.data())
def test_pieces_make_the_same_text(x, data):
    cut = data.draw(st.integers(0, len(x)))
    pieces = CSV.start({"x": x[:cut]}, FORM, (len(x),)) + CSV.more({"x": x[cut:]}, FORM) + CSV.end
    assert pieces == CSV.encode({"x": x}, FORM)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        "1,2|3,4|",
        "1,2|3,4",
        "\ufeff1,2|3,4",
        "|1,2||3,4|",
        " 1 , 2|3,4",
        "+1,2.|3,.4e1",
        '"1","2"|3,4',
        "x1,x0|2,1|4,3",
        "name,x0,x1|a,1,2|b,3,4",
        '"x0",x1|1,2|3,4',
        "p,q|1,2|3,4",
        "01,2|3,4",
    ],
)
def test_many_ways_to_write_a_table(text, end):
    assert taken(CSV, text.replace("|", end).encode(), ["x0", "x1"]).tolist() == [[1, 2], [3, 4]]


def test_a_table_of_many_blocks(monkeypatch):
    monkeypatch.setattr(codec, "BLOCK_BYTES", 20)
    monkeypatch.setattr(codec, "_BLOCK_ROWS", 3)
    x = np.arange(20.0).reshape(10, 2)
    body = "\n".join(f"{a},{b}" for a, b in x).encode()
    assert (taken(CSV, body, ["x0", "x1"]) == x).all()
    with pytest.raises(MalformedBody, match="line 8 has 1 columns"):
        taken(CSV, body.replace(b"14.0,15.0", b"14.0"), ["x0", "x1"])


cells = st.sampled_from(["1", "-2.5", " 3 ", "1e3", '"4"', '"5\n"', "a", "", "nan", '"', "é"])
lines = st.lists(cells, min_size=2, max_size=2) | st.lists(cells, max_size=3) | st.just(["1", "2"])
texts = st.tuples(
    st.sampled_from(["", "x0,x1\n", "# c\nx0,x1\n", "\n\n", "\ufeffx1,x0\n", "x0,x1,t\n"]),
    st.lists(lines, max_size=12),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n \n", "\n,\n", "\n" * 30]),
).map(lambda drawn: drawn[0] + drawn[2].join(map(",".join, drawn[1])) + drawn[2])


@given(texts, st.integers(1, 40))
def test_the_blocks_change_nothing(text, size):
    def end(block_bytes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "BLOCK_BYTES", block_bytes)
            patch.setattr(codec, "_HEADING_BLOCKS", 1000)
            try:
                return taken(CSV, text.encode(), ["x0", "x1"]).tobytes()
            except PushforwardError as error:
                return error.code, error.detail, error.errors

    assert end(size) == end(1 << 16)


@pytest.mark.parametrize("nothing", [b"\n", b" \n", b"\r\n", b",\n"])
@pytest.mark.parametrize("before", [b"", b"x0,x1\n", b"1,2\n"])
def test_lines_of_nothing_are_passed_over_and_counted(before, nothing):
    lines = nothing * 100_000
    body = before + lines + b"3,4\n" + lines + b"5,6\n"
    expected = [[1, 2]] * (before == b"1,2\n") + [[3, 4], [5, 6]]
    if nothing != b",\n" or before:
        assert taken(CSV, body, ["x0", "x1"]).tolist() == expected
    with pytest.raises(MalformedBody, match=f"line {200_003 + bool(before)} has 1 columns"):
        taken(CSV, body + b"7\n", ["x0", "x1"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"a," * 600_000, "a line, or a row of several lines, of more than 1048576 bytes"),
        (b"1," * 200_000 + b"1\n", "a line of more than 131072 cells"),
        (b'"a\n",' * 200_000, "a row of several lines, of more than 1048576 bytes"),
        (b"1,2\n" * 20_000 + b'"3\n",' * 300_000, "a row of several lines, of more than 1048576 bytes"),
        (b'"' + b"a\n" * 200_000, "field larger than field limit"),
        (b"#\n" * 200_000 + b"1,2\n", "the first 262144 bytes hold comments alone"),
        (b",;\n" * 200_000 + b"1,2\n", "the first 262144 bytes hold comments alone"),
    ],
)
def test_what_one_row_holds_is_bounded(body, told):
    with pytest.raises(MalformedBody, match=told):
        taken(CSV, body, ["x0", "x1"])


def test_a_long_comment_is_passed_over():
    assert taken(CSV, b"# of the first run\n" * 8_000 + b"x0,x1\n1,2\n", ["x0", "x1"]).tolist() == [[1, 2]]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_plain_numbers_are_not_read_cell_by_cell(monkeypatch, end):
    monkeypatch.setattr(codec, "read_lines", None)
    body = b"x0,x1" + end + (b"1,2" + end) * 3 + end + b"3,4"
    assert taken(CSV, body, ["x0", "x1"]).tolist() == [[1, 2]] * 3 + [[3, 4]]


@pytest.mark.parametrize(
    ("text", "error", "told", "row", "column"),
    [
        ("", MalformedBody, "empty", None, None),
        ("\n \n", MalformedBody, "empty", None, None),
        ("1,2\n3\n", MalformedBody, "line 2 has 1 columns, and the first line 2", 1, None),
        ("1,2\n\n3,4,5\n", MalformedBody, "line 3 has 3 columns", 1, None),
        ("1,2\n3,four\n", InvalidArgument, "x, row 1, column 1: expected a number, and found 'four'", 1, 1),
        ("1,2\n3,\n", InvalidArgument, "row 1, column 1: expected a number, and found ''", 1, 1),
        ("1,2\n3,1_0\n", InvalidArgument, "found '1_0'", 1, 1),
        ("x1,x0\n3,four\n", InvalidArgument, "row 0, column 0: expected a number, and found 'four'", 0, 0),
        ("1,2,3\n", WrongShape, "expected 2 columns, and found 3", None, None),
        ("x0,y\n1,2\n", WrongShape, "did not find 'x1'", None, None),
        ("x0,x1,x0\n1,2,3\n", InvalidArgument, "'x0' is there more than once", None, None),
        ('"1,2\n', MalformedBody, "not CSV", None, None),
        ('1,2\n3,"4', MalformedBody, "not CSV", None, None),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, error, told, row, column):
    with pytest.raises(error, match=told) as raised:
        taken(CSV, text.encode(), ["x0", "x1"])
    assert raised.value.errors[0].row == row
    assert raised.value.errors[0].column == column


def test_other_bytes_than_utf8_are_told():
    with pytest.raises(MalformedBody, match="byte 4 is not UTF-8"):
        taken(CSV, b"1,2\n\xff", ["x0", "x1"])


def test_infinities_are_numbers_so_that_their_place_can_be_told():
    assert taken(CSV, b"1,nan\n-inf,1e400", ["x0", "x1"])[1].tolist() == [-np.inf, np.inf]


def test_a_header_alone_has_no_rows():
    assert len(taken(CSV, b"x0,x1\n", ["x0", "x1"])) == 0


def test_no_broken_text_is_worse_than_refused():
    seeds = [b"x0,x1\n1,2\n3,4.5e3\n", b"1,2\r\n3,4\r\n", b'name,"x0",x1\na,1,2\n']
    ends = Counter(read_or_refused(CSV, body, ["x0", "x1"]) for body in mutated(seeds, 3000))
    assert {"read", "malformed_body", "invalid_argument", "wrong_shape"} == set(ends)


# --- the rule that is shared with the command line


@pytest.mark.parametrize("end", tabular.LINE_ENDS)
@pytest.mark.parametrize("text", tabular.TABLES.values(), ids=tabular.TABLES)
def test_a_table_by_the_rule(text, end):
    assert taken(CSV, text.replace("|", end).encode(), ["a", "b"]).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("end", tabular.LINE_ENDS)
@pytest.mark.parametrize("text", tabular.REFUSED.values(), ids=tabular.REFUSED)
def test_a_table_against_the_rule(text, end):
    with pytest.raises(PushforwardError):
        taken(CSV, text.replace("|", end).encode(), ["a", "b"])


@pytest.mark.parametrize("text", tabular.NUMBERS)
def test_a_cell_that_is_a_number(text):
    expected = [[np.float32(tabular.NUMBERS[text]), 1]]
    for heading in ("", "a,b\n"):
        np.testing.assert_array_equal(taken(CSV, f"{heading}{text},1\n".encode(), ["a", "b"]), expected)


@pytest.mark.parametrize("text", tabular.TEXTS)
def test_a_cell_that_is_no_number(text):
    with pytest.raises(InvalidArgument, match="row 0, column 0: expected a number"):
        taken(CSV, f"a,b\n{text},1\n".encode(), ["a", "b"])

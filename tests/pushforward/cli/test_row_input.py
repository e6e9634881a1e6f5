from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pushforward.cli.row_input import open_rows, read_event_shape
from pushforward.cli.row_layout import RowLayout
from pushforward.cli.row_output import CsvWriter
from pushforward.client.arrays import restore_float32
from pushforward.client.errors import InvalidInput
from tests import tabular

NAMED = RowLayout.of((2,), ["a", "b"])
UNNAMED = RowLayout.of((2,))
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.just(float(np.float32(7.038531e-26)))


def read(path, layout, **options):
    with open_rows(str(path), layout, **options) as rows:
        return rows.read_whole()


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_csv_without_a_header(tmp_path):
    block = read(csv(tmp_path, "1,2\n\n 3.5 ,-4e-3\r\n"), NAMED)
    assert block.values.tolist() == [[1, 2], [3.5, float(np.float32(-4e-3))]]
    assert block.where(1) == "line 3"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "b,other,a\n2,x,1\n", "\ufeffa,b\n1,2", '"a", b\n1,"2"\n'])
def test_columns_are_taken_by_name(tmp_path, text):
    assert read(csv(tmp_path, text), NAMED).values.tolist() == [[1, 2]]


def test_a_header_of_other_names_is_passed_over_where_the_flow_has_none(tmp_path):
    assert read(csv(tmp_path, "u,v\n1,2\n"), UNNAMED).values.tolist() == [[1, 2]]
    assert read(csv(tmp_path, "x1,log_prob,x0\n2,-inf,1\n"), UNNAMED).values.tolist() == [[1, 2]]


def test_another_delimiter(tmp_path):
    assert read(csv(tmp_path, "a;b\n1;2\n"), NAMED, delimiter=";").values.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "layout", "words"),
    [
        ("", NAMED, "holds no rows"),
        ("a,b\n", NAMED, "holds no rows"),
        ("u,v\n1,2\n", NAMED, "no column 'a', 'b'"),
        ("a,b,a\n1,2,3\n", NAMED, "'a' more than once"),
        ("1,2,3\n", NAMED, "first line has 3 columns, and a row of this flow has 2"),
        ("u,v,w\n1,2,3\n", UNNAMED, "first line has 3 columns"),
        ("1,x\n3,4\n", NAMED, r"line 1, column 2 \(b\): 'x' is not a number; a header would hold no number"),
        ("1,\n3,4\n", UNNAMED, r"line 1, column 2 \(x1\): an empty cell is not a number"),
        ("nan,x\n3,4\n", UNNAMED, r"line 1, column 2 \(x1\): 'x' is not a number"),
        ("\n1_000,2\n3,4\n", UNNAMED, r"line 2, column 1 \(x0\): '1_000' is not a number"),
        ("1,2\n3,4_0\n", UNNAMED, r"line 2, column 2 \(x1\): '4_0' is not a number$"),
        ("a,b,2019\n1,2,3\n", NAMED, "a row of this flow has 2; a header would hold no number"),
        ("a,b\n1,2\n3\n", NAMED, "line 3: 1 columns, where the first line has 2"),
        ("b,a\n1,2\n3,four\n", NAMED, r"line 3, column 2 \(a\): 'four' is not a number"),
        ("a,b\n1,\n", NAMED, r"line 2, column 2 \(b\): an empty cell is not a number"),
        ("1,2\n3,nan\n", NAMED, r"line 2, column 2 \(b\): nan is not finite"),
        ("1,2\n-inf,1\n", NAMED, r"line 2, column 1 \(a\): -inf is not finite"),
        ("b,a\n1,1e39\n", NAMED, r"line 2, column 2 \(a\): 1e\+39 is beyond the range of float32"),
        ('a,b\n1,"2\n', NAMED, "line 2: not CSV"),
    ],
)
def test_faults_are_named_by_line_and_column(tmp_path, text, layout, words):
    with pytest.raises(InvalidInput, match=words):
        read(csv(tmp_path, text), layout)


# --- rows with their context beside them

ONE, MADE_UP = RowLayout.of((1,), ["c"]), RowLayout.of((1,), letter="context")


@pytest.mark.parametrize(
    ("text", "layout", "context_layout"),
    [
        ("c,b,a\n3,2,1\n", NAMED, ONE),
        ("b,other,a,context0\n2,x,1,3\n", NAMED, MADE_UP),
        ("u,c,v\n1,3,2\n", UNNAMED, ONE),
        ("x1,c,x0,log_prob\n2,3,1,-inf\n", UNNAMED, ONE),
        ("u,context0,v\n1,3,2\n", UNNAMED, MADE_UP),
        ("u,v,w\n1,2,3\n", UNNAMED, MADE_UP),
        ("1,2,3\n", NAMED, ONE),
    ],
)
def test_a_context_beside_its_row(tmp_path, text, layout, context_layout):
    block = read(csv(tmp_path, text), layout, context_layout=context_layout)
    assert (block.values.tolist(), block.context.tolist()) == ([[1, 2]], [[3]])


@pytest.mark.parametrize(
    ("text", "layout", "context_layout", "words"),
    [
        ("a,b\n1,2\n", NAMED, ONE, "no column 'c' for the context; --context gives it apart"),
        ("a,b,d\n1,2,3\n", NAMED, MADE_UP, "no column 'context0' for the context"),
        ("u,v\n1,2\n", UNNAMED, ONE, "no column 'c' for the context"),
        (
            "u,v,w,c\n1,2,3,4\n",
            UNNAMED,
            ONE,
            "3 columns stand beside those of the context, and a row",
        ),
        ("a,c\n1,2\n", NAMED, ONE, "no column 'b'$"),
        ("a,b,c,c\n1,2,3,4\n", NAMED, ONE, "'c' more than once"),
        (
            "1,2\n",
            UNNAMED,
            ONE,
            "2 columns, and a row of this flow has 2, and 1 of context after them or in --",
        ),
        ("c,a,b\nnan,1,2\n", NAMED, ONE, r"line 2, column 1 \(c\): nan is not finite"),
        ("c,a,b\nx,1,2\n", NAMED, ONE, r"line 2, column 1 \(c\): 'x' is not a number"),
    ],
)
def test_a_context_that_is_not_there(tmp_path, text, layout, context_layout, words):
    with pytest.raises(InvalidInput, match=words):
        read(csv(tmp_path, text), layout, context_layout=context_layout)


def test_a_context_in_npy_follows_its_row(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(21.0).reshape(3, 7))
    images = RowLayout.of((2, 3, 1))
    with open_rows(str(tmp_path / "rows.npy"), images, context_layout=ONE, block_rows=2) as rows:
        assert rows.total == 3
        block = rows.read_whole()
    assert block.values.shape == (3, 2, 3, 1)
    assert block.values[1].ravel().tolist() == [7, 8, 9, 10, 11, 12]
    assert block.context.tolist() == [[6], [13], [20]]
    np.save(tmp_path / "rows.npy", np.zeros((3, 6)))
    with pytest.raises(InvalidInput, match=r"\[3, 6\]: the last 1 are the context, unless --context gives it"):
        read(tmp_path / "rows.npy", images, context_layout=ONE)


def test_bytes_that_are_no_text(tmp_path):
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read(csv(tmp_path, "1,2\né,3\n", "latin-1"), NAMED)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read(tmp_path / "nothing.csv", NAMED)


def test_blocks_keep_their_place(tmp_path):
    path = csv(tmp_path, "a,b\n" + "".join(f"{i},{-i}\n" for i in range(10)))
    with open_rows(str(path), NAMED, block_rows=4) as rows:
        assert rows.total is None
        blocks = list(rows.blocks)
    assert [len(block.values) for block in blocks] == [4, 4, 2]
    assert [block.first for block in blocks] == [0, 4, 8]
    assert blocks[2].where(1) == "line 11"


def test_a_late_fault_keeps_its_line(tmp_path):
    path = csv(tmp_path, "1,2\n" * 10 + "1,nan\n")
    with pytest.raises(InvalidInput, match="line 11"):
        read(path, NAMED, block_rows=4)


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 8), st.just(2)), elements=finite32), st.integers(1, 9))
def test_csv_there_and_back_is_exact(tmp_path_factory, values, block_rows):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("wb") as stream:
        CsvWriter(stream, ["a", "b", "log_prob"]).write(values, np.full(len(values), -np.inf, np.float32))
    assert read(path, NAMED, block_rows=block_rows).values.view(np.uint32).tolist() == values.view(np.uint32).tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("event", [(2,), (2, 3, 1)])
def test_npy(tmp_path, dtype, event):
    values = np.arange(12).reshape(-1, *event).astype(dtype)
    layout = RowLayout.of(event)
    for shape in (values.shape, (len(values), layout.width)):
        np.save(tmp_path / "rows.npy", values.reshape(shape))
        with open_rows(str(tmp_path / "rows.npy"), layout, block_rows=1) as rows:
            assert rows.total == len(values)
            block = rows.read_whole()
        assert block.values.dtype == np.float32
        assert (block.values == values.astype(np.float32)).all()
        assert block.where(1) == "row 1"
    np.save(tmp_path / "one.npy", values[0])
    assert read(tmp_path / "one.npy", layout).values.shape == (1, *event)


def test_npy_of_one_column_may_be_flat(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([1.0, 2.0, 3.0]))
    assert read(tmp_path / "rows.npy", RowLayout.of((1,))).values.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4)), r"must have the shape \['N', 2\], and has \[3, 4\]"),
        (np.zeros((0, 2)), "no rows"),
        (np.float64(3), "must have the shape"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1, None]], object), "not a .npy file of plain numbers"),
        (np.array([[1, 2], [3, np.nan]]), r"row 1, column 2 \(b\): nan is not finite"),
        (np.array([[1, 1e300]]), r"row 0, column 2 \(b\): 1e\+300 is beyond"),
    ],
)
def test_faults_of_npy(tmp_path, array, words):
    np.save(tmp_path / "rows.npy", array, allow_pickle=True)
    with pytest.raises(InvalidInput, match=words):
        read(tmp_path / "rows.npy", NAMED)


def test_a_cut_npy(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((100, 2)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:200])
    with pytest.raises(InvalidInput, match=r"not a \.npy file"):
        read(tmp_path / "cut.npy", NAMED)


@pytest.mark.parametrize("npy", [False, True])
def test_standard_input(monkeypatch, npy):
    buffer = io.BytesIO(b"1,2\n3,4\n")
    if npy:
        buffer = io.BytesIO()
        np.save(buffer, np.array([[1, 2], [3, 4]]))
        buffer.seek(0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    assert read("-", NAMED).values.tolist() == [[1, 2], [3, 4]]


def test_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1,x\n3,\n")))
    with pytest.raises(InvalidInput, match="standard input"):
        read("-", NAMED)


# --- the rule that is shared with the codec of text/csv


@pytest.mark.parametrize("end", tabular.LINE_ENDS)
@pytest.mark.parametrize("text", tabular.TABLES.values(), ids=tabular.TABLES)
def test_a_table_by_the_rule(tmp_path, text, end):
    assert read(csv(tmp_path, text.replace("|", end)), NAMED).values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("end", tabular.LINE_ENDS)
@pytest.mark.parametrize("text", tabular.REFUSED.values(), ids=tabular.REFUSED)
def test_a_table_against_the_rule(tmp_path, text, end):
    with pytest.raises(InvalidInput):
        read(csv(tmp_path, text.replace("|", end)), NAMED)


@pytest.mark.parametrize("heading", ["", "a,b\n"])
@pytest.mark.parametrize("text", tabular.NUMBERS)
def test_a_cell_that_is_a_number(tmp_path, text, heading):
    path = csv(tmp_path, f"{heading}{text},1\n")
    if np.isfinite(tabular.NUMBERS[text]):
        expected = restore_float32(np.array([tabular.NUMBERS[text], 1.0]))
        assert read(path, NAMED).values.tolist() == [expected.tolist()]
    else:
        with pytest.raises(InvalidInput, match=r"column 1 \(a\): -?(inf|nan) is not finite"):
            read(path, NAMED)


@pytest.mark.parametrize("text", tabular.TEXTS)
def test_a_cell_that_is_no_number(tmp_path, text):
    with pytest.raises(InvalidInput, match=r"line 2, column 1 \(a\): .* is not a number"):
        read(csv(tmp_path, f"a,b\n{text},1\n"), NAMED)


@pytest.mark.parametrize(("text", "layout"), [("z1,z0\n1,2\n", UNNAMED), ("b,a\n1,2\n", NAMED.of_latents())])
def test_a_header_of_other_columns_of_the_flow_is_no_header_of_any_names(tmp_path, text, layout):
    with pytest.raises(InvalidInput, match=r"are other columns of the flow"):
        read(csv(tmp_path, text), layout)
    assert read(csv(tmp_path, "v,u\n1,2\n"), layout).values.tolist() == [[1, 2]]


GENERIC = NAMED.of_context(["dose", "kind=red"], 2)


def test_the_context_has_the_names_that_every_flow_knows(tmp_path):
    path = csv(tmp_path, "context1,b,a,context0\n4,2,1,3\n")
    block = read(path, NAMED, context_layout=GENERIC)
    assert (block.values.tolist(), block.context.tolist()) == ([[1, 2]], [[3, 4]])
    assert read(csv(tmp_path, "context1,context0\n4,3\n"), GENERIC).values.tolist() == [[3, 4]]
    path = csv(tmp_path, "context1,b,a,context0,dose,kind=red\n0,2,1,0,3,4\n")
    assert read(path, NAMED, context_layout=GENERIC).context.tolist() == [[3, 4]]
    with pytest.raises(InvalidInput, match="no column 'dose', 'kind=red' for the context"):
        read(csv(tmp_path, "context1,b,a\n4,2,1\n"), NAMED, context_layout=GENERIC)
    named = RowLayout.of((2,), ["context0", "b"])
    with pytest.raises(InvalidInput, match="no column 'dose'"):
        read(csv(tmp_path, "context1,b,context0\n4,2,1\n"), named, context_layout=named.of_context(["dose"], 1))


@pytest.mark.parametrize(("layout", "context_layout"), [(UNNAMED, None), (NAMED, RowLayout.of((2,), letter="context"))])
def test_a_header_of_half_the_made_up_names_is_refused(tmp_path, layout, context_layout):
    text = "x0,v\n1,2\n" if context_layout is None else "a,b,context1,c\n1,2,3,4\n"
    with pytest.raises(InvalidInput, match=r"no column '(x1|context0)'"):
        read(csv(tmp_path, text), layout, context_layout=context_layout)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1,2\n3,4\n", (2,)),
        ("\ufeffa;b;c\n1;2;3\n", (3,)),
        ("# a b\n1 2\n", (2,)),
        (",a,b\n0,1,2\n", (2,)),  # an index of pandas is no column
        ("\n", None),
    ],
)
def test_csv_says_the_shape_of_a_row(tmp_path, text, shape):
    assert read_event_shape(str(csv(tmp_path, text)), " " if "# " in text else None) == shape


@pytest.mark.parametrize(("axes", "shape"), [((3, 4), (4,)), ((3, 8, 8, 1), (8, 8, 1)), ((3,), None)])
def test_an_array_says_the_shape_of_a_row(tmp_path, axes, shape):
    np.save(tmp_path / "rows.npy", np.zeros(axes))
    assert read_event_shape(str(tmp_path / "rows.npy")) == shape


def test_the_standard_input_is_not_read_for_the_shape_of_a_row():
    assert read_event_shape("-") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'"a"b\n', "rows.csv, line 1: not CSV"),
        (b"\xff\xfe1\n", "rows.csv, after line 0: not UTF-8 text"),
        (b"\x93NUMPY\x01", "rows.csv is not a .npy file of plain numbers"),
    ],
)
def test_a_file_that_cannot_be_read_has_no_shape_of_a_row(tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_event_shape(str(path))

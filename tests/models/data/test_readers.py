"""CSV is read by the rule of the served codec: which text is a number, and which first line names the columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from models.data.readers import NoNumber, cell_number, read_source, to_numbers
from models.data.selection import chosen_columns, numbers_of
from models.recipe import DataRecipe
from service.api.codecs.csv import Csv
from service.errors import DataError
from tests import tabular
from tests.tabular import NUMBERS, TEXTS

CELLS: dict[str, float | None] = {**NUMBERS, **dict.fromkeys(TEXTS)}


@pytest.mark.parametrize(("cell", "number"), CELLS.items())
def test_a_cell_is_a_number_or_is_named(cell, number):
    np.testing.assert_equal(cell_number(cell), number)
    column = pa.chunked_array([["2.5", cell, "3"]])
    values, bad = to_numbers(column)
    assert (values[0], values[2]) == (2.5, 3.0)
    if number is None:
        assert [(each.row, each.found) for each in bad] == [(1, repr(cell) if cell.strip() else "nothing")]
    else:
        assert bad == []
        np.testing.assert_equal(values[1], number)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.strip()])
def test_the_first_line_names_the_columns_where_the_codec_says_so(tmp_path, cell):
    """A quoted cell is one cell in both."""
    text = f'"{cell}",other\n1,2\n3,4\n'
    path = tmp_path / "t.csv"
    path.write_text(text)
    named = Csv().decode(text.encode(), "x")["x"].names is not None
    assert named == (cell_number(cell) is None)
    source = read_source(path)
    assert source.named == named
    assert source.rows == (2 if named else 3)


def test_a_missing_cell_of_a_text_column_is_nothing():
    _, bad = to_numbers(pa.chunked_array([pa.array(["1", None, "2"], pa.string())]))
    assert bad == [NoNumber(1, "nothing")]


def test_a_first_line_that_is_no_csv_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a" * 200_000 + ",b\n1,2\n")
    with pytest.raises(DataError, match=r"^t\.csv: this is not CSV: field larger than field limit"):
        read_source(tmp_path / "t.csv")


# --- the rule that is shared with the codec of text/csv and the command line


def fitted(path):
    """The columns that are fitted, as numbers."""
    source = read_source(path)
    names = chosen_columns(source, DataRecipe(columns=["a", "b"]) if source.named else DataRecipe(), set())
    return numbers_of(source, {name: source.columns[name] for name in names}, None, "").tolist()


@pytest.mark.parametrize("end", tabular.LINE_ENDS)
@pytest.mark.parametrize("text", tabular.TABLES.values(), ids=tabular.TABLES)
def test_a_table_by_the_rule(tmp_path, text, end):
    (tmp_path / "t.csv").write_text(text.replace("|", end), encoding="utf-8", newline="")
    if text == tabular.TABLES["a name twice that is not wanted"]:  # a fit wants all columns
        with pytest.raises(DataError, match="two columns are called 'c'"):
            read_source(tmp_path / "t.csv")
        return
    assert fitted(tmp_path / "t.csv") == [[1, 2], [3, 4]]


@pytest.mark.parametrize("text", tabular.REFUSED.values(), ids=tabular.REFUSED)
def test_a_table_against_the_rule(tmp_path, text):
    (tmp_path / "t.csv").write_text(text.replace("|", "\n"), encoding="utf-8")
    with pytest.raises(DataError, match=r"^t\.csv"):
        fitted(tmp_path / "t.csv")


def test_a_row_has_its_line_where_cells_hold_line_ends(tmp_path):
    (tmp_path / "t.csv").write_text('# made\n\n"a\nb",c\n"1\n2",x\n3,y\n')
    source = read_source(tmp_path / "t.csv")
    assert list(source.columns) == ["a\nb", "c"]
    assert [source.place(row) for row in range(2)] == ["row 0 (line 6)", "row 1 (line 7)"]


def test_many_blocks_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("models.data.readers._LINES", 3)
    x = np.arange(20.0).reshape(10, 2)
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b")
    assert fitted(tmp_path / "t.csv") == x.tolist()
    with (tmp_path / "t.csv").open("a") as file:
        file.write("1\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"row 10 \(line 12\): expected 2 cells, as in the first line, and") as caught:
        read_source(tmp_path / "t.csv")
    assert [(reason.row, reason.reason[-8:]) for reason in caught.value.errors] == [(10, " found 1"), (12, " found 3")]


FRAME = pd.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6]}, index=[7, 3, 5])
INDEXED = {
    "filtered": FRAME,
    "time": FRAME.set_index(pd.date_range("2026-01-01", periods=3, name="when")),
    "named": FRAME.rename_axis("id"),
    "two levels": FRAME.set_index(pd.MultiIndex.from_tuples([("p", 1), ("p", 2), ("q", 1)], names=["k", None])),
    "text": FRAME.set_index(pd.Index(["x", "y", "z"])),
    "counted": FRAME.reset_index(drop=True),
}


@pytest.mark.parametrize("frame", INDEXED.values(), ids=INDEXED)
@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow"])
def test_the_index_of_a_frame_is_not_fitted(tmp_path, frame, suffix):
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        pa.feather.write_feather(pa.Table.from_pandas(frame), path)
    assert fitted(path) == FRAME.to_numpy().tolist()
    source = read_source(path)
    assert chosen_columns(source, DataRecipe(), set()) == ("a", "b")
    if source.index and frame is INDEXED["named"]:
        assert chosen_columns(source, DataRecipe(columns=["id", "b"]), set()) == ("id", "b")


@pytest.mark.parametrize("frame", [INDEXED["filtered"], INDEXED["text"], FRAME.set_axis([0, 1], axis=1)])
def test_the_index_of_a_frame_in_csv_is_not_fitted(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv")
    source = read_source(tmp_path / "t.csv")
    names = chosen_columns(source, DataRecipe(), set())
    assert len(names) == 2
    assert numbers_of(source, {n: source.columns[n] for n in names}, None, "").tolist() == FRAME.to_numpy().tolist()
    again = pd.read_csv(tmp_path / "t.csv")
    again.to_csv(tmp_path / "t.csv", index=False)
    assert chosen_columns(read_source(tmp_path / "t.csv"), DataRecipe(), set()) == names or not source.named


def test_a_column_without_a_name_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("a,,c\n1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match=r"column 1 \(counted from 0\) has no name in the heading, .* with --drop 1$"):
        chosen_columns(read_source(tmp_path / "t.csv"), DataRecipe(), set())
    assert chosen_columns(read_source(tmp_path / "t.csv"), DataRecipe(drop=["1"]), set()) == ("a", "c")
    (tmp_path / "t.csv").write_text(",a\n1,2\n4,5\n")
    with pytest.raises(DataError, match="column 0"):
        chosen_columns(read_source(tmp_path / "t.csv"), DataRecipe(columns=["0"]), set())


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
def test_names_that_are_there_twice_are_told(tmp_path, suffix):
    table = pa.Table.from_arrays([pa.array([1.0, 2])] * 4, names=["a", "b", " a", "b"])
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pa.parquet.write_table(table, path)
    elif suffix == "feather":
        pa.feather.write_feather(table, path)
    else:
        path.write_text("a,b, a,b\n1,2,3,4\n")
    words = r"two columns are called 'a' \(columns 0 and 2, counted from 0, and 1 more names are there more than once\)"
    with pytest.raises(DataError, match=rf"^t\.{suffix}: {words}; rename them$"):
        read_source(path)


def test_a_first_line_that_counts_is_pointed_out(tmp_path):
    for text, noted in (("0,1\n5,6\n", True), ("0\n1\n", False), (",0,1\n0,5,6\n", False), ("1,2\n3,4\n", False)):
        (tmp_path / "t.csv").write_text(text)
        assert bool(read_source(tmp_path / "t.csv").notes) == noted
    (tmp_path / "t.csv").write_text("0,1\n5,6\n")
    assert read_source(tmp_path / "t.csv", header=True).notes == ()


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("NA", "a missing value"),
        ("<NA>", "a missing value"),
        ('"1,000"', "nothing between thousands"),
        ("1 000", "nothing between thousands"),
        ('"1,5"', "a decimal point"),
        ("x", None),
    ],
)
def test_a_cell_that_is_no_number_is_explained(tmp_path, cell, hint):
    (tmp_path / "t.csv").write_text(f"a,b\n1,2\n{cell},4\n")
    with pytest.raises(DataError, match=rf": .*{hint}" if hint else "found 'x'$"):
        fitted(tmp_path / "t.csv")

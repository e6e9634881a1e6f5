"""CSV is read by the rule of the served codec: which text is a number, and which first line names the columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.data.readers import cell_number, read_source, to_numbers
from service.api.codecs.csv import Csv
from tests.tabular import NUMBERS, TEXTS

CELLS: dict[str, float | None] = {**NUMBERS, **dict.fromkeys(TEXTS)}


@pytest.mark.parametrize(("cell", "number"), CELLS.items())
def test_a_cell_is_a_number_or_is_named(cell, number):
    np.testing.assert_equal(cell_number(cell), number)
    column = pa.chunked_array([["2.5", cell, "3"]])
    values, bad = to_numbers(column)
    assert (values[0], values[2]) == (2.5, 3.0)
    if number is None:
        assert bad == [(1, repr(cell) if cell.strip() else "nothing")]
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
    assert bad == [(1, "nothing")]


def test_a_first_line_that_is_no_csv_is_refused(tmp_path):
    from service.errors import DataError

    (tmp_path / "t.csv").write_text("a" * 200_000 + ",b\n1,2\n")
    with pytest.raises(DataError, match=r"^t\.csv: this is not CSV: field larger than field limit"):
        read_source(tmp_path / "t.csv")

"""Rows are chosen, checked and split; each fault is named by row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.data.grid import grid_step, is_on_grid
from models.data.load import load_data
from models.data.split import split
from models.recipe import DataRecipe, Recipe
from service.errors import DataError
from tests.unwritable import readable_folder, unwritable


def rows(count: int = 40, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def load(source: Path | str, **options):
    return load_data(Recipe.parse({"data": {"source": str(source), **options}}))


def write_csv(path: Path, values: np.ndarray, header: str | None = "a,b,c") -> Path:
    lines = [header] if header else []
    path.write_text("\n".join(lines + [",".join(map(repr, map(float, row))) for row in values]) + "\n")
    return path


def edited(path: Path, line: int, text: str) -> Path:
    """The CSV with one line (from 1) replaced."""
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    return path


# --- every kind of file gives the same rows


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["a,b,c", None])
def test_csv(tmp_path, header, delimiter):
    x = rows()
    path = write_csv(tmp_path / "t.csv", x, header)
    path.write_text(path.read_text().replace(",", delimiter))
    table = load(path)
    np.testing.assert_array_equal(table.rows, x)
    assert table.names == (("a", "b", "c") if header else ("0", "1", "2"))
    assert [f.name for f in table.features] == (["a", "b", "c"] if header else [])


def test_numpy_and_parquet(tmp_path):
    x = rows()
    np.save(tmp_path / "t.npy", x)
    np.savez(tmp_path / "t.npz", X=x, y=np.zeros(len(x)))
    np.savez(tmp_path / "u.npz", table=x, y=np.zeros(len(x)))
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}), tmp_path / "t.parquet")
    for name in ("t.npy", "t.npz", "u.npz", "t.parquet"):
        np.testing.assert_array_equal(load(tmp_path / name).rows, x)
    assert load(tmp_path / "t.parquet").names == ("a", "b", "c")
    assert len({load(tmp_path / name).digest for name in ("t.npy", "t.npz", "t.parquet")}) == 1


def test_images_keep_their_shape(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4, 5))
    np.save(tmp_path / "t.npy", x)
    table = load(tmp_path / "t.npy")
    assert table.rows.shape == (60, 4, 5, 1)
    assert (table.names, table.features) == ((), ())
    with pytest.raises(DataError, match="images"):
        load(tmp_path / "t.npy", columns=["1"])


def test_header_and_text_can_be_told(tmp_path):
    x = rows()
    path = write_csv(tmp_path / "t.csv", x, "1,2,3")
    assert load(path).rows.shape == (41, 3)  # a first line of numbers is a row
    assert load(path, header=True).names == ("1", "2", "3")


def test_builtin_sets():
    table = load("wine")
    assert table.rows.shape == (178, 13)
    assert "alcohol" in table.names
    assert any(feature.unit for feature in table.features)


def test_where_columns_drop_and_units(tmp_path):
    x = rows(100)
    label = np.arange(len(x)) % 2
    np.savez(tmp_path / "t.npz", X=x, y=label)
    assert np.array_equal(load(tmp_path / "t.npz", where=["y=0"]).rows, x[label == 0])
    assert np.array_equal(load(tmp_path / "t.npz", where=["y!=0", "0<0.5"]).rows, x[(label == 1) & (x[:, 0] < 0.5)])
    kind = np.where(label == 0, "red", "blue")
    pq.write_table(pa.table({"a": x[:, 0], "kind": kind, "b": x[:, 1]}), tmp_path / "t.parquet")
    table = load(tmp_path / "t.parquet", where=["kind=red"], units={"b": "kg"})
    assert np.array_equal(table.rows, x[label == 0, :2])  # the column that a condition fixes is left out
    assert [(f.name, f.unit) for f in table.features] == [("a", None), ("b", "kg")]
    assert "kind=red" in table.words
    assert load(tmp_path / "t.parquet", columns=["b", "a"]).names == ("b", "a")
    assert load(tmp_path / "t.parquet", drop=["1"]).names == ("a", "b")


# --- what cannot be fitted


@pytest.mark.parametrize(
    ("line", "text", "row", "column", "words"),
    [
        (3, "1.0,oops,2.0", 1, 1, r"row 1 \(line 3\), column 'b': expected a number, and found 'oops'"),
        (3, "1.0,,2.0", 1, 1, "found nothing"),
        (2, "nan,1.0,2.0", 0, 0, r"row 0 \(line 2\), column 'a' is NaN"),
        (41, "1.0,1.0,inf", 39, 2, r"row 39 \(line 41\), column 'c' is inf"),
        (5, "1.0,1e300,2.0", 3, 1, "float32's range"),
        (4, "1.0,2.0", 2, None, r"row 2 \(line 4\): expected 3 cells, as in the first line, and found 2"),
        (4, "1.0,2.0,3.0,4.0", 2, None, "found 4"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, line, text, row, column, words):
    path = edited(write_csv(tmp_path / "t.csv", rows()), line, text)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert (caught.value.errors[0].row, caught.value.errors[0].column) == (row, column)
    assert str(tmp_path) not in caught.value.detail


def test_empty_lines_are_no_rows_and_do_not_shift_the_line(tmp_path):
    path = write_csv(tmp_path / "t.csv", rows())
    path.write_text(path.read_text().replace("a,b,c\n", "a,b,c\n\n\n", 1) + "1.0,x,2.0\n")
    with pytest.raises(DataError, match=r"row 40 \(line 44\)"):
        load(path)


def test_a_row_keeps_its_number_where_rows_are_chosen(tmp_path):
    x = rows(60)
    x[31, 1] = np.nan
    np.savez(tmp_path / "t.npz", X=x, y=np.arange(60) % 2)
    load(tmp_path / "t.npz", where=["y=0"])
    with pytest.raises(DataError, match="row 31, column 1 is NaN"):
        load(tmp_path / "t.npz", where=["y=1"])


def test_every_bad_cell_is_listed_up_to_the_cap(tmp_path):
    x = rows()
    x[:30, 1] = np.inf
    np.save(tmp_path / "t.npy", x)
    with pytest.raises(DataError, match=r"\(and 29 more\)") as caught:
        load(tmp_path / "t.npy")
    assert [reason.row for reason in caught.value.errors] == list(range(20))


def test_text_columns(tmp_path):
    path = write_csv(tmp_path / "t.csv", rows())
    path.write_text("\n".join(f"{line},red" for line in path.read_text().splitlines()))
    with pytest.raises(DataError, match=r"column 'red': .*'red' \(and 39 more in this column\).*--drop"):
        load(path)
    assert load(path, drop=["red"]).names == ("a", "b", "c")
    pq.write_table(pa.table({"a": rows()[:, 0], "t": pa.array([0] * 40, pa.timestamp("us"))}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 't'.*timestamp"):
        load(tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": [None, *rows()[1:, 0]], "i": [*range(39), None]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 0, column 'a': expected a number, and found nothing") as caught:
        load(tmp_path / "t.parquet")
    assert caught.value.errors[1].row == 39


def test_constant_columns(tmp_path):
    x = rows()
    x[:, 1] = 2.5
    path = write_csv(tmp_path / "t.csv", x)
    with pytest.raises(DataError, match=r"column 'b' is constant: it is 2\.5 in every row"):
        load(path)
    assert load(path, drop=["b"]).names == ("a", "c")
    x[:, 1] = 1e9 + rows()[:, 0]
    with pytest.raises(DataError, match="constant in float32"):
        load(write_csv(tmp_path / "t.csv", x))
    x[:, 1] = 1e6 + rows()[:, 0]
    assert "varies little beside its size" in load(write_csv(tmp_path / "t.csv", x)).notes[0]


@pytest.mark.parametrize(("count", "width", "least"), [(19, 3, 20), (49, 25, 50)])
def test_too_few_rows(tmp_path, count, width, least):
    np.save(tmp_path / "t.npy", rows(count, width))
    with pytest.raises(DataError, match=f"{count} rows are too few to fit {width} columns; at least {least}"):
        load(tmp_path / "t.npy")
    np.save(tmp_path / "t.npy", rows(least, width))
    load(tmp_path / "t.npy")


@pytest.mark.parametrize("options", [{}, {"dequantize": True}])
@pytest.mark.parametrize(
    ("name", "content", "width"),
    [
        ("t.csv", "a,b,c\n", 3),
        ("t.csv", "a,b,c", 3),
        ("t.csv", "\na,b,c\n\n", 3),
        ("t.npy", np.zeros((0, 3)), 3),
        ("t.npy", np.zeros(0), 1),
        ("t.npy", np.zeros((0, 8, 8)), 64),
        ("t.npz", {"X": np.zeros((0, 3)), "y": np.zeros(0)}, 3),
        ("t.parquet", pa.table({"a": pa.array([], pa.float64()), "b": pa.array([], pa.timestamp("us"))}), 2),
    ],
)
def test_no_rows_are_too_few(tmp_path, name, content, width, options):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        np.save(path, content)
    with pytest.raises(DataError, match=f"^{name}: 0 rows are too few to fit {width} columns; at least"):
        load(path, **options)


@pytest.mark.parametrize("shape", [(30, 0), (30, 0, 8), (0, 0)])
def test_rows_without_a_value_are_refused(tmp_path, shape):
    np.save(tmp_path / "t.npy", np.zeros(shape))
    with pytest.raises(DataError, match="so that a row holds no value"):
        load(tmp_path / "t.npy")


def test_a_file_that_may_not_be_read_is_told():
    with readable_folder() as folder:
        path = write_csv(folder / "t.csv", rows())
        path.chmod(0o200)
        with unwritable(folder), pytest.raises(DataError, match=r"t\.csv: the file cannot be read: Permission denied"):
            load(path)


def test_bounds(tmp_path):
    x = np.random.default_rng(0).uniform(0, 1, size=(40, 2))
    x[7, 1] = 1.0
    np.save(tmp_path / "t.npy", x)
    with pytest.raises(DataError, match="row 7, column 1 is 1: expected a value strictly between 0 and 1"):
        load(tmp_path / "t.npy", low=0.0, high=1.0)
    assert load(tmp_path / "t.npy", low=0.0, high=2.0).high == 2.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["aa"]}, "no column 'aa'"),
        ({"drop": ["7"]}, "no column '7'"),
        ({"columns": ["a", "0"]}, "twice"),
        ({"drop": ["a", "b", "c"]}, "no column is left"),
        ({"where": ["d=1"]}, "no column 'd'"),
        ({"where": ["a"]}, "expected a condition"),
        ({"where": ["a=77"]}, r"no row of t\.csv has a=77"),
        ({"where": ["a>0", "a<0"]}, "at once"),
        ({"where": ["a>red"]}, "does not apply"),
        ({"units": {"q": "m"}}, "no column 'q'"),
        ({"drop": ["b"], "units": {"b": "m"}}, "is not fitted"),
        ({"key": "X"}, "a key names an array"),
        ({"dequantize": True}, "nothing to dequantize"),
        ({"dequantize_columns": ["a"]}, "no regular step"),
    ],
)
def test_choices_that_do_not_fit_the_data(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        load(write_csv(tmp_path / "t.csv", rows()), **options)


def test_files_that_are_not_what_they_say(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"there is no data: .*two-moons"):
        load_data(Recipe())
    for name, content, words in (
        ("t.csv", b"", "empty"),
        ("t.csv", b"a,b\n\xff\xfe\n", "UTF-8"),
        ("t.csv", b"a,a\n1,2\n", "two columns are called 'a'"),
        ("t.npy", b"not numpy", "plain NumPy"),
        ("t.npz", b"not numpy", "plain NumPy"),
        ("t.parquet", b"not parquet", "not Parquet"),
        ("t.xls", b"", r"ends in one of \.csv"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            load(tmp_path / name)
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        load(tmp_path / "t.npy")
    np.save(tmp_path / "t.npy", np.array(["a", "b"]))
    with pytest.raises(DataError, match="must hold numbers"):
        load(tmp_path / "t.npy")
    np.savez(tmp_path / "t.npz", a=rows(), b=rows())
    with pytest.raises(DataError, match=r"Give its key; there are a \[40, 3\], b \[40, 3\]"):
        load(tmp_path / "t.npz")
    with pytest.raises(DataError, match="no array 'c'"):
        load(tmp_path / "t.npz", key="c")
    assert load(tmp_path / "t.npz", key="b").rows.shape == (40, 3)


# --- integers and near-discrete columns


def counts(count: int = 200) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.column_stack(
        [
            generator.normal(size=count),
            generator.integers(0, 9, count),
            5 * generator.integers(2, 60, count),
            np.round(generator.normal(size=count) / 0.25) * 0.25,
        ]
    )


def test_integer_columns_are_warned_of_by_name(tmp_path):
    path = write_csv(tmp_path / "t.csv", counts(), "x,children,weight,dose")
    integers, spikes = load(path).notes
    assert "'children', 'weight'" in integers
    assert "--dequantize" in integers
    assert "column 'dose' repeats values" in spikes
    assert load(write_csv(tmp_path / "u.csv", rows(), "x,y,z")).notes == ()


def test_large_floats_are_no_integers(tmp_path):
    far, single, money, count = rows(200, 4).T
    columns = np.column_stack([far * 1e30, (single * 1e9).astype("f4"), np.round(money * 1e10), np.round(count * 1e3)])
    notes = load(write_csv(tmp_path / "t.csv", columns, "far,single,money,count")).notes
    (note,) = (note for note in notes if "integers" in note)
    assert note.startswith("each of the columns 'money', 'count' holds integers only")
    assert load(tmp_path / "t.csv", columns=["far", "count"], dequantize=True).step.tolist() == [0, 1]


def test_dequantizing_reads_the_step_off_each_column(tmp_path):
    path = write_csv(tmp_path / "t.csv", counts(), "x,children,weight,dose")
    table = load(path, dequantize=True)
    assert table.step.tolist() == [0, 1, 5, 0]
    assert not any("integers" in note for note in table.notes)
    assert table.quantization is None  # columns differ: one reading cannot say it
    assert load(path, dequantize_columns=["dose"]).step.tolist() == [0, 0, 0, 0.25]
    assert load(path, dequantize=True, step=0.25).step.tolist() == [0, 0.25, 0.25, 0.25]
    with pytest.raises(DataError, match="column 'dose' is not on a grid of step 1"):
        load(path, dequantize_columns=["dose"], step=1.0)
    whole = load(path, columns=["children"], dequantize=True).quantization
    assert (whole.low, whole.high, whole.step) == (0, 8, 1)


def test_dequantized_columns_may_touch_their_bounds_and_be_constant():
    table = load("digits", dequantize=True, low=0.0, high=16.0)
    assert table.rows.shape[1:] == (8, 8, 1)
    assert np.ptp(table.rows, axis=0).min() == 0
    assert np.all(table.step == 1)
    assert (table.quantization.low, table.quantization.high, table.quantization.step) == (0, 16, 1)
    assert table.notes == ()


def test_columns_that_determine_one_another_are_noted(tmp_path):
    x = rows()
    x[:, 2] = x[:, 0] - 2 * x[:, 1]
    assert "a linear relation binds the columns 'a', 'b', 'c'" in load(write_csv(tmp_path / "t.csv", x)).notes[0]


@given(st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=30, unique=True), st.integers(1, 1000))
@settings(max_examples=50)
def test_grid_step_is_the_greatest_that_fits(integers, factor):
    values = np.array(integers, np.float64) * factor
    step = grid_step(values)
    assert step % factor == 0
    assert is_on_grid(values, step)
    assert not is_on_grid(values, 2 * step)


# --- the split


@given(st.integers(20, 300), st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_a_split_uses_every_row_once_and_follows_from_the_seed(count, seed):
    table = _table(np.arange(count, dtype=np.float64)[:, None])
    first, second = split(table, DataRecipe(), seed), split(table, DataRecipe(), seed)
    parts = (first.train, first.validation, first.test)
    assert sorted(torch.cat(parts).flatten().tolist()) == list(range(count))
    assert all(torch.equal(a, b) for a, b in zip(parts, (second.train, second.validation, second.test), strict=True))
    assert len(first.test) == len(first.validation) == max(2, round(0.1 * count))
    assert first.train.dtype == torch.float32


def test_another_seed_is_another_split():
    table = _table(np.arange(100.0)[:, None])
    assert not torch.equal(split(table, DataRecipe(), 0).test, split(table, DataRecipe(), 1).test)


def _table(values: np.ndarray):
    from models.data.load import Table

    return Table(values, ("0",), (), None, None, None, "numbers")


# --- images from a folder, and rows that are held out by name


def write_images(folder: Path, count: int = 40) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4)).astype(np.uint8)
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return pixels[..., None]


def test_a_folder_of_images(tmp_path):
    pixels = write_images(tmp_path / "pictures")
    table = load(tmp_path / "pictures", dequantize=True, low=0.0, high=255.0)
    np.testing.assert_array_equal(table.rows, pixels)
    assert table.words == "pictures: 40 rows of shape [4, 4, 1]"
    row, *place = np.argwhere(pixels > 250)[0].tolist()
    with pytest.raises(DataError, match=rf"{row:03}\.png, pixel \[{', '.join(map(str, place))}\] is 25[0-9]: expected"):
        load(tmp_path / "pictures", dequantize=True, low=0.0, high=250.0)
    with pytest.raises(DataError, match="a key names an array"):
        load(tmp_path / "pictures", key="x")


def two_parts(path: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    arrays = {
        "x_train": random.normal(size=(60, 4, 4)),
        "y_train": np.arange(60) % 3,
        "x_test": random.normal(size=(12, 4, 4)),
        "y_test": np.arange(12) % 3,
        **changes,
    }
    np.savez(path, **arrays)
    return arrays


def test_an_array_can_be_held_out_whole(tmp_path):
    arrays = two_parts(tmp_path / "t.npz")
    table = load(tmp_path / "t.npz", key="x_train", test_key="x_test", context=["y_train"], one_hot=["y_train"])
    assert table.words == (
        "t.npz, array x_train: 60 rows of shape [4, 4, 1], given 3 columns of context; held out, 12 rows of x_test"
    )
    parts = split(table, DataRecipe(validation=0.25), seed=0)
    np.testing.assert_array_equal(parts.test[..., 0], arrays["x_test"].astype(np.float32))
    np.testing.assert_array_equal(parts.test_context.argmax(dim=1), arrays["y_test"])
    assert (len(parts.train), len(parts.validation)) == (45, 15)
    seen = torch.cat((parts.train, parts.validation))[..., 0].numpy()
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(arrays["x_train"].astype(np.float32), axis=0))
    assert table.digest != load(tmp_path / "t.npz", key="x_train").digest


def test_conditions_hold_for_what_is_held_out_too(tmp_path):
    arrays = two_parts(tmp_path / "t.npz")
    table = load(tmp_path / "t.npz", key="x_train", test_key="x_test", where=["y_train!=2"])
    parts = split(table, DataRecipe(), seed=0)
    np.testing.assert_array_equal(parts.test[..., 0], arrays["x_test"][arrays["y_test"] != 2].astype(np.float32))
    two_parts(tmp_path / "u.npz", y_test=np.full(12, 2))
    with pytest.raises(DataError, match="0 rows of x_test are too few"):
        load(tmp_path / "u.npz", key="x_train", test_key="x_test", where=["y_train!=2"])


@pytest.mark.parametrize(
    ("keys", "changes", "words"),
    [
        (("x_train", "x_tset"), {}, r"there is no array 'x_tset'; there are x_train \[60, 4, 4\]"),
        (("x_train", "x_train"), {}, "name the same array, 'x_train'"),
        (
            ("x_train", "x_test"),
            {"x_test": np.zeros((12, 5, 4))},
            r"x_test must hold rows as x_train does, and they are float64 \[12, 5, 4\] and float64 \[60, 4, 4\]",
        ),
        (
            ("x_train", "x_test"),
            {"x_test": np.full((12, 4, 4), np.nan)},
            r"row 0 of x_test, pixel \[0, 0, 0\] is NaN",
        ),
    ],
)
def test_what_cannot_be_held_out(tmp_path, keys, changes, words):
    two_parts(tmp_path / "t.npz", **changes)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "t.npz", key=keys[0], test_key=keys[1])


def test_the_faults_of_columns_are_told_by_name_and_line_of_the_columns_that_are_fitted(tmp_path):
    x = rows(200)
    x[5:9, 1], x[7, 2] = -999999.0, 5e4
    path = write_csv(tmp_path / "t.csv", x)
    mark, tail = load(path).notes
    assert mark.startswith("column 'b' is -999999 in 4 of 200 rows (2.0%; the first is row 5 (line 7))")
    assert tail.startswith("column 'c' has a heavy tail: it is 50000 in row 7 (line 9), ")
    assert load(path, drop=["b", "c"]).notes == ()
    assert load(path, where=["b!=-999999"]).notes == ()
    given = load(path, context=["b"], drop=["c"]).notes
    assert [note[:28] for note in given] == ["context column 'b' is -999999"[:28]]


def test_many_faulty_columns_are_told_in_few_words(tmp_path):
    np.save(tmp_path / "t.npy", 1e6 + rows(100, 12))
    notes = load(tmp_path / "t.npy").notes
    assert len(notes) == 9
    assert notes[-1] == "4 more columns have faults of these kinds"

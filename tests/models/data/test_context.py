"""The context of rows: columns by name or number, classes as a column each, arrays of an .npz; and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data.load import Table, load_data
from models.data.split import derived_seed, split
from models.recipe import DataRecipe, Recipe
from service.errors import DataError

GENERATOR = np.random.default_rng(0)
ROWS, COUNT = GENERATOR.normal(size=(60, 3)), 60
LABELS = np.arange(COUNT) % 3
ROWS_AND_LABELS = list(zip(ROWS.tolist(), LABELS.tolist(), strict=True))


def load(source: Path, **options) -> Table:
    return load_data(Recipe.parse({"data": {"source": str(source), **options}}))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Columns a, b, age, label (0 to 2) and kind (red or white)."""
    lines = ["a,b,age,label,kind"]
    lines += [f"{a!r},{b!r},{age!r},{y},{'red' if y == 1 else 'white'}" for (a, b, age), y in ROWS_AND_LABELS]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def edited(path: Path, line: int, old: str, new: str) -> Path:
    lines = path.read_text().splitlines()
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Images of shape [4, 5], their labels y, and two numbers c for each."""
    path = tmp_path / "t.npz"
    np.savez(path, X=GENERATOR.normal(size=(COUNT, 4, 5)), y=LABELS, c=ROWS[:, :2], short=LABELS[:-1], long=LABELS)
    return path


# --- what is read


def test_columns_are_conditioned_on_and_not_fitted(csv):
    table = load(csv, context=["age", "1"], drop=["label", "kind"], units={"age": "years", "a": "m"})
    assert table.names == ("a",)
    np.testing.assert_array_equal(table.context, ROWS[:, [2, 1]])
    assert [(f.name, f.unit, f.category) for f in table.context_features] == [("age", "years", None), ("b", None, None)]
    assert [(f.name, f.unit) for f in table.features] == [("a", "m")]
    assert table.words == "t.csv: 60 rows of 1 column, given 2 columns of context"


def test_without_a_context_nothing_is_said_of_one(csv):
    table = load(csv, columns=["a", "b"])
    assert table.context is None
    assert table.context_features == ()
    assert "context" not in table.words


@pytest.mark.parametrize(
    ("column", "names"),
    [("label", ["label=0", "label=1", "label=2"]), ("kind", ["kind=red", "kind=white"])],
)
def test_classes_become_a_column_each(csv, column, names):
    table = load(csv, columns=["a", "b"], context=["age", column], one_hot=[column])
    assert [f.name for f in table.context_features] == ["age", *names]
    assert [(f.column, f.category) for f in table.context_features[1:]] == [(column, n.split("=")[1]) for n in names]
    np.testing.assert_array_equal(table.context[:, 1:].sum(axis=1), 1)
    expected = LABELS if column == "label" else (LABELS != 1).astype(int)
    np.testing.assert_array_equal(table.context[:, 1:].argmax(axis=1), expected)


def test_only_classes_of_the_rows_that_are_kept_count(csv):
    table = load(csv, columns=["a", "b"], context=["label"], one_hot=["label"], where=["label>=1"])
    assert [f.name for f in table.context_features] == ["label=1", "label=2"]
    assert len(table.context) == len(table.rows) == 40


def test_columns_without_names_keep_their_numbers(tmp_path):
    np.save(tmp_path / "t.npy", np.column_stack([ROWS, LABELS]))
    plain = load(tmp_path / "t.npy", context=["2"], drop=["3"])
    assert plain.names == ("0", "1")
    assert plain.context_features == ()
    classes = load(tmp_path / "t.npy", context=["3"], one_hot=["3"])
    assert [f.name for f in classes.context_features] == [f"column 3={y}" for y in range(3)]


def test_arrays_of_an_npz_are_the_context_of_its_images(npz):
    table = load(npz, context=["c", "y"], one_hot=["y"])
    assert table.rows.shape == (COUNT, 4, 5, 1)
    np.testing.assert_array_equal(table.context, np.column_stack([ROWS[:, :2], np.eye(3)[LABELS]]))
    assert [f.name for f in table.context_features] == ["c0", "c1", "y=0", "y=1", "y=2"]
    assert table.notes == ()


def test_a_test_set_of_its_own_brings_its_own_context(tmp_path):
    images = GENERATOR.normal(size=(COUNT, 4, 5))
    held_out = np.array([2, 0, 1, 1, 0])
    np.savez(tmp_path / "t.npz", x_train=images, y_train=LABELS, x_test=images[:5] + 9, y_test=held_out)
    options = {"key": "x_train", "test_key": "x_test", "context": ["y_train"], "one_hot": ["y_train"]}
    parts = split(load(tmp_path / "t.npz", **options), DataRecipe(test_key="x_test"), 0)
    np.testing.assert_array_equal(parts.test.numpy()[..., 0], np.float32(images[:5] + 9))
    np.testing.assert_array_equal(parts.test_context.numpy().argmax(axis=1), held_out)
    assert parts.train_context.shape == (54, 3)


def test_whole_numbers_that_may_be_classes_are_noted(npz):
    (note,) = load(npz, context=["y"]).notes
    assert note.startswith("context 'y' holds 3 whole numbers, and the flow takes them as a quantity.")
    assert load(npz, context=["c"]).notes == ()


def test_a_row_keeps_its_context_through_the_split(csv):
    table = load(csv, columns=["a", "b"], context=["age"])
    parts = split(table, DataRecipe(), 3)
    pairs = {tuple(row): float(c) for row, c in zip(table.rows.astype(np.float32), table.context[:, 0], strict=True)}
    for rows, context in (
        (parts.train, parts.train_context),
        (parts.validation, parts.validation_context),
        (parts.test, parts.test_context),
    ):
        assert context.shape == (len(rows), 1)
        for row, value in zip(rows.numpy(), context.numpy(), strict=True):
            assert np.float32(pairs[tuple(row)]) == value[0]
    alone = split(load(csv, columns=["a", "b"]), DataRecipe(), 3)
    assert (alone.train == parts.train).all()
    assert alone.train_context is None


def test_another_context_is_other_data(csv):
    options = {"columns": ["a", "b"]}
    digests = {load(csv, **options).digest, load(csv, **options, context=["age"]).digest}
    digests |= {load(edited(csv, 7, ",1,white", ",1,white"), **options, context=["age"]).digest}
    assert len(digests) == 2
    assert load(edited(csv, 2, "0.64", "0.65"), columns=["b"], context=["age"]).digest not in digests


@pytest.mark.parametrize(("name", "label", "classes"), [("digits", "digit", 10), ("wine", "cultivar", 3)])
def test_a_built_in_data_set_has_its_labels_beside_it(name, label, classes):
    table = load(name, context=[label], one_hot=[label], dequantize=name == "digits")
    assert [f.name for f in table.context_features] == [f"{label}={number}" for number in range(classes)]
    assert len(table.context) == len(table.rows)
    one = load(name, where=[f"{label}=1"], dequantize=name == "digits")
    np.testing.assert_array_equal(one.rows, table.rows[table.context[:, 1] == 1])


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,k=1,k\n" + "".join(f"{a!r},{b!r},{y}\n" for (a, b, _), y in ROWS_AND_LABELS))
    with pytest.raises(DataError, match="two columns would be called 'k=1'"):
        load(tmp_path / "t.csv", context=["k"], one_hot=["k"])


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": ["agee"]}, "context: t.csv has no column 'agee'; did you mean 'age'?"),
        ({"context": ["9"]}, "has no column '9'"),
        ({"context": ["age", "2"]}, "a column is asked for twice: age, age"),
        ({"context": ["age"], "columns": ["a", "2"]}, "column 'age' is one of the context, and so not fitted"),
        ({"context": ["age"], "columns": ["a", "age"]}, "context conditions the flow on 'age', and columns names it"),
        ({"context": ["age"], "drop": ["age"]}, "and drop names it too"),
        ({"context": ["age"], "one_hot": ["label"]}, "one_hot: column 'label' is none of the context"),
        ({"context": ["age"], "one_hot": ["labl"]}, "one_hot: t.csv has no column 'labl'; did you mean 'label'?"),
        ({"one_hot": ["label"]}, "there is no context"),
        (
            {"context": ["kind"]},
            r"row 0 \(line 2\), column 'kind': expected a number, and found 'white' .and 59 more.*name it in one_hot",
        ),
        ({"context": ["label"], "where": ["label=1"]}, "context column 'label' is constant: it is 1 in every row, so"),
        ({"context": ["label"], "one_hot": ["label"], "where": ["label=1"]}, "context column 'label' is 1 is constant"),
    ],
)  # fmt: skip
def test_a_context_that_cannot_be_used(csv, options, words):
    with pytest.raises(DataError) as caught:
        load(csv, **{"columns": ["a", "b"], **options} if "drop" not in options else options)
    said = " ".join([caught.value.detail, *(reason.reason for reason in caught.value.errors)])
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        ("nan", {}, r"row 5 \(line 7\), context column 'label' is NaN: expected a finite number"),
        ("inf", {}, r"row 5 \(line 7\), context column 'label' is inf: expected a finite number"),
        ("1e39", {}, r"context column 'label' is 1e\+39: expected a finite number within float32's range"),
        ("many", {}, r"row 5 \(line 7\), column 'label': expected a number, and found 'many'"),
        ("nan", {"one_hot": ["label"]}, r"row 5 \(line 7\), column 'label': expected a class, and found nan"),
        ("", {"one_hot": ["label"]}, r"row 5 \(line 7\), column 'label': expected a class, and found nothing"),
    ],
)
def test_a_bad_value_is_named_by_row_and_column(csv, value, options, words):
    with pytest.raises(DataError, match=words):
        load(edited(csv, 7, ",2,white", f",{value},white"), columns=["a", "b"], context=["label"], **options)


def test_a_bad_value_in_a_row_that_is_not_kept_does_no_harm(csv):
    edited(csv, 7, ",2,white", ",many,white")
    assert len(load(csv, columns=["a", "b"], context=["age", "label"], where=["label!=many"]).rows) == 59


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", "array 'short' is the context, of 59 rows, for 60 rows of data"),
        ("X", "has no column 'X'"),
        ("z", "context: t.npz has no column 'z'"),
    ],
)
def test_an_array_that_is_no_context(npz, name, words):
    with pytest.raises(DataError, match=words):
        load(npz, context=[name])


def test_an_array_of_images_is_no_context(tmp_path):
    np.savez(tmp_path / "t.npz", X=ROWS, c=np.zeros((COUNT, 2, 2)), y=np.zeros((COUNT, 2)))
    with pytest.raises(DataError, match=r"\[N\] or \[N, C\] to be a context, and has shape \[60, 2, 2\]"):
        load(tmp_path / "t.npz", context=["c"])
    with pytest.raises(DataError, match="one_hot takes one column of classes, and array 'y' has 2"):
        load(tmp_path / "t.npz", context=["y"], one_hot=["y"])


def test_a_measurement_is_no_class(tmp_path):
    rows = np.random.default_rng(1).normal(size=(300, 3))
    np.save(tmp_path / "t.npy", rows)
    with pytest.raises(DataError, match="column 2 has 300 values, and one_hot takes at most 256 classes"):
        load(tmp_path / "t.npy", context=["2"], one_hot=["2"])


def test_a_class_without_a_training_row_is_refused(tmp_path):
    label = np.zeros(COUNT)
    label[5] = 1
    np.savez(tmp_path / "t.npz", X=ROWS, y=label)
    table = load(tmp_path / "t.npz", context=["y"], one_hot=["y"])
    held_out = next(seed for seed in range(100) if _held_out(len(label), seed, 5))
    with pytest.raises(DataError, match=r"context 'y' is 0: this is the same in all 48 training rows"):
        split(table, DataRecipe(), held_out)


def _held_out(count: int, seed: int, row: int) -> bool:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(seed, "split")))
    return row in order[: count // 10].tolist()

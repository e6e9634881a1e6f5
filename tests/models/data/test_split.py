"""A split parts all rows, and what belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.load import Table, load_data
from models.data.membership import Membership, note_of_order
from models.data.split import Split, describe_split, split
from models.recipe import DataRecipe, Recipe
from service.errors import DataError


def table(count: int, held_out: int = 0, **membership) -> Table:
    """Rows that are their own numbers."""
    return Table(
        rows=np.arange(count, dtype=float)[:, None],
        names=("0",),
        features=(),
        step=None,
        low=None,
        high=None,
        words="numbers",
        held_out=held_out,
        membership=Membership(columns=("id",), **membership),
    )


def members(parts: Split) -> list[list[int]]:
    return [part[:, 0].long().tolist() for part in (parts.train, parts.validation, parts.test)]


fractions = st.floats(0.05, 0.4)
ways = st.sampled_from(["group", "blocks", "split_key", "random"])


@given(ways, st.lists(st.integers(0, 12), min_size=30, max_size=200), fractions, fractions, st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_every_row_is_in_one_part_and_no_group_is_in_two(way, labels, validation, test, seed):
    groups = np.unique(labels, return_inverse=True)[1]
    shares = np.array([hash((each, seed)) % 997 / 997 for each in labels])
    given_by = {"group": {"groups": groups}, "split_key": {"shares": shares}}
    options = {"validation": validation, "test": test, **({"split": "blocks"} if way == "blocks" else {})}
    options |= {way: "id"} if way in ("group", "split_key") else {}
    try:
        parts = members(split(table(len(labels), **given_by.get(way, {})), DataRecipe(**options), seed))
    except DataError:
        # too few groups, or unlucky hashes
        assert way == "split_key" or (way == "group" and len(set(labels)) < 6)
        return
    assert sorted(row for part in parts for row in part) == list(range(len(labels)))
    assert all(len(part) >= 2 for part in parts)
    if way in ("group", "split_key"):
        of_part = [{labels[row] for row in part} for part in parts]
        assert sum(map(len, of_part)) == len(set(labels))
    if way == "blocks":
        part_of = np.empty(len(labels), int)
        for number, part in enumerate(parts):
            part_of[part] = number
        borders = int((np.diff(part_of) != 0).sum())
        assert borders < max(20, round(2 / min(validation, test)))


@given(st.integers(30, 400), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_many_small_groups_fill_the_parts_as_they_are_asked_for(count, seed):
    parts = members(split(table(count, groups=np.arange(count) // 2), DataRecipe(group="id"), seed))
    for part in parts[1:]:
        assert abs(len(part) - 0.1 * count) <= 2


def test_a_great_group_is_trained_on():
    groups = np.array([0] * 900 + [1 + at // 10 for at in range(100)])
    for seed in range(10):
        train, _, _ = members(split(table(1000, groups=groups), DataRecipe(group="id"), seed))
        assert set(range(900)) <= set(train)


def test_two_groups_are_too_few_and_three_are_enough():
    groups = np.repeat([0, 1], 50)
    with pytest.raises(DataError, match=r"by the 2 groups of 'id' leaves 0 (validation|held-out) rows"):
        split(table(100, groups=groups), DataRecipe(group="id"), 0)
    parts = members(split(table(150, groups=np.repeat([0, 1, 2], 50)), DataRecipe(group="id"), 0))
    assert [len(part) for part in parts] == [50, 50, 50]


def test_blocks_and_groups_follow_from_the_seed():
    options = DataRecipe(split="blocks")
    first, again, other = (members(split(table(500), options, seed)) for seed in (1, 1, 2))
    assert first == again
    assert [sorted(part) for part in first] != [sorted(part) for part in other]


def test_groups_of_given_held_out_rows_may_not_be_among_the_others():
    groups = np.arange(100) // 5
    options = DataRecipe(group="id", test_key="x_test")
    parts = split(table(100, held_out=20, groups=groups), options, 0)
    assert sorted(members(parts)[2]) == list(range(80, 100))
    groups[-1] = 3
    with pytest.raises(DataError, match="1 groups of 'id' are among the rows that test_key holds out"):
        split(table(100, held_out=20, groups=groups), options, 0)


def loaded(path, **options) -> tuple[Table, DataRecipe]:
    recipe = Recipe.parse({"data": {"source": str(path), **options}})
    return load_data(recipe), recipe.data


def write(path, ids: Sequence[object], values: np.ndarray) -> None:
    pa.parquet.write_table(pa.table({"id": ids, "a": values[:, 0], "b": values[:, 1]}), path)


def test_a_key_says_where_a_row_belongs_whatever_other_rows_there_are(tmp_path):
    values = np.random.default_rng(0).normal(size=(600, 2))
    ids = [f"patient {at}" for at in range(600)]
    write(tmp_path / "small.parquet", ids[:300], values[:300])
    order = np.random.default_rng(1).permutation(600)
    write(tmp_path / "large.parquet", [ids[at] for at in order], values[order])
    small, options = loaded(tmp_path / "small.parquet", split_key="id")
    large, _ = loaded(tmp_path / "large.parquet", split_key="id")
    assert small.names == large.names == ("a", "b")
    of_small, of_large = split(small, options, 0), split(large, options, 7)  # nor does the seed matter
    for name in ("train", "validation", "test"):
        held = {tuple(row) for row in getattr(of_large, name).tolist()}
        assert {tuple(row) for row in getattr(of_small, name).tolist()} <= held
    assert 30 < len(of_large.test) < 95
    assert describe_split(large, options) == "by the hash of 'id'"


def test_a_number_is_one_key_however_it_is_written(tmp_path):
    values = np.random.default_rng(0).normal(size=(100, 2))
    write(tmp_path / "whole.parquet", list(range(100)), values)
    write(tmp_path / "decimal.parquet", [float(at) for at in range(100)], values)
    rows = "".join(f"{at},{a!r},{b!r}\n" for at, (a, b) in enumerate(values.tolist()))
    (tmp_path / "text.csv").write_text(f"id,a,b\n{rows}")
    whole, *others = (
        loaded(tmp_path / name, split_key="id")[0] for name in ("whole.parquet", "decimal.parquet", "text.csv")
    )
    assert whole.membership.shares is not None
    for other in others:
        np.testing.assert_array_equal(other.membership.shares, whole.membership.shares)
    large = [2**60 + at for at in range(100)]  # float64 would make one of many
    write(tmp_path / "large.parquet", large, values)
    shares = loaded(tmp_path / "large.parquet", split_key="id")[0].membership.shares
    assert shares is not None
    assert len(set(shares)) == 100


def test_a_group_is_read_and_not_fitted_and_rows_left_out_do_not_count(tmp_path):
    values = np.random.default_rng(0).normal(size=(200, 2))
    write(tmp_path / "t.parquet", [f"g{at // 10}" for at in range(200)], values)
    found, options = loaded(tmp_path / "t.parquet", group="id", where=["a>-1"])
    assert found.names == ("a", "b")
    assert found.membership.groups is not None
    assert len(found.membership.groups) == len(found.rows) < 200
    given = (np.arange(200) // 10)[values[:, 0] > -1]
    assert len(set(zip(found.membership.groups.tolist(), given.tolist(), strict=True))) == 20
    assert describe_split(found, options) == "by the 20 groups of 'id'"
    other, _ = loaded(tmp_path / "t.parquet", drop=["id"], where=["a>-1"])
    assert other.digest != found.digest


def test_the_group_of_images_stands_beside_them(tmp_path):
    np.savez(tmp_path / "film.npz", x=np.random.default_rng(0).normal(size=(60, 4, 4)), film=np.arange(60) // 6)
    found, _ = loaded(tmp_path / "film.npz", group="film")
    assert found.membership.groups is not None
    assert found.membership.groups.max() == 9


def test_what_is_wrong_with_a_group_is_named(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 2))
    write(tmp_path / "t.parquet", [*map(str, range(49)), None], values)
    for options, said in (
        ({"group": "id"}, "row 49, column 'id': expected a value, and found nothing"),
        ({"group": "idd"}, "group: t.parquet has no column 'idd'; did you mean 'id'?"),
        ({"split_key": "a", "columns": ["a", "b"]}, "column 'a' says how rows are split, and is not fitted"),
        ({"group": "a", "context": ["1"]}, "group: column 'a' is one of the context, and cannot be both"),
    ):
        with pytest.raises(DataError) as error:
            loaded(tmp_path / "t.parquet", **options)
        assert said in error.value.detail
    with pytest.raises(DataError) as error:
        Recipe.parse({"data": {"source": "t", "group": "a", "split": "blocks"}})
    assert "group and split each say how rows are split: give one of them" in str(error.value.errors[0])


# --- rows in the order of a series


def series(count: int = 400, width: int = 3, memory: float = 0.95) -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(count, width))
    for at in range(1, count):
        rows[at] = memory * rows[at - 1] + (1 - memory**2) ** 0.5 * rows[at]
    return rows


def test_a_series_is_noted_and_rows_of_no_order_are_not():
    note = note_of_order(series())
    assert note is not None
    assert "--split blocks" in note
    shuffled = np.random.default_rng(1).permutation(series())
    assert note_of_order(shuffled) is None
    assert note_of_order(series()[:99]) is None
    film = series(300, 16).reshape(300, 4, 4, 1)
    assert note_of_order(film) is not None


def test_a_file_that_is_sorted_by_class_or_by_a_column_is_no_series():
    generator = np.random.default_rng(0)
    classes = np.repeat([0.0, 10.0, 20.0], 100)[:, None] + generator.normal(size=(300, 3))
    assert note_of_order(classes) is None
    column = np.sort(generator.normal(size=300))[:, None]
    assert note_of_order(column) is None
    assert note_of_order(np.concatenate([column, generator.normal(size=(300, 1))], axis=1)) is None
    assert note_of_order(np.concatenate([np.arange(400.0)[:, None], series()], axis=1)) is not None


def test_the_note_is_given_where_the_split_is_random_only(tmp_path):
    np.save(tmp_path / "series.npy", series())
    noted = [any("follow one another" in note for note in loaded(tmp_path / "series.npy", **o)[0].notes)
             for o in ({}, {"split": "blocks"}, {"group": "0"})]  # fmt: skip
    assert noted == [True, False, False]


def test_a_random_split_of_a_series_flatters_and_blocks_do_not():
    rows = series(2000, 1, 0.995)
    tensor = torch.from_numpy(rows).float()
    found = {}
    for way in ("random", "blocks"):
        train, _, test = members(split(table(len(rows)), DataRecipe(split=way), 0))
        gaps = (tensor[test][:, None, 0] - tensor[train][None, :, 0]).abs()
        near = torch.tensor(np.abs(np.subtract.outer(test, train)).argmin(axis=1))
        found[way] = float(gaps.gather(1, near[:, None]).mean())
    assert found["blocks"] > 3 * found["random"]

"""A kept fit comes back as it was: each field of the table, and the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from models.data.load import Table
from models.data.membership import Membership
from models.recipe import Recipe
from models.training.kept_fit import KeptFit
from service.bundle.manifest import ContextFeature, Feature

FULL = Table(
    rows=np.random.default_rng(0).normal(size=(30, 2)),
    names=("a", "b"),
    features=(Feature(name="a", unit="g/l"), Feature(name="b")),
    step=np.array([1.0, 0.0]),
    low=-9.0,
    high=9.5,
    words="rows.csv: 30 rows",
    notes=("a note",),
    context=np.ones((30, 1)),
    context_features=(ContextFeature(name="c=x", column="c", category="x"),),
    context_labels=("context c=x",),
    held_out=4,
    membership=Membership(columns=("g",), groups=np.arange(30) // 3),
)
PLAIN = Table(rows=np.zeros((30, 4, 4, 1)), names=(), features=(), step=None, low=None, high=None, words="images")
RECIPE = Recipe.parse(
    {"name": "rows", "out": "flows", "seed": 3, "data": {"source": "rows.csv"}, "flow": {"hidden": [8]}}
)


def test_every_field_comes_back(tmp_path: Path):
    for table in (FULL, PLAIN):
        KeptFit(RECIPE, table).save(tmp_path)
        found = KeptFit.load(tmp_path)
        assert found is not None
        assert found.recipe == RECIPE
        assert found.table.digest == table.digest
        assert_same(table, found.table)


def assert_same(before: Any, after: Any) -> None:
    for field in dataclasses.fields(before):
        one, other = getattr(before, field.name), getattr(after, field.name)
        assert type(one) is type(other), field.name
        if isinstance(one, Membership):
            assert_same(one, other)
        else:
            assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, field.name


def test_none_is_there_before_and_after(tmp_path: Path):
    assert KeptFit.load(tmp_path) is None
    KeptFit(RECIPE, FULL).save(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    KeptFit.remove(tmp_path)
    assert KeptFit.load(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

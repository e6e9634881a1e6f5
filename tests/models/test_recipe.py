"""A recipe says what it means, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.recipe import FitRecipe, Recipe, nearest, options
from service.errors import DataError

WHOLE = """
name = "thyroid"
out = "flows"
description = "Six hormone levels."
seed = 3
[data]
source = "thyroid.npz"
key = "X"
where = ["y=0"]
drop = ["5"]
units = { 0 = "nmol/l" }
[flow]
architecture = "real_nvp"
transforms = 4
hidden = [32, 32]
[fit]
epochs = 7
learning_rate = 2e-3
schedule = "cosine"
"""


def test_a_file_gives_every_section(tmp_path):
    (tmp_path / "r.toml").write_text(WHOLE)
    recipe = Recipe.read(tmp_path / "r.toml")
    assert (recipe.name, recipe.out, recipe.seed) == ("thyroid", "flows", 3)
    assert (recipe.data.key, recipe.data.where, recipe.data.units) == ("X", ["y=0"], {"0": "nmol/l"})
    assert (recipe.flow.architecture, recipe.flow.options) == ("real_nvp", {"transforms": 4, "hidden": [32, 32]})
    assert (recipe.fit.epochs, recipe.fit.learning_rate, recipe.fit.schedule) == (7, 0.002, "cosine")


def test_a_relative_source_starts_at_the_file(tmp_path):
    (tmp_path / "r.toml").write_text('[data]\nsource = "a.csv"\n')
    assert Recipe.read(tmp_path / "r.toml").data.source == "a.csv"  # nothing there: it may be a built-in set
    (tmp_path / "a.csv").write_text("")
    assert Recipe.read(tmp_path / "r.toml").data.source == str(tmp_path / "a.csv")


def test_a_relative_folder_starts_at_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "r.toml").write_text('[data]\nsource = "pictures"\n')
    assert Recipe.read(tmp_path / "r.toml").data.source == str(tmp_path / "pictures")


def test_what_is_published_makes_the_same_recipe_and_holds_no_path(tmp_path):
    (tmp_path / "thyroid.npz").write_text("")
    (tmp_path / "r.toml").write_text(WHOLE)
    published = Recipe.read(tmp_path / "r.toml").published()
    assert published["data"]["source"] == "thyroid.npz"
    assert str(tmp_path) not in json.dumps(published)
    assert "out" not in published
    assert Recipe.parse(published).published() == published


def test_overrides_win_key_by_key():
    recipe = Recipe.parse({"seed": 1, "fit": {"epochs": 3, "clip": 2.0}, "flow": {"transforms": 2}})
    new = recipe.override({"seed": 9, "fit": {"epochs": 5}, "flow": {"hidden": [4]}})
    assert (new.seed, new.fit.epochs, new.fit.clip) == (9, 5, 2.0)
    assert new.flow.options == {"transforms": 2, "hidden": [4]}
    assert new.fit.batch_size == Recipe().fit.batch_size


@pytest.mark.parametrize(
    ("values", "loc", "words"),
    [
        ({"fit": {"epoch": 3}}, ("recipe", "fit", "epoch"), "did you mean 'epochs'"),
        ({"data": {"sorce": "x"}}, ("recipe", "data", "sorce"), "did you mean 'source'"),
        ({"dta": {}}, ("recipe", "dta"), "did you mean 'data'"),
        ({"zzz": 1}, ("recipe", "zzz"), "there are data, description"),
        ({"fit": {"epochs": "3"}}, ("recipe", "fit", "epochs"), "valid integer"),
        ({"fit": {"epochs": 0}}, ("recipe", "fit", "epochs"), "greater than or equal to 1"),
        ({"fit": {"learning_rate": float("nan")}}, ("recipe", "fit", "learning_rate"), "finite"),
        ({"fit": {"schedule": "cosin"}}, ("recipe", "fit", "schedule"), "'plateau', 'cosine'"),
        ({"fit": 3}, ("recipe", "fit"), "dictionary"),
        ({"data": {"low": 0.0}}, ("recipe", "data"), "both or neither"),
        ({"data": {"low": 1.0, "high": 1.0}}, ("recipe", "data"), "low must be below high"),
        ({"data": {"validation": 0.5, "test": 0.5}}, ("recipe", "data"), "leave under a tenth"),
        ({"data": {"columns": ["a"], "drop": ["b"]}}, ("recipe", "data"), "give one of them"),
        ({"data": {"published": {"RealNVP": 1.06}}}, ("recipe", "data"), "give dequantize too"),
        ({"name": "Two Moons"}, ("recipe",), "lower-case"),
        ({"seed": -1}, ("recipe", "seed"), "greater than or equal to 0"),
    ],
)
def test_a_key_that_is_not_well_is_named(values, loc, words):
    with pytest.raises(DataError) as caught:
        Recipe.parse(values)
    (reason,) = caught.value.errors
    assert reason.loc == loc
    assert words in reason.reason


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(DataError) as caught:
        Recipe.parse({"fit": {"epoch": 3, "clp": 1}, "data": {"nope": 1}})
    assert {reason.loc[-1] for reason in caught.value.errors} == {"epoch", "clp", "nope"}


def test_a_file_that_is_no_recipe(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Recipe.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(DataError, match=r"bad\.toml is not TOML"):
        Recipe.read(tmp_path / "bad.toml")


def test_only_what_decides_the_weights_ties_a_fit():
    one = Recipe.parse({"name": "a", "out": "o", "data": {"source": "x/t.csv", "units": {"c": "m"}}})
    other = Recipe.parse({"name": "b", "out": "p", "data": {"source": "y/s.csv"}, "description": "words"})
    assert one.fitted_by() == other.fitted_by()
    referred = {"data": {"dequantize": True, "published": {"a": 1.0}}}
    assert one.override(referred).fitted_by() == one.override({"data": {"dequantize": True}}).fitted_by()
    changed = one.override({"fit": {"clip": 1.0}, "flow": {"transforms": 3}}).fitted_by()
    assert {key for key in changed if changed[key] != one.fitted_by().get(key)} == {"fit.clip", "flow.transforms"}


def test_every_field_is_a_flag_once_and_says_what_it_does():
    found = list(options())
    flags = [option.flag for option in found]
    assert len(set(flags)) == len(flags)
    assert all(option.field.description for option in found)
    assert {"--name", "--flow", "--where", "--batch-size"} <= set(flags)
    assert next(o for o in found if o.flag == "--epochs").help.endswith("[default: 1000]")


@given(st.text(min_size=1, max_size=20))
def test_nearest_never_fails(name):
    assert nearest(name, ["epochs", "clip"]).startswith("; ")


@pytest.mark.parametrize(("given", "rows", "size"), [(None, 10_000, 256), (None, 125, 12), (None, 5, 1), (64, 125, 64)])
def test_a_small_table_still_gives_ten_steps_an_epoch(given, rows, size):
    assert FitRecipe(batch_size=given).rows_in_a_step(rows) == size

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models.data.builtin import BUILTIN, load
from models.recipe import Recipe
from models.zoo.__main__ import main
from models.zoo.build import AGREEMENT, LONG, NAMES, ZOO, Comparison, build, compare
from service.bundle.store import Repository, read_bundle
from service.errors import DataError

SHAPES = {"two-moons": (30_000, 2), "digits": (1797, 8, 8, 1), "wine": (178, 13)}


def test_every_data_set_is_known_here() -> None:
    assert {*SHAPES, "faces"} == set(BUILTIN)  # faces take half a minute to draw: see tests/models/data/test_faces.py


@pytest.mark.parametrize("name", SHAPES)
def test_a_data_set_is_the_same_each_time(name: str) -> None:
    data, again = load(name), load(name)
    assert data.rows.shape == SHAPES[name]
    assert data.rows.dtype == np.float64
    assert np.array_equal(data.rows, again.rows)
    assert np.isfinite(data.rows).all()
    assert len(data.features) in (0, data.rows.shape[1])
    assert data.data


def test_digits_say_what_their_integers_are() -> None:
    data = load("digits")
    assert data.quantization is not None
    assert set(np.unique(data.rows)) == set(range(17))
    assert (data.quantization.low, data.quantization.high) == (0, 16)


def test_an_unknown_data_set_is_answered_with_those_there_are() -> None:
    with pytest.raises(DataError, match="two-moons, digits, wine"):
        load("iris")


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_flow_has_a_recipe_that_reads(name: str) -> None:
    recipe = Recipe.read(ZOO / name / "recipe.toml")
    assert recipe.description
    assert name == "square" or recipe.data.source == name


def test_the_closed_form_is_built_again_to_the_same_bundle(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["square", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "the difference is +0.0000 nats per dimension" in result.output
    made, shipped = (read_bundle(Repository(root).path("square")) for root in (tmp_path, ZOO))
    assert made.manifest.calibration == shipped.manifest.calibration
    assert made.golden.to_npz() == shipped.golden.to_npz()


def test_the_report_of_a_flow_has_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    shipped = read_bundle(Repository(ZOO).path("square")).manifest
    monkeypatch.setattr("models.zoo.__main__.build", lambda name, _, **given: asked.update({name: given}) or shipped)
    result = CliRunner().invoke(main, ["square", "--out", str(tmp_path), "--reports", str(tmp_path / "reports")])
    assert result.exit_code == 0, result.output
    assert asked["square"]["report"] == tmp_path / "reports" / "square"


def test_an_unknown_flow_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are digits, faces, square, two-moons, wine"):
        build("moons", Repository(tmp_path))
    result = CliRunner().invoke(main, ["moons", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "no shipped flow 'moons'" in result.output


def test_a_bundle_that_comes_out_otherwise_does_not_agree() -> None:
    assert Comparison(made=-18.0, shipped=-18.6, width=13).agrees
    assert not Comparison(made=-18.0, shipped=-18.7, width=13).agrees
    assert not Comparison(made=-18.7, shipped=-18.0, width=13).agrees
    assert Comparison(made=-18.0, shipped=-19.3, width=13).difference == pytest.approx(0.1)


def test_a_long_fit_is_made_where_it_is_named_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = read_bundle(Repository(ZOO).path("square")).manifest
    asked: list[str] = []
    monkeypatch.setattr("models.zoo.__main__.build", lambda name, _, **__: asked.append(name) or shipped)
    CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert asked == [name for name in NAMES if name not in LONG]
    asked.clear()
    CliRunner().invoke(main, ["faces", "--out", str(tmp_path)])
    assert asked == ["faces"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in LONG])  # `make zoo faces` makes the rest
def test_one_command_ends_near_the_shipped_likelihood(name: str, tmp_path: Path) -> None:
    comparison = compare(build(name, Repository(tmp_path)))
    assert comparison is not None
    assert abs(comparison.difference) <= AGREEMENT

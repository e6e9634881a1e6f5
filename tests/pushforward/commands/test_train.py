"""`pushforward train`: from a table to a bundle that can be served."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.recipe import Recipe, options
from models.training.checkpoint import EpochRecord
from models.training.search import Trial
from pushforward.cli.group import main
from pushforward.commands.train import _Progress
from service.bundle.store import read_bundle
from service.errors import DataError


def write_table(path: Path, count: int = 120) -> Path:
    x = np.random.default_rng(0).normal(size=(count, 2)) @ [[2.0, 0.3], [0.0, 0.5]]
    path.write_text("height,weight\n" + "".join(f"{a!r},{b!r}\n" for a, b in x.tolist()))
    return path


def test_a_table_becomes_a_bundle_and_a_report(tmp_path, run):
    table, out = write_table(tmp_path / "table.csv"), tmp_path / "flows"
    (tmp_path / "r.toml").write_text('[data]\nsource = "table.csv"\n[fit]\nepochs = 99\n[flow]\ntransforms = 1\n')
    result = run(
        "train", "--recipe", str(tmp_path / "r.toml"), "--out", str(out), "--name", "people", "--epochs", "3",
        "--units", "height=m", "--flow-option", "transforms=2", "--flow-option", "hidden=[8]", "--batch-size", "32",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    bundle = read_bundle(out / "people" / "1")
    manifest = bundle.manifest
    assert [(f.name, f.unit) for f in manifest.features] == [("height", "m"), ("weight", None)]
    assert manifest.provenance.recipe["fit"]["epochs"] == 3  # the flag wins over the file
    default = {"architecture": "neural_spline_coupling", "whiten": None}
    assert manifest.provenance.recipe["flow"] == {**default, "transforms": 2, "hidden": [8]}
    assert str(tmp_path) not in manifest.to_json().decode()
    figures = json.loads((out / "people" / "report-1" / "report.json").read_text())
    assert figures["held_out"]["flow"]["mean"] == pytest.approx(manifest.calibration.mean, abs=1e-4)
    assert figures["held_out"]["gaussian"]["mean"] == manifest.calibration.gaussian_mean
    assert manifest.calibration.rows == 12
    assert figures["split"] == "at random"
    for words in (
        "Gaussian",
        f"Verdict: {figures['verdict']['grade']}",
        *figures["verdict"]["sentences"],
        f"Bundle: {out}/people/1",
        "index.html",
        f"pushforward serve --repository {out} --default-flow people",
    ):
        assert words in result.output
    assert f"{figures['held_out']['flow']['mean']:.3f} ± {figures['held_out']['flow']['standard_error']:.3f}" in (
        result.output
    )
    assert table.is_file()


def mean_of(command: str) -> float:
    """Run a command as a person would, in a shell, with this environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return float(done.stdout)


@pytest.mark.parametrize("dequantize", [False, True])
def test_the_commands_that_are_printed_give_the_figures(tmp_path, run, dequantize):
    values = np.random.default_rng(0).poisson([3, 40], size=(200, 2))
    np.save(tmp_path / "counts.npy", values if dequantize else values + np.random.default_rng(1).normal(size=(200, 2)))
    out = tmp_path / "my flows"
    result = run(
        "train", tmp_path / "counts.npy", "--out", out, "--name", "counts", "--epochs", "2",
        "--flow-option", "transforms=1", "--flow-option", "hidden=[4]", *(["--dequantize"] if dequantize else []),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = out / "counts" / "report-1"
    figures = json.loads((report / "report.json").read_text())
    expected = {"held_out.npy": figures["held_out"]}
    if dequantize:
        expected = {"held_out.npy": figures["held_out_at_bin_centres"], "held_out_scored.npy": figures["held_out"]}
        assert abs(figures["held_out_at_bin_centres"]["flow"]["mean"] - figures["held_out"]["flow"]["mean"]) > 0.002
    rows = re.findall(r"^Rows:   (.*?): (.*), (-?[\d.]+) nats\.\nCheck:  (.*)$", result.output, flags=re.MULTILINE)
    assert [path for path, *_ in rows] == [str(report / name) for name in expected]
    page = html.unescape((report / "index.html").read_text())
    for (_, words, printed, command), figure in zip(rows, expected.values(), strict=True):
        assert float(printed) == pytest.approx(figure["flow"]["mean"], abs=5e-4)
        assert mean_of(command) == pytest.approx(figure["flow"]["mean"], abs=1e-3)
        assert f"{words}, {printed} nats." in page
        assert f"<pre>{command}</pre>" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "there is no file none.csv"),
        (["nan.csv"], "column 'a' is NaN"),
        (["empty.csv"], "0 rows are too few"),
        (["wine", "--drop", "colour"], "no column 'colour'"),
        (["two-moons", "--flow", "real_nvq"], "real_nvp"),
        (["wine", "--out", "nan.csv"], "nan.csv is not a folder"),
    ],
)
def test_an_error_in_what_is_given_is_all_that_is_printed(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "nan.csv").write_text("a,b\nnan,1\n" + "1.5,2\n2,3.5\n" * 20)
    (tmp_path / "empty.csv").write_text("a,b\n")
    monkeypatch.chdir(tmp_path)
    given = [*arguments, *([] if "--out" in arguments else ["--out", "o"]), "--name", "n"]
    monkeypatch.setattr(sys, "argv", ["pushforward", "train", *given])
    with pytest.raises(SystemExit) as exited:
        main()
    printed = capsys.readouterr()
    assert (exited.value.code, printed.out) == (1, "")
    assert printed.err.startswith("Error: ")
    assert words in printed.err
    assert "epoch" not in printed.err
    assert not (tmp_path / "o").exists()


def test_the_bar_starts_where_a_fit_is_resumed(capsys):
    with _Progress(9, quiet=False) as progress:
        progress.say("Going on after epoch 6.")
        assert capsys.readouterr() == ("Going on after epoch 6.\n", "")
        progress.observe(EpochRecord(7, -1.0, -2.0, -2.0, 1e-3))
    assert "7/9" in capsys.readouterr().err.split("\r")[-1]


def test_the_search_has_a_bar_of_its_own(capsys):
    with _Progress(9, quiet=False) as progress:
        progress.watch(Trial(3, 48, "whitening", -2.0))
        progress.say("Chosen by validation rows: whitening.")  # which ends the bar
        assert "3/48" in capsys.readouterr().err.split("\r")[-1]
        progress.observe(EpochRecord(1, -1.0, -2.0, -2.0, 1e-3))
    assert "1/9" in capsys.readouterr().err.split("\r")[-1]


def test_every_option_of_a_recipe_has_its_flag(run):
    page = run("train", "--help").output
    assert all(option.flag in page for option in options())


@pytest.fixture
def given(monkeypatch, run) -> Callable[..., tuple[Recipe, dict]]:
    """The recipes that reach the training, which is left out."""
    import models.training.train

    recipes: list[tuple[Recipe, dict]] = []

    class Stopped(Exception):
        pass

    def train(recipe, **rest):
        recipes.append((recipe, rest))
        raise Stopped

    monkeypatch.setattr(models.training.train, "train", train)

    def invoke(*arguments: str) -> tuple[Recipe, dict]:
        with pytest.raises(Stopped):
            run("train", *arguments)
        return recipes[-1]

    return invoke


def test_flags_become_the_recipe(given):
    recipe, rest = given(
        "data.npz", "--out", "flows", "--name", "n", "--key", "X", "--where", "y=0", "--where", "z<=1,5",
        "--drop", "a, b", "--drop", "c", "--no-header", "--units", "d=g/l", "--dequantize", "--step", "2",
        "--low", "0", "--high", "9.5", "--schedule", "cosine", "--learning-rate", "1e-2", "--seed", "7",
        "--flow", "maf", "--flow-option", "activation=tanh", "--resume", "--quiet", "--report", "r",
        "--checkpoint-seconds", "0",
    )  # fmt: skip
    assert (recipe.data.source, recipe.out, recipe.name, recipe.seed) == ("data.npz", "flows", "n", 7)
    assert (recipe.data.where, recipe.data.drop) == (["y=0", "z<=1,5"], ["a", "b", "c"])
    assert (recipe.data.header, recipe.data.units, recipe.data.dequantize) == (False, {"d": "g/l"}, True)
    assert (recipe.data.step, recipe.data.low, recipe.data.high) == (2.0, 0.0, 9.5)
    assert (recipe.fit.schedule, recipe.fit.learning_rate) == ("cosine", 0.01)
    assert (recipe.flow.architecture, recipe.flow.options) == ("maf", {"activation": "tanh"})
    assert rest["resume"] is True
    assert rest["report"] == Path("r")
    assert rest["seconds_between"] == 0


def test_flags_that_are_not_given_leave_the_file_alone(given, tmp_path):
    (tmp_path / "r.toml").write_text(
        'name = "n"\nout = "o"\n[data]\nsource = "digits"\ndequantize = true\ndrop = ["a"]\n[fit]\nclip = 2.0\n'
    )
    recipe, _ = given("--recipe", str(tmp_path / "r.toml"))
    assert recipe == Recipe.read(tmp_path / "r.toml")
    recipe, _ = given("wine", "--recipe", str(tmp_path / "r.toml"), "--no-dequantize", "--clip", "3")
    assert (recipe.data.source, recipe.data.dequantize, recipe.fit.clip) == ("wine", False, 3.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv", "--out", "o", "--name", "n"], "there is no file"),
        (["--out", "o", "--name", "n"], "there is no data"),
        (["wine", "--out", "o"], "a flow needs name"),
        (["wine", "--out", "o", "--name", "n", "--flow-option", "transforms"], "expected NAME=VALUE"),
        (["wine", "--out", "o", "--name", "n", "--flow-option", "transfroms=2"], "transforms"),
        (["wine", "--out", "o", "--name", "n", "--flow", "real_nvq"], "real_nvp"),
    ],
)
def test_what_cannot_be_fitted_is_told(tmp_path, monkeypatch, run, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        run("train", *arguments)
    assert words in caught.value.detail
    assert list(tmp_path.iterdir()) == []


def test_a_prior_is_kept_with_the_flow_and_holds_its_rows(tmp_path, run):
    theta = np.random.default_rng(1).uniform([0.0, -1.0], [2.0, 1.0], size=(300, 2))
    seen = theta + np.random.default_rng(2).normal(size=(300, 2))
    lines = "".join(",".join(map(repr, row)) + "\n" for row in np.hstack([theta, seen]).tolist())
    (tmp_path / "pairs.csv").write_text("rate,shift,a,b\n" + lines)
    (tmp_path / "prior.toml").write_text('[constraints]\nrate = {name = "interval", low = 0.0, high = 2.0}\n')
    arguments = [
        "train", str(tmp_path / "pairs.csv"), "--context", "a,b", "--out", str(tmp_path / "flows"), "--name", "npe",
        "--epochs", "2", "--prior", str(tmp_path / "prior.toml"), "--flow", "real_nvp", "--flow-option", "transforms=2",
        "--flow-option", "hidden=[8]", "--quiet",
    ]  # fmt: skip
    assert run(*arguments).exit_code == 0
    manifest = read_bundle(tmp_path / "flows" / "npe" / "1").manifest
    assert (manifest.prior.low, manifest.prior.high) == ([0.0, None], [2.0, None])
    assert manifest.provenance.recipe["data"]["prior"] == "prior.toml"
    (tmp_path / "prior.toml").write_text("high = [0.5, inf]\n")
    with pytest.raises(DataError, match="rows lie outside the prior, the first at row"):
        run(*arguments)

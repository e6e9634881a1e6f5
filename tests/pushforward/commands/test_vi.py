"""`pushforward vi`: from a file with a density to a bundle, and faults in one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models.inference.recipe import InferenceRecipe
from models.recipe import options
from pushforward.cli.group import cli
from service.errors import DataError

SMALL = ["--steps", "25", "--mode-steps", "50", "--chains", "100", "--chain-steps", "1", "--draws", "1000",
         "--batch-size", "32", "--restarts", "1", "--flow", "real_nvp",
         "--flow-option", "transforms=1", "--flow-option", "hidden=[4]"]  # fmt: skip

TARGET = """
import numpy as np

def density(z):
    if not isinstance(z, np.ndarray):
        raise TypeError("arrays only")
    return -0.5 * (z ** 2).sum(axis=1)

def scalar(z):
    return -0.5 * (z ** 2).sum()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TARGET)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["vi", *map(str, arguments)], catch_exceptions=False)


def test_a_density_in_numpy_becomes_a_bundle_that_can_be_inspected(tmp_path: Path, file: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "mine"\nout = "{tmp_path / "flows"}"\n[target]\nsource = "mine.py:density"\ndim = 2\n')
    result = call("--recipe", recipe, *SMALL)
    assert result.exit_code == 0, result.output
    assert "log Z, by annealing" in result.output
    assert "Verdict: " in result.output
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "flows" / "mine" / "1")]).output
    assert "log Z" in shown
    manifest = json.loads((tmp_path / "flows" / "mine" / "1" / "flow.json").read_text())
    assert set(manifest["variational"]) == {
        "elbo", "log_evidence", "log_evidence_se", "log_evidence_ais", "log_evidence_ais_se",
        "ess_share", "pareto_k", "restarts", "verdict",
    }  # fmt: skip
    assert manifest["provenance"]["recipe"]["target"]["source"] == "mine.py:density"
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{file}:scalar", "--dim", "2"], "a single number for"),
        (["{file}:density"], "does not say how many coordinates"),
        (["{file}:density", "--dim", "2", "--objective", "reverse_kl"], "follows the gradient of the target"),
        (["{file}:nothing", "--dim", "2"], "has no 'nothing'"),
        (["{file}:density", "--dim", "2", "--rows", "none.csv"], "none.csv"),
        ([], "needs a target"),
    ],
)
def test_a_fault_is_told_and_leaves_nothing_behind(tmp_path: Path, file: Path, arguments: list[str], said: str):
    given = [each.format(file=file) for each in arguments]
    with pytest.raises(DataError, match=said):  # `pushforward.cli.group.main` makes one line of it
        call(*given, "--out", tmp_path / "flows", "--name", "mine", *SMALL)
    assert not (tmp_path / "flows").exists()


def test_every_option_of_the_recipe_is_a_flag():
    page = CliRunner().invoke(cli, ["vi", "--help"], terminal_width=200).output
    assert all(option.flag in page for option in options(InferenceRecipe))

"""`pushforward export`: a fit whose export failed becomes a bundle by other options, without being fitted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import models.training.train
from service.bundle.store import read_bundle
from service.errors import DataError, ParityFailed
from tests.pushforward.commands.test_train import write_table


def test_the_options_reach_the_export(run, monkeypatch):
    told: dict[str, Any] = {}

    class Stopped(Exception):
        pass

    def export_kept(folder, **rest):
        told.update(rest, folder=folder)
        raise Stopped

    monkeypatch.setattr(models.training.train, "export_kept", export_kept)
    with pytest.raises(Stopped):
        run("export", "flows/.training/a", "--name", "b", "--out", "o", "--version", "3", "--far-rows", "resolvable",
            "--description", "Words.", "--report", "r", "--quiet")  # fmt: skip
    assert told["folder"] == Path("flows/.training/a")
    assert told["changes"] == {"name": "b", "out": "o", "description": "Words."}
    assert (told["options"].version, told["options"].far_rows) == (3, "resolvable")
    assert (told["report"], told["say"]) == (Path("r"), None)
    with pytest.raises(Stopped):
        run("export", "flows/.training/a")
    assert told["changes"] == {}
    assert (told["options"].version, told["options"].far_rows) == (None, "all")


def test_a_folder_without_a_fit_is_told(run, tmp_path):
    with pytest.raises(DataError, match="holds no fit: expected the folder that a training names"):
        run("export", tmp_path)


@pytest.mark.slow
def test_a_fit_whose_export_failed_becomes_a_bundle(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ParityFailed("the graphs differ")

    table, out = write_table(tmp_path / "table.csv"), tmp_path / "flows"
    with monkeypatch.context() as patch:
        patch.setattr(models.training.train, "export_flow", fail)
        with pytest.raises(ParityFailed, match="pushforward export"):
            run("train", table, "--out", out, "--name", "people", "--epochs", "2", "--flow-option", "transforms=1",
                "--flow-option", "hidden=[4]")  # fmt: skip
    table.unlink()
    result = run("export", out / ".training" / "people", "--name", "folk")
    assert result.exit_code == 0, result.output
    assert f"Bundle: {out}/folk/1" in result.output
    assert f"pushforward serve --repository {out} --default-flow folk" in result.output
    assert [feature.name for feature in read_bundle(out / "folk" / "1").manifest.features] == ["height", "weight"]

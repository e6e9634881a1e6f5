"""A checkpoint is whole or absent, holds no code, and is held against what it belongs to."""

from __future__ import annotations

import os
import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from models.training.checkpoint import CHECKPOINT_FILE, Checkpoint, EpochRecord, Origin
from service.errors import DataError
from tests.unwritable import readable_folder, unwritable


def checkpoint(epoch: int = 3, **changes) -> Checkpoint:
    weights = {"w": torch.arange(4.0), "b": torch.tensor([1e-30])}
    values = {
        "origin": Origin({"fit.clip": 5.0, "flow.hidden": [8, 8]}, "abc"),
        "epoch": epoch,
        "finished": False,
        "weights": weights,
        "average": {**weights, "n": torch.tensor(7)},
        "best": weights,
        "best_epoch": 2,
        "skipped_in_a_row": 1,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "schedule": {"best": float("-inf"), "num_bad_epochs": 2},
        "generator": torch.Generator().manual_seed(0).get_state(),
        "history": [EpochRecord(1, float("nan"), 2.0, 2.0, 1e-3, 1)],
    }
    return Checkpoint(**{**values, **changes})


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and a != a:
        return b != b
    return repr(a) == repr(b)


def test_it_comes_back_as_it_was(tmp_path):
    saved = checkpoint()
    saved.save(tmp_path)
    loaded = Checkpoint.load(tmp_path)
    for field in fields(Checkpoint):
        assert same(getattr(saved, field.name), getattr(loaded, field.name)), field.name
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_there_may_be_none(tmp_path):
    assert Checkpoint.load(tmp_path / "none") is None
    assert Checkpoint.load(tmp_path) is None


def test_a_write_that_fails_leaves_the_last_one_whole(tmp_path, monkeypatch):
    checkpoint(3).save(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint(4).save(tmp_path)
    monkeypatch.undo()
    assert Checkpoint.load(tmp_path).epoch == 3
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_what_a_killed_write_left_behind_is_passed_over(tmp_path):
    checkpoint(3).save(tmp_path)
    (tmp_path / ".checkpoint-abc").write_bytes(b"half")
    assert Checkpoint.load(tmp_path).epoch == 3


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / CHECKPOINT_FILE).open("wb") as file:
        pickle.dump({"format": 1, "epoch": Harmful()}, file, protocol=2)
    with pytest.raises(DataError, match="cannot be read"):
        Checkpoint.load(tmp_path)
    torch.save({"format": 1, "epoch": Harmful()}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(DataError, match="cannot be read"):
        Checkpoint.load(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_a_file_that_is_cut_is_an_error(tmp_path, cut):
    checkpoint().save(tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="--restart"):
        Checkpoint.load(tmp_path)


def test_another_format_is_an_error(tmp_path):
    torch.save({"format": 99}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(DataError, match="not a checkpoint of this version"):
        Checkpoint.load(tmp_path)


def test_an_origin_must_be_the_same():
    began = Origin({"seed": 0, "fit.clip": 5.0}, "abc")
    Origin({"fit.clip": 5.0, "seed": 0}, "abc").check(began)
    with pytest.raises(DataError, match="another recipe;") as caught:
        Origin({"seed": 1, "fit.clip": 5.0, "flow.transforms": 3}, "abc").check(began)
    assert [(r.loc[1], r.reason) for r in caught.value.errors] == [
        ("flow.transforms", "it was None, and is 3 now"),
        ("seed", "it was 0, and is 1 now"),
    ]
    with pytest.raises(DataError, match="another data set;"):
        Origin(began.recipe, "abd").check(began)
    with pytest.raises(DataError, match="another recipe and another data set;"):
        Origin({}, "abd").check(began)


def test_removing_it_leaves_the_rest_of_the_folder(tmp_path):
    checkpoint().save(tmp_path)
    (tmp_path / ".checkpoint-abc123").write_bytes(b"of a run that was killed while it wrote")
    for name in ("thesis.txt", "checkpoint.pt.bak", ".checkpoint"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".checkpoint-folder").mkdir()
    Checkpoint.remove(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".checkpoint", ".checkpoint-folder", "checkpoint.pt.bak", "thesis.txt",
    ]  # fmt: skip
    Checkpoint.remove(tmp_path)  # there may be none
    Checkpoint.remove(tmp_path / "none")


def test_one_that_cannot_be_removed_is_told():
    with readable_folder() as folder:
        checkpoint().save(folder)
        with unwritable(folder), pytest.raises(DataError, match="cannot be removed: Permission denied"):
            Checkpoint.remove(folder)
        assert (folder / CHECKPOINT_FILE).is_file()


def test_that_an_export_began_is_written_into_it(tmp_path):
    Checkpoint.note_export(tmp_path, "2026-01-02T03:04:05+00:00")
    assert Checkpoint.load(tmp_path) is None
    checkpoint().save(tmp_path)
    assert Checkpoint.load(tmp_path).exporting is None
    Checkpoint.note_export(tmp_path, "2026-01-02T03:04:05+00:00")
    loaded = Checkpoint.load(tmp_path)
    assert loaded.exporting == "2026-01-02T03:04:05+00:00"
    assert same(loaded.weights, checkpoint().weights)


def test_one_that_knows_of_no_export_is_read(tmp_path):
    checkpoint().save(tmp_path)
    content = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)
    del content["exporting"]
    torch.save(content, tmp_path / CHECKPOINT_FILE)
    assert Checkpoint.load(tmp_path).exporting is None

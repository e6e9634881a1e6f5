"""A folder is tried before the work, nothing of the trial is left, and only empty folders are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.training.output_folders import check_writable, remove_empty
from service.errors import DataError
from tests.unwritable import readable_folder, unwritable


@pytest.mark.parametrize("name", ["", "new", "new/and/deeper"])
def test_what_can_be_written_into_passes_and_nothing_is_left(tmp_path, monkeypatch, name):
    check_writable(tmp_path / name, "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    check_writable(Path(name), "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/flows", "nowhere", "nowhere/flows"])
def test_what_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(
        DataError, match=rf"report: \S+/{name} cannot be used: \S+/{name.split('/')[0]} is not a folder"
    ):
        check_writable(tmp_path / name, "report")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "new", "new/and/deeper"])
def test_a_folder_without_permission_is_refused(name):
    with (
        readable_folder() as folder,
        unwritable(folder),
        pytest.raises(DataError, match=rf"out: .* {folder} cannot be written into: Permission denied"),
    ):
        check_writable(folder / name, "out")


def test_only_an_empty_folder_is_removed(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "file").touch()
    for folder in (empty, full, tmp_path / "gone"):
        remove_empty(folder)
    assert list(tmp_path.iterdir()) == [full]
    assert list(full.iterdir()) == [full / "file"]


def test_an_empty_folder_that_stays_is_told():
    with readable_folder() as folder:
        (folder / "empty").mkdir()
        with unwritable(folder), pytest.raises(DataError, match="empty cannot be removed: Permission denied"):
            remove_empty(folder / "empty")

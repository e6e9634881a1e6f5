from __future__ import annotations

import os

import pytest

from service.access import watched_file
from service.access.watched_file import WatchedFile, read_file


def test_a_change_is_seen_once(tmp_path):
    path = tmp_path / "file"
    path.write_text("a")
    watched = WatchedFile(path)
    assert not watched.has_changed()
    path.write_text("ab")
    assert watched.has_changed()
    assert not watched.has_changed()
    path.unlink()
    assert watched.has_changed()
    assert not watched.has_changed()
    path.write_text("ab")
    assert watched.has_changed()


def test_bytes_that_stay_are_no_change(tmp_path):
    path = tmp_path / "file"
    path.write_text("a")
    watched = WatchedFile(path)
    os.utime(path, (1, 1))
    assert not watched.has_changed()


def test_what_a_link_points_at_is_watched(tmp_path):
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.write_text("a")
    two.write_text("b")
    link.symlink_to(one)
    watched = WatchedFile(link)
    other = tmp_path / "other"
    other.symlink_to(two)
    other.replace(link)
    assert watched.has_changed()


def test_a_second_write_within_a_step_of_the_clock_is_seen(tmp_path):
    """The file system says that nothing has changed: the size and the time are the same."""
    path = tmp_path / "file"
    path.write_text("a")
    watched = WatchedFile(path)
    before = path.stat().st_mtime_ns
    path.write_text("b")
    os.utime(path, ns=(before, before))
    assert watched.has_changed()


def test_an_old_file_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("a")
    os.utime(path, (1, 1))
    watched = WatchedFile(path)

    def read(_):
        pytest.fail("it was read")

    monkeypatch.setattr(watched_file.WatchedFile, "_read", read)
    assert not watched.has_changed()


def test_what_is_no_regular_file_is_refused_and_waited_for_by_nobody(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            read_file(path, 10)
    path = tmp_path / "file"
    path.write_text("ab")
    watched = WatchedFile(path)
    pipe.replace(path)
    assert watched.has_changed()
    assert not watched.has_changed()

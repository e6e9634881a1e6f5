from __future__ import annotations

import pytest

from service.access.key_source import KeySource
from service.access.keys import make_key
from service.errors import InvalidArgument

ONE, TWO = make_key("one", ["infer"]), make_key("two", ["admin"])


def knows(source, new):
    return source.ring.find(new.key.encode()) is not None


def test_without_keys_anyone_may_ask():
    assert KeySource(None, None).ring is None


def test_keys_come_from_a_file_and_from_the_environment_together(tmp_path):
    file = tmp_path / "keys"
    file.write_text(ONE.stored.line())
    source = KeySource(file, TWO.stored.line())
    assert knows(source, ONE)
    assert knows(source, TWO)


def test_a_file_that_changes_is_read_again(tmp_path):
    file = tmp_path / "keys"
    file.write_text(ONE.stored.line() + "\n")
    source = KeySource(file, None)
    assert not source.refresh()
    file.write_text(f"{ONE.stored.line()}\n{TWO.stored.line()}\n")
    assert source.refresh()
    assert knows(source, ONE)
    assert knows(source, TWO)
    other = tmp_path / "other"
    other.write_text(TWO.stored.line() + "\n")
    other.replace(file)
    assert source.refresh()
    assert not knows(source, ONE)
    assert not source.refresh()


@pytest.mark.parametrize("broken", ["alice infer", None, b"\xff\xfe"])
def test_a_file_that_is_wrong_changes_nothing(tmp_path, caplog, broken):
    file = tmp_path / "keys"
    file.write_text(ONE.stored.line())
    source = KeySource(file, None)
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    assert not source.refresh()
    assert knows(source, ONE)
    assert "the keys stay as they are" in caplog.text


def test_a_file_that_loses_its_last_key_lets_nobody_in(tmp_path):
    file = tmp_path / "keys"
    file.write_text(ONE.stored.line())
    source = KeySource(file, None)
    file.write_text("# none\n")
    assert source.refresh()
    assert source.ring is not None
    assert not knows(source, ONE)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_server_that_is_to_have_keys_and_has_none_does_not_start(tmp_path, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match="holds no key"):
        KeySource(file, None)
    with pytest.raises(InvalidArgument, match="holds no key"):
        KeySource(None, text)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        KeySource(tmp_path / "keys", None)
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        KeySource(tmp_path, None)

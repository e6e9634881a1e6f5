"""The aliases of a flow on the disk."""

from __future__ import annotations

import json
import threading

import pytest

from service.bundle.aliases import is_alias, read_aliases, write_aliases
from service.bundle.catalogue import Catalogue, read_catalogue
from service.errors import DataError
from tests.service.bundles import affine, install


@pytest.fixture
def repository(tmp_path):
    return install(tmp_path, affine("wine"), affine("wine", 2))


@pytest.mark.parametrize("text", ["stable", "a", "a-b_c9", "x" * 32])
def test_names(text):
    assert is_alias(text)


@pytest.mark.parametrize("text", ["", "1", "9a", "A", "Stable", "a b", "a/b", "..", "stäble", "x" * 33, "stable\n"])
def test_no_names(text):
    assert not is_alias(text)


def test_what_is_written_is_read(repository):
    assert read_aliases(repository, "wine") == {}
    write_aliases(repository, "wine", {"stable": 1, "canary": 2})
    assert read_aliases(repository, "wine") == {"stable": 1, "canary": 2}
    assert repository.versions("wine") == [1, 2]
    assert read_catalogue(repository).aliases_of("wine") == {"canary": 2, "stable": 1}
    assert read_catalogue(repository).aliases_to(("wine", 1)) == ["stable"]


WRONG = [
    b"",
    b"[]",
    b'{"Stable": 1}',
    b'{"stable": "1"}',
    b'{"stable": true}',
    b'{"stable": 0}',
    b"\xff",
    b"{" * 10_000,
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_and_changes_nothing(repository, text, caplog):
    (repository.root / "wine" / "aliases.json").write_bytes(text)
    with pytest.raises(DataError, match="the aliases of wine cannot be read"):
        read_aliases(repository, "wine")
    assert read_catalogue(repository).aliases_of("wine") == {}
    assert "they stay as they were" in caplog.text


def test_a_failed_write_leaves_the_old_ones(repository, monkeypatch):
    write_aliases(repository, "wine", {"stable": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.bundle.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_aliases(repository, "wine", {"stable": 2})
    assert read_aliases(repository, "wine") == {"stable": 1}
    assert sorted(entry.name for entry in (repository.root / "wine").iterdir()) == ["1", "2", "aliases.json"]


def test_a_reader_never_meets_a_part(repository):
    path = repository.root / "wine" / "aliases.json"
    write_aliases(repository, "wine", {"a": 1})
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for version in (1, 2):
                write_aliases(repository, "wine", {f"a{at}": version for at in range(100)})

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(200):
        assert len(set(json.loads(path.read_text()).values())) == 1
    stop.set()
    writer.join()


def test_what_is_not_kept_goes_before_the_file():
    catalogue = Catalogue(aliases={"wine": {"a": 1, "b": 1}}, unkept={"wine": {"a": 2, "b": None, "c": 3}})
    assert catalogue.aliases_of("wine") == {"a": 2, "c": 3}

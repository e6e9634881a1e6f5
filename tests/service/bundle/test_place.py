from __future__ import annotations

from pathlib import Path

import pytest

from service.bundle.place import is_version, place_of, require_place
from service.errors import BundleError
from tests.service.bundle.conftest import make_manifest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1", True), ("999999999", True), ("1000000000", False), ("0", False), ("01", False), ("v1", False), ("", False)],
)
def test_a_version_is_a_positive_integer(name, expected):
    assert is_version(name) is expected


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("/flows/two-moons/12", ("two-moons", 12)),
        ("two-moons/1/", ("two-moons", 1)),
        ("/flows/two-moons/../square/1/.", ("square", 1)),
        ("/flows/two-moons", None),
        ("/flows/two-moons/v1", None),
        ("/flows/Two Moons/1", None),
        ("/1", None),
    ],
)
def test_the_path_names_flow_and_version(folder, place):
    assert place_of(Path(folder)) == place


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "square" / "3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "square" / "3")
    assert place_of(Path()) == ("square", 3)


def test_a_link_counts_by_its_own_name(tmp_path):
    (tmp_path / "square").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "square")
    assert place_of(tmp_path / "alias" / "1") == ("alias", 1)


@pytest.mark.parametrize(("name", "version"), [("line", 2), ("other", 1)])
def test_another_name_or_version_is_refused(name, version):
    require_place(make_manifest(), "line", 1)
    with pytest.raises(BundleError, match=f"is of line version 1, and the bundle lies where {name} version {version}"):
        require_place(make_manifest(), name, version)

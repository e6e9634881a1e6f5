from __future__ import annotations

import os
import shutil

import pytest

from service.bundle.aliases import write_aliases
from service.process.watching import RepositoryWatch
from tests.service.bundles import affine, install


@pytest.fixture
def repository(tmp_path):
    return install(tmp_path / "repository", affine("wine"))


def looks(watch, count=4):
    return [watch.changed() for _ in range(count)]


def test_what_stays_the_same_is_no_change(repository):
    assert looks(RepositoryWatch(repository)) == [False] * 4


def test_each_change_is_told_once_and_after_it_has_settled(repository):
    watch = RepositoryWatch(repository)
    for change in (
        lambda: install(repository.root, affine("wine", 2)),
        lambda: write_aliases(repository, "wine", {"stable": 1}),
        lambda: (repository.root / "wine" / "1" / "forward.onnx").write_bytes(b"another"),
        lambda: repository.remove("wine", 2),
        lambda: shutil.rmtree(repository.root / "wine"),
    ):
        change()
        assert looks(watch) == [False, True, False, False]


def test_a_bundle_that_is_still_copied_is_left_alone(repository, tmp_path):
    watch = RepositoryWatch(repository)
    source = install(tmp_path / "other", affine("wine", 2)).path("wine", 2)
    target = repository.root / "wine" / "2"
    target.mkdir()
    for file in sorted(source.iterdir()):
        shutil.copy(file, target)
        assert watch.changed() is False
    assert looks(watch) == [True, False, False, False]


def test_what_comes_and_goes_between_is_no_change(repository):
    watch = RepositoryWatch(repository)
    stray = repository.root / "wine" / ".installing-x"
    stray.mkdir()
    assert looks(watch) == [False] * 4
    manifest = repository.root / "wine" / "1" / "flow.json"
    status = manifest.stat()
    os.utime(manifest, ns=(0, 0))
    assert watch.changed() is False
    os.utime(manifest, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert looks(watch) == [False] * 4

"""A process that is killed while it installs or removes: what is there is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from service.bundle.aliases import read_aliases
from service.bundle.store import Repository, read_bundle
from tests.service.bundles import affine, install

_SCRIPT = """
import shutil, sys
from pathlib import Path
from service.bundle.aliases import write_aliases
from service.bundle.store import Repository, read_bundle
source, root = Path(sys.argv[1]), Path(sys.argv[2])
repository = Repository(root)
bundle = read_bundle(source)
print("begun", flush=True)
while True:
    version = repository.next_version("affine")
    repository.install(bundle.manifest.model_copy(update={"version": version}), bundle.files())
    write_aliases(repository, "affine", {f"a{at}": version for at in range(50)})
    if version > 2:
        repository.remove("affine", version - 2)
"""


def kill_at_random(source, root, generator):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(source), str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(generator.uniform(0, 0.2))  # whenever that is: any moment is as good
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_no_bundle_is_torn(tmp_path, times):
    source = install(tmp_path / "source", affine()).path("affine", 1)
    repository = Repository(tmp_path / "repository")
    generator = random.Random(times)
    for _ in range(times):
        kill_at_random(source, repository.root, generator)
        for version in repository.versions("affine"):
            assert read_bundle(repository.path("affine", version)).manifest.version == version
        assert len(set(read_aliases(repository, "affine").values())) <= 1
    names = {entry.name for entry in (repository.root / "affine").iterdir() if not entry.name.isdigit()}
    assert all(name.startswith(".") or name == "aliases.json" for name in names)


def test_what_was_left_behind_is_removed_after_a_day(tmp_path):
    repository = install(tmp_path, affine())
    flow = tmp_path / "affine"
    for name, age in ((".installing-old", 2), (".removing-old", 2), (".installing-new", 0)):
        (flow / name).mkdir()
        (flow / name / "flow.json").write_text("{}")
        moment = time.time() - age * 24 * 3600
        os.utime(flow / name, (moment, moment))
    assert repository.versions("affine") == [1]
    install(tmp_path, affine("affine", 2))
    assert sorted(entry.name for entry in flow.iterdir()) == [".installing-new", "1", "2"]

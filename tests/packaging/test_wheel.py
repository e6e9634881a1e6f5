"""The wheel: what lies in it, and that what lies in it serves."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from service.bundle.store import Repository
from tests.server import Server, environment

ROOT = Path(__file__).parents[2]
SHIPPED = Repository(ROOT / "models" / "zoo").names()
CALLER = """
import pushforward

client = pushforward.Client("http://localhost:8000")
reveal_type(client.log_prob([[1.0, 2.0]]))
client.no_such_call()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree, made by the backend that makes a release's."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> dict[str, str]:
    """An environment in which Python finds the wheel's own files first."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return {**environment(), "PYTHONPATH": str(folder)}


def test_it_holds_every_file_of_the_packages_and_nothing_else(names):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "pushforward", "service", "models"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {name for name in names if ".dist-info/" not in name} == files


@pytest.mark.parametrize(
    "name",
    [
        "models/py.typed",
        "models/recipes/mnist.toml",
        "models/evaluation/page.html",
        "models/evaluation/report.html",
        "models/inference/report.html",
        "models/evaluation/report.js",
        "models/evaluation/style.css",
        "models/training/report.html",
        "pushforward/py.typed",
        "service/py.typed",
        *(f"models/zoo/{flow}/{file}" for flow in SHIPPED for file in ("recipe.toml", "1/flow.json", "1/golden.npz")),
    ],
)
def test_it_holds_the_data(names, name):
    assert name in names


def test_the_table_of_sobol_comes_with_its_licence(names):
    (table,) = (name for name in names if name.endswith("/sobol.npz"))
    beside = {name for name in names if name.rpartition("/")[0] == table.rpartition("/")[0]}
    assert any("LICENSE" in name for name in beside)


def test_neither_tests_nor_benchmarks_are_in_it(names):
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"models", "pushforward", "service"}


def test_its_metadata_are_the_projects(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"pushforward = pushforward.cli:main" in archive.read(entry_points)
    assert metadata["Version"] == project["version"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])


def test_its_files_serve_the_shipped_flows(unpacked, tmp_path):
    """The dependencies are this environment's; `test_a_bare_environment_serves` installs them too."""
    code = "import pushforward, service, models; print(pushforward.__file__, service.__file__, models.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=unpacked, check=True, capture_output=True, text=True
    )
    assert found.stdout.count(unpacked["PYTHONPATH"]) == 3
    serves_the_shipped_flows(Server(command=[sys.executable, "-m", "pushforward"], cwd=tmp_path, env=unpacked))


def serves_the_shipped_flows(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert {flow["name"] for flow in client.get("/models").json()["models"]} == set(SHIPPED)
        assert client.get("/health/ready").status_code == 200
        for flow in SHIPPED:
            drawn = client.get(f"/models/{flow}/sample", params={"n": 3, "seed": 1}).json()
            scored = client.post(f"/models/{flow}/logprob", json={"x": drawn["x"]})
            assert scored.status_code == 200
    assert server.stop() == 0


@pytest.mark.slow
def test_a_bare_environment_serves(wheel, tmp_path):
    """The wheel, installed by pip with what it says it needs, and nothing of this tree."""
    venv.create(tmp_path / "bare", with_pip=True)
    commands = tmp_path / "bare" / "bin"
    clean = {**environment(), "PYTHONNOUSERSITE": "1"}
    clean.pop("PYTHONPATH", None)

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(
        commands / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
        f"{wheel}[cpu]",
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in run(commands / "pushforward", "--version")
    code = "import importlib.util as u; print([n for n in ('torch', 'zuko', 'tests', 'benchmarks') if u.find_spec(n)])"
    assert run(commands / "python", "-c", code).strip() == "[]"
    serves_the_shipped_flows(Server(command=[str(commands / "pushforward")], cwd=tmp_path, env=clean))
    (tmp_path / "caller.py").write_text(CALLER)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", commands / "python", "caller.py"],
        cwd=tmp_path,
        env={**clean, "MYPY_CACHE_DIR": os.devnull},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert "numpy.ndarray" in checked.stdout, checked.stdout
    assert '"Client" has no attribute "no_such_call"' in checked.stdout, checked.stdout
    assert "py.typed" not in checked.stdout, checked.stdout

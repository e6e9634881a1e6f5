"""Build the image and run it as docker-compose.yml says.

BASE_IMAGE names another base than the Dockerfile's, where that one cannot be pulled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest

import pushforward
from service.bundle.store import Repository
from tests.waiting import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMAGE = "pushforward:test"


def run(*command, **options):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def output(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine():
    if shutil.which("docker") is None or run("docker", "info").returncode:
        pytest.skip("no Docker engine answers `docker info`")


@pytest.fixture(scope="module")
def compose(engine):
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not run(*command, "version").returncode:
            return [*command, "--project-name", "pushforward-test"]
    pytest.skip("neither `docker compose` nor `docker-compose` is here")


@pytest.fixture(scope="module")
def image(engine):
    base = os.environ.get("BASE_IMAGE")
    chosen = ["--build-arg", f"BASE_IMAGE={base}"] if base else []
    output("docker", "build", "--network", "host", *chosen, "--tag", IMAGE, ".")
    yield IMAGE
    run("docker", "image", "rm", IMAGE)


@pytest.fixture(scope="module")
def container(compose, image):
    environment = {**os.environ, "PUSHFORWARD_IMAGE": image, "PUSHFORWARD_PUBLISH": "0", "PUSHFORWARD_WORKERS": "2"}
    try:
        output(*compose, "up", "--detach", env=environment)
        name = output(*compose, "ps", "--quiet", env=environment)
        until(lambda: state(name)["Health"]["Status"] != "starting", pause=0.5)
        assert state(name)["Health"]["Status"] == "healthy", output("docker", "logs", name)
        yield name, environment
    finally:
        run(*compose, "down", env=environment)


def state(name):
    return json.loads(output("docker", "inspect", "--format", "{{json .State}}", name))


def test_the_image_holds_what_serving_needs_and_no_more(image):
    code = """
import importlib.util as u, os, shutil
for name in ("torch", "zuko", "onnx", "sklearn", "pytest", "pip"):
    spec = u.find_spec(name)
    assert spec is None or "/opt/" not in str(spec.origin), name
assert not [tool for tool in ("gcc", "cc", "g++", "make") if shutil.which(tool)]
assert os.getuid() == 10001
for folder in ("/opt/pushforward", "/repository", "/"):
    assert not os.access(folder, os.W_OK), folder
"""
    output("docker", "run", "--rm", "--entrypoint", "python", image, "-c", code)


def test_it_serves_its_own_flows_without_a_volume(image):
    flows = output("docker", "run", "--rm", "--entrypoint", "ls", image, "/repository")
    assert set(Repository(ROOT / "models" / "zoo").names()) <= set(flows.split())
    assert output("docker", "run", "--rm", "--read-only", image, "check", "/repository/two-moons").endswith("be served")


def test_it_is_labelled(image):
    labels = json.loads(output("docker", "inspect", "--format", "{{json .Config.Labels}}", image))
    names = ("title", "description", "version", "licenses")
    assert all(labels[f"org.opencontainers.image.{name}"] for name in names)


def test_up_answers_and_down_ends_in_time(compose, container):
    name, environment = container
    host = json.loads(output("docker", "inspect", "--format", "{{json .HostConfig}}", name))
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    port = output(*compose, "port", "pushforward", "8000", env=environment).rsplit(":", 1)[1]
    with pushforward.Client(f"http://127.0.0.1:{port}") as client:
        assert client.ready()
        assert {flow.name for flow in client.models()} == set(Repository(ROOT / "models" / "zoo").names())
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert "\npushforward_workers 2.0\n" in metrics
        x = client.sample(5, seed=7).x
        assert np.isfinite(client.log_prob(x)).all()
    assert "telemetry" not in output("docker", "logs", name).lower()
    output(*compose, "stop", env=environment)
    assert state(name)["ExitCode"] == 0  # and not 137: it ended before it would have been killed
    output(*compose, "down", env=environment)

"""The image's files against the code they package; `test_compose` builds and runs them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from service.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


OWN = {"WORKERS": "1", "INSECURE": "true"}
"""What docker-compose.yml sets by itself."""


def test_each_setting_of_the_image_is_one_of_the_servers():
    names = re.findall(rf"^\s*(?:ENV )?{PREFIX}(\w+)=(\S+)", DOCKERFILE, re.MULTILINE)
    assert {name.lower() for name, _ in names} == {"host", "port", "repository", "default_flow"}
    assert {name.lower() for name, _ in names} <= set(Settings.model_fields)
    settings = Settings(**{name.lower(): value for name, value in names})
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert f"EXPOSE {settings.port}" in DOCKERFILE
    assert f':{settings.port}"' in COMPOSE
    assert f"./models/zoo:{settings.repository}:ro" in COMPOSE


def test_every_setting_but_host_and_port_is_forwarded():
    forwarded = dict(re.findall(rf"^      {PREFIX}(\w+): (.*)$", COMPOSE, re.MULTILINE))
    assert {name.lower() for name in forwarded} == set(Settings.model_fields) - {"host", "port"}
    image = dict(re.findall(rf"^\s*(?:ENV )?{PREFIX}(\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    for name, value in forwarded.items():
        found = re.fullmatch(rf"\${{{PREFIX}{name}:?-(.*)}}", value)
        assert found, f"{name} does not come from the variable of its own name: {value}"
        usual = image.get(name, OWN.get(name, ""))  # an empty variable is the setting's own default
        assert found[1] == usual, name


def test_no_other_machine_reaches_a_server_without_a_key():
    assert re.findall(r"^ +- .*:8000\"$", COMPOSE, re.MULTILINE) == [
        '      - "127.0.0.1:${PUSHFORWARD_PUBLISH:-8000}:8000"'
    ]
    assert "INSECURE" not in DOCKERFILE  # the image by itself listens on all addresses, and so needs a key


def test_the_two_lines_that_serve_other_machines_stand_there():
    port, insecure = re.findall(r"^      #   (.+)$", COMPOSE, re.MULTILINE)
    changed = re.sub(r'^( +- )"127.+$', rf"      {port}", COMPOSE, flags=re.MULTILINE)
    changed = re.sub(r"^ +PUSHFORWARD_INSECURE.+$", rf"      {insecure}", changed, flags=re.MULTILINE)
    service = yaml.safe_load(changed)["services"]["pushforward"]
    assert service["ports"] == ["${PUSHFORWARD_PUBLISH:-8000}:8000"]
    assert read_settings(repository="flows", insecure=service["environment"]["PUSHFORWARD_INSECURE"]).insecure is False


def test_a_default_flow_can_be_taken_away():
    assert "{PUSHFORWARD_DEFAULT_FLOW-" in COMPOSE  # without a colon, so that an empty one stays empty


def test_an_empty_variable_is_the_default(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", "")
    assert read_settings(repository="flows") == Settings.model_construct(repository=Path("flows"))


def test_workers_can_be_set_from_outside():
    (name,) = re.findall(rf"^ *{PREFIX}(\w+): \${{{PREFIX}\1:-1}}$", COMPOSE, re.MULTILINE)
    assert Settings.model_fields[name.lower()].default == 1


def test_the_version_and_the_licence_are_the_projects():
    assert f"ARG VERSION={PROJECT['version']}\n" in DOCKERFILE
    assert f'licenses="{PROJECT["license"]}"' in DOCKERFILE


def test_both_files_start_from_the_same_image():
    default = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert default
    assert f"${{BASE_IMAGE:-{default[1]}}}" in COMPOSE
    assert DOCKERFILE.count("FROM ${BASE_IMAGE}") == 2


def test_whatever_is_copied_is_let_through():
    let_through = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_is_not_root_and_the_container_is_locked():
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)
    for line in ("read_only: true", "- ALL", "- no-new-privileges:true", "- /tmp"):
        assert line in COMPOSE

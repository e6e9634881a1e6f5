from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import InvalidArgument
from service.settings import Settings, environment_name, flag_name, read_settings, unknown_variables


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())


def test_names_come_from_the_field():
    assert flag_name("default_flow") == "--default-flow"
    assert environment_name("default_flow") == "PUSHFORWARD_DEFAULT_FLOW"


def test_what_is_given_goes_before_the_environment_and_that_before_the_default(monkeypatch):
    monkeypatch.setenv("PUSHFORWARD_PORT", "1234")
    monkeypatch.setenv("PUSHFORWARD_CHUNK_ROWS", "77")
    settings = read_settings(repository="flows", port="4321", chunk_rows=None)
    assert settings.repository == Path("flows")
    assert (settings.port, settings.chunk_rows, settings.host) == (4321, 77, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "99999"),
        ("port", "eighty"),
        ("default_flow", "../etc"),
        ("threads", "-1"),
        ("max_work", "0"),
        ("log_level", "loud"),
        ("device", "gpu"),
        ("device", "cuda:first"),
        ("drain_seconds", "-1"),
        ("isolate", "../etc"),
        ("isolate", "wine,"),
        ("isolate_processes", "0"),
        ("engine_hang_seconds", "0"),
    ],
)
def test_a_wrong_value_is_told_with_its_flag_and_its_variable(monkeypatch, name, value):
    message = f"{flag_name(name)} .{environment_name(name)}.*{value}"
    with pytest.raises(InvalidArgument, match=message):
        read_settings(repository="flows", **{name: value})
    monkeypatch.setenv(environment_name(name), value)
    with pytest.raises(InvalidArgument, match=message):
        read_settings(repository="flows")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PUSHFORWARD_WORKER", "PUSHFORWARD_WORKERS"),
        ("PUSHFORWARD_DEFAULTFLOW", "PUSHFORWARD_DEFAULT_FLOW"),
        ("PUSHFORWARD_MAX_BODY_BYTE", "PUSHFORWARD_MAX_BODY_BYTES"),
        ("pushforward_thread", "PUSHFORWARD_THREADS"),
        ("PUSHFORWARD_QZ", None),
    ],
)
def test_a_misspelt_variable_is_named_with_its_nearest(name, nearest):
    known = {environment_name(field): "1" for field in Settings.model_fields}
    assert unknown_variables({**known, "pushforward_port": "1", "PATH": "", name: "1"}) == [(name, nearest)]


def test_a_repository_is_needed(monkeypatch):
    monkeypatch.delenv("PUSHFORWARD_REPOSITORY", raising=False)
    with pytest.raises(InvalidArgument, match="--repository"):
        read_settings()


@pytest.mark.parametrize(
    ("text", "names"),
    [("none", frozenset()), ("all", None), ("wine", {"wine"}), ("wine,two-moons", {"wine", "two-moons"})],
)
def test_the_flows_that_run_apart(text, names):
    assert Settings(repository="flows", isolate=text).isolated_flows == names

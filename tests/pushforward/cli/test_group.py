from __future__ import annotations

import importlib
import logging
import subprocess
import sys

import pytest

from pushforward.cli.group import main
from service.errors import PushforwardError


@pytest.fixture
def fails(monkeypatch, capsys):
    """What the command line says of a failure, line by line."""

    def told(*arguments):
        monkeypatch.setattr(sys, "argv", ["pushforward", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        return capsys.readouterr().err.splitlines()

    return told


def test_a_reason_that_the_message_holds_is_not_told_twice(fails, repository):
    where = ["--repository", repository, "--model", "conditional"]
    (line,) = fails("logprob", "rows.csv", *where, "--context", "1,nan")
    assert line.endswith("not a finite float32: --context[1] = nan is not finite (row 0, column 1, counted from 0)")


def test_each_further_reason_is_told_with_its_place(fails, repository):
    where = ["--repository", repository, "--model", "conditional"]
    first, *others = fails("logprob", "rows.csv", *where, "--context", "inf,nan")
    assert first.endswith("--context[0] = inf is not finite (row 0, column 0, counted from 0)")
    assert others == ["  --context.1: --context[1] = nan is not finite (row 0, column 1, counted from 0)"]


@pytest.mark.parametrize(
    ("arguments", "loaded", "not_loaded"),
    [
        (["--help"], [], ["httpx", "numpy", "onnxruntime", "fastapi", "torch"]),
        (["logprob", "--url", "http://127.0.0.1:9"], ["httpx"], ["onnxruntime", "fastapi", "torch", "models"]),
        (["logprob", "--bundle", "BUNDLE"], ["onnxruntime"], ["httpx", "fastapi", "torch", "models"]),
        (["check", "BUNDLE"], ["onnxruntime"], ["httpx", "fastapi", "torch", "models"]),
    ],
)
def test_a_command_loads_only_what_it_needs(repository, arguments, loaded, not_loaded):
    bundle = str(repository / "square" / "1")
    code = f"""
import sys
sys.argv = ["pushforward", *{[bundle if a == "BUNDLE" else a for a in arguments]!r}]
from pushforward.cli.group import main
try:
    main()
except SystemExit:
    pass
missing = set({loaded!r}) - set(sys.modules)
surplus = set({not_loaded!r}) & set(sys.modules)
assert not missing and not surplus, (missing, surplus)
"""
    subprocess.run([sys.executable, "-c", code], input=b"0.25\n", check=True, capture_output=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "flows/x"), "Error: flows/x: No space left on device"),
        (OSError(30, "Read-only file system"), "Error: Read-only file system"),
        (MemoryError(), "Error: there is not enough memory: "),
        (ZeroDivisionError("by\nzero"), r"Error: an unforeseen ZeroDivisionError: by zero (test_group.py, line "),
    ],
)
def test_an_error_that_no_command_has_words_for_is_one_line(fails, monkeypatch, error, words):
    def command(**_):
        raise error

    monkeypatch.setattr(importlib.import_module("pushforward.commands.inspect").command, "callback", command)
    (line,) = fails("inspect", "bundle")
    assert line.startswith(words)


def test_a_failing_run_is_logged_in_a_line(fails, monkeypatch):
    def command(**_):
        try:
            raise ValueError("of\nrows")
        except ValueError:
            logging.getLogger("service.test").exception("a batch failed")
        raise PushforwardError("the flow could not be run")

    monkeypatch.setattr(logging.getLogger("service.test"), "propagate", False)  # pytest's own handlers
    monkeypatch.setattr(importlib.import_module("pushforward.commands.inspect").command, "callback", command)
    assert fails("inspect", "bundle") == [
        "Error: a batch failed (ValueError: of rows)",
        "Error: the flow could not be run",
    ]

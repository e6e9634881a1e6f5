from __future__ import annotations

import io
import subprocess
import sys

import pytest

from pushforward.cli.layout import Block
from pushforward.cli.options import place_named, progress
from pushforward.client.errors import InvalidInput
from service.errors import NotFinite, Reason


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("pushforward.cli.options._SHOWN_AFTER", 0.0)


def test_a_bar_on_a_terminal(monkeypatch, at_once):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2000) as done:
        done(2000)
    assert "2.00k/2.00k" in terminal.getvalue() or "0.00/2.00k" in terminal.getvalue()


def test_no_bar_elsewhere(monkeypatch, at_once):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress(2000) as done:
        done(2000)
    assert file.getvalue() == ""


def test_no_bar_for_short_work(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2000) as done:
        done(2000)
    assert terminal.getvalue().strip() == ""


def test_an_error_without_a_row_stays_as_it_is():
    block = Block([], 0, [4])
    error = NotFinite("all of it", (Reason(("x",), "odd"),))
    with pytest.raises(NotFinite, match="all of it"), place_named("file", block):
        raise error
    with pytest.raises(InvalidInput, match="file, line 4: odd"), place_named("file", block):
        raise NotFinite("row 0", (Reason(("x",), "odd", 0),))


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

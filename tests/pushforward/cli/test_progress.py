from __future__ import annotations

import io
import sys

import pytest

from pushforward.cli.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("pushforward.cli.progress._SHOWN_AFTER", 0.0)


def test_a_bar_on_a_terminal(monkeypatch, at_once):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_progress(2000) as done:
        done(2000)
    assert "2.00k/2.00k" in terminal.getvalue() or "0.00/2.00k" in terminal.getvalue()


def test_no_bar_elsewhere(monkeypatch, at_once):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with show_progress(2000) as done:
        done(2000)
    assert file.getvalue() == ""


def test_no_bar_for_short_work(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_progress(2000) as done:
        done(2000)
    assert terminal.getvalue().strip() == ""

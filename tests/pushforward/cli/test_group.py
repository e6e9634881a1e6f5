from __future__ import annotations

import sys

import pytest

from pushforward.cli.group import main


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

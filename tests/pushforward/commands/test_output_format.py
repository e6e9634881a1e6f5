"""The format of the rows that a command writes, which is settled before it does anything else."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from pushforward.cli.group import cli
from pushforward.client.errors import InvalidInput

COMMANDS = {
    "sample": ["sample"],
    "logprob": ["logprob", "rows.csv"],
    "interpolate": ["interpolate", "rows.csv"],
    "edit": ["edit", "rows.csv", "--direction", "right"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["s.parquet", "s.arrow", "s.csv.gz", "s.txt"])
def test_an_unknown_suffix_is_refused_before_any_work(command, name, tmp_path, monkeypatch):
    # Neither the rows nor the bundle is there: the command looks for neither.
    monkeypatch.chdir(tmp_path)
    arguments = [*COMMANDS[command], "--bundle", "none", "--out", name]
    with pytest.raises(InvalidInput, match=r"rows are written as \.csv or \.npy"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_format_that_is_given_wins(command, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("1,2\n3,4\n")
    bundle = repository / "traced" / "1"
    for form in ("csv", "npy"):
        arguments = [*COMMANDS[command], "--bundle", str(bundle), "--out", f"{form}.parquet", "--format", form]
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "," in (tmp_path / "csv.parquet").read_text() or command == "logprob"
    assert np.load(tmp_path / "npy.parquet").dtype == np.float32

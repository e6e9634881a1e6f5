from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from pushforward.cli.options import input_options


@click.command()
@input_options
def command(delimiter: str | None) -> None:
    click.echo(f"<{delimiter}>")


@pytest.mark.parametrize(
    ("given", "shown"), [([], "<None>\n"), (["--delimiter", ";"], "<;>\n"), (["--delimiter", "\t"], "<\t>\n")]
)
def test_a_delimiter(given, shown):
    assert CliRunner().invoke(command, given).output == shown


@pytest.mark.parametrize("value", ["", ";;", '"', "\n", "\r"])
def test_no_delimiter(value):
    result = CliRunner().invoke(command, ["--delimiter", value])
    assert result.exit_code == 2
    assert "must be one character, and neither a quote nor a line end" in result.output

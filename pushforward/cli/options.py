"""The options that several commands have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pushforward.cli.row_output import OutputFormat, choose_format

__all__ = ["input_options", "load_options", "output_options", "source_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PATH: Final = click.Path(path_type=Path)


def _read_version(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:  # noqa: ARG001  click's signature
    """A version: its number, or an alias."""
    from service.bundle.aliases import is_alias
    from service.bundle.store import is_version

    if value is None or is_alias(value):
        return value
    if not is_version(value):
        raise click.BadParameter("must be a positive integer, or an alias")
    return int(value)


def source_options(command: _Command) -> _Command:
    """Add the options that name a flow: the arguments of `pushforward.cli.flow_sources.SourceOptions`."""
    for option in (
        click.option(
            "--version",
            callback=_read_version,
            metavar="VERSION",
            help="The version of the flow, or an alias.  [default: the newest]",
        ),
        click.option("--model", help="The name of the flow.  [default: the server's default flow]"),
        click.option("--repository", type=_PATH, help="A folder of flows: run --model from it here, without a server."),
        click.option("--bundle", type=_PATH, help="A bundle's folder: run it here, without a server."),
        click.option("--key", help="The server's key. PUSHFORWARD_KEY is better: no list of processes shows it."),
        click.option("--url", help="The server.  [default: http://127.0.0.1:8000]"),
    ):
        command = option(command)
    return load_options(command)


def load_options(command: _Command) -> _Command:
    """Add --load-seconds and --load-bytes: the arguments of `service.engine.trials.TrialLimits`."""
    for option in (
        click.option(
            "--load-bytes",
            type=click.IntRange(min=1 << 20),
            default=2 << 30,
            show_default=True,
            help="A bundle that takes more memory to load and to check is refused.",
        ),
        click.option(
            "--load-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=60.0,
            show_default=True,
            help="A bundle that takes longer to load and to check is refused.",
        ),
    ):
        command = option(command)
    return command


def input_options(command: _Command) -> _Command:
    """Add --delimiter."""
    return click.option(
        "--delimiter",
        callback=_require_delimiter,
        help="The character between the cells of CSV. Default: a comma, a semicolon or a tab, as in the first lines.",
    )(command)


def _require_delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001  click's signature
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("must be one character, and neither a quote nor a line end")
    return value


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --out and --format. A suffix of --out that says no format is refused before the command does any work."""

    @functools.wraps(command)
    def checked(*, out: str, form: OutputFormat | None, **given: Any) -> None:  # noqa: ANN401
        choose_format(out, form)
        command(out=out, form=form, **given)

    with_format = click.option(
        "--format",
        "form",
        type=click.Choice(["csv", "npy"]),
        help="CSV with a header, or the main array as npy.  [default: by the suffix of --out; csv without --out]",
    )(checked)
    return click.option("--out", default="-", metavar="FILE", help="Where to write.  [default: standard output]")(
        with_format
    )

"""What the verbs' commands have in common: options, blocks of rows, a progress bar, the place of a bad row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from tqdm import tqdm

from pushforward.cli.layout import Block
from pushforward.client.errors import InvalidInput
from service.errors import PushforwardError

__all__ = ["block_rows", "input_options", "output_options", "place_named", "progress", "source_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_BLOCK_VALUES: Final = 1 << 18
"""So many numbers are read, computed and written at a time."""

_PATH: Final = click.Path(path_type=Path)
_SHOWN_AFTER: Final = 1.0  # seconds


def source_options(command: _Command) -> _Command:
    """Add the options that say where the flow is: by name the arguments of `pushforward.cli.sources.SourceOptions`."""
    for option in (
        click.option("--version", type=click.IntRange(min=1), help="The flow's version; the newest by default."),
        click.option("--model", help="The flow's name; a server's default flow by default."),
        click.option("--repository", type=_PATH, help="A folder of flows, to run one here, without a server."),
        click.option("--bundle", type=_PATH, help="A bundle's folder, to run it here, without a server."),
        click.option("--url", help="The server.  [default: http://127.0.0.1:8000]"),
    ):
        command = option(command)
    return command


def input_options(command: _Command) -> _Command:
    """Add --delimiter."""
    return click.option("--delimiter", default=",", show_default=True, help="What stands between the cells of CSV.")(
        command
    )


def output_options(command: _Command) -> _Command:
    """Add --out and --format."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(["csv", "npy"]),
        help="CSV with a header, or the main array as npy; by the suffix of --out if not given, else csv.",
    )(command)
    return click.option("--out", default="-", metavar="FILE", help="Where to write; the standard output by default.")(
        command
    )


def block_rows(width: int) -> int:
    """How many rows of so many values make a block."""
    return max(1, _BLOCK_VALUES // width)


@contextmanager
def progress(total: int | None, unit: str = "rows") -> Iterator[Callable[[int], object]]:
    """A bar on the standard error, where that is a terminal and the work takes more than a second.

    Args:
        total: how many there will be; None where nobody knows.
        unit: what is counted.

    Yields:
        A function to call with each number done.
    """
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, delay=_SHOWN_AFTER, disable=None, leave=False) as bar:
        yield bar.update


@contextmanager
def place_named(name: str, block: Block) -> Iterator[None]:
    """Say of an error about a row of this block where that row stands in the input."""
    try:
        yield
    except PushforwardError as error:
        rows = [fault for fault in error.errors if fault.row is not None]
        if not rows or rows[0].row is None:
            raise
        raise InvalidInput(f"{name}, {block.where(rows[0].row)}: {rows[0].reason}") from error

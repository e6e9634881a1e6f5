"""`pushforward key`: a new key, printed once, and the line that a server keeps of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from service.access.key_source import read_key_file
from service.access.keys import NewKey, StoredKey, make_key, parse_keys
from service.access.scopes import SCOPES, Scope
from service.errors import InvalidArgument

__all__ = ["command"]


@click.command(
    help="Make a key for a server. The first line of the output is the key, for the client: it is shown once and kept "
    "nowhere. The second is the line of its hash, for the file of --keys-file or for PUSHFORWARD_KEYS."
)
@click.argument("name", default="client")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What it may do: use flows (infer), change what is served (admin), read the metrics (metrics). May be given "
    "several times.  [default: infer]",
)
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="Its budget of requests; none by default.")
@click.option("--rows-per-minute", type=click.IntRange(min=1), help="Its budget of rows; none by default.")
@click.option(
    "--add-to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add the line to this file of keys. A server that runs takes it up within a second.",
)
def command(
    name: str,
    scopes: tuple[str, ...],
    requests_per_minute: int | None,
    rows_per_minute: int | None,
    add_to: Path | None,
) -> None:
    """Make a key."""
    chosen = cast("tuple[Scope, ...]", scopes or ("infer",))
    new = make_key(name, chosen, requests_per_minute, rows_per_minute)
    if add_to is None:
        _print(new)
        return
    text = _addition(add_to, new.stored)
    with _appending(add_to) as append:
        _print(new)  # before its line is written, so that no file has the line of a key that nobody has seen
        append(text)
    click.echo(f"The line has been added to {add_to}.", err=True)


def _print(new: NewKey) -> None:
    click.echo(new.key)
    click.echo(new.stored.line())


@contextmanager
def _appending(path: Path) -> Iterator[Callable[[str], None]]:
    """Open a file, which is made if there is none: for its owner to read alone.

    Yields:
        What writes a text to its end.

    Raises:
        InvalidArgument: it cannot be written.
    """

    def told(error: OSError) -> InvalidArgument:
        return InvalidArgument(f"the line cannot be added to {path}: {error.strerror}")

    def append(text: str) -> None:
        try:
            os.write(number, text.encode())
        except OSError as error:
            raise told(error) from error

    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise told(error) from error
    try:
        yield append
    finally:
        os.close(number)


def _addition(path: Path, stored: StoredKey) -> str:
    """What is to be written behind a file of keys, for one more.

    Raises:
        InvalidArgument: the file is none of keys, cannot be read, or has such a name already.
    """
    try:
        before = read_key_file(path) if path.exists() else ""
    except OSError as error:
        raise InvalidArgument(f"the keys in {path} cannot be read: {error.strerror}") from error
    parse_keys(f"{before}\n{stored.line()}", str(path))
    return ("" if before.endswith("\n") or not before else "\n") + stored.line() + "\n"

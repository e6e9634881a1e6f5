"""`pushforward key`: a new key, printed once, and the line that a server keeps of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import click

from service.access.keys import StoredKey, make_key, parse_keys
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
    if add_to is not None:
        _add(new.stored, add_to)
    click.echo(new.key)
    click.echo(new.stored.line())
    if add_to is not None:
        click.echo(f"The line has been added to {add_to}.", err=True)


def _add(stored: StoredKey, path: Path) -> None:
    """Add a line to a file of keys, which is made if there is none: for its owner to read alone.

    Raises:
        InvalidArgument: the file is none of keys, has such a name already, or cannot be written.
    """
    try:
        before = path.read_text("utf-8") if path.exists() else ""
        parse_keys(f"{before}\n{stored.line()}", str(path))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as opened:
            opened.write(("" if before.endswith("\n") or not before else "\n") + stored.line() + "\n")
    except OSError as error:
        raise InvalidArgument(f"the line cannot be added to {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is no text in UTF-8, and so no file of keys") from None

"""`pushforward repository`: the versions of flows in a folder, or on a server that serves while they change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pushforward.cli.options import load_options
from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from pushforward.cli.stores import Store

__all__ = ["command"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def command() -> None:
    """List, install, remove and name the versions of flows.

    With --repository the folder is changed. A server that watches it (--watch), or is sent SIGHUP, serves the change.
    Else the server at --url is asked, and serves it at once.
    """


def _with_store(function: Callable[..., None]) -> Callable[..., None]:
    """Add --repository and --url, and give the command what they name."""

    @functools.wraps(function)
    def opened(*, repository: Path | None, url: str | None, **given: Any) -> None:  # noqa: ANN401
        from pushforward.cli.stores import open_store

        if repository is not None and url is not None:
            raise InvalidInput("--repository is a folder and --url a server: give one of them")
        with open_store(repository, url) as store:
            function(store, **given)

    for option in (
        click.option("--url", help="The server.  [default: http://127.0.0.1:8000]"),
        click.option("--repository", type=click.Path(path_type=Path), help="A folder of flows, in its place."),
    ):
        opened = option(opened)
    return opened


@command.command("list")
@_with_store
def list_versions(store: Store) -> None:
    """List every version: its flow, its state, its aliases and the digest of its flow.json."""
    for found in store.versions():
        state = found.state if found.error is None else f"{found.state} ({found.error})"
        aliases = f"  {', '.join(found.aliases)}" if found.aliases else ""
        click.echo(f"{found.name} {found.version}  {state}  {found.digest[:12] or '-'}{aliases}")


@command.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--load/--no-load", default=True, help="With --url, whether to serve it at once.  [default: load]")
@load_options
@_with_store
def install(store: Store, bundle: Path, load: bool, load_seconds: float, load_bytes: int) -> None:
    """Install BUNDLE, a bundle's folder, as the version that its flow.json names.

    It is checked and tried first, and is there whole or not at all. A version that exists is never changed. A server
    has limits of its own for the trial.
    """
    from service.engine.trials import TrialLimits

    name, version = store.install(bundle, load=load, limits=TrialLimits(load_seconds, load_bytes))
    click.echo(f"{name} version {version} is installed")


@command.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@_with_store
def remove(store: Store, name: str, version: int) -> None:
    """Remove VERSION of the flow NAME. A version that an alias names stays."""
    store.remove(name, version)
    click.echo(f"{name} version {version} is removed")


@command.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1), required=False)
@click.option("--delete", is_flag=True, help="Remove the alias.")
@_with_store
def alias(store: Store, name: str, alias: str, version: int | None, delete: bool) -> None:
    """Let ALIAS name VERSION of the flow NAME, wherever a version may stand.

    \b
      pushforward repository alias wine stable 2
      pushforward repository alias wine canary --delete
    """  # noqa: D301  \b keeps click from joining the lines
    if delete == (version is not None):
        raise InvalidInput("give a version, or --delete")
    kept = store.set_alias(name, alias, version)
    named = "is removed" if version is None else f"names version {version}"
    click.echo(
        f"{alias} of {name} {named}" + ("" if kept else "; the server could not write it, and loses it at its end")
    )

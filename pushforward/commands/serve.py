"""`pushforward serve`: the server, with an option for each of its settings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.errors import InvalidArgument, Reason
from service.settings import Settings, environment_name, flag_name, read_settings

if TYPE_CHECKING:
    from service.process.preflight import ServerStatus

__all__ = ["command"]

_SHIPPED_DEFAULT: Final = "two-moons"
_OWN_DEFAULTS: Final = {"repository": "the shipped flows"}
"""The defaults of the command line where `Settings` has none."""


def _setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of `Settings`: its flag, environment variable, default and help."""
    for name, field in reversed(Settings.model_fields.items()):
        default = _OWN_DEFAULTS.get(name) if field.is_required() else field.default
        shown = (
            f"{field.description}  [env: {environment_name(name)}; default: {'none' if default is None else default}]"
        )
        if field.annotation is bool:
            option = click.option(f"{flag_name(name)}/--no-{flag_name(name)[2:]}", name, default=None, help=shown)
        else:
            option = click.option(flag_name(name), name, default=None, metavar=_metavar(field.annotation), help=shown)
        function = option(function)
    return function


def _metavar(annotation: Any) -> str:  # noqa: ANN401  a type, or a union of types
    if annotation in (int, float):
        return "NUMBER"
    return "FOLDER" if annotation is Path else "TEXT"


@click.command(help="Serve a repository of flows over HTTP. An option overrides its environment variable.")
@_setting_options
def command(**given: Any) -> None:  # noqa: ANN401  each has its field's type
    """Serve."""
    settings = read_settings(**_add_shipped_flows(given))
    # A supervisor serves nothing, and stays small: it does not load what serving needs.
    if settings.workers == 1:
        from service.process.server import serve
    else:
        from service.process.supervisor import serve
    serve(settings, _announce)


def _announce(url: str, status: ServerStatus) -> None:
    """Print the flows that answer. The log says why another does not."""
    ready = ", ".join(sorted(status.flows)) or "no flow"
    waiting = "" if status.loaded else "flows are still loading; "
    click.echo(f"Pushforward serves {ready} at {url} ({waiting}API: {url}/docs; stop with Ctrl-C)")


def _add_shipped_flows(given: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the shipped flows as the repository where none is named.

    Raises:
        InvalidArgument: none is named, and the shipped flows are not installed.
    """
    if given["repository"] is not None or _in_environment("repository"):
        return given
    found = importlib.util.find_spec("models")
    if found is None or not found.submodule_search_locations:
        detail = "no repository is named, and the package that holds the shipped flows is not installed"
        raise InvalidArgument(detail, (Reason((flag_name("repository"),), "name the folder of your flows"),))
    repository = Path(found.submodule_search_locations[0]) / "zoo"
    named = given["default_flow"] is not None or _in_environment("default_flow")
    return {**given, "repository": repository} | ({} if named else {"default_flow": _SHIPPED_DEFAULT})


def _in_environment(field: str) -> bool:
    """Whether the environment variable of a setting is set, and not to nothing; case does not matter in its name."""
    return environment_name(field) in {name.upper() for name, value in os.environ.items() if value}

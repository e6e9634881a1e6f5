"""The group of commands: `pushforward COMMAND`. Each command is a module of `pushforward.commands`.

A command's module is imported when the command is named, so that `pushforward logprob` does not wait for torch,
nor `pushforward --help` for the server.
"""

from __future__ import annotations

import importlib
import keyword
import sys
from typing import Final

import click

from service.errors import PushforwardError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: Final[dict[str, str]] = {
    "serve": "Serve a repository of flows over HTTP.",
    "train": "Fit a flow to a table or to images, and export it as a bundle.",
    "export": "Export a fit whose export failed, with other options.",
    "import": "Make a bundle from a flow of zuko, nflows, normflows or FrEIA.",
    "repository": "List, install, remove and name the versions of flows, in a folder or on a server.",
    "check": "Verify a bundle and print its parity table.",
    "inspect": "Describe a bundle.",
    "evaluate": "Say how good a bundle's flow is on held-out rows.",
    "calibrate": "Calibrate a bundle by other held-out rows, as a new version.",
    "direction": "Add a direction of latent space to a bundle, from labelled rows.",
    "logprob": "Log-densities of rows, from a server or straight from a bundle.",
    "sample": "Draw rows, from a server or straight from a bundle.",
    "interpolate": "Walk between rows through latent space.",
    "edit": "Move rows along a direction of latent space.",
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps, and imports a command when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        # a module cannot be called `import`: PEP 8 adds an underscore
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = importlib.import_module(f"pushforward.commands.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pushforward")
def cli() -> None:
    """Normalizing flows, from data to HTTP."""


def main() -> None:
    """Run the command line; a failure of the project's own is one clear message and exit status 1."""
    try:
        cli(prog_name="pushforward")
    except PushforwardError as error:
        click.echo(f"Error: {error.detail}", err=True)
        for reason in error.unsaid():
            click.echo(f"  {reason}", err=True)
        sys.exit(1)

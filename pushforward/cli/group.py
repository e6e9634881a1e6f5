"""The group of commands: `pushforward COMMAND`. Each command is a module of `pushforward.commands`.

A command's module is imported when the command is named, so that `pushforward logprob` does not wait for torch,
nor `pushforward --help` for the server.
"""

from __future__ import annotations

import importlib
import keyword
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, TextIO

import click

from service.errors import PushforwardError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: Final[dict[str, str]] = {
    "serve": "Serve a repository of flows over HTTP.",
    "key": "Make a key for a server, and the line that a server keeps of it.",
    "train": "Fit a flow to a table or to images, and export it as a bundle.",
    "vi": "Fit a flow to a density that can be evaluated, and export it as a bundle.",
    "export": "Export a fit whose export failed, with other options.",
    "import": "Make a bundle from a flow of zuko, nflows, normflows or FrEIA.",
    "repository": "List, install, remove and name the versions of flows, in a folder or on a server.",
    "check": "Verify a bundle and print its parity table.",
    "reseal": "Bring bundles of an older format up to date.",
    "inspect": "Describe a bundle.",
    "evaluate": "Say how good a bundle's flow is on held-out rows.",
    "calibrate": "Calibrate a bundle by other held-out rows, as a new version.",
    "direction": "Add a direction of latent space to a bundle, from labelled rows.",
    "logprob": "Log-densities of rows, from a server or straight from a bundle.",
    "sample": "Draw rows, from a server or straight from a bundle.",
    "posterior": "Summarize the draws of each context: mean, quantiles, intervals.",
    "interpolate": "Walk between rows through latent space.",
    "edit": "Move rows along a direction of latent space.",
}


_UNFORESEEN_CHARACTERS: Final = 300
_LOG_CHARACTERS: Final = 500


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
    """Run the command line. Every failure is one clear message on the standard error and exit status 1."""
    logging.lastResort = _OneLineHandler()
    try:
        try:
            cli(prog_name="pushforward")
        finally:
            sys.stdout.flush()
    except PushforwardError as error:
        _fail(error.detail, *map(str, error.unsaid()))
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):  # who reads the output has read enough of it
            _fail(_describe_os_error(error))
        sys.exit(1)
    except MemoryError:
        _fail("there is not enough memory: a file claims, or holds, more than this machine can take")
    except Exception as error:
        _fail(_describe_unforeseen(error))


def _fail(message: str, *reasons: str) -> NoReturn:
    """Print a message, and what it leaves out, and end with status 1."""
    click.echo(f"Error: {message}", err=True)
    for reason in reasons:
        click.echo(f"  {reason}", err=True)
    sys.exit(1)


def _describe_os_error(error: OSError) -> str:
    """What the system refused, and of which file."""
    why = error.strerror or type(error).__name__
    return why if error.filename is None else f"{error.filename}: {why}"


def _describe_unforeseen(error: Exception) -> str:
    """An error that nobody has given words to, with the place that a report of it needs."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    words = " ".join(str(error).split())[:_UNFORESEEN_CHARACTERS]
    return f"an unforeseen {type(error).__name__}: {words}{where}. This is a fault of Pushforward: please report it"


def _discard_output() -> None:
    """Let what is left of the output go nowhere: the interpreter would try to write it once more at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _OneLineHandler(logging.StreamHandler[TextIO]):
    """The handler of a log that no command has set up: a line for each warning, and no traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)

    def format(self, record: logging.LogRecord) -> str:
        """The message, with the error that it is of."""
        cause = record.exc_info[1] if record.exc_info else None
        why = "" if cause is None else f" ({type(cause).__name__}: {' '.join(str(cause).split())})"
        return f"{record.levelname.capitalize()}: {record.getMessage()}{why}"[:_LOG_CHARACTERS]

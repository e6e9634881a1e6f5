"""The options of a command that fits a flow, and the bar that shows how far the fit is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import click
from tqdm import tqdm

from models.recipe import BaseRecipe
from pushforward.cli.recipe_flags import flow_option_flag, read_flags, recipe_flags

__all__ = ["FitBar", "fit_options", "pace_options", "read_recipe"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Recipe = TypeVar("_Recipe", bound=BaseRecipe)


def fit_options(kind: type[BaseRecipe]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds --recipe, a flag for each option of a kind of recipe, and how the fit is to go on.

    Args:
        kind: of recipe.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option(
                "--report",
                type=click.Path(path_type=Path),
                help="The report's folder. [default: OUT/NAME/report-VERSION]",
            ),
            click.option(
                "--work",
                type=click.Path(path_type=Path),
                help="The folder for checkpoints. Other files in it are left alone. [default: OUT/.training/NAME]",
            ),
            click.option("--restart", is_flag=True, help="Discard an unfinished fit, and start again."),
            click.option("--resume", is_flag=True, help="Continue an unfinished fit, if there is one."),
            flow_option_flag,
            recipe_flags(kind),
            click.option(
                "--recipe",
                "recipe_file",
                type=click.Path(path_type=Path),
                help="A TOML file with options. Options on the command line override it.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def pace_options(command: _Command) -> _Command:
    """Add --checkpoint-seconds and --quiet."""
    for option in (
        click.option("--quiet", is_flag=True, help="Print errors only."),
        click.option(
            "--checkpoint-seconds",
            type=click.FloatRange(min=0),
            default=5.0,
            show_default=True,
            help="Least time between two checkpoints, in seconds.",
        ),
    ):
        command = option(command)
    return command


def read_recipe(
    kind: type[_Recipe],
    file: Path | None,
    flags: dict[str, Any],
    flow_options: tuple[str, ...],
    source: tuple[str, str | None],
) -> _Recipe:
    """The recipe of a command: that of a file, with what the command line says in its place.

    Args:
        kind: of recipe.
        file: None for the defaults.
        flags: those of `fit_options`, by name.
        flow_options: those of --flow-option.
        source: the section that the command's argument is the source of, and the argument; None for that of the file.

    Raises:
        DataError: the file or a flag is not as it should be.
    """
    values = read_flags(kind, flags, flow_options)
    section, argument = source
    if argument is not None:
        values.setdefault(section, {})["source"] = argument
    return (kind() if file is None else kind.read(file)).override(values)


class FitBar:
    """A bar of what is done of a fit, and lines above it. A line ends the bar, so that none runs on behind it.

    Args:
        unit: what is counted.
        quiet: whether nothing is shown.
    """

    def __init__(self, unit: str, *, quiet: bool) -> None:
        self.quiet = quiet
        self._unit = unit
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Print a line."""
        self.end()
        if not self.quiet:
            tqdm.write(line)

    def advance(self, words: str, *, total: int, before: int, done: int) -> None:
        """Show how far the fit is.

        Args:
            words: beside the bar.
            total: how many there will be.
            before: how many were done before the bar began, where there is none yet.
            done: how many are done now.
        """
        if self._bar is None:
            self._bar = tqdm(total=total, initial=before, unit=self._unit, disable=self.quiet, dynamic_ncols=True)
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)

    def end(self) -> None:
        """End the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

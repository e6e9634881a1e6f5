"""The options of a command that draws rows: which draws they are, whatever is done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["draw_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MAX_SEED: Final = (1 << 64) - 1


def draw_options(*, seed: str, offset: str, drawn: str, context: str) -> Callable[[_Command], _Command]:
    """A decorator that adds --seed, --offset, --method, --noise and --context.

    Args:
        seed: what a seed stands for, in a sentence.
        offset: what is done with the first row.
        drawn: what the draws are called.
        context: what --context is the context of, and what a file is for.
    """

    def decorate(command: _Command) -> _Command:
        for option in (
            click.option("--context", help=context),
            click.option(
                "--noise",
                type=click.Choice(["independent", "common"]),
                default="independent",
                show_default=True,
                help="Whether each context has latents of its own, or all have the same.",
            ),
            click.option(
                "--method",
                type=click.Choice(["random", "sobol"]),
                default="random",
                show_default=True,
                help=f"Independent {drawn}; or Sobol's, which fill the space more evenly.",
            ),
            click.option(
                "--offset",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help=f"The first row of the seed to {offset}.",
            ),
            click.option("--seed", type=click.IntRange(0, _MAX_SEED), help=f"{seed}  [default: drawn, and printed]"),
        ):
            command = option(command)
        return command

    return decorate

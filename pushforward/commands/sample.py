"""`pushforward sample`: rows drawn from a flow."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np

from pushforward.cli.context_input import read_context
from pushforward.cli.draw_options import draw_options
from pushforward.cli.flow_sources import DRAWN_SEED_BITS, SourceOptions, open_source
from pushforward.cli.options import output_options, source_options
from pushforward.cli.picture_options import PictureRequest, picture_options
from pushforward.cli.progress import show_progress
from pushforward.cli.row_layout import rows_of_block
from pushforward.cli.row_output import OutputFormat, header_of, open_writer
from pushforward.client.arrays import FloatArray
from pushforward.client.sampling import ContextNoise, Method, Noise

__all__ = ["command"]


@click.command()
@click.option("-n", "count", type=click.IntRange(min=1), default=1, show_default=True, help="How many rows.")
@draw_options(
    seed="The same seed and context give the same rows.",
    offset="give",
    drawn="rows",
    context="The context of all rows: numbers with commas, or NAME=VALUE,...; or @FILE, for n rows of each context in "
    "it.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Multiplies the standard deviations of a normal base.",
)
@click.option(
    "--truncation",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Cuts a normal base off at this many standard deviations.",
)
@source_options
@output_options
@picture_options
def command(
    count: int,
    seed: int | None,
    offset: int,
    temperature: float,
    truncation: float | None,
    method: Method,
    noise: ContextNoise,
    context: str | None,
    out: str,
    form: OutputFormat | None,
    picture: PictureRequest | None,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Draw rows, with their log-densities in nats.

    Rows of several contexts follow each other, context by context. In CSV the context stands before each row. Without
    --bundle or --repository a server is asked. Without --seed a seed is drawn, and printed on standard error.

    \b
      pushforward sample -n 1000 --seed 7 --model wine > wine.csv
      pushforward sample -n 1000 --seed 7 --bundle models/zoo/digits/1 --out digits.npy
      pushforward sample -n 64 --seed 7 --bundle models/zoo/digits/1 --png digits.png
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        contexts = read_context(context, source.context_layout)
        if picture is not None:
            chosen = secrets.randbits(DRAWN_SEED_BITS) if seed is None else seed
            how: dict[str, Any] = {
                "temperature": temperature,
                "truncation": truncation,
                "method": method,
                "noise": noise,
                "context": contexts,
            }
            picture.show(source.picture("sample", **picture.arguments, n=count, seed=chosen, offset=offset, **how))
            if seed is None:
                click.echo(f"seed {chosen}", err=True)
            return
        several = contexts is not None and contexts.ndim > 1
        named = source.context_layout.names if several and source.context_layout is not None else ()
        layout = source.layout
        header = header_of(layout, source.context_layout, context=several, after=["log_prob"])
        size = rows_of_block(layout.width + len(named))
        latents = Noise(temperature, truncation, method, noise)
        drawn_by_us = seed is None
        total = count * (len(contexts) if several and contexts is not None else 1)
        with (
            open_writer(out, form, header) as table,
            show_progress(total) as done,
        ):
            for part, start, rows in _cut(contexts, count, size):
                drawn = source.sample(rows, seed=seed, offset=offset + start, noise=latents, context=part)
                seed = drawn.seed
                x = drawn.x.reshape(-1, *layout.event_shape)
                before = [] if part is None or not several else [*np.repeat(part, rows, axis=0).T]
                table.write(x, drawn.log_prob.reshape(-1), before=before)
                done(len(x))
    if drawn_by_us:
        click.echo(f"seed {seed}", err=True)


def _cut(contexts: FloatArray | None, count: int, size: int) -> Iterator[tuple[FloatArray | None, int, int]]:
    """Contexts, first row and number of rows of each piece of at most `size` rows: several contexts, or part of one."""
    if contexts is None or contexts.ndim == 1:
        groups: Sequence[FloatArray | None] = [contexts]
    else:
        each = max(1, size // count)
        groups = [contexts[at : at + each] for at in range(0, len(contexts), each)]
    for group in groups:
        for start in range(0, count, size):
            yield group, start, min(size, count - start)

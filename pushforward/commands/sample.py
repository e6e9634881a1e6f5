"""`pushforward sample`: rows drawn from a flow."""

from __future__ import annotations

from typing import Any

import click

from pushforward.options import block_rows, context_rows, output_options, progress, source_options
from pushforward.requests import Method, Noise
from pushforward.sources import SourceOptions, open_source
from pushforward.tables import Format, open_table

__all__ = ["command"]

_MAX_SEED = (1 << 64) - 1


@click.command()
@click.option("-n", "count", type=click.IntRange(min=1), default=1, show_default=True, help="How many rows.")
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), help="Row i of a seed is one value; drawn if not given.")
@click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True, help="The seed's first row.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Scales the standard deviations of a normal base.",
)
@click.option(
    "--truncation",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Ends a normal base after so many standard deviations.",
)
@click.option(
    "--method",
    type=click.Choice(["random", "sobol"]),
    default="random",
    show_default=True,
    help="Independent rows, or Sobol's: together spread more evenly.",
)
@click.option("--context", help="Conditioning: numbers with commas, for all rows.")
@source_options
@output_options
def command(
    count: int,
    seed: int | None,
    offset: int,
    temperature: float,
    truncation: float | None,
    method: Method,
    context: str | None,
    out: str,
    form: Format | None,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Draw rows, with their log-densities in nats.

    Without --bundle or --repository a server answers. A seed that was drawn is told on the standard error.

    \b
      pushforward sample -n 1000 --seed 7 --model wine > wine.csv
      pushforward sample -n 1000 --seed 7 --bundle models/zoo/digits/1 --out digits.npy
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        one = context_rows(context, source)
        layout = source.layout
        size = block_rows(layout.width)
        noise = Noise(temperature, truncation, method)
        drawn_by_us = seed is None
        with open_table(out, form, [*layout.names, "log_prob"]) as table, progress(count) as done:
            for start in range(0, count, size):
                drawn = source.sample(min(size, count - start), seed, offset + start, noise, one)
                seed = drawn.seed
                table.write(drawn.x, drawn.log_prob)
                done(len(drawn.x))
    if drawn_by_us:
        click.echo(f"seed {seed}", err=True)

"""`pushforward logprob`: log-densities of the rows of a file or a pipe."""

from __future__ import annotations

from typing import Any

import click

from pushforward.arrays import Float32Array
from pushforward.errors import InvalidInput
from pushforward.layout import Block
from pushforward.options import (
    block_rows,
    context_rows,
    input_options,
    output_options,
    place_named,
    progress,
    source_options,
)
from pushforward.rows import open_rows
from pushforward.sources import SourceOptions, open_source
from pushforward.tables import Format, open_table

__all__ = ["command"]


@click.command()
@click.argument("file", default="-")
@input_options
@click.option("--context", help="Conditioning: numbers with commas, for all rows; or @FILE, a row for each.")
@source_options
@output_options
def command(
    file: str,
    delimiter: str,
    context: str | None,
    out: str,
    form: Format | None,
    **where: Any,  # noqa: ANN401
) -> None:
    """Log-densities of the rows of FILE (CSV or .npy; - for standard input), in nats.

    A row outside the flow's support has -inf. Without --bundle or --repository a server answers.

    \b
      pushforward logprob rows.csv --url http://127.0.0.1:8000 > scores.csv
      pushforward logprob rows.npy --bundle models/zoo/two-moons/1 --out scores.npy
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        contexts = context_rows(context, source)
        layout = source.layout
        with (
            open_rows(file, layout, block_rows(layout.width), delimiter) as rows,
            open_table(out, form, ["log_prob"]) as table,
            progress(rows.total) as done,
        ):
            count = 0
            for block in rows.blocks:
                with place_named(rows.name, block):
                    table.write(source.log_prob(block.values, _part(contexts, block, rows.name)))
                count += len(block.values)
                done(len(block.values))
            if contexts is not None and contexts.ndim > 1 and len(contexts) > count:
                raise InvalidInput(f"context has {len(contexts)} rows, and {rows.name} has {count}")


def _part(contexts: Float32Array | None, block: Block, name: str) -> Float32Array | None:
    """The context of a block's rows."""
    if contexts is None or contexts.ndim == 1:
        return contexts
    end = block.first + len(block.values)
    if end > len(contexts):
        raise InvalidInput(f"context has {len(contexts)} rows, and {name} has at least {end}")
    return contexts[block.first : end]

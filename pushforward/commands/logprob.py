"""`pushforward logprob`: log-densities of the rows of a file or a pipe."""

from __future__ import annotations

from typing import Any

import click

from pushforward.cli.context_input import choose_context, context_options
from pushforward.cli.flow_sources import SourceOptions, open_source
from pushforward.cli.options import input_options, output_options, source_options
from pushforward.cli.picture_options import PictureRequest, picture_options
from pushforward.cli.progress import show_progress
from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import locate_errors
from pushforward.cli.row_output import OutputFormat, open_writer

__all__ = ["command"]


@click.command()
@click.argument("file", default="-")
@input_options
@context_options
@click.option("--correct", is_flag=True, help="Divide the density by the mass inside the flow's prior.")
@source_options
@output_options
@picture_options
def command(
    file: str,
    delimiter: str | None,
    context: str | None,
    context_columns: str | None,
    correct: bool,
    out: str,
    form: OutputFormat | None,
    picture: PictureRequest | None,
    **where: Any,  # noqa: ANN401
) -> None:
    """Log-densities of the rows of FILE (CSV or .npy; - for standard input), in nats.

    A row outside the flow's support gets -inf. A conditional flow takes the context of a row from the columns beside
    it, by name, unless --context gives it. Without --bundle or --repository a server is asked.

    \b
      pushforward logprob rows.csv --url http://127.0.0.1:8000 > scores.csv
      pushforward logprob rows.npy --bundle models/zoo/two-moons/1 --out scores.npy
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        given = choose_context(context, context_columns, source.context_layout)
        layout = source.layout
        if picture is not None:
            with open_rows(file, layout, delimiter, given.layout) as rows:
                block = rows.read_whole()
                with locate_errors(rows.name, block):
                    contexts = given.for_block(block, rows.name)
                    drawn = source.picture("logprob", **picture.arguments, x=block.values, context=contexts)
                given.require_used(len(block.values), rows.name)
            picture.show(drawn)
            return
        with (
            open_rows(file, layout, delimiter, given.layout) as rows,
            open_writer(out, form, ["log_prob"]) as table,
            show_progress(rows.total) as done,
        ):
            count = 0
            for block in rows.blocks:
                with locate_errors(rows.name, block):
                    contexts = given.for_block(block, rows.name)
                    table.write(source.log_prob(block.values, contexts, correct=correct))
                count += len(block.values)
                done(len(block.values))
            given.require_used(count, rows.name)

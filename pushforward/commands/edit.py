"""`pushforward edit`: rows moved along a direction of latent space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import numpy as np

from pushforward.cli.context_input import choose_context, context_options
from pushforward.cli.flow_sources import FlowSource, SourceOptions, open_source
from pushforward.cli.options import input_options, output_options, source_options
from pushforward.cli.picture_options import PictureRequest, picture_options
from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import locate_errors
from pushforward.cli.row_output import OutputFormat, header_of, open_writer
from pushforward.client.arrays import FloatArray, to_floats
from pushforward.client.errors import InvalidInput
from service.errors import PushforwardError
from service.tabular import parse_number

__all__ = ["command"]


@click.command()
@click.argument("rows", default="-")
@input_options
@click.option("--direction", metavar="NAME|NUMBERS", help="A direction of the flow, by name; or numbers with commas.")
@click.option("--from", "start", metavar="FILE", help="A file with the row where the direction begins.")
@click.option("--to", "end", metavar="FILE", help="A file with the row where it ends: strength 1.")
@click.option(
    "--strength", default="1", show_default=True, help="How far: numbers with commas. 0 leaves a row where it is."
)
@context_options
@source_options
@output_options
@picture_options
def command(
    rows: str,
    delimiter: str | None,
    direction: str | None,
    start: str | None,
    end: str | None,
    strength: str,
    context: str | None,
    context_columns: str | None,
    out: str,
    form: OutputFormat | None,
    picture: PictureRequest | None,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Move each row of ROWS (CSV or .npy; - for standard input) along a direction of latent space.

    The direction is --direction, or leads from the row in --from to the row in --to. The moved rows come strength by
    strength, with the number of the row, from 0. A conditional flow takes its context as in `pushforward logprob`.
    Without --bundle or --repository a server is asked.

    \b
      pushforward edit digits.csv --direction 8 --strength 0,1,2 --model digits > edited.csv
      pushforward edit rows.csv --from a.csv --to b.csv --strength 0,0.5,1 --model two-moons --png edit.png
    """  # noqa: D301  \b keeps click from joining the lines
    strengths = _read_numbers(strength)
    if strengths is None:
        raise InvalidInput(f"--strength must be numbers with commas between them, not {strength!r}")
    with open_source(SourceOptions(**where)) as source:
        given = choose_context(context, context_columns, source.context_layout)
        layout = source.layout
        column = to_floats(strengths, "--strength", layout.dtype)
        header = header_of(layout, source.context_layout, before=["strength", "row"], after=["log_prob"])
        along = _read_direction(source, direction, start, end, delimiter)
        with open_rows(rows, layout, delimiter, given.layout) as read:
            block = read.read_whole()
        x, conditions = block.values, given.for_block(block, read.name)
        given.require_used(len(x), read.name)
        if picture is not None:
            with locate_errors(read.name, block), _name_ends(start, end):
                how: dict[str, Any] = {"direction": along, "strength": strengths, "context": conditions}
                drawn = source.picture("edit", **picture.arguments, x=x, **how)
            picture.show(drawn)
            return
        with open_writer(out, form, header) as table:
            with locate_errors(read.name, block), _name_ends(start, end):
                moved = source.edit(x, along, strengths, context=conditions)
            numbers = np.tile(np.arange(len(x), dtype=layout.dtype), len(column))
            before = [np.repeat(column, len(x)), numbers]
            table.write(moved.x.reshape(-1, *layout.event_shape), moved.log_prob.reshape(-1), before=before)


def _read_numbers(text: str) -> list[float] | None:
    """Numbers with commas between them; None for any other text."""
    try:
        return [parse_number(cell) for cell in text.split(",")]
    except ValueError:
        return None


def _read_direction(
    source: FlowSource, direction: str | None, start: str | None, end: str | None, delimiter: str | None
) -> str | FloatArray:
    """The direction that the options give: a name, a vector ``[D]``, or two rows ``[2, *event]``.

    A name may look like a number: the shipped digits have a direction "8".

    Args:
        source: the flow.
        direction: of --direction.
        start: of --from.
        end: of --to.
        delimiter: of CSV in the files of --from and --to; None for what their first lines show.

    Raises:
        InvalidInput: they give none or two, or one that does not fit the flow.
    """
    width = source.layout.width
    if direction is not None and start is None and end is None:
        numbers = None if direction in source.directions else _read_numbers(direction)
        # One number is a vector only where the latent space has one axis. Elsewhere it is a name mistyped.
        if numbers is None or (len(numbers) == 1 and width > 1):
            return direction
        if len(numbers) != width:
            raise InvalidInput(f"--direction has {len(numbers)} numbers, and this flow's latent space has {width}")
        return to_floats(numbers, "--direction", source.layout.dtype)
    if direction is not None or start is None or end is None:
        raise InvalidInput("the direction is --direction, or --from and --to together: give one of them")
    return np.concatenate([_read_one_row(source, path, delimiter) for path in (start, end)])


def _read_one_row(source: FlowSource, path: str, delimiter: str | None) -> FloatArray:
    with open_rows(path, source.layout, delimiter) as rows:
        values = rows.read_whole().values
    if len(values) != 1:
        raise InvalidInput(f"{rows.name}: expected one row, and found {len(values)}")
    return values


@contextmanager
def _name_ends(*files: str | None) -> Iterator[None]:
    """Name the file in an error about the row of --from or --to, which is no row of the input."""
    try:
        yield
    except PushforwardError as error:
        for fault in error.errors:
            if "direction" in fault.loc and fault.row is not None:
                raise InvalidInput(f"{files[fault.row]}: {fault.reason}") from error
        raise

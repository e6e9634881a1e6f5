"""`pushforward interpolate`: a walk through latent space, from row to row."""

from __future__ import annotations

from typing import Any

import click

from pushforward.cli.context_input import read_context
from pushforward.cli.flow_sources import PathKind, SourceOptions, Space, Spacing, open_source
from pushforward.cli.options import input_options, output_options, source_options
from pushforward.cli.picture_options import PictureRequest, picture_options
from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import locate_errors
from pushforward.cli.row_output import OutputFormat, header_of, open_writer
from pushforward.client.errors import InvalidInput

__all__ = ["command"]


@click.command()
@click.argument("points", default="-")
@input_options
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=11,
    show_default=True,
    help="Rows of each segment, both ends included.",
)
@click.option(
    "--space", type=click.Choice(["x", "z"]), default="x", show_default=True, help="Whether POINTS are data or latents."
)
@click.option(
    "--path",
    type=click.Choice(["slerp", "linear"]),
    help="The path between two points.  [default: slerp for a normal base, else linear]",
)
@click.option(
    "--spacing",
    type=click.Choice(["parameter", "arc_length"]),
    default="parameter",
    show_default=True,
    help="Whether rows are equally far apart in t, or along the walk in latent space.",
)
@click.option(
    "--context",
    help="The context of the whole walk: numbers with commas, or NAME=VALUE,...; or @FILE, with two rows, or one for "
    "each point.",
)
@source_options
@output_options
@picture_options
def command(
    points: str,
    delimiter: str | None,
    steps: int,
    space: Space,
    path: PathKind | None,
    spacing: Spacing,
    context: str | None,
    out: str,
    form: OutputFormat | None,
    picture: PictureRequest | None,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Walk through latent space from each row of POINTS to the next (CSV or .npy; - for standard input).

    The walk is at point k where t = k. Without --bundle or --repository a server is asked.

    \b
      pushforward interpolate points.csv --steps 21 --model two-moons > walk.csv
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        one = read_context(context, source.context_layout)
        layout = source.layout
        given = layout if space == "x" else layout.of_latents()
        if picture is not None:
            with open_rows(points, given, delimiter) as rows:
                block = rows.read_whole()
                if len(block.values) < 2:
                    raise InvalidInput(f"a path needs at least two points, and {rows.name} has one")
                how: dict[str, Any] = {"space": space, "steps": steps, "path": path, "spacing": spacing, "context": one}
                with locate_errors(rows.name, block):
                    drawn = source.picture("interpolate", **picture.arguments, points=block.values, **how)
            picture.show(drawn)
            return
        header = header_of(layout, source.context_layout, before=["t"], after=["log_prob", "round_trip_error"])
        with (
            open_rows(points, given, delimiter) as rows,
            open_writer(out, form, header) as table,
        ):
            block = rows.read_whole()
            if len(block.values) < 2:
                raise InvalidInput(f"a path needs at least two points, and {rows.name} has one")
            with locate_errors(rows.name, block):
                walk = source.interpolate(
                    block.values, space=space, steps=steps, path=path, spacing=spacing, context=one
                )
            table.write(walk.x, walk.log_prob, walk.round_trip_error, before=[walk.t])

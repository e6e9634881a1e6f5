"""`pushforward interpolate`: a walk through latent space, from row to row."""

from __future__ import annotations

from typing import Any

import click

from pushforward.cli.conditions import context_rows
from pushforward.cli.layout import Layout
from pushforward.cli.options import block_rows, input_options, output_options, place_named, source_options
from pushforward.cli.preview import Wanted, picture_options
from pushforward.cli.rows import open_rows
from pushforward.cli.sources import PathKind, SourceOptions, Space, Spacing, open_source
from pushforward.cli.tables import Format, open_table
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
@click.option("--space", type=click.Choice(["x", "z"]), default="x", show_default=True, help="Data, or latents.")
@click.option("--path", type=click.Choice(["slerp", "linear"]), help="The flow's own by default.")
@click.option(
    "--spacing",
    type=click.Choice(["parameter", "arc_length"]),
    default="parameter",
    show_default=True,
    help="Rows equally far apart in t, or along the walk in latent space.",
)
@click.option(
    "--context",
    help="Conditioning for the whole walk: numbers with commas, or NAME=VALUE,...; or @FILE, two rows or one for each "
    "point.",
)
@source_options
@output_options
@picture_options
def command(
    points: str,
    delimiter: str,
    steps: int,
    space: Space,
    path: PathKind | None,
    spacing: Spacing,
    context: str | None,
    out: str,
    form: Format | None,
    picture: Wanted | None,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Walk through latent space from each row of POINTS to the next (CSV or .npy; - for standard input).

    Point k lies at t = k. Without --bundle or --repository a server answers.

    \b
      pushforward interpolate points.csv --steps 21 --model two-moons > walk.csv
    """  # noqa: D301  \b keeps click from joining the lines
    with open_source(SourceOptions(**where)) as source:
        one = context_rows(context, source.conditions)
        layout = source.layout
        given = layout if space == "x" else Layout.of((layout.width,), letter="z")
        if picture is not None:
            with open_rows(points, given, block_rows(layout.width), delimiter) as rows:
                block = rows.whole()
                if len(block.values) < 2:
                    raise InvalidInput(f"a path needs at least two points, and {rows.name} has one")
                how: dict[str, Any] = {"space": space, "steps": steps, "path": path, "spacing": spacing, "context": one}
                with place_named(rows.name, block):
                    drawn = source.picture("interpolate", **picture.look, points=block.values, **how)
            picture.show(drawn)
            return
        header = ["t", *layout.names, "log_prob", "round_trip_error"]
        with (
            open_rows(points, given, block_rows(layout.width), delimiter) as rows,
            open_table(out, form, header) as table,
        ):
            block = rows.whole()
            if len(block.values) < 2:
                raise InvalidInput(f"a path needs at least two points, and {rows.name} has one")
            with place_named(rows.name, block):
                walk = source.interpolate(block.values, space, steps, path, spacing, one)
            table.write(walk.x, walk.log_prob, walk.round_trip_error, before=[walk.t])

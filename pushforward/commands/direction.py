"""`pushforward direction`: a direction of latent space from labelled rows, kept in a bundle by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import numpy as np

from pushforward.cli.flow_sources import find_bundle
from pushforward.cli.next_version import RowOptions, choose_repository, make_next_manifest, out_option, read_whole
from pushforward.cli.options import load_options
from pushforward.cli.row_layout import locate_errors
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.engine.verbs.flow import ServedFlow

__all__ = ["command"]

_LONGEST_NAME = 64


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--positive", required=True, metavar="FILE", help="Rows that the direction leads to (CSV or .npy).")
@click.option("--negative", required=True, metavar="FILE", help="Rows that it leads away from (CSV or .npy).")
@click.option("--name", required=True, help="The name of the direction.")
@click.option(
    "--method",
    type=click.Choice(["difference", "logistic"]),
    default="difference",
    show_default=True,
    help="difference: between the mean latents. logistic: along which a logistic regression tells the rows apart; it "
    "needs the extra `train`.",
)
@RowOptions.add
@out_option
@load_options
def command(
    bundle: Path,
    positive: str,
    negative: str,
    name: str,
    method: Literal["difference", "logistic"],
    delimiter: str | None,
    context: str | None,
    context_columns: str | None,
    out: Path | None,
    load_seconds: float,
    load_bytes: int,
) -> None:
    """Add a direction of latent space to BUNDLE, as a new version of its flow. POST /edit moves rows along it.

    BUNDLE is a bundle's folder, or REPOSITORY/NAME for the newest version. Strength 1 moves a row by the
    distance between the means of the two kinds of rows. Graphs, golden rows and calibration stay as they are.

    \b
      pushforward direction repository/faces --positive smiling.npy --negative others.npy --name smile
      pushforward direction repository/wine --positive red.csv --negative white.csv --name red --method logistic
    """  # noqa: D301  \b keeps click from joining the lines
    from models.directions import logistic_direction, mean_direction, separation
    from service.engine.loading import load_folder
    from service.engine.trials import TrialLimits

    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable() or "," in name:
        expected = f"1 to {_LONGEST_NAME} printable characters without a comma"
        raise InvalidInput(f"--name must be {expected}, not {name[:80]!r}")
    folder = find_bundle(bundle)
    checked, flow = load_folder(folder, TrialLimits(load_seconds, load_bytes))
    manifest = checked.manifest
    repository = choose_repository(folder, manifest, out)
    options = RowOptions(delimiter=delimiter, context=context, context_columns=context_columns)
    towards, away = (_latents(flow, file, options) for file in (positive, negative))
    found = (mean_direction if method == "difference" else logistic_direction)(towards, away)
    if not found.any():
        raise InvalidInput("the two kinds of rows have the same mean latent: there is no direction between them")
    known = dict(manifest.directions)
    kept = "replaced" if name in known else "added"
    anew = make_next_manifest(manifest, repository).model_copy(update={"directions": {**known, name: found.tolist()}})
    where = repository.install_next(anew, checked.files())
    click.echo(
        f"{manifest.name} version {where.name}: {name!r} {kept}, of length {np.linalg.norm(found):.3f}, "
        f"from {len(towards)} and {len(away)} rows"
    )
    share = separation(found, towards, away)
    click.echo(f"a positive row lies further along it than a negative one in {share:.1%} of pairs")


def _latents(flow: ServedFlow, file: str, options: RowOptions) -> FloatArray:
    """The latents ``[N, D]`` of a file's rows.

    Args:
        flow: the flow.
        file: the file.
        options: how to read it.

    Raises:
        InvalidInput: a row has none, since the density is zero there; its place is named.
    """
    from service.plan import run_now

    rows = read_whole(flow.manifest, file, options)
    with locate_errors(rows.name, rows.block):
        encoded = run_now(flow.encode(rows.block.values, rows.context))
    outside = np.flatnonzero(np.isneginf(encoded.log_prob))
    if outside.size:
        where = rows.block.where(int(outside[0]))
        raise InvalidInput(f"{rows.name}, {where}: the density is zero here, so that the row has no latent")
    return encoded.z

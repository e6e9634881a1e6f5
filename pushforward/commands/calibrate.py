"""`pushforward calibrate`: a bundle's scale of log-densities anew, from other held-out rows."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from pushforward.cli.flow_sources import find_bundle
from pushforward.cli.next_version import RowOptions, choose_repository, make_next_manifest, out_option, read_whole
from pushforward.cli.options import load_options
from pushforward.cli.row_layout import RowBlock, locate_errors
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput

__all__ = ["command"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@RowOptions.add
@click.option("--describe", help="A description of the rows, for the bundle.  [default: the file's name]")
@out_option
@load_options
def command(
    bundle: Path,
    data: str,
    delimiter: str | None,
    context: str | None,
    context_columns: str | None,
    describe: str | None,
    out: Path | None,
    load_seconds: float,
    load_bytes: int,
) -> None:
    """Calibrate BUNDLE by the rows of DATA (CSV or .npy; - for standard input), as a new version of its flow.

    BUNDLE is a bundle's folder, or REPOSITORY/NAME for the newest version. DATA are rows that the flow
    was not fitted to. The new version measures quantile, typicality and alarm_rate by their log-densities, and says
    which rows these were. Graphs and golden rows stay as they are.

    \b
      pushforward calibrate repository/wine held_out.csv
      pushforward calibrate models/zoo/wine/1 held_out.csv --describe "wines of 2026" --out repository
    """  # noqa: D301  \b keeps click from joining the lines
    from service.bundle.calibration import calibrate
    from service.bundle.manifest import Recalibration, shorten_texts
    from service.engine.loading import load_folder
    from service.engine.trials import TrialLimits
    from service.plan import run_now

    folder = find_bundle(bundle)
    checked, flow = load_folder(folder, TrialLimits(load_seconds, load_bytes))
    manifest = checked.manifest
    repository = choose_repository(folder, manifest, out)
    options = RowOptions(delimiter=delimiter, context=context, context_columns=context_columns)
    rows = read_whole(manifest, data, options)
    with locate_errors(rows.name, rows.block):
        log_prob = run_now(flow.log_prob(rows.block.values, rows.context)).log_prob
    _require_finite(log_prob, rows.block, rows.name)
    source = Recalibration(
        data=shorten_texts(describe or Path(rows.name).name),
        sha256=_digest(rows.block.values, rows.context),
        version=manifest.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    anew = make_next_manifest(manifest, repository).model_copy(
        update={
            "calibration": calibrate(log_prob),
            "provenance": manifest.provenance.model_copy(update={"recalibration": source}),
        }
    )
    where = repository.install_next(anew, checked.files())
    before, after = manifest.calibration, anew.calibration
    click.echo(f"{manifest.name} version {where.name}: {after.rows} rows, {_said(after.mean, after.standard_error)}")
    click.echo(f"version {manifest.version}: {before.rows} rows, {_said(before.mean, before.standard_error)}")


def _require_finite(log_prob: FloatArray, block: RowBlock, name: str) -> None:
    """Rows outside the support have no place on the scale, and two rows at least are needed for one.

    Raises:
        InvalidInput: the first such row is named.
    """
    outside = np.flatnonzero(~np.isfinite(log_prob))
    if len(outside):
        where = block.where(int(outside[0]))
        raise InvalidInput(f"{name}, {where}: the density is zero here; {len(outside)} rows lie outside the support")
    if len(log_prob) < 2:
        raise InvalidInput(f"{name} holds one row; a calibration needs at least two")


def _digest(rows: FloatArray, context: FloatArray | None) -> str:
    """SHA-256 of the rows, and of their context after them, in their own precision."""
    whole = hashlib.sha256()
    for array in (rows,) if context is None else (rows, context):
        whole.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return whole.hexdigest()


def _said(mean: float, error: float) -> str:
    return f"mean log_prob {mean:.4f} ± {error:.4f} nats"

"""`pushforward reseal`: bundles of an older format brought up to date in their place, under a digest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pushforward.cli.options import load_options

if TYPE_CHECKING:
    from service.engine.trials import Trials

__all__ = ["command"]


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@load_options
@click.option("--edited", is_flag=True, help="Renew the digest of a flow.json that was edited by hand, too.")
def command(bundles: tuple[Path, ...], edited: bool, load_seconds: float, load_bytes: int) -> None:
    """Bring each BUNDLE of an older format up to date in its place: flow.json gets a digest of its own.

    BUNDLE is a bundle's folder, or REPOSITORY/NAME for the newest version. Everything is checked first, as by
    `pushforward check`, except for the digest that is yet to be made. Only flow.json is written; graphs, golden rows
    and answers stay as they are. A bundle that fails is left as it is, and the exit status is then 1.

    An older format has no digest of flow.json, so reseal bundles that you have from where you trust.

    \b
      pushforward reseal repository/wine
      pushforward reseal repository/*/*
    """  # noqa: D301  \b keeps click from joining the lines
    from pushforward.cli.flow_sources import find_bundle
    from service.engine.trials import TrialLimits, Trials
    from service.errors import PushforwardError

    failed = 0
    with Trials(TrialLimits(load_seconds, load_bytes)) as trials:
        for path in bundles:
            try:
                click.echo(_reseal(find_bundle(path), trials, edited=edited))
            except PushforwardError as error:
                failed += 1
                why = "; ".join([error.detail, *map(str, error.unsaid())])
                click.echo(f"{path}: left as it is: {why}", err=True)
    if failed:
        raise PushforwardError(f"{failed} of {len(bundles)} bundles were left as they are")


def _reseal(folder: Path, trials: Trials, *, edited: bool) -> str:
    """Bring one bundle up to date, and say what was done."""
    from service.bundle.store import check_identity, identity_of_folder, read_older_bundle, replace_manifest
    from service.engine.canary import require_parity
    from service.engine.trials import measure_in_child

    trial = measure_in_child(folder, trials, older=True, edited=edited)
    bundle, data = read_older_bundle(folder, edited=edited)
    trial.require(bundle)
    manifest = bundle.manifest
    place = identity_of_folder(folder)
    if place is not None:
        check_identity(manifest, *place)
    require_parity(manifest, trial.parity)
    name = f"{manifest.name} version {manifest.version}"
    return f"{name}: flow.json is sealed" if replace_manifest(folder, data) else f"{name}: was up to date"

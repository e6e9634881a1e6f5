"""`pushforward check`: the verdict on a bundle, and the parity table of its graphs."""

from __future__ import annotations

from pathlib import Path

import click

from pushforward.cli.options import load_options

__all__ = ["command"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@load_options
def command(bundle: Path, load_seconds: float, load_bytes: int) -> None:
    """Verify BUNDLE: a bundle's folder, or REPOSITORY/NAME for the newest version.

    The command checks what a server checks before it serves a flow: the files, their digests, the graphs' operators and
    the golden rows. Then it prints the parity table: how far the graphs are from the answers in float64 at export. It
    has the greatest abs(error) / (1 + abs(expected)), for batches of several sizes. The exit status is 1 if anything
    fails.

    A folder NAME/VERSION must hold that version of that flow, as a server demands. For any other folder the command
    says where a server would find the bundle.
    """
    from pushforward.cli.flow_sources import find_bundle
    from service.bundle.store import check_identity, identity_of_folder, read_bundle
    from service.engine.canary import require_parity
    from service.engine.trials import TrialLimits, Trials, measure_in_child

    folder = find_bundle(bundle)
    with Trials(TrialLimits(load_seconds, load_bytes)) as trials:
        trial = measure_in_child(folder, trials)
    checked, table = read_bundle(folder), trial.parity
    trial.require(checked)
    manifest = checked.manifest
    place = identity_of_folder(folder)
    if place is not None:
        check_identity(manifest, *place)
    files = ", ".join(sorted([*manifest.files, "flow.json"]))
    click.echo(f"{manifest.name} version {manifest.version}: {files}: digests and operators are right")
    click.echo(f"{len(checked.golden.x)} golden rows against float64, errors relative to 1 + |expected|:")
    click.echo(f"  {'':<30}{'batch':>6}{'error':>10}{'bound':>10}")
    for row in table:
        verdict = "" if row.passed else "  FAILED"
        click.echo(f"  {row.quantity:<30}{row.batch:>6}{row.error:>10.1e}{row.tolerance:>10.1e}{verdict}")
    gate = manifest.parity
    click.echo(f"at export, over batches of {', '.join(map(str, gate.batches))} (bound {gate.tolerance:.1e}):")
    for name in ("log_prob", "log_abs_det_jacobian", "z", "x", "round_trip"):
        click.echo(f"  {name:<36}{getattr(gate, name):>10.1e}")
    for warning in (gate.warning, manifest.calibration.warning):
        if warning is not None:
            click.secho(f"WARNING: {warning}", bold=True)
    require_parity(manifest, table)
    where = "" if place else f", once it lies at REPOSITORY/{manifest.name}/{manifest.version}"
    click.echo(f"it may be served{where}")

"""`python -m models.zoo [NAME...]`: fit the shipped flows again, and say how near they come to the shipped ones."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from models.zoo.build import AGREEMENT, LONG, NAMES, build, compare
from service.bundle.store import Repository
from service.errors import PushforwardError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("zoo"),
    show_default=True,
    help="The repository that the bundles go into, each as the next version.",
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to keep each training's report, as REPORTS/NAME.",
)
def main(names: tuple[str, ...], out: Path, reports: Path | None) -> None:
    """Fit the shipped flows NAME... again; exit with 1 where one does not come out alike.

    Where none is named, all are fitted but those that take long.
    """
    apart = False
    for name in names or (name for name in NAMES if name not in LONG):
        click.echo(f"{name}:")
        try:
            report = None if reports is None else reports / name
            made = build(name, Repository(out), report=report, say=lambda words: click.echo(f"  {words}"))
        except PushforwardError as error:
            click.echo(f"Error: {error.detail}", err=True)
            sys.exit(1)
        calibration, width = made.calibration, made.event_width
        click.echo(
            f"  version {made.version}: held-out log_prob {calibration.mean:.3f} nats, {calibration.mean / width:.4f} "
            f"per dimension, standard error {calibration.standard_error:.3f}, over {calibration.rows} rows"
        )
        comparison = compare(made)
        if comparison is not None:
            apart = apart or not comparison.agrees
            click.echo(
                f"  the shipped one has {comparison.shipped:.3f}; the difference is {comparison.difference:+.4f} nats "
                f"per dimension, and may be {AGREEMENT}"
            )
    sys.exit(1 if apart else 0)


if __name__ == "__main__":
    main(prog_name="python -m models.zoo")

"""`pushforward export`: the export of a fit whose export failed, by other options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import click

from pushforward.commands.train import conclude

__all__ = ["command"]

_HELP: Final = """Export the fit in RUN, the folder that `pushforward train` names when an export fails.

Nothing is fitted again: RUN holds the weights and the rows. If the export fails once more, RUN stays.

\b
pushforward export flows/.training/wine
pushforward export flows/.training/wine --far-rows resolvable --name wine-red
"""


@click.command(help=_HELP)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", metavar="REPOSITORY", help="Where to write.  [default: as in the fit]")
@click.option("--name", help="The name of the flow there.  [default: as in the fit]")
@click.option("--description", help="A sentence about the flow, for lists.")
@click.option("--version", type=click.IntRange(min=1), help="The version.  [default: one more than the newest]")
@click.option(
    "--far-rows",
    type=click.Choice(["all", "resolvable"]),
    default="all",
    show_default=True,
    help="The rows far outside the data on which the graphs are checked. resolvable leaves out those for which torch "
    "itself has no answer in float32.",
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="The report's folder.  [default: OUT/NAME/report-VERSION]"
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def command(
    run: Path,
    out: str | None,
    name: str | None,
    description: str | None,
    version: int | None,
    far_rows: Literal["all", "resolvable"],
    report: Path | None,
    quiet: bool,
) -> None:
    """Export the fit in RUN."""
    given: dict[str, Any] = {"out": out, "name": name, "description": description}
    # torch takes seconds to import: a wrong flag is refused before that.
    from models.training.train import ExportOptions, export_kept

    result = export_kept(
        run,
        changes={key: value for key, value in given.items() if value is not None},
        options=ExportOptions(version=version, far_rows=far_rows),
        report=report,
        say=None if quiet else click.echo,
    )
    if not quiet:
        conclude(result)

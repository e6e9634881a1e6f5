"""`pushforward import`: a flow of another library as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from pushforward.cli.options import input_options
from pushforward.cli.row_input import open_rows, read_event_shape
from pushforward.cli.row_layout import RowLayout
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput
from service.bundle.precision import Precision

if TYPE_CHECKING:
    from models.importing.load import HeldOutRows
    from models.importing.take import ImportedFlow

__all__ = ["command"]


@click.command()
@click.argument("spec")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="REPOSITORY", help="Where to write.")
@click.option("--name", required=True, help="The name of the flow there.")
@click.option(
    "--data", metavar="FILE", help="Held-out rows, CSV or .npy, in your units. Default: rows drawn from the flow."
)
@input_options
@click.option("--context-data", metavar="FILE", help="The context of each row of --data.")
@click.option(
    "--context", type=click.IntRange(min=0), help="The number of columns of context, if the import cannot find it."
)
@click.option("--event-shape", metavar="D|H,W,C", help="The shape of a row, if neither the flow nor --data says it.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A safetensors file with the weights of the flow.",
)
@click.option("--version", type=click.IntRange(min=1), help="The version.  [default: one more than the newest]")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="What the graphs take, compute and give.  [default: float64 if any of the flow's weights is, else float32]",
)
@click.option("--description", default="", help="A sentence about the flow, for lists.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def command(
    spec: str,
    out: Path,
    name: str,
    data: str | None,
    delimiter: str | None,
    context_data: str | None,
    context: int | None,
    event_shape: str | None,
    weights: Path | None,
    version: int | None,
    precision: Precision | None,
    description: str,
    quiet: bool,
) -> None:
    """Make a bundle of the flow that SPEC returns.

    SPEC is MODULE:FUNCTION or FILE.py:FUNCTION. FUNCTION is your own code. It returns a flow of zuko, nflows,
    normflows or FrEIA, or any torch module whose forward(x, context) and inverse(z, context) return a tensor and its
    log-determinant. A module is looked for in the current directory, and then among the installed ones.

    The bundle is compared with the library's own log_prob in float64. What is not a flow, or cannot be exported, is
    refused before anything is written.

    \b
      pushforward import my_flows:make_flow --out repository --name wine --data held_out.npy
      pushforward import ./my_flows.py:make_flow --out repository --name wine --weights wine.safetensors
    """  # noqa: D301  \b keeps click from joining the lines
    from service.bundle.manifest import NAME_PATTERN, is_flow_name
    from service.bundle.store import Repository, read_bundle

    if not is_flow_name(name):
        raise InvalidInput(f"--name must match {NAME_PATTERN}, and is {name!r}")
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"--out must be a folder, and {out} is a file")
    if context_data is not None and data is None:
        raise InvalidInput("--context-data goes with --data: it has a row for each of its rows")
    # torch takes seconds to import: a wrong flag is told before.
    from models.importing.load import export_imported, find_precision_fault, load_weights, parse_event_shape
    from models.importing.take import knows_shape, own_precision, take
    from models.importing.user_code import load_user_flow

    flow = load_user_flow(spec)
    if weights is not None:
        load_weights(getattr(flow, "posterior_estimator", flow), weights)
    shape = None if event_shape is None else parse_event_shape(event_shape)
    if shape is None and data is not None and not knows_shape(flow):
        shape = read_event_shape(data, delimiter)

    def taken(precision: Precision) -> tuple[ImportedFlow, _GivenRows | None]:
        """The flow in a precision, and the rows that are given."""
        given = None if data is None else _GivenRows(data, context_data, delimiter, precision)
        read_rows = None if given is None else given.arrays
        return take(flow, event_shape=shape, context_width=context, precision=precision, read_rows=read_rows), given

    imported, given = taken(precision or own_precision(flow))
    if not quiet:
        # before anything that may fail: what was taken explains most failures
        for line in imported.summary:
            click.echo(line)
    rows = _rows_of(imported, given)
    fault = find_precision_fault(imported, rows)
    if fault is not None and precision is not None:
        raise InvalidInput(f"--precision {precision}: the flow does not compute in it: {fault}; leave the option out")
    if fault is not None:
        if not quiet:
            click.echo(f"Note:   the flow does not compute in float32 ({fault}), and is read in float64")
        imported, given = taken("float64")
        rows = _rows_of(imported, given)
    folder = export_imported(
        imported,
        rows,
        repository=Repository(out),
        name=name,
        source=spec,
        version=version,
        description=description,
        progress=None if quiet else click.echo,
    )
    if not quiet:
        warning = read_bundle(folder).manifest.parity.warning
        if warning is not None:
            click.secho(f"WARNING: {warning}", bold=True)
        for note in imported.notes:
            click.echo(f"Note:   {note}")
        click.echo(f"Rows:   {rows.origin}")
        click.echo(f"Bundle: {folder}")
        click.echo(f"Next:   pushforward serve --repository {out}")


def _rows_of(imported: ImportedFlow, given: _GivenRows | None) -> HeldOutRows:
    """The rows of --data, or else draws from the flow."""
    from models.importing.load import draw_rows

    return draw_rows(imported) if given is None else given.read(imported.flow.event_shape, imported.flow.context_width)


class _GivenRows:
    """The rows of --data and --context-data; read once, as soon as it is known what shape they have.

    Args:
        data: the file of the rows.
        context_data: the file of their context; None where there is none.
        delimiter: what stands between the numbers of a line; None to find it.
        precision: of the flow.
    """

    def __init__(self, data: str, context_data: str | None, delimiter: str | None, precision: Precision) -> None:
        self.data, self.context_data, self.delimiter, self.precision = data, context_data, delimiter, precision
        self._rows: HeldOutRows | None = None

    def arrays(self, event_shape: tuple[int, ...], width: int) -> tuple[FloatArray, FloatArray | None]:
        """The rows ``[M, *event]``, and their context ``[M, width]``."""
        rows = self.read(event_shape, width)
        return rows.x, rows.context

    def read(self, event_shape: tuple[int, ...], width: int) -> HeldOutRows:
        """The rows, for a flow of rows of a shape and of so many columns of context.

        Raises:
            InvalidInput: there are fewer than two, or there is a context for a flow without one, or none, or one of
                another number of rows.
        """
        if self._rows is None:
            self._rows = self._read(event_shape, width)
        return self._rows

    def _read(self, event_shape: tuple[int, ...], width: int) -> HeldOutRows:
        from models.importing.load import HeldOutRows

        data, context_data = self.data, self.context_data
        layout = RowLayout.of(event_shape, precision=self.precision)
        x = _read(data, layout, self.delimiter)
        if len(x) < 2:
            raise InvalidInput(f"{data} holds one row; at least two are needed")
        if (context_data is None) != (width == 0):
            given = "without" if context_data is None else "with"
            raise InvalidInput(f"the flow takes {width} columns of context; --data came {given} --context-data")
        context = None
        if context_data is not None:
            context = _read(context_data, layout.of_context((), width), self.delimiter)
            if len(context) != len(x):
                raise InvalidInput(f"{context_data} has {len(context)} rows, and {data} has {len(x)}")
        return HeldOutRows(x, context, f"calibrated on the {len(x)} rows of {Path(data).name}")


def _read(path: str, layout: RowLayout, delimiter: str | None) -> FloatArray:
    with open_rows(path, layout, delimiter) as rows:
        return rows.read_whole().values

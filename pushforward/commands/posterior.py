"""`pushforward posterior`: what the draws of a flow say of each coordinate, under each context."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from pushforward.cli.context_input import read_context
from pushforward.cli.draw_options import draw_options
from pushforward.cli.flow_sources import FlowSource, PosteriorOptions, PosteriorResult, SourceOptions, open_source
from pushforward.cli.options import source_options
from pushforward.cli.row_output import open_output
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput
from pushforward.client.sampling import ContextNoise, Method
from service.tabular import parse_number

__all__ = ["command"]


@click.command()
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=1000, show_default=True, help="How many draws of each context."
)
@draw_options(
    seed="The draws are those of pushforward sample with this seed.",
    offset="draw",
    drawn="draws",
    context="The context: numbers with commas, or NAME=VALUE,...; or @FILE, for a posterior of each context in it.",
)
@click.option(
    "--quantiles", default="0.05,0.5,0.95", show_default=True, help="Levels from 0 to 1 with commas; empty for none."
)
@click.option(
    "--hpd",
    default="0.9",
    show_default=True,
    help="The shares of the draws that highest-density intervals hold, with commas; empty for none.",
)
@click.option("--json", "as_json", is_flag=True, help="Write an object with everything, the correlations too.")
@click.option("--out", default="-", metavar="FILE", help="Where to write.  [default: standard output]")
@source_options
def command(
    count: int,
    seed: int | None,
    offset: int,
    quantiles: str,
    hpd: str,
    method: Method,
    noise: ContextNoise,
    context: str | None,
    as_json: bool,
    out: str,
    **where: Any,  # noqa: ANN401  the options of a source
) -> None:
    """Summarize the draws of each context: mean, standard deviation, quantiles and highest-density intervals.

    CSV has a line for each coordinate of each context, after the context. Without --bundle or --repository a server is
    asked. Without --seed a seed is drawn, and printed on standard error.

    \b
      pushforward posterior --context @observed.csv -n 10000 --seed 7 --model reactor > posterior.csv
      pushforward posterior --seed 7 --bundle models/zoo/wine/1 --json
    """  # noqa: D301  \b keeps click from joining the lines
    levels, shares = _read_levels("--quantiles", quantiles, low=True), _read_levels("--hpd", hpd, low=False)
    with open_source(SourceOptions(**where)) as source:
        contexts = read_context(context, source.context_layout)
        options = PosteriorOptions(count, seed, offset, levels, shares, as_json, method, noise)
        found = source.posterior(contexts, options)
        with open_output(out) as stream:
            stream.write((_document(found, options) if as_json else _table(source, contexts, found, options)).encode())
    if seed is None:
        click.echo(f"seed {found.seed}", err=True)


def _read_levels(option: str, text: str, *, low: bool) -> list[float]:
    """Numbers from 0 to 1 with commas between them.

    Args:
        option: for errors.
        text: of it.
        low: whether 0 is one.

    Raises:
        InvalidInput: a cell is no number, or out of range.
    """
    expected = "numbers from 0 to 1" if low else "numbers above 0, and at most 1"
    try:
        levels = [parse_number(cell) for cell in text.split(",")] if text else []
    except ValueError as error:
        raise InvalidInput(f"{option} must be {expected}, with commas between them, not {text!r}") from error
    if not all(0 <= level <= 1 and (low or level > 0) for level in levels):
        raise InvalidInput(f"{option} must be {expected}, and is {text!r}")
    return levels


def _document(found: PosteriorResult, options: PosteriorOptions) -> str:
    arrays = {name: value for name, value in found._asdict().items() if isinstance(value, np.ndarray)}
    told = {"seed": found.seed, "offset": options.offset, "n": options.n}
    levels = {"quantile_levels": options.quantiles, "hpd_shares": options.hpd}
    texts = {name: _exact(values) for name, values in arrays.items()}
    return json.dumps(told | levels | texts) + "\n"


def _exact(values: FloatArray) -> Any:  # noqa: ANN401  lists in lists
    """Numbers whose shortest exact text in float64 is that of their own precision."""
    return np.asarray([float(str(value)) for value in values.ravel()]).reshape(values.shape).tolist()


def _table(source: FlowSource, contexts: FloatArray | None, found: PosteriorResult, options: PosteriorOptions) -> str:
    several = contexts is not None and contexts.ndim > 1
    conditions = source.context_layout.names if several and source.context_layout is not None else ()
    ends = [f"hpd{share:g}_{end}" for share in options.hpd for end in ("low", "high")]
    header = [*conditions, "column", "mean", "std", *(f"q{level:g}" for level in options.quantiles), *ends]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for at in range(len(found.mean)):
        before = [*map(str, contexts[at])] if several and contexts is not None else []
        for name, numbers in zip(source.layout.names, _lines(found, at), strict=True):
            writer.writerow([*before, name, *map(str, numbers)])
    return text.getvalue()


def _lines(found: PosteriorResult, at: int) -> Iterator[FloatArray]:
    """The numbers of each coordinate under context `at`, in the order of the header."""
    width = found.mean[at].size
    kept = [values for values in (found.quantiles, found.hpd) if values is not None]
    parts = [found.mean[at].reshape(1, width), found.std[at].reshape(1, width)]
    yield from np.concatenate([*parts, *(values[at].reshape(-1, width) for values in kept)]).T

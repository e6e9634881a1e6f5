"""The rows that `pushforward evaluate` scores: any file that `logprob` or `train` reads, for the flow of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pushforward.cli.context_input import choose_context, make_context_layout
from pushforward.cli.next_version import RowOptions, read_whole
from pushforward.cli.row_layout import RowLayout
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.bundle.manifest import Manifest

__all__ = ["EvaluationRows", "Float64Array", "find_steps", "read_rows"]

Float64Array: TypeAlias = npt.NDArray[np.float64]

_BY_BLOCKS: Final = (".csv", ".npy")  # what `logprob` reads, with the options that it has for it


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationRows:
    """Rows of a flow.

    Args:
        name: of the file, for an error.
        rows: ``[N, *event]``, finite, in the flow's precision.
        context: ``[N, C]``, the same; None for a flow without.
        place: the number of a row -> where it is in the file, in words.
    """

    name: str
    rows: FloatArray
    context: FloatArray | None
    place: Callable[[int], str]


def read_rows(
    manifest: Manifest, file: str, options: RowOptions, *, key: str | None, where: tuple[str, ...]
) -> EvaluationRows:
    """Read all rows of a file, with their context.

    CSV, .npy and the standard input are read as `pushforward logprob` reads them; another file, a folder of images or
    a built-in data set as `pushforward train` does, and so is CSV where rows are chosen.

    Args:
        manifest: of the flow whose rows they are.
        file: a path; ``-`` for the standard input; or the name of a built-in data set.
        options: how CSV is read, and the context.
        key: the array of an .npz; None for the usual one.
        where: conditions on the rows.

    Raises:
        InvalidInput, DataError: the file, a row or the context does not fit the flow.
    """
    if file == "-" or (Path(file).suffix.lower() in _BY_BLOCKS and not where):
        if where or key is not None:
            raise InvalidInput("--where and --key choose from a file, and the standard input or CSV has no key")
        whole = read_whole(manifest, file, options)
        context = whole.context
        if context is not None:
            context = np.broadcast_to(context, (len(whole.block.values), context.shape[1]))
        return EvaluationRows(whole.name, whole.block.values, context, whole.block.where)
    from models.data.builtin import BUILTIN
    from models.data.flow_rows import select_flow_rows
    from models.data.load import read_builtin
    from models.data.readers import read_source

    if options.context_columns is not None:
        raise InvalidInput(
            "--context-columns goes with CSV; of another file, the context's columns have the flow's names"
        )
    source = read_builtin(file) if file in BUILTIN else read_source(Path(file), key=key)
    features = [feature.model_dump() for feature in manifest.context_features]
    layout = RowLayout.of(
        manifest.event_shape, [feature.name for feature in manifest.features], precision=manifest.precision
    )
    given = choose_context(options.context, None, make_context_layout(layout, manifest.context_width, features))
    found = select_flow_rows(source, manifest, where, with_context=given.layout is not None)
    context = found.context
    if given.rows is not None:
        given.require_used(len(found.rows), source.file)
        if given.rows.ndim > 1 and len(given.rows) < len(found.rows):
            raise InvalidInput(f"context has {len(given.rows)} rows, and {source.file} has {len(found.rows)}")
        context = np.broadcast_to(given.rows, (len(found.rows), given.rows.shape[-1]))
    return EvaluationRows(source.file, found.rows, context, found.place)


def find_steps(manifest: Manifest, rows: Float64Array) -> Float64Array | None:
    """The bins' widths of columns that the flow was fitted to as whole numbers spread over bins.

    Args:
        manifest: of the flow. Where its columns do not share one step, the recipe says which are spread.
        rows: ``[N, D]``.

    Returns:
        ``[D]``, 0 where a column is not spread; None where none is.
    """
    width = rows.shape[1]
    if manifest.quantization is not None:
        return np.full(width, manifest.quantization.step)
    data: Mapping[str, Any] = manifest.provenance.recipe.get("data", {})
    named = data.get("dequantize_columns", ())
    if not data.get("dequantize") and not named:
        return None
    from models.data.grid import grid_step, is_on_grid

    names = [feature.name for feature in manifest.features] or [str(at) for at in range(width)]
    steps = np.zeros(width)
    for at, name in enumerate(names):
        values = rows[:, at]
        wanted = name in named if named else bool(np.all(values == np.round(values)))
        step = (data.get("step") or grid_step(values)) if wanted else None
        if step is not None and is_on_grid(values, step):
            steps[at] = step
    return steps if steps.any() else None

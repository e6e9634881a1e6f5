"""The check that a graph is batch-invariant: it gives a row the same bits at every place of every batch.

Batches are a multiple of `BATCH_MULTIPLE` rows long, as the server pads them. The last rows of an odd batch take
another way through a processor's vector units, and may have other bits.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.export.exported_graph import ExportedGraph
from service.bundle.parity import BATCH_MULTIPLE
from service.errors import ParityFailed

__all__ = ["check_invariance"]

_BATCHES: Final = (1, 3, 16, 255)  # in units of BATCH_MULTIPLE rows
_SHIFTS: Final = (0, 1, 2, 3, 7)
_TRIED_VALUES: Final = 1 << 16
"""Rows are tried while they hold at most so many values: what moves the bits of a row is its place, and not its
numbers, and the rows of a wide event take long."""
_LEAST_ROWS: Final = 32

Floats = npt.NDArray[np.floating[Any]]


def check_invariance(graph: ExportedGraph, rows: Floats, context: Floats | None = None) -> None:
    """Run the same rows in batches of several sizes, moved on by several places, and compare bit for bit.

    Args:
        graph: one direction.
        rows: ``[M, ...]``, in the graph's precision; the first ones are tried, as many as hold `_TRIED_VALUES` values.
        context: ``[M, C]``, or None.

    Raises:
        ParityFailed: naming the output, the row and both values.
    """
    tried = max(_LEAST_ROWS, _TRIED_VALUES // rows[0].size)
    rows, context = rows[:tried], None if context is None else context[:tried]
    count = len(rows)
    expected = graph(rows, context, BATCH_MULTIPLE)
    moved = np.concatenate([np.roll(np.arange(count), shift) for shift in _SHIFTS])
    for batch in (BATCH_MULTIPLE * n for n in _BATCHES):
        answers = graph(rows[moved], None if context is None else context[moved], batch)
        for name in ("value", "log_abs_det_jacobian", "log_prob"):
            before, after = getattr(expected, name)[moved], getattr(answers, name)
            differs = (before != after).reshape(len(moved), -1)
            if not differs.any():
                continue
            place = int(np.argmax(differs.any(axis=1)))
            column, row = int(np.argmax(differs[place])), int(moved[place])
            pair = (before.reshape(differs.shape)[place, column], after.reshape(differs.shape)[place, column])
            raise ParityFailed(
                f"{graph.output if name == 'value' else name} of {graph.direction}.onnx depends on the place of a "
                f"row: row {row} gives {pair[0]:.9g} at place {row % BATCH_MULTIPLE} of a batch of "
                f"{BATCH_MULTIPLE}, and {pair[1]:.9g} at place {place % batch} of one of {batch}"
            )

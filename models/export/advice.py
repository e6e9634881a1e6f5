"""The advice on a row that the gate refuses: the column of which float32 loses most, and what to try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from models.export.float32_errors import Float32, Float64, answer_forward
from models.export.gate import RowFails
from models.flows.flow import Flow

__all__ = ["PRECISION", "advise"]

PRECISION: Final = "--precision float64, which computes in double"
"""What is offered wherever float32 is the cause."""

_SHOWN: Final = 8
_WIDEST: Final = 512
"""Columns are tried one by one up to that many."""


def advise(
    failed: RowFails, exact: Flow, x: Float32, context: Float32 | None, *, columns: Sequence[str], far: bool
) -> str:
    """Say which column matters most at a row that was refused, and what to try.

    Args:
        failed: what the gate said.
        exact: the flow in float64.
        x: ``[1, *event]``, the row.
        context: ``[1, C]``, or None.
        columns: the names of the event's values; empty where they have none.
        far: whether the row is one far outside the data that can be left out.

    Returns:
        A few sentences.
    """
    row = _describe_row(x, columns)
    more = ", or --far-rows resolvable, which leaves out far rows that float32 cannot answer" if far else ""
    if not failed.own:
        return (
            f"{row}Torch's own float32 is within the bound there, or float64 itself is wrong: the fault is the flow's "
            f"or its export's, and not one of the data. Try another family, or other options of it{more}"
        )
    found = _most_sensitive(exact, x, context)
    said = f"{row}The flow is steep there, and float32 is the cause"
    if found is not None:
        column, change = found
        value = x.reshape(-1)[column]
        name = f"column {columns[column]!r}" if columns else f"value {column}"
        said += (
            f". Of {name} it loses most: {value:.9g} is known to {np.spacing(np.abs(value)):.2g}, and half of that "
            f"moves log_prob by {change:.2g}"
        )
    return (
        f"{said}. Try a filter that leaves such rows out, a transform of the column (a logarithm, an offset taken "
        f"away, another unit), more noise in the fit{more}, or {PRECISION}"
    )


def _describe_row(x: Float32, columns: Sequence[str]) -> str:
    """The values of a row by the names of its columns, as far as they are few; "" where they have no names."""
    values = [f"{name} = {value:.9g}" for name, value in zip(columns, x.reshape(-1).tolist(), strict=False)]
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return f"The row is {', '.join(values[:_SHOWN])}{more}. " if values else ""


def _most_sensitive(exact: Flow, x: Float32, context: Float32 | None) -> tuple[int, float] | None:
    """The column whose rounding to float32 moves log_prob most, and by how much; None where that is not to be had."""
    width = exact.width
    if width > _WIDEST:
        return None
    row = x.reshape(1, width)
    steps = np.nextafter(row, np.float32(np.inf)).astype(np.float64) - row
    rows = np.concatenate((row.astype(np.float64), row + np.diag(steps[0] / 2)))
    given = None if context is None else torch.from_numpy(np.repeat(context.astype(np.float64), width + 1, axis=0))
    with torch.no_grad():
        answers = answer_forward(exact, torch.from_numpy(rows.reshape(-1, *exact.event_shape)), given)
    log_prob: Float64 = answers["log_prob"].numpy()
    changes: npt.NDArray[np.float64] = np.abs(log_prob[1:] - log_prob[0])
    if not np.isfinite(changes).all() or not changes.any():
        return None
    column = int(np.argmax(changes))
    return column, float(changes[column])

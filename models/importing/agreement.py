"""The agreement of an imported flow with its own library, which it must show before it is exported.

The gate holds the graphs against a flow in float64, and would hold them just as well against a wrong one.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.importing.descriptions import one_line
from models.importing.take import ImportedFlow, library_precision
from service.errors import ParityFailed

__all__ = ["BATCHES", "TOLERANCE", "check_agreement"]

TOLERANCE: Final = 1e-5
"""The bound on abs(error) / (1 + abs(expected)): some libraries keep constants in float32, whatever they compute in."""
BATCHES: Final = (1, 7)
"""The batch sizes in which a row must have the density that it has among all the rows."""
_ALONE: Final = 21  # so many rows go through in small batches

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


def check_agreement(imported: ImportedFlow, held_out: Floats, context: Floats | None) -> float:
    """Hold a flow against its own library in float64, on held-out rows.

    Args:
        imported: from `models.importing.take`.
        held_out: ``[M, *event]``.
        context: ``[M, C]``, or None.

    Returns:
        The greatest relative error of log_prob.

    Raises:
        ParityFailed: the library's log_prob fails, is not finite, or depends on the batch; ours is another one; or its
            own inverse does not lead back. The row and both values are named.
    """
    name, x = imported.library, torch.from_numpy(held_out.astype(np.float64))
    given = None if context is None else torch.from_numpy(context.astype(np.float64))
    own = _log_prob(imported, x, given)
    bad = ~(np.isfinite(own) | np.isneginf(own))
    if bad.any():
        row = int(np.argmax(bad))
        raise ParityFailed(f"the flow is broken: log_prob of {name} is {own[row]} for held-out row {row}")
    for batch in BATCHES:
        rows = min(_ALONE, len(own))
        parts = [
            _log_prob(
                imported, x[start : start + batch], None if given is None else given[start : start + batch], len(x)
            )
            for start in range(0, rows, batch)
        ]
        alone = np.concatenate(parts)
        _compare(
            alone,
            own[: len(alone)],
            f"the flow depends on the batch: log_prob of {name} in batches of {batch}",
            f"in one batch of {len(own)} it",
            "Batch statistics are the usual cause: use the running ones, which evaluation mode takes",
        )
    with torch.no_grad():
        ours = imported.flow.log_prob(x, given).numpy()
        z = imported.flow(x, given)[0]
    error = _compare(ours, own, f"this project's reading of the {name} flow is wrong: log_prob", f"{name}'s own",
                     "Its layers are not what their class says, or a log-determinant has the wrong sign")  # fmt: skip
    _check_inverse(imported, x, z, given)
    return error


def _log_prob(imported: ImportedFlow, x: Tensor, context: Tensor | None, whole: int | None = None) -> Float64:
    try:
        with library_precision():
            result = imported.log_prob(x, context)
    except Exception as error:
        fault = "is broken" if whole is None else "depends on the batch"
        raise ParityFailed(
            f"the flow {fault}: log_prob of {imported.library} fails on a batch of {len(x)} rows, "
            + ("" if whole is None else f"though not on one of {whole}: ")
            + one_line(error)
        ) from error
    if result.shape != x.shape[:1]:
        raise ParityFailed(
            f"the flow is broken: log_prob of {imported.library} has shape {list(result.shape)} for {len(x)} rows"
        )
    return result.to(torch.float64).numpy()


def _check_inverse(imported: ImportedFlow, x: Tensor, z: Tensor, context: Tensor | None) -> None:
    if imported.generate is None:
        return
    try:
        with library_precision():
            back = imported.generate(z, context)
    except Exception:  # a library may have no inverse, or refuse some z: the gate holds the adapter's own against f
        return
    _compare(
        back.detach().to(torch.float64).reshape(len(x), -1).numpy(),
        x.reshape(len(x), -1).numpy(),
        f"the flow is broken: {imported.library}'s inverse is not the inverse: x after forward and inverse",
        "it",
        "",
        1e-3,
    )


def _compare(actual: Float64, expected: Float64, what: str, other: str, hint: str, bound: float = TOLERANCE) -> float:
    """The greatest relative error; ParityFailed over `bound`, naming the worst row."""
    same = actual == expected  # -inf among them
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.abs(actual - expected) / (1 + np.abs(expected)))
    errors = np.where(np.isnan(errors), math.inf, errors)
    worst = float(errors.max())
    if worst <= bound:
        return worst
    place = np.unravel_index(int(np.argmax(errors)), errors.shape)
    column = f", column {int(place[1])}" if len(place) > 1 else ""
    raise ParityFailed(
        f"{what} is {actual[place]:.9g} for held-out row {int(place[0])}{column}; {other} is {expected[place]:.9g}. "
        f"{hint}".strip()
    )

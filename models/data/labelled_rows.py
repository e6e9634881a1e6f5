"""The rows of a file with their labels and places, and the checks that they can be fitted.

An error names rows and columns, and stops a fit. A note says where the density has no bound. Must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.data.column_faults import describe_faults
from models.data.grid import is_whole
from models.data.readers import FloatArray
from service.bundle.precision import DTYPES, Precision
from service.errors import DataError, PushforwardError, Reason

__all__ = ["MIN_ROWS", "LabelledRows"]

MIN_ROWS: Final = 20
"""Fewer rows than this are never fitted, however narrow they are."""

_FEW_VALUES: Final = 0.1  # distinct values, as a fraction of rows, at or under which a column is close to discrete
_HEAVY_VALUE: Final = 0.05  # a share of the rows, at or over which one value is a spike
_DEPENDENT: Final = 1e-8  # least eigenvalue of the correlations, under which columns determine one another
_SHOWN: Final = 8  # columns that a note names


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Rows as chosen from a file, what their columns are called, and where each row is in the file.

    Args:
        file: the file's name.
        rows: ``[N, *event]``.
        labels: a column -> what to call it in a sentence, for each value of a row, flattened.
        keys: the same as short names, for `Reason.loc`.
        place: a row's position here -> where it is in the file, in words.
        precision: of the fit.
    """

    file: str
    rows: FloatArray
    labels: Sequence[str]
    keys: Sequence[str]
    place: Callable[[int], str]
    precision: Precision = "float32"

    @property
    def flat(self) -> FloatArray:
        """The rows as ``[N, D]``."""
        return self.rows.reshape(len(self.rows), math.prod(self.rows.shape[1:]))  # -1 is not known where N is 0

    def check(self) -> None:
        """Refuse rows that are too few, not finite, or too large for the precision of the fit.

        Raises:
            DataError: naming rows and columns.
        """
        self._check_count()
        self.check_finite()

    def _check_count(self) -> None:
        count, width = self.flat.shape
        least = max(MIN_ROWS, 2 * width)
        if count < least:
            raise DataError(
                f"{self.file}: {count} rows are too few to fit {width} columns; at least {least} are needed"
            )

    def check_finite(self) -> None:
        """Refuse values that are not finite, or too large for the precision of the fit.

        Raises:
            DataError: naming rows and columns.
        """
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(self.flat.astype(DTYPES[self.precision]))
        if bad.any():
            raise self._error(bad, f"expected a finite number within {self.precision}'s range")

    def check_variation(self, step: FloatArray | None, constant: str = "has no density; drop it") -> None:
        """Refuse columns that are constant, in the fit's precision too; one that is dequantized varies within its bin.

        Args:
            step: ``[*event]`` the bins' widths, 0 where a column is not dequantized; None where none is.
            constant: what follows from a constant column, in words.

        Raises:
            DataError: naming the columns.
        """
        single = self.flat.astype(DTYPES[self.precision])
        spread = np.ptp(single, axis=0)
        same = (spread == 0) if step is None else (spread == 0) & (step.reshape(-1) == 0)
        reasons = []
        for column in np.flatnonzero(same):
            first, exact = self.flat[0, column], np.ptp(self.flat[:, column])
            what = (
                f"is constant: it is {first:g} in every row, so it {constant}"
                if exact == 0
                else f"is constant in float32: it varies by {exact:g} around {first:.9g}; take an "
                "offset away first, or give --precision float64"
            )
            reasons.append(self._reason(None, int(column), what))
        if reasons:
            raise DataError(f"{self.file}: {reasons[0].reason}", tuple(reasons))

    def check_bounds(self, low: float | None, high: float | None, *, closed: bool) -> None:
        """Refuse values outside the bounds.

        Args:
            low: the lower bound; None for none.
            high: the upper bound; None for none.
            closed: whether a value may lie on a bound. A logit is infinite there.

        Raises:
            DataError: naming rows and columns.
        """
        if low is None or high is None:
            return
        outside = (self.flat < low) | (self.flat > high) if closed else (self.flat <= low) | (self.flat >= high)
        if outside.any():
            raise self._error(outside, f"expected a value {'from' if closed else 'strictly between'} {low:g} "
                                       f"{'to' if closed else 'and'} {high:g}")  # fmt: skip

    def error(self, column: int, reason: str) -> PushforwardError:
        """An error about one column as a whole."""
        found = self._reason(None, column, reason)
        return DataError(f"{self.file}: {found.reason}", (found,))

    def notes(self, step: FloatArray | None) -> tuple[str, ...]:
        """What the user should know: where the density has no bound, or float32 is coarse.

        Args:
            step: ``[*event]`` the bins' widths, 0 where a column is not dequantized; None where none is. Where a column
                is dequantized its density has a bound.

        Returns:
            A sentence for each.
        """
        flat, count = self.flat, len(self.rows)
        free = np.arange(flat.shape[1]) if step is None else np.flatnonzero(step.reshape(-1) == 0)
        integers, spikes = [], []
        for column in free:
            values, counts = np.unique(flat[:, column], return_counts=True)
            heavy = counts.max() / count
            if is_whole(values):
                integers.append(int(column))
            elif len(values) <= _FEW_VALUES * count or heavy >= _HEAVY_VALUE:
                spikes.append(int(column))
        notes = []
        if integers:
            notes.append(
                f"{self._columns(integers)} holds integers only: a density has no bound on such values, and its "
                "log-likelihood says little. Dequantize (--dequantize) to spread each integer over its bin"
            )
        if spikes:
            notes.append(
                f"{self._columns(spikes)} repeats values, nearly as if discrete: the density has no bound there but "
                "the one that noise sets (--noise), so that log-likelihoods compare only between fits of equal noise"
            )
        deviation = flat.std(axis=0)
        notes += self.faults()
        if step is None and np.all(deviation > 0) and 1 < flat.shape[1] <= 1024:
            eigenvalues, vectors = np.linalg.eigh(np.corrcoef(flat, rowvar=False))
            if eigenvalues[0] < _DEPENDENT:
                together = np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)
                notes.append(
                    f"a linear relation binds the columns {self._names(together)}: the density has no bound. Drop one "
                    "of them"
                )
        return tuple(notes)

    def faults(self) -> tuple[str, ...]:
        """What is the matter with single columns of a table: a sentence for each fault, of at most `_SHOWN` columns.

        Pixels of an image are looked at by none of it.
        """
        if self.rows.ndim != 2:
            return ()
        found = [
            describe_faults(self.flat[:, column], self.labels[column], self.keys[column], self.place)
            for column in range(self.flat.shape[1])
        ]
        faulty = [said for said in found if said]
        more = len(faulty) - _SHOWN
        return (
            *(sentence for said in faulty[:_SHOWN] for sentence in said),
            *([f"{more} more columns have faults of these kinds"] if more > 0 else []),
        )

    def _columns(self, columns: Sequence[int] | npt.NDArray[np.int64]) -> str:
        return ("column " if len(columns) == 1 else "each of the columns ") + self._names(columns)

    def _names(self, columns: Sequence[int] | npt.NDArray[np.int64]) -> str:
        names = [self.labels[int(column)].removeprefix("column ") for column in columns]
        return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

    def _reason(self, row: int | None, column: int, what: str) -> Reason:
        place = "" if row is None else f"{self.place(row)}, "
        return Reason((self.file, self.keys[column]), f"{place}{self.labels[column]} {what}", row=row, column=column)

    def _error(self, bad: npt.NDArray[np.bool_], expected: str) -> DataError:
        reasons = []
        places = np.argwhere(bad)
        for row, column in places[: PushforwardError.MAX_REASONS]:
            found = self.flat[row, column]
            what = "NaN" if np.isnan(found) else f"{found:g}"
            reasons.append(self._reason(int(row), int(column), f"is {what}: {expected}"))
        more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        return DataError(f"{self.file}: {reasons[0].reason}{more}", tuple(reasons))

"""Rows of JSON as tables: objects, whose names are columns or arguments, and arrays that stand line by line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from service.api.codecs.codec import Columns
from service.errors import InvalidArgument, Reason

__all__ = ["ArrayLines", "Records", "record_table"]


class Records(Columns):
    """Objects with the same names.

    Args:
        records: one a row, at least one.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        super().__init__(tuple(records[0]), len(records[0]))
        self._records = records

    def has(self, wanted: Sequence[str]) -> bool:
        """Whether each of these names is there, for something else than an array."""
        return super().has(wanted) and not any(isinstance(self._records[0][name], (list, dict)) for name in wanted)

    def argument(self, name: str, claimed: Collection[str] = ()) -> list[Any] | None:
        """The values under a name; None where there is none, or where it is a column's and holds no array."""
        first = self._records[0]
        if name not in first or (name in claimed and not isinstance(first[name], list)):
            return None
        return [record[name] for record in self._records]

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> list[list[Any]]:  # noqa: ARG002
        names = [(self.names or ())[place] for place in places]
        return [[record[name] for name in names] for record in self._records]


class ArrayLines(Columns):
    """Rows without names: a line for each, all of one argument.

    Args:
        lines: one a row, at least one; none is an object.
        main: the argument.

    Raises:
        InvalidArgument: a line is an object.
    """

    def __init__(self, lines: list[Any], main: str) -> None:
        super().__init__(None, 0)
        odd = next((row for row, value in enumerate(lines) if isinstance(value, dict)), None)
        if odd is not None:
            raise _mixed(("body", main), odd, "line")
        self._lines = lines
        self._main = main

    def argument(self, name: str, claimed: Collection[str] = ()) -> list[Any] | None:  # noqa: ARG002  no columns
        """The lines, where they are this argument's."""
        return self._lines if name == self._main else None

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> list[Any]:  # noqa: ARG002  no columns
        return self._lines


def record_table(rows: list[Any], loc: tuple[str, ...], unit: str = "row") -> Records:
    """The table of rows of which the first is an object.

    Args:
        rows: one object a row.
        loc: where they stand, for errors.
        unit: what one of them is called.

    Raises:
        InvalidArgument: one of them is no object, or has other names than the first.
    """
    first = rows[0]
    for row, value in enumerate(rows):
        if not isinstance(value, dict):
            raise _mixed(loc, row, unit)
        if value.keys() != first.keys():
            different = sorted(value.keys() ^ first.keys())[0][:64]
            reason = f"the first {unit} has other names; {different!r} is in one of them alone"
            raise InvalidArgument(f"{loc[-1]}, row {row}: {reason}", (Reason(loc, reason, row),))
    return Records(rows)


def _mixed(loc: tuple[str, ...], row: int, unit: str) -> InvalidArgument:
    reason = f"an object stands beside arrays: all {unit}s must be of one kind"
    return InvalidArgument(f"{loc[-1]}, row {row}: {reason}", (Reason(loc, reason, row),))

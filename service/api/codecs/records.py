"""Rows of JSON as tables: objects, whose names are columns or arguments, and arrays that stand line by line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from service.api.codecs.codec import Columns
from service.api.codecs.items import Items
from service.errors import InvalidArgument, Reason

__all__ = ["ArrayLines", "Records", "record_table"]


Rows: TypeAlias = list[Any] | Items


def _changed(rows: Rows, change: Callable[[list[Any], int], list[Any]]) -> Rows:
    """Other items in the place of rows, as `Items.changed`."""
    return rows.changed(change) if isinstance(rows, Items) else change(rows, 0)


class Records(Columns):
    """Objects with the same names.

    Args:
        records: one a row, at least one.
        first: the first of them.
    """

    def __init__(self, records: Rows, first: dict[str, Any]) -> None:
        super().__init__(tuple(first), len(first))
        self._records = records
        self._first = first

    def has(self, wanted: Sequence[str]) -> bool:
        """Whether each of these names is there, for something else than an array."""
        return super().has(wanted) and not any(isinstance(self._first[name], (list, dict)) for name in wanted)

    def argument(self, name: str, claimed: Collection[str] = ()) -> Rows | None:
        """The values under a name; None where there is none, or where it is a column's and holds no array."""
        if name not in self._first or (name in claimed and not isinstance(self._first[name], list)):
            return None
        return _changed(self._records, lambda block, _: [record[name] for record in block])

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Rows:  # noqa: ARG002
        names = [(self.names or ())[place] for place in places]
        return _changed(self._records, lambda block, _: [[record[name] for name in names] for record in block])


class ArrayLines(Columns):
    """Rows without names: a line for each, all of one argument.

    Args:
        lines: one a row, at least one; none is an object.
        main: the argument.

    Raises:
        InvalidArgument: a line is an object; of lines that are read later, as soon as it is.
    """

    def __init__(self, lines: Rows, main: str) -> None:
        super().__init__(None, 0)
        self._main = main
        self._lines = _changed(lines, self._arrays)

    def argument(self, name: str, claimed: Collection[str] = ()) -> Rows | None:  # noqa: ARG002  no columns
        """The lines, where they are this argument's."""
        return self._lines if name == self._main else None

    def _arrays(self, block: list[Any], before: int) -> list[Any]:
        odd = next((row for row, value in enumerate(block) if isinstance(value, dict)), None)
        if odd is not None:
            raise _mixed(("body", self._main), before + odd, "line")
        return block

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Rows:  # noqa: ARG002  no columns
        return self._lines


def record_table(rows: Rows, loc: tuple[str, ...], unit: str = "row") -> Records:
    """The table of rows of which the first is an object.

    Args:
        rows: one object a row.
        loc: where they stand, for errors.
        unit: what one of them is called.

    Raises:
        InvalidArgument: one of them is no object, or has other names than the first; of rows that are read later, as
            soon as it is.
    """
    first = rows.first if isinstance(rows, Items) else rows[0]

    def check(block: list[Any], before: int) -> list[Any]:
        for row, value in enumerate(block, before):
            if not isinstance(value, dict):
                raise _mixed(loc, row, unit)
            if value.keys() != first.keys():
                different = sorted(value.keys() ^ first.keys())[0][:64]
                reason = f"the first {unit} has other names; {different!r} is in one of them alone"
                raise InvalidArgument(f"{loc[-1]}, row {row}: {reason}", (Reason(loc, reason, row),))
        return block

    return Records(_changed(rows, check), first)


def _mixed(loc: tuple[str, ...], row: int, unit: str) -> InvalidArgument:
    reason = f"an object stands beside arrays: all {unit}s must be of one kind"
    return InvalidArgument(f"{loc[-1]}, row {row}: {reason}", (Reason(loc, reason, row),))

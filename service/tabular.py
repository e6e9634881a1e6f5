"""The rule for tables of text: what a row, a heading, a column's name and a number are.

The codec of ``text/csv`` and the command line share it. Each says in its own words what is wrong. The rule, in full:

- Text is CSV as RFC 4180 has it, in UTF-8, with a byte order mark or without. Lines end with LF, CRLF or CR. A cell in
  double quotes may hold the delimiter and line ends; a quote in it is doubled. A quote that is not closed is an error.
- The delimiter is a comma where the caller names no other.
- A line whose cells are all empty or spaces is no row.
- The first line that holds something is a heading where none of its cells is a number.
- Spaces around a cell do not count, in a heading and in a number.
- Names are matched exactly: ``X`` is not ``x``. A name that is wanted must be there once. A heading that has none of
  the wanted names is refused. Only where these are made up (``x0``, ``x1`` of a flow without names) does such a heading
  say nothing. The columns are then taken in their order, unless a name differs from a wanted one in case alone.
- What is written can be read again: a column beside those of a flow's rows that would have the name of one of them, or
  of one of the flow's context, has ``answer_`` before its name.
- A number is a decimal in ASCII digits, with a sign and an exponent or without: ``1``, ``-1.5``, ``+.5``, ``2.``,
  ``1e-3``. ``nan``, ``inf`` and ``infinity`` are numbers too, in any case and with a sign: the caller refuses them as
  not finite, by their place. ``1_000``, ``0x10``, ``1,5``, digits of other scripts and an empty cell are none.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

__all__ = [
    "Header",
    "NotCsv",
    "distinct_names",
    "is_number",
    "parse_number",
    "read_heading",
    "read_lines",
    "split_lines",
]

_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")


class NotCsv(ValueError):
    """A text that is not CSV.

    Args:
        line: the line where that shows, counted from 1.
        reason: what is wrong.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class Header:
    """The names of a table's columns.

    Args:
        names: in the order of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._places = {name: place for place, name in enumerate(names)}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of the wanted names that no column has."""
        return [name for name in wanted if name not in self._places]

    def repeated(self, wanted: Iterable[str]) -> list[str]:
        """Those of the wanted names that more than one column has, or that are wanted for more than one."""
        wanted = tuple(wanted)
        if len(self._places) == len(self._names) and len(set(wanted)) == len(wanted):
            return []
        counts, times = Counter(self._names), Counter(wanted)
        return [name for name in wanted if counts[name] > 1 or times[name] > 1]

    def in_other_case(self, wanted: Iterable[str]) -> list[str]:
        """Those of the columns whose name differs from a wanted one that no column has, but in case alone."""
        folded = {name.casefold() for name in self.missing(wanted)}
        return [name for name in self._places if name.casefold() in folded]

    def may_stand_in_order(self, wanted: Sequence[str], *, named: bool) -> bool:
        """Whether the columns may be taken as they stand, for the heading says nothing of the wanted ones.

        Args:
            wanted: the names.
            named: whether they are somebody's own; else they are made up.
        """
        absent = len(self.missing(wanted)) == len(wanted)
        return absent and not named and not self.in_other_case(wanted)

    def place(self, name: str) -> int:
        """The place of the column with a name, counted from 0.

        Raises:
            KeyError: none has it.
        """
        return self._places[name]


def distinct_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Names for further columns: ``answer_`` stands before each of them where one is taken.

    Example:
        >>> distinct_names(["log_prob"], ["a", "log_prob"])
        ['answer_log_prob']
    """
    found = list(names)
    while any(name in taken for name in found):
        found = [f"answer_{name}" for name in found]
    return found


def parse_number(text: str) -> float:
    """Read a cell that holds a number.

    Raises:
        ValueError: it holds none.

    Example:
        >>> parse_number(" -1.5e3 ")
        -1500.0
        >>> is_number("1_000")
        False
    """
    text = text.strip()
    # Python reads over underscores, and reads digits of any script.
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def read_heading(cells: Sequence[str]) -> list[str] | None:
    """The names that a first line gives its columns; None where it is a row, for it holds a number."""
    if any(is_number(cell) for cell in cells):
        return None
    return [cell.strip() for cell in cells]


def read_lines(text: Iterable[str], delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Read the lines that hold something.

    No more of `text` is taken than the lines that have been given.

    Args:
        text: pieces that each end with a line end; the last may do without. Line ends stand as they were.
        delimiter: what stands between two cells.

    Yields:
        The number of a line, counted from 1, and its cells. A line with line ends in quotes has the number of its last.

    Raises:
        NotCsv: while they are taken.
    """
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise NotCsv(reader.line_num, str(error)) from error


def split_lines(text: str) -> Iterator[str]:
    """Cut a text after each line end, as a file that was opened with ``newline=""`` does."""
    return (found.group() for found in _LINE.finditer(text))

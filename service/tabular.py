"""The rule for tables: what a row, a heading, a column's name, an index and a number are.

Training, the codecs, the client and the command line share it. Each says in its own words what is wrong. The rule:

- Text is CSV as RFC 4180 has it, in UTF-8, with a byte order mark or without. Lines end with LF, CRLF or CR. A cell in
  double quotes may hold the delimiter and line ends; a quote in it is doubled. A quote that is not closed is an error.
- The delimiter is a comma, a semicolon or a tab: the one that cuts the first two lines into equally many cells, and
  into the most. A caller may name another one.
- A line whose cells are all empty or spaces is no row.
- Lines that begin with ``#``, before all others, are comments. The last of them is a heading where the next line is a
  row of as many cells, as `numpy.savetxt` writes it.
- The first line that holds something is a heading where none of its cells is a number. Labels that are whole numbers
  are a heading too where the first cell is empty, as `pandas.DataFrame.to_csv` writes them.
- Spaces around a cell do not count, in a heading and in a number.
- Names are matched exactly, but for spaces around them: ``X`` is not ``x``. A name that is wanted must be there once.
  A heading that has none of the wanted names is refused. Only where these are made up (``x0``, ``x1`` of a flow without
  names) does such a heading say nothing. The columns are then taken in their order, unless a name differs from a wanted
  one in case alone, or names something else of the flow.
- An index is no column, unless its name is wanted. A first column without a name is an index, and so are those that
  pandas calls ``Unnamed: 0`` and ``__index_level_0__``, and those that the metadata of an Arrow table names as such.
- The columns of a context have the flow's names for them. Where none of these is there, they are ``context0``,
  ``context1`` and so on.
- What is written can be read again: a column beside those of a flow's rows that would have the name of one of them, or
  of one of the flow's context, has ``answer_`` before its name.
- A number is a decimal in ASCII digits, with a sign and an exponent or without: ``1``, ``-1.5``, ``+.5``, ``2.``,
  ``1e-3``. ``nan``, ``inf`` and ``infinity`` are numbers too, in any case and with a sign: the caller refuses them as
  not finite, by their place. ``1_000``, ``0x10``, ``1,5``, digits of other scripts and an empty cell are none.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from string import whitespace
from typing import Final

__all__ = [
    "Header",
    "NotCsv",
    "TextTable",
    "distinct_names",
    "explain_text",
    "find_index",
    "is_number",
    "pandas_index",
    "parse_number",
    "parse_numbers",
    "read_heading",
    "read_lines",
    "read_table",
    "split_lines",
    "write_heading",
]

_DELIMITERS: Final = (",", ";", "\t")

_INDEX_NAME: Final = re.compile(r"Unnamed: 0|__index_level_\d+__")
_LABEL: Final = re.compile(r"-?\d+", re.ASCII)

_MISSING: Final = frozenset(
    {"na", "n/a", "#n/a", "<na>", "n.a.", "null", "none", "nil", "nat", "missing", "-", "--", "?", "."}
)
"""What programs write where a value is missing, in lower case."""

_FORMATTED: Final = re.compile(
    r"[+-]?\d{1,3}([,.'\u2019 \u00a0\u202f_]\d{3})+([.,]\d*)?|[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE
)
"""Numbers with separators of thousands, or with a decimal comma."""

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
        self._names = [name.strip() for name in names]
        self._places = {name: place for place, name in enumerate(self._names)}

    def __contains__(self, name: str) -> bool:
        return name.strip() in self._places

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of the wanted names that no column has."""
        return [name for name in wanted if name.strip() not in self._places]

    def repeated(self, wanted: Iterable[str]) -> list[str]:
        """Those of the wanted names that more than one column has, or that are wanted for more than one."""
        wanted = tuple(wanted)
        if len(self._places) == len(self._names) and len(set(wanted)) == len(wanted):
            return []
        counts, times = Counter(self._names), Counter(wanted)
        return [name for name in wanted if counts[name.strip()] > 1 or times[name] > 1]

    def in_other_case(self, wanted: Iterable[str]) -> list[str]:
        """Those of the columns whose name differs from a wanted one that no column has, but in case alone."""
        return self.alike(self.missing(wanted))

    def may_stand_in_order(self, wanted: Sequence[str], *, named: bool, others: Iterable[str] = ()) -> bool:
        """Whether the columns may be taken as they stand, for the heading says nothing of the wanted ones.

        Args:
            wanted: the names.
            named: whether they are somebody's own; else they are made up.
            others: the names of what else the flow has columns for: such a heading does say something.
        """
        absent = len(self.missing(wanted)) == len(wanted)
        return absent and not named and not self.in_other_case(wanted) and not self.alike(others)

    def alike(self, names: Iterable[str]) -> list[str]:
        """Those of the columns that have one of some names, or one that differs from it in case alone."""
        folded = {name.strip().casefold() for name in names}
        return [name for name in self._places if name.casefold() in folded]

    def place(self, name: str) -> int:
        """The place of the column with a name, counted from 0.

        Raises:
            KeyError: none has it.
        """
        return self._places[name.strip()]


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


def parse_numbers(cells: Sequence[str]) -> list[float]:
    """Read cells that all hold numbers, many times faster than one by one.

    Raises:
        ValueError: one holds none.

    Example:
        >>> parse_numbers(["1", " -1.5e3 "])
        [1.0, -1500.0]
    """
    text = "".join(cells)
    if "_" in text or not text.isascii():  # as `parse_number`: spaces beyond ASCII are no fault of a number
        return [parse_number(cell) for cell in cells]
    return [*map(float, cells)]


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def explain_text(text: str) -> str:
    """What a cell that is no number may mean, and what to do about it; empty where nothing is known of it.

    Example:
        >>> explain_text("1,5")
        'numbers have a decimal point, and nothing between thousands'
    """
    text = text.strip()
    if text.casefold() in _MISSING:
        return "it stands for a missing value; leave such rows out"
    if _FORMATTED.fullmatch(text):
        return "numbers have a decimal point, and nothing between thousands"
    if len(text.split()) > 1 and all(map(is_number, text.split())):
        return "cells stand apart by a comma, a semicolon or a tab, and not by spaces"
    return ""


def read_heading(cells: Sequence[str]) -> list[str] | None:
    """The names that a first line gives its columns; None where it is a row, for it holds a number.

    Example:
        >>> read_heading(["a", " b"]), read_heading(["", "2019", "2020"]), read_heading(["1", "b"])
        (['a', 'b'], ['', '2019', '2020'], None)
    """
    names = [cell.strip() for cell in cells]
    if not any(map(is_number, names)):
        return names
    first, *labels = names
    return names if not first and all(map(_LABEL.fullmatch, labels)) else None


def write_heading(names: Sequence[str]) -> str:
    r"""The line of CSV that names columns. Names are in quotes where they would not be read back without.

    Example:
        >>> write_heading(["# a", "b"])
        '"# a","b"\n'
    """
    line = io.StringIO()
    if names[0].lstrip().startswith("#") or any("\r" in name for name in names):  # Python's csv does not quote these
        csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(names)
    else:
        csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue()


def find_index(names: Sequence[str], known: Collection[str] = ()) -> frozenset[int]:
    """The places of columns that are an index.

    Args:
        names: of all columns.
        known: names of columns that the table itself calls its index.

    Example:
        >>> sorted(find_index(["", "a", "__index_level_0__"]))
        [0, 2]
    """
    found = frozenset(
        place
        for place, name in enumerate(names)
        if name in known or _INDEX_NAME.fullmatch(name.strip()) or (place == 0 and not name.strip())
    )
    return found if len(found) < len(names) else frozenset()


def pandas_index(metadata: bytes | None) -> list[str]:
    """The names of the columns that hold the index of a frame of pandas.

    Args:
        metadata: what an Arrow table keeps under ``pandas``; None where there is nothing.
    """
    try:
        described = json.loads(metadata or b"{}")
    except (ValueError, RecursionError):
        return []  # somebody else's metadata
    named = described.get("index_columns") if isinstance(described, dict) else None
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def read_lines(text: Iterable[str], delimiter: str = ",", before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Read the lines that hold something.

    No more of `text` is taken than the lines that have been given.

    Args:
        text: pieces that each end with a line end; the last may do without. Line ends stand as they were.
        delimiter: what stands between two cells.
        before: how many lines stood before the text.

    Yields:
        The number of a line, counted from 1, and its cells. A line with line ends in quotes has the number of its last.

    Raises:
        NotCsv: while they are taken.
    """
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                yield before + reader.line_num, cells
    except csv.Error as error:
        raise NotCsv(before + reader.line_num, str(error)) from error


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """A table of text, of which the first lines have been read.

    Args:
        delimiter: what stands between its cells.
        names: of its columns; None where they have none.
        index: the places of columns that are an index, and are not taken where columns are taken in their order.
        width: the number of cells in its first line.
        mixed: whether that is a row with something else than numbers, and so perhaps meant as a heading.
        before: how many lines stand before its rows.
        rows: the number of each line, counted from 1, and its cells. A line may have another number of cells than the
            first. `NotCsv` is raised while they are taken.
    """

    delimiter: str
    names: list[str] | None
    index: frozenset[int]
    width: int
    mixed: bool
    before: int
    rows: Iterator[tuple[int, list[str]]]

    @property
    def in_order(self) -> list[int]:
        """The places of the columns that are none of the index."""
        return [place for place in range(self.width) if place not in self.index]


def read_table(text: Iterable[str], delimiter: str | None = None, *, header: bool | None = None) -> TextTable | None:
    """Read a table of text.

    Args:
        text: as for `read_lines`, without a byte order mark.
        delimiter: what stands between its cells; None for the one that its first lines show.
        header: whether its first line names the columns; None to go by the rule.

    Returns:
        None where it holds nothing.

    Raises:
        NotCsv: its first line is not CSV.
    """
    source = iter(text)
    before, comment, ahead = 0, "", list[str]()
    nothing = f"{whitespace}{delimiter or ''.join(_DELIMITERS)}"
    for line in source:
        if line.strip(nothing) and not line.lstrip().startswith("#"):
            ahead.append(line)
            break
        before, comment = before + 1, line.lstrip(f"{nothing}#").strip() or comment
    if delimiter is None:
        delimiter = _find_delimiter([comment] if comment and not ahead else ahead, source)
    lines = read_lines(chain(ahead, source), delimiter, before)
    commented = next(_few_lines([comment], delimiter), [])
    number, cells = next(lines, (before, []))
    names = _names_in(cells, header)
    if names is not None:
        before = number
    else:
        lines = chain(((number, cells),), lines) if cells else lines
        if header is None and len(commented) == len(cells or commented):
            names = _names_in(commented, None)
    width = len(cells) or len(names or ())
    if not width:
        return None
    mixed = names is None and not all(map(is_number, cells))
    index = frozenset[int]() if names is None else find_index(names)
    if names is not None and names == ["", *map(str, range(width - 1))]:
        names = None  # pandas counts columns that have no names
    return TextTable(delimiter, names, index, width, mixed, before, lines)


def _names_in(cells: Sequence[str], header: bool | None) -> list[str] | None:
    """The names that the cells of a line are; None where they are a row, or nothing."""
    if not cells or header is False:
        return None
    return [cell.strip() for cell in cells] if header else read_heading(cells)


def _find_delimiter(ahead: list[str], source: Iterator[str]) -> str:
    """The delimiter that the first two lines show.

    Args:
        ahead: the lines that have been taken; those that are looked at are added.
        source: the lines after them.
    """

    def replayed() -> Iterator[str]:
        yield from ahead
        for line in source:
            ahead.append(line)
            yield line

    counts = {each: [len(cells) for cells in islice(_few_lines(replayed(), each), 2)] for each in _DELIMITERS}
    regular = [each for each in _DELIMITERS if len(set(counts[each])) == 1 and counts[each][0] > 1]
    return max(regular or _DELIMITERS, key=lambda each: sum(counts[each]))


def _few_lines(text: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of lines up to the first that is not CSV."""
    try:
        for _, cells in read_lines(text, delimiter):
            yield cells
    except NotCsv:
        return


def split_lines(text: str) -> Iterator[str]:
    """Cut a text after each line end, as a file that was opened with ``newline=""`` does."""
    return (found.group() for found in _LINE.finditer(text))

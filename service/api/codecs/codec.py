"""The interface of a codec, and the rule of all tabular ones: which column is which."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import InvalidArgument, MalformedBody, NotAcceptable, Reason, WrongShape
from service.exchange import UNWATCHED, Body, Watch
from service.tabular import Header, distinct_names

__all__ = [
    "MOST_COLUMNS",
    "Answer",
    "Array",
    "Codec",
    "Columns",
    "Form",
    "StreamCodec",
    "TableArray",
    "answer_fields",
    "malformed",
    "table_arrays",
]

Answer: TypeAlias = Mapping[str, Any]
"""Names -> values in their order: what a verb answers."""

Array: TypeAlias = npt.NDArray[Any]

MOST_COLUMNS: Final = 1 << 15
"""Names and columns that a body may have: each takes some microseconds and some hundred bytes, whatever it holds."""

_SHOWN: Final = 5


class Form(NamedTuple):
    """The form of an answer: what a codec must know beside its values.

    Args:
        main: the array that a type carries which has room for one.
        features: the names of x's columns; empty where they have none, and are called x0, x1 and so on.
        conditions: the names of the context's columns; empty where they have none.
    """

    main: str
    features: Sequence[str]
    conditions: Sequence[str] = ()


class Codec(Protocol):
    """One media type, in and out.

    `single` says that it carries one array, the main one.
    """

    media_type: str
    single: bool

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:
        """The arguments that a body holds.

        Args:
            body: whole.
            main: the argument that the body is, for a type that holds one array.
            watch: asked every now and then.

        Returns:
            Arrays as nested lists, as NumPy arrays of a real dtype, as `Items`, or as `Columns`.

        Raises:
            MalformedBody: it is not what its media type says.
            InvalidArgument: it holds what no argument can be.
            ClientGone, DeadlineExceeded: from the watch.
        """
        ...

    def encode(self, answer: Answer, form: Form) -> bytes:
        """An answer as bytes.

        Args:
            answer: names -> values in their order.
            form: what is not in them.

        Raises:
            NotAcceptable: the type has no room for it.
        """
        ...


class StreamCodec(Codec, Protocol):
    """A media type that can be written row by row: ``start``, any number of ``more``, and ``end``.

    `encode` is the start of all rows and the end.
    """

    @property
    def end(self) -> bytes:
        """What stands after the rows."""
        ...

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:
        """What stands before the rows, and the first of them.

        Args:
            answer: its arrays hold the first rows.
            form: of all pieces.
            lead: the axes of the whole before an event's: ``(n,)``, or ``(K, n)``.
        """
        ...

    def more(self, answer: Answer, form: Form) -> bytes:
        """The next rows."""
        ...


class Columns(ABC):
    """A table that came in a body, before the flow is known, and so which of its columns are wanted.

    Each of its rows is a row of an argument, and never less: `service.api.native.backend` reads them so.

    Args:
        names: of the columns, in their order; None where they have none.
        width: how many there are.
        index: the places of those that are an index.
    """

    def __init__(self, names: Sequence[str] | None, width: int, index: Collection[int] = ()) -> None:
        self.names = names
        self.width = width
        self.index = index

    def has(self, wanted: Sequence[str]) -> bool:
        """Whether each of these columns is there, for a number in each row."""
        return self.names is not None and len(wanted) > 0 and not Header(self.names).missing(wanted)

    def argument(self, name: str, claimed: Collection[str] = ()) -> Any:  # noqa: ANN401, ARG002  tables of numbers have none
        """The values of an argument that stands in the table under its own name, one a row; None where none does.

        Args:
            name: of the argument.
            claimed: the names of the flow's columns: a number under one of them is a column's.
        """
        return None

    def rows(
        self,
        wanted: Sequence[str],
        loc: tuple[str, ...],
        besides: Collection[str] = (),
        *,
        named: bool = False,
        others: Collection[str] = (),
    ) -> Any:  # noqa: ANN401
        """The rows of an argument, as `service.api.native.arrays` reads them.

        Columns are taken by name, in any order; others are passed over. `service.tabular` says when columns are taken
        as they stand.

        Args:
            wanted: the names of the argument's columns.
            loc: where the argument stands, for errors.
            besides: names of columns that belong to another argument.
            named: whether the names are the flow's own; else they are made up.
            others: the names of what else the flow has columns for.

        Raises:
            WrongShape: some of the names are missing, or there are more or fewer columns than names.
            InvalidArgument: a name is there twice, or a value is no number.
        """
        names = self.names
        header = Header(names or ())
        missing = header.missing(wanted)
        if names is not None and not missing:
            repeated = header.repeated(wanted)
            if repeated:
                raise _error(InvalidArgument, loc, f"the column {repeated[0]!r} is there more than once")
            return self._taken([header.place(name) for name in wanted], loc)
        if names is not None and not header.may_stand_in_order(wanted, named=named, others=others):
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            shown = ", ".join(repr(name[:64]) for name in missing[:_SHOWN])
            apart = ", ".join(repr(name[:64]) for name in header.in_other_case(missing)[:_SHOWN])
            hint = f"; in {apart} upper and lower case differ" if apart else ""
            if not apart and (found := header.alike(others)):
                hint = f"; {', '.join(repr(name[:64]) for name in found[:_SHOWN])} are other columns of the flow"
            raise _error(WrongShape, loc, f"expected all of the flow's columns, and did not find {shown}{more}{hint}")
        places = [
            at for at in range(self.width) if at not in self.index and (names is None or names[at] not in besides)
        ]
        if len(places) != len(wanted):
            raise _error(WrongShape, loc, f"expected {len(wanted)} columns, and found {len(places)}")
        return self._taken(places, loc)

    @abstractmethod
    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Any:  # noqa: ANN401
        """The columns at these places, in this order, as rows."""


class SupportsAsDict(Protocol):
    """A named tuple."""

    def _asdict(self) -> dict[str, Any]:
        """Name -> value."""
        ...


class TableArray(NamedTuple):
    """One array of an answer, row by row.

    Args:
        name: in the answer; of numbers, that of their column.
        columns: a name for each column of `rows`.
        rows: ``[N, columns]``.
        event: the shape of one row as it was; empty for a number.
    """

    name: str
    columns: Sequence[str]
    rows: Array
    event: tuple[int, ...]


def table_arrays(answer: Answer, form: Form) -> list[TableArray]:
    """The arrays of an answer, as columns of one table.

    What holds x or z may be sent back: no number beside them is called as one of the flow's columns.

    Raises:
        NotAcceptable: where it is no table.
    """
    arrays = {name: value for name, value in answer.items() if isinstance(value, np.ndarray)}
    if not arrays or any(isinstance(value, (list, dict)) for value in answer.values()):
        raise NotAcceptable("this answer is no table; accept application/json")
    lead = arrays["log_prob"].shape if "log_prob" in arrays else next(iter(arrays.values())).shape[:1]
    found = []
    rows_of = next((name for name in ("x", "z") if name in arrays), None)
    named = rows_of == "x" and len(form.features) == math.prod(arrays["x"].shape[len(lead) :])
    taken = {*(form.features if named else ()), *(form.conditions if rows_of else ())}
    for name, value in arrays.items():
        if value.shape[: len(lead)] != lead:
            raise NotAcceptable(f"{name} has other rows than the rest of this answer; accept application/json")
        event = value.shape[len(lead) :]
        rows = value.reshape(math.prod(lead), math.prod(event))
        columns: Sequence[str] = (name,) if not event else [f"{name}{at}" for at in range(rows.shape[1])]
        if name != rows_of:
            columns = distinct_names(columns, taken)
        elif named:
            columns = form.features
        found.append(TableArray(name if event else columns[0], columns, rows, event))
    return found


def answer_fields(found: SupportsAsDict) -> dict[str, Any]:
    """The fields of an answer: what a verb of the engine gave, without what was not asked for."""
    return {name: value for name, value in found._asdict().items() if value is not None}


def malformed(reason: str, row: int | None = None) -> MalformedBody:
    """The error for a body that is not what its media type says."""
    return MalformedBody(f"the body is {reason}", (Reason(("body",), reason, row),))


def _error(kind: type[InvalidArgument | WrongShape], loc: tuple[str, ...], reason: str) -> Exception:
    return kind(f"{loc[-1]}: {reason}", (Reason(loc, reason),))

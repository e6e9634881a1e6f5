"""`application/vnd.apache.arrow.stream`: Arrow's IPC stream, one record batch or more, a column for each feature."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from service.api.codecs.codec import Answer, Array, Columns, Form, table_arrays
from service.errors import InvalidArgument, Reason
from service.exchange import UNWATCHED, Body, Watch
from service.tabular import find_index

__all__ = ["Arrow"]


class Arrow:
    """Columns of the flow's precision under the features' names, -inf itself, nothing null.

    In: columns of floats or integers, taken as `Columns` says; a fixed-size list counts as so many columns, or under an
    argument's name as the whole of it. What holds no numbers may stand beside them.
    """

    media_type = "application/vnd.apache.arrow.stream"
    single = False

    @property
    def end(self) -> bytes:
        """What stands after the last record batch."""
        from service.api.codecs.arrow_write import END

        return END

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:
        """The table."""
        from service.api.codecs.arrow_read import read_stream  # flatbuffers is loaded by whoever needs it

        return {main: _Table(*read_stream(body, watch), watch)}

    def encode(self, answer: Answer, form: Form) -> bytes:
        """The schema, a record batch, and the end."""
        return self.start(answer, form, ()) + self.end

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:  # noqa: ARG002  no length stands before
        """The schema and a record batch."""
        from service.api.codecs.arrow_write import schema

        columns = [(name, array.rows.dtype) for array in table_arrays(answer, form) for name in array.columns]
        return schema(columns) + self.more(answer, form)

    def more(self, answer: Answer, form: Form) -> bytes:
        """A record batch."""
        from service.api.codecs.arrow_write import records

        return records(column for array in table_arrays(answer, form) for column in array.rows.T)


class _Table(Columns):
    """The columns of a stream, fixed-size lists spread out."""

    def __init__(self, rows: int, columns: Sequence[Any], index: Collection[str], watch: Watch) -> None:
        self._rows = rows
        self._watch = watch
        self._columns: list[tuple[list[Array], str | None]] = []
        self._lists: dict[str, range] = {}
        names: list[str] = []
        for column in columns:
            several = column.name in self._lists  # of which none is the argument
            self._lists[column.name] = range(len(names), len(names) + (0 if several else column.width))
            if column.width == 0:
                names.append(column.name)
                self._columns.append((column.values, column.reason))
                continue
            for at in range(column.width):
                names.append(f"{column.name}{at}")
                self._columns.append(([values[:, at] for values in column.values], column.reason))
        super().__init__(names, len(names), find_index(names, index))

    def argument(self, name: str, claimed: Collection[str] = ()) -> Array | None:  # noqa: ARG002  a list is no number
        """The rows of a fixed-size list of that name."""
        places = self._lists.get(name, range(0))
        return self._taken(places, ("body", name)) if places else None

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Array:
        taken = [self._columns[place] for place in places]
        for column, ((_, reason), place) in enumerate(zip(taken, places, strict=True)):
            if reason is not None:
                name = (self.names or ())[place][:64]
                detail = f"expected numbers, and the column {name!r} {reason}"
                raise InvalidArgument(f"{loc[-1]}: {detail}", (Reason(loc, detail, None, column),))
        dtypes = {values.dtype for blocks, _ in taken for values in blocks}
        exact = all(np.can_cast(dtype, np.float32) for dtype in dtypes)
        table = np.empty((self._rows, len(taken)), np.float32 if exact else np.float64)
        for column, (blocks, _) in enumerate(taken):
            start = 0
            self._watch.check()
            for values in blocks:
                table[start : start + len(values), column] = values
                start += len(values)
        return table

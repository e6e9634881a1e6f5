"""The answers to many requests: arrays of all their rows are written once, and cut into an answer for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.api.codecs import wire
from service.api.codecs.codec import Array
from service.api.codecs.json import between, numbers
from service.api.grouped.reading import Asked
from service.api.native.answers import answer_form, flow_identity
from service.engine.verbs.flow import ServedFlow
from service.exchange import Reply
from service.plan import Outputs

__all__ = ["Column", "Writer", "finite_rows", "opened"]


class Column:
    """One array of the answers, with the rows of all of them.

    Args:
        name: in the answer.
        values: ``[rows, ...]``.
    """

    __slots__ = ("_between", "_close", "_open", "_texts", "name", "values")

    def __init__(self, name: str, values: Array) -> None:
        depth = values.ndim
        self.name = name
        self.values = values
        self._open = b',"%b":%b' % (name.encode(), b"[" * depth)
        self._close = b"]" * depth
        self._between = between(depth)
        self._texts: list[bytes] | None = None

    def texts(self) -> list[bytes]:
        """The text of each row, without its brackets: written when it is first asked for."""
        if self._texts is None:
            self._texts = numbers(self.values)
        return self._texts

    def text(self, start: int, stop: int) -> bytes:
        """The member of a JSON object that holds the rows start to stop, with a comma before it."""
        texts = self.texts()
        rows = texts[start] if stop - start == 1 else self._between.join(texts[start:stop])
        return b"%b%b%b" % (self._open, rows, self._close)

    @property
    def template(self) -> bytes:
        """The member of a JSON object that holds one row, with a place for its text."""
        return b"%b%%b%b" % (self._open, self._close)

    def only(self, before: bytes) -> list[bytes]:
        """Of numbers: for each row the JSON object that holds it and nothing else.

        Args:
            before: the object, up to the array.
        """
        start = before + self._open
        return [b"%b%b]}" % (start, text) for text in self.texts()]

    def text_by_rounds(self, start: int, stop: int, each: int) -> bytes:
        """The same with one axis more: the rows are rounds of so many."""
        texts = self.texts()
        rounds = [self._between.join(texts[at : at + each]) for at in range(start, stop, each)]
        rows = (b"]" + self._between + b"[").join(rounds)
        return b"%b[%b]%b" % (self._open, rows, self._close)


class RowWriter:
    """The writer of JSON objects that hold one row of each array: most answers are such.

    Args:
        before: the object up to the arrays, as a template: ``%d`` stands for a number, and ``%%`` for a percent sign.
        columns: the arrays in their order.
    """

    __slots__ = ("_template", "_texts")

    def __init__(self, before: bytes, columns: Sequence[Column]) -> None:
        self._template = before + b"".join([column.template for column in columns]) + b"}"
        self._texts = [column.texts() for column in columns]

    def text(self, row: int, *numbers: int) -> bytes:
        """The object of one row.

        Args:
            row: its number.
            numbers: what stands before the arrays.
        """
        return self._template % (*numbers, *[texts[row] for texts in self._texts])


class Writer:
    """The writer of answers of one flow.

    Args:
        flow: whose.
        main: the array that a type carries which has room for one.
    """

    def __init__(self, flow: ServedFlow, main: str) -> None:
        self._flow = flow
        self._main = main
        self._identity = flow_identity(flow)
        self._of_rows: dict[int, RowWriter] = {}
        self.before = opened(self._identity)

    def reply(
        self,
        asked: Asked[Any],
        columns: Sequence[Column],
        start: int,
        stop: int,
        more: Mapping[str, Any] | None = None,
    ) -> Reply:
        """One answer.

        Args:
            asked: by whom.
            columns: its arrays in their order, with the rows of all answers.
            start: its first row.
            stop: one past its last.
            more: what stands between the flow's name and the arrays, of an answer that is not JSON.
        """
        if asked.json and stop - start == 1:
            return Reply(self._of_row(columns).text(start))
        if asked.json:
            return Reply(b"%b%b}" % (self.before, b"".join([column.text(start, stop) for column in columns])))
        arrays = {column.name: column.values[start:stop] for column in columns}
        return wire.encode(
            asked.codec, {**self._identity, **(more or {}), **arrays}, answer_form(self._flow, self._main)
        )

    def row_writer(self, said: bytes, columns: Sequence[Column]) -> RowWriter:
        """The writer of answers that hold one row of these columns.

        Args:
            said: the template of what stands between the flow's name and the arrays.
            columns: in their order.
        """
        return RowWriter(self.before.replace(b"%", b"%%") + said, columns)

    def _of_row(self, columns: Sequence[Column]) -> RowWriter:
        """The same, of columns that are those of many answers."""
        found = self._of_rows.get(id(columns))
        if found is None:
            found = self._of_rows[id(columns)] = self.row_writer(b"", columns)
        return found


def opened(names: Mapping[str, Any]) -> bytes:
    """A JSON object without its end."""
    return orjson.dumps(names)[:-1]


def finite_rows(outputs: Outputs) -> npt.NDArray[np.bool_] | None:
    """The rows whose numbers are all finite, ``[N]``; None where those of all rows are."""
    if outputs.finite:
        return None
    value = outputs.value
    finite = np.isfinite(outputs.log_prob)
    finite &= np.isfinite(outputs.log_abs_det_jacobian.reshape(len(finite), -1)).all(axis=1)
    finite &= np.isfinite(value.reshape(len(finite), -1)).all(axis=1)
    return None if finite.all() else finite

"""The matching of labelled rows with the columns of the flow that is asked. Imports neither httpx nor the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pushforward.client.answers import ModelInfo
from pushforward.client.errors import ApiError, InvalidInput
from pushforward.client.payload import FlowAnswerT
from pushforward.client.requests import FlowChoice
from pushforward.client.tables import (
    FlowColumns,
    RowKind,
    has_labels,
    load_stream,
    match_columns,
    require_same_rows,
)

__all__ = ["ROW_KINDS", "ColumnMatcher"]

ROW_KINDS: Final[Mapping[str, RowKind]] = {"x": "x", "z": "z", "points": "x", "context": "context"}
"""The arguments that hold rows, and the columns that these have where nothing else is said."""

_KINDS: Final[Mapping[str, RowKind]] = {**ROW_KINDS, "direction": "direction"}


class ColumnMatcher:
    """The columns of the flows that labelled rows were given for: learnt once for each flow and version.

    Args:
        describe: asks the server about a flow, by its name and version.
    """

    def __init__(self, describe: Callable[[str | None, int | str | None], Awaitable[ModelInfo]]) -> None:
        self._describe = describe
        self._known: dict[FlowChoice, FlowColumns] = {}  # without a version: of the newest one at the time

    @staticmethod
    def read(given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that hold rows, with streams read into memory.

        Args:
            given: by name; None for one that is not given.

        Raises:
            InvalidInput: a stream cannot be read, or the rows of two arguments are labelled alike and ordered apart.
        """
        read = {name: load_stream(values) for name, values in given.items()}
        require_same_rows({name: values for name, values in read.items() if name != "direction"})
        return read

    @staticmethod
    def has_labels(given: Mapping[str, Any]) -> bool:
        """Whether the columns of any argument have labels."""
        return any(map(has_labels, given.values()))

    async def ask(
        self,
        flow: FlowChoice,
        ask: Callable[[FlowChoice, Mapping[str, Any]], Awaitable[FlowAnswerT]],
        given: Mapping[str, Any],
        **kinds: RowKind,
    ) -> FlowAnswerT:
        """Ask with rows whose columns are in the flow's order; those of rows without labels stay as they are.

        Where an answer comes from another version than the columns were learnt of, it is not taken: the columns are
        learnt again, and the version that they are of is asked.

        Args:
            flow: that is asked.
            ask: asks a flow with such rows.
            given: the arguments that hold rows, by name; None for one that is not given.
            kinds: of their columns, where they are not those of `ROW_KINDS`.

        Raises:
            InvalidInput: the columns of a table are not the flow's.
        """
        given = self.read(given)
        if not self.has_labels(given):
            return await ask(flow, given)
        known = self._known.get(flow)
        refusal: ApiError | InvalidInput | None = None
        if known is not None:
            try:
                answer = await ask(flow, _match(known, given, kinds))
            except (ApiError, InvalidInput) as error:
                refusal = error  # perhaps of a newer version, with other columns
            else:
                if (answer.model, answer.version) == (known.model, known.version):
                    return answer
        learnt = await self._learn(flow)
        if refusal is not None and learnt == known:
            raise refusal
        return await ask(FlowChoice(learnt.model, learnt.version), _match(learnt, given, kinds))

    async def match_newest(
        self, flow: FlowChoice, given: Mapping[str, Any], **kinds: RowKind
    ) -> tuple[FlowChoice, dict[str, Any]]:
        """Rows with their columns in the order of the flow's newest version, for answers that do not say theirs.

        Args:
            flow: that is to be asked.
            given: the arguments that hold rows, by name.
            kinds: of their columns, where they are not those of `ROW_KINDS`.

        Returns:
            The flow, by its version where the columns of some rows have labels; and the rows.

        Raises:
            InvalidInput: the columns of a table are not the flow's.
        """
        given = self.read(given)
        if not self.has_labels(given):
            return flow, given
        learnt = await self._learn(flow)
        return FlowChoice(learnt.model, learnt.version), _match(learnt, given, kinds)

    async def _learn(self, flow: FlowChoice) -> FlowColumns:
        columns = FlowColumns.of(await self._describe(*flow))
        self._known[flow] = self._known[FlowChoice(columns.model, columns.version)] = columns
        return columns


def _match(columns: FlowColumns, given: Mapping[str, Any], kinds: Mapping[str, RowKind]) -> dict[str, Any]:
    of = {name: kind for name, kind in {**_KINDS, **kinds}.items() if name in given}
    return match_columns(columns, of, given)

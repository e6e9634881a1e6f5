"""log_prob, encode, decode and trace for many requests: an answer has a row for each row of its request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from service.api.grouped.groups import Group, Replies, Table, ask, deal, tabled, take_rows
from service.api.grouped.reading import Asked, Parcel, Reader
from service.api.grouped.writing import Column, Writer, finite_rows, opened
from service.api.native.backend import Backend
from service.api.native.schemas import DecodeRequest, EncodeRequest, LogProbRequest, TraceRequest
from service.engine.verbs.flow import RETURNS, ServedFlow
from service.engine.verbs.traces import trace_steps
from service.exchange import Reply
from service.plan import Outputs, Plan, Run

__all__ = ["LogProbGroups", "TraceGroups", "TransformGroups"]

_OF_OUTPUTS: Final = frozenset(RETURNS) - {"context_quantile", "round_trip_error"}
"""What the outputs of a run say by themselves."""


class LogProbGroups:
    """`POST /logprob`, for many requests.

    Args:
        backend: of the server.
    """

    def __init__(self, backend: Backend) -> None:
        self._max_work = backend.max_work
        self._reader = Reader(backend, LogProbRequest, "x", {"x": [], "context": None})

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups."""
        return deal([self._member(asked) for asked in self._reader.read(parcels)], tabled(self._answer))

    def _member(self, asked: Asked[LogProbRequest]) -> Asked[LogProbRequest] | None:
        """A request with its rows; None for one that is to be asked alone."""
        said = asked.arguments
        if said.correct:
            return None
        more = said.returns or said.alarm_rate is not None
        if more and (asked.codec.single or not _OF_OUTPUTS.issuperset(said.returns)):
            return None
        return take_rows(asked, "x", self._max_work)

    @staticmethod
    def _answer(flow: ServedFlow, table: Table[LogProbRequest], replies: Replies) -> Plan[None]:
        wanted = {name for member in table.members for name in member.arguments.returns}
        rows = table.rows.reshape(-1, *flow.event_shape)
        outputs = yield from ask(Run(flow.forward, rows, table.context, value="z" in wanted), replies, table.places)
        if outputs is not None:
            _write_densities(flow, table, outputs, replies)


def _write_densities(flow: ServedFlow, table: Table[LogProbRequest], outputs: Outputs, replies: Replies) -> None:
    """Write the answer to each request of a group for log-densities."""
    writer = Writer(flow, "log_prob")
    density = Column("log_prob", outputs.log_prob)
    columns = {"log_prob": density}
    chosen: dict[int, list[Column]] = {}
    finite = finite_rows(outputs)
    plain = density.only(writer.before)
    for place, member, first, stop in table.whole(finite):
        said = member.arguments
        mine = chosen.get(id(said))
        if mine is None:
            mine = chosen[id(said)] = [density]
            for name in [name for name in RETURNS if name in said.returns]:
                if name not in columns:
                    columns[name] = Column(name, flow.returned(name, outputs))
                mine.append(columns[name])
            if said.alarm_rate is not None:
                mine.append(Column("anomaly", flow.held_out.anomaly(outputs.log_prob, said.alarm_rate)))
        if len(mine) == 1 and stop - first == 1 and member.json:
            replies[place] = Reply(plain[first])
        else:
            replies[place] = writer.reply(member, mine, first, stop)


class TransformGroups:
    """`POST /encode` or `POST /decode`, for many requests.

    Args:
        backend: of the server.
        schema: of the verb.
        name: of the argument that holds the rows: x to encode, z to decode.
    """

    def __init__(
        self, backend: Backend, schema: type[EncodeRequest] | type[DecodeRequest], name: Literal["x", "z"]
    ) -> None:
        self._max_work = backend.max_work
        self._name = name
        self._main = "z" if name == "x" else "x"
        self._reader: Reader[EncodeRequest | DecodeRequest] = Reader(backend, schema, name, {name: [], "context": None})

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups."""
        of_data = self._name == "x"
        members = [
            take_rows(asked, self._name, self._max_work, of_data=of_data)
            for asked in self._reader.read(parcels)
            if not asked.arguments.returns
        ]
        return deal(members, tabled(self._answer))

    def _answer(self, flow: ServedFlow, table: Table[EncodeRequest | DecodeRequest], replies: Replies) -> Plan[None]:
        forward = self._name == "x"
        rows = table.rows.reshape(-1, *flow.event_shape) if forward else table.rows
        lane = flow.forward if forward else flow.inverse
        outputs = yield from ask(Run(lane, rows, table.context), replies, table.places)
        if outputs is None:
            return
        writer = Writer(flow, self._main)
        arrays = zip((self._main, "log_abs_det_jacobian", "log_prob"), outputs.arrays, strict=True)
        columns = [Column(name, values) for name, values in arrays]
        for place, member, start, stop in table.whole(finite_rows(outputs)):
            replies[place] = writer.reply(member, columns, start, stop)


class TraceGroups:
    """`POST /trace` of rows of data, answered as JSON, for many requests.

    Args:
        backend: of the server.
    """

    def __init__(self, backend: Backend) -> None:
        self._max_work = backend.max_work
        self._reader = Reader(backend, TraceRequest, "x", {"x": [], "context": None})

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups."""
        return deal([self._member(asked) for asked in self._reader.read(parcels)], tabled(self._answer))

    def _member(self, asked: Asked[TraceRequest]) -> Asked[TraceRequest] | None:
        """A request with its rows; None for one that is to be asked alone."""
        said = asked.arguments
        others = said.z is not None or said.n is not None or said.seed is not None or said.offset
        if others or said.noise != "independent" or asked.flow.tracer is None or not asked.json:
            return None
        steps = len(asked.flow.manifest.trace) + 1
        return take_rows(asked, "x", self._max_work, steps=steps, times=steps)

    @staticmethod
    def _answer(flow: ServedFlow, table: Table[TraceRequest], replies: Replies) -> Plan[None]:
        if flow.tracer is None:
            return
        rows = table.rows.reshape(-1, *flow.event_shape)
        outputs = yield from ask(Run(flow.tracer, rows, table.context), replies, table.places)
        if outputs is None:
            return
        before = Writer(flow, "steps").before + b',"steps":['
        steps = []
        for step in trace_steps(flow, rows, outputs):
            value = Column("value", step.value), Column("log_abs_det_jacobian", step.log_abs_det_jacobian)
            steps.append((opened({"name": step.name}), *value))
        density = Column("log_prob", outputs.log_prob)
        for place, _, start, stop in table.whole(finite_rows(outputs)):
            texts = [b"%b%b%b}" % (name, *[each.text(start, stop) for each in columns]) for name, *columns in steps]
            replies[place] = Reply(b"%b%b]%b}" % (before, b",".join(texts), density.text(start, stop)))

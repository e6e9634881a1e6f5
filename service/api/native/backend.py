"""The server as its verbs see it: the flows that it serves, and the work that it takes on for one request."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np

from service.access.keys import Caller
from service.api.codecs import wire
from service.api.codecs.codec import Columns
from service.api.codecs.items import Items
from service.api.codecs.records import Records, record_table
from service.api.native.arrays import NUMBERS, context_rows, event_rows, item_array, walks_of
from service.api.native.fields import VerbRequest
from service.api.native.places import Place
from service.bundle.aliases import is_alias
from service.bundle.catalogue import Version
from service.bundle.store import is_version
from service.engine.registry import Registry
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, PushforwardError, Reason, VersionNotFound
from service.exchange import Exchange
from service.guard import WorkLimit, check_work
from service.plan import Floats
from service.tabular import Header

__all__ = ["Backend", "Taken", "own_columns", "path_version", "read_context"]

T = TypeVar("T")

_WORTH_A_LOOK: Final = 1 << 12
"""A body of fewer bytes is read as soon as it is refused."""

_LOOKED_THROUGH: Final = 1 << 23
"""A longer body holds up the loop while it is looked through."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The flows and the budgets of a server: the first argument of every verb.

    Args:
        registry: the flows that are served.
        max_work: the work budget of a request, in values: rows * width * steps.
        max_stream_work: the same for a sample that is streamed, and never in memory whole.
        caller: from whose budget of rows the request is paid; None where there is none.
    """

    registry: Registry
    max_work: int
    max_stream_work: int
    caller: Caller | None = None

    def for_caller(self, caller: Caller | None) -> Backend:
        """The same server, as a caller may use it."""
        return self if caller is None or not caller.counts_rows else replace(self, caller=caller)

    def take_on(self, rows: int, width: int, steps: int, loc: tuple[str, ...], *, streams: bool = False) -> None:
        """Hold the work of a request against the server's budget, and take its rows off the caller's.

        Args:
            rows: how many.
            width: values in a row.
            steps: of an interpolation, for each row; 1 for other verbs.
            loc: the argument that asks for so much.
            streams: whether the rows are never in memory whole.

        Raises:
            OverWorkBudget: they are more than the server takes on at once.
            BudgetSpent: they are more than is left to the caller.
        """
        check_work(rows, width, steps, self.max_stream_work if streams else self.max_work, loc)
        if self.caller is not None:
            self.caller.take_rows(rows * steps)

    def check(self, rows: int, width: int, loc: tuple[str, ...]) -> None:
        """Hold rows that are run beside the request's own against the server's budget.

        Args:
            rows: how many.
            width: values in a row.
            loc: the argument that asks for them.

        Raises:
            OverWorkBudget: they are more than the server takes on at once.
        """
        check_work(rows, width, 1, self.max_work, loc)

    def decode(self, exchange: Exchange, main: str, *, instead: Collection[str] = ()) -> wire.Arguments:
        """The arguments of an exchange, as `service.api.codecs.wire.decode` reads them.

        A JSON object that has a number under each name of the flow's columns is one row of them, whatever else the
        names may mean; what stands beside them are arguments.

        Args:
            exchange: with its body.
            main: the argument that a body is which holds one array.
            instead: the arguments that may be given in its place: beside one of them no names are columns.

        Raises:
            UnsupportedMediaType, MalformedBody, InvalidArgument: from `service.api.codecs.wire.decode`.
        """
        given = wire.decode(exchange, main)
        held = given.values.get(main)
        if given.place == "query" or isinstance(held, (list, np.ndarray, dict, Items)) or main == "z":
            return given
        if not given.values.keys().isdisjoint(instead):
            return given
        numbers = {name for name, value in given.values.items() if type(value) in NUMBERS}
        flow = self._flow_of_row(exchange, given.values) if numbers else None
        if flow is None or given.values.get("space") == "z":
            return given
        own = flow.conditions if main == "context" else flow.features if flow.named else ()
        if not own or not numbers.issuperset(own):
            return given
        columns = (*own, *flow.conditions) if numbers.issuperset(flow.conditions) else own
        one = {name: given.values[name] for name in columns}
        row = Records([one], one)
        rest = {name: value for name, value in given.values.items() if name not in columns}
        return given if main in rest else wire.Arguments({main: row, **rest}, given.place)

    def _flow_of_row(self, exchange: Exchange, values: Mapping[str, Any]) -> ServedFlow | None:
        """The flow whose columns the names of a JSON object may be; None where none answers, which is told later."""
        named = values.get("model")
        version = values.get("version")
        try:
            flow = self.registry.find(exchange.name or (named if isinstance(named, str) else None))
            named_version = path_version(exchange.version)
            if named_version is None and type(version) in (int, str) and "version" not in own_columns(flow):
                named_version = version
            return flow if named_version is None else self.registry.find(flow.manifest.name, named_version)
        except PushforwardError:
            return None

    def find_flow(self, exchange: Exchange, asked: VerbRequest, place: Place) -> ServedFlow:
        """The flow that the path names, or else the arguments; where both do, they must agree.

        Args:
            exchange: with its path.
            asked: the arguments.
            place: where they stand.

        Raises:
            InvalidArgument: path and arguments name different flows or versions.
            FlowNotFound, VersionNotFound, NotReady: from `service.engine.registry.Registry.find`.
        """
        name = _agreed("model", exchange.name, asked.model, place)
        in_path = path_version(exchange.version)
        if in_path is None or asked.version is None or in_path == asked.version:
            return self.registry.find(name, asked.version if in_path is None else in_path)
        flow = self.registry.find(name, in_path)
        if self.registry.find(name, asked.version) is not flow:  # an alias may be one of the two
            _agreed("version", in_path, asked.version, place)
        return flow

    def admit(self, exchange: Exchange, direction: Literal["forward", "inverse"]) -> None:
        """Refuse what would not be answered in time before its body is read, which is most of the work of a refusal.

        Args:
            exchange: with its body, and with the path that names the flow.
            direction: the lane that the verb runs in first.

        Raises:
            QueueFull: from the lane of the flow that the path names, or of the default one, unless the arguments may
                name another.
        """
        body = exchange.body
        if len(body) <= _WORTH_A_LOOK or any(name == "model" for name, _ in exchange.query):
            return
        # Numbers have no m, and a single byte is found a dozen times sooner than a word: 3 ms of the loop for 7 MB.
        if wire.holds_all(exchange) and (len(body) > _LOOKED_THROUGH or (b"m" in body and b'"model"' in body)):
            return
        flow = self.registry.find(exchange.name, path_version(exchange.version))
        lane = flow.forward if direction == "forward" else flow.inverse
        lane.admit(exchange.deadline)

    def read_rows(
        self,
        flow: ServedFlow,
        argument: str,
        value: Any,  # noqa: ANN401  as a codec gave it
        context: Any,  # noqa: ANN401
        place: Place,
        *,
        steps: tuple[str, int] = ("steps", 1),
        space: Literal["x", "z"] | None = None,
        besides: Sequence[str] = (),
    ) -> tuple[Floats, Floats | None]:
        """The rows of the main argument and their context, within the work budget.

        Args:
            flow: whose.
            argument: the name of the main argument.
            value: of it.
            context: theirs.
            place: where the other arguments stand.
            steps: how often each row is run, and the argument that says so.
            space: of the rows, where the argument does not tell.
            besides: columns of a table that belong to another argument.

        Returns:
            ``[N, *event]`` or ``[N, D]``, and ``[N, C]``, ``[1, C]`` or None.

        Raises:
            OverWorkBudget: they are too many.
            MalformedBody, InvalidArgument, WrongShape, NotFinite: from `service.api.native.arrays`.
        """
        loc = ("body", argument)
        of_data = (space or argument) == "x"
        taken = take_rows(flow, argument, value, context, place, of_data=of_data, besides=besides)
        blamed = loc if steps[1] == 1 or steps[0] == argument else (place, steps[0])
        return self._read(flow, taken, of_data, loc, steps[1], blamed)

    def read_walks(
        self,
        flow: ServedFlow,
        value: Any,  # noqa: ANN401  as a codec gave it
        context: Any,  # noqa: ANN401
        place: Place,
        *,
        steps: int,
        space: Literal["x", "z"],
    ) -> tuple[Floats, Floats | None]:
        """The points of one walk or several, and their context, within the work budget.

        Args:
            flow: whose.
            value: of the argument ``points``.
            context: theirs.
            place: where the other arguments stand.
            steps: of a segment.
            space: of the points.

        Returns:
            ``[K, *event]`` or ``[B, K, *event]``, where `space` is z of ``[D]``; and context as `read_rows`.

        Raises:
            OverWorkBudget, MalformedBody, InvalidArgument, WrongShape, NotFinite: as `read_rows`.
        """
        loc = ("body", "points")
        of_data = space == "x"
        taken = take_rows(flow, "points", value, context, place, of_data=of_data)
        whole = taken.rows
        if isinstance(whole, Items):
            width = flow.event_width if of_data else flow.width
            most = WorkLimit(width, steps, self.max_work, loc if steps == 1 else (place, "steps"))
            whole = item_array(whole, loc, most, flow.dtype)
        points, walks = walks_of(whole, flow.event_shape if of_data else (flow.width,))
        taken = taken._replace(rows=points, single=taken.single and walks is None)
        blamed = loc if steps == 1 else (place, "steps")
        rows, found = self._read(flow, taken, of_data, loc, steps, blamed)
        return rows if walks is None else rows.reshape(walks, -1, *rows.shape[1:]), found

    def _read(
        self,
        flow: ServedFlow,
        taken: Taken,
        of_data: bool,
        loc: tuple[str, ...],
        steps: int,
        blamed: tuple[str, ...],
    ) -> tuple[Floats, Floats | None]:
        width = flow.event_width if of_data else flow.width
        if isinstance(taken.rows, np.ndarray):  # as large as it may become, before it does
            check_work(taken.rows.size // width, width, steps, self.max_work, blamed)
        shape = flow.event_shape if of_data else (flow.width,)
        most = WorkLimit(width, steps, self.max_work, blamed)
        rows = event_rows(taken.rows, shape, loc, single=taken.single, dtype=flow.dtype, most=most)
        self.take_on(len(rows), width, steps, blamed)
        found = read_context(flow, taken.context, taken.place)
        return rows, None if found is None else np.atleast_2d(found)


def path_version(text: str | None) -> Version | None:
    """The version that a path names: a number, or an alias.

    Raises:
        VersionNotFound: it is neither a positive integer nor an alias, so that there is none such.
    """
    if text is None or is_alias(text):
        return text
    if not is_version(text):
        raise VersionNotFound(f"a version is a positive integer or an alias, and {text[:64]!r} is neither")
    return int(text)


def _agreed(argument: str, in_path: T | None, given: T | None, place: Place) -> T | None:
    if in_path is not None and given is not None and in_path != given:
        detail = f"{argument} is {given!r} in the {place}, and {in_path!r} in the path"
        raise InvalidArgument(detail, (Reason((place, argument), detail),))
    return given if in_path is None else in_path


class Taken(NamedTuple):
    """The rows of a main argument and their context, as they stood, of a flow that is known.

    Args:
        rows: nested lists or an array.
        single: whether the rows may be a single event.
        context: as for `read_context`; None where there is none.
        place: where the context stands.
    """

    rows: Any
    single: bool
    context: Any
    place: Place


def take_rows(
    flow: ServedFlow,
    argument: str,
    value: Any,  # noqa: ANN401  as a codec gave it
    context: Any,  # noqa: ANN401
    place: Place,
    *,
    of_data: bool,
    besides: Sequence[str] = (),
) -> Taken:
    """Take the rows of a main argument, and their context, out of what may be a table of both.

    The names of a table are columns where they are the flow's, each with a number. Else they are arguments, as in JSON.

    Args:
        flow: whose.
        argument: the name of the main argument.
        value: of it.
        context: the context that was given apart; None where none was.
        place: where that stands.
        of_data: whether the rows are data; else they are latents.
        besides: names of columns that belong to another argument.

    Raises:
        WrongShape: columns are missing, or there are too many or too few.
        InvalidArgument: a column is there twice, or context is given twice, or a value is no number.
    """
    loc = ("body", argument)
    table = _as_table(value, loc)
    if table is None:
        return Taken(value, True, context, place)
    wanted, named = (flow.features, flow.named) if of_data else (_numbered("z", flow.width), False)
    # A number is a whole row of one column alone; of more it can be but one of them.
    claimed = own_columns(flow) if len(wanted) == 1 else own_columns(flow) | {argument}
    whole = None if table.has(wanted) else table.argument(argument, claimed)
    inside = table.argument("context", own_columns(flow)) is not None
    columns: Sequence[str] = ()
    if context is None:
        columns = context_columns(flow, table)
        if columns or _hints_at_context(flow, table) or (inside and (flow.manifest.context_width or whole is not None)):
            context, place = table, "body"
    elif inside:
        reason = "the body holds it"
        raise InvalidArgument(f"context stands in the {place}, and {reason}", (Reason((place, "context"), reason),))
    if whole is not None:
        return Taken(whole, False, context, place)
    both = next((name for name in columns if name in wanted), None)
    if both is not None:
        reason = f"the column {both!r} is one of the context, and is wanted here; give the context apart"
        raise InvalidArgument(f"{argument}: {reason}", (Reason(loc, reason),))
    of_context = {*flow.conditions, *_generic_conditions(flow), *besides}
    others = () if named else _other_names(flow, "x" if of_data else "z")
    return Taken(table.rows(wanted, loc, of_context, named=named, others=others), False, context, place)


def read_context(flow: ServedFlow, value: Any, place: Place) -> Floats | None:  # noqa: ANN401  as a codec gave it
    """The context of a call.

    Args:
        flow: whose.
        value: ``[C]`` or ``[N, C]``, or a table; None where there is none.
        place: where it stands.

    Returns:
        The flow's precision, of the same number of axes.

    Raises:
        WrongShape, MalformedBody, InvalidArgument, NotFinite: from `service.api.native.arrays.context_rows`.
    """
    if value is None:
        return None
    width = flow.manifest.context_width
    table = _as_table(value, (place, "context"))
    if table is None or not width:
        return context_rows(value, width, (place, "context"), dtype=flow.dtype)
    loc = ("body", "context")
    columns = context_columns(flow, table)
    values = None if columns else table.argument("context", own_columns(flow))
    if values is None:
        names = columns or flow.conditions or _numbered("context", width)
        values = table.rows(names, loc, named=bool(flow.conditions), others=_other_names(flow, "context"))
    return context_rows(values, width, loc, single=False, dtype=flow.dtype)


def context_columns(flow: ServedFlow, table: Columns) -> Sequence[str]:
    """The names of the context's columns that a table has: their own, or else context0, context1 and so on; or none."""
    generic = _generic_conditions(flow)
    return next((names for names in (flow.conditions, generic) if table.has(names)), ())


def own_columns(flow: ServedFlow) -> frozenset[str]:
    """The names that the flow has given to columns."""
    return frozenset((*(flow.features if flow.named else ()), *flow.conditions))


def _generic_conditions(flow: ServedFlow) -> Sequence[str]:
    """The names of the context's columns that every flow knows, unless one of them is that of a column of x."""
    names = _numbered("context", flow.manifest.context_width)
    return () if set(names) & set(flow.features) else names


def _other_names(flow: ServedFlow, kind: Literal["x", "z", "context"]) -> Sequence[str]:
    """The names of the columns of everything but one kind: a table that has one of these holds that, and not the kind.

    Args:
        flow: whose.
        kind: data, latents or context.
    """
    of = {"x": (*flow.features, *_numbered("x", flow.event_width)), "z": _numbered("z", flow.width)}
    return [name for each, names in of.items() if each != kind for name in names]


def _hints_at_context(flow: ServedFlow, table: Columns) -> bool:
    """Whether a table names some of the context's own columns, rightly or in upper or lower case that is not theirs."""
    header = Header(table.names or ())
    return len(header.missing(flow.conditions)) < len(flow.conditions) or bool(header.in_other_case(flow.conditions))


def _as_table(value: Any, loc: tuple[str, ...]) -> Columns | None:  # noqa: ANN401  as a codec gave it
    """The table that an argument is: one from a body, or objects in JSON; None for an array."""
    if isinstance(value, Columns):
        return value
    if type(value) is list and value and type(value[0]) is dict:
        return record_table(value, loc)
    if isinstance(value, Items) and value.of_objects:
        return record_table(value, loc)
    return None


@functools.lru_cache(maxsize=64)
def _numbered(name: str, count: int) -> Sequence[str]:
    return tuple(f"{name}{at}" for at in range(count))

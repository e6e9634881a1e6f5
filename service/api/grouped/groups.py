"""Groups: requests that share one plan, and so their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.api.grouped.reading import Asked, Parcel, R
from service.api.grouped.rows import gather, repeated, rows_of
from service.api.problems import problem_reply
from service.engine.verbs.flow import ServedFlow
from service.errors import DeadlineExceeded, Draining, EngineLost, PushforwardError, QueueFull
from service.exchange import Reply
from service.plan import LARGE_RUN, Floats, Outputs, Plan, Run

__all__ = ["Group", "GroupVerb", "Replies", "Table", "ask", "deal", "table_of", "tabled", "take_rows"]

Replies: TypeAlias = list[Reply | None]
"""In the order of the requests; None for one that is to be asked alone."""


class Group(NamedTuple):
    """Requests that share one plan.

    Args:
        places: of these, among all that were asked.
        plan: answers them, in this order.
    """

    places: list[int]
    plan: Plan[Replies]


GroupVerb: TypeAlias = Callable[[Sequence[Parcel]], list[Group]]
"""Makes groups of many requests. A request that is in none of them is to be asked alone."""


class Table(NamedTuple, Generic[R]):
    """The rows of a group.

    Args:
        members: whose rows these are.
        places: of the members, in the group.
        rows: ``[N, width]``, one member's rows after the other's.
        context: ``[N, C]``; None for a flow without.
        ends: of each member's rows.
    """

    members: list[Asked[R]]
    places: list[int]
    rows: Floats
    context: Floats | None
    ends: list[int]

    def whole(self, finite: npt.NDArray[np.bool_] | None) -> Iterator[tuple[int, Asked[R], int, int]]:
        """The members whose rows all have finite outputs, each with its place, its first row and one past its last.

        Args:
            finite: ``[N]``, of the rows; None where all are.
        """
        start = 0
        for place, member, stop in zip(self.places, self.members, self.ends, strict=True):
            if finite is None or finite[start:stop].all():
                yield place, member, start, stop
            start = stop


def take_rows(
    asked: Asked[R],
    name: str,
    max_work: int,
    *,
    of_data: bool = True,
    single: bool = True,
    steps: int = 1,
    times: int = 1,
) -> Asked[R] | None:
    """Read the rows of a request and their context.

    Args:
        asked: the request.
        name: of the argument that holds the rows.
        max_work: the work budget, in values.
        of_data: whether the rows are data; else they are latents.
        single: whether the rows may be a single one.
        steps: how often each row is run, for the budget.
        times: how many rows the answer has for each.

    Returns:
        The request; None where its rows are not plain, or over the work budget.
    """
    flow = asked.flow
    width = asked.width = flow.event_width if of_data else flow.width
    rows = rows_of(asked.apart.get(name), flow.event_shape if of_data else (width,), width, single=single)
    if rows is None:
        return None
    asked.rows = rows
    count = rows[1]
    if count * width * steps > max_work:
        return None
    asked.size = count * width * times
    columns = flow.manifest.context_width
    given = asked.apart.get("context")
    if given is None:
        given = getattr(asked.arguments, "context", None)  # of a body that is no JSON it stands in the query
    asked.context, asked.shared = None, False
    if given is None:
        return None if columns else asked
    context = rows_of(given, (columns,), columns) if columns else None
    if context is None or context[1] not in (1, count):
        return None
    asked.shared = context[1] == 1
    asked.context = context if context[1] == count else repeated(context, count)
    return asked


def deal(
    members: Iterable[Asked[R] | None],
    plan: Callable[[ServedFlow, list[Asked[R]]], Plan[Replies]],
    key: Callable[[Asked[R]], Any] | None = None,
) -> list[Group]:
    """Deal requests out to groups: those of one flow share a plan, up to so many values as the event loop may write.

    Args:
        members: the requests; None for one that is in no group.
        plan: of a flow and the members of a group.
        key: what members of one group have in common beside the flow.
    """
    found: dict[Any, list[Asked[R]]] = {}
    for member in members:
        if member is not None:
            flow = member.flow
            same = flow if key is None else (flow, key(member))
            if same in found:
                found[same].append(member)
            else:
                found[same] = [member]
    groups: list[Group] = []
    for alike in found.values():
        groups += [Group([member.place for member in some], plan(some[0].flow, some)) for some in _cut(alike)]
    return groups


def _cut(members: list[Asked[R]]) -> list[list[Asked[R]]]:
    """Members in parts with so many values that the event loop may write them; without those that have more alone."""
    if sum([member.size for member in members]) <= LARGE_RUN:
        return [members]
    parts: list[list[Asked[R]]] = []
    room = 0
    for member in members:
        if member.size > LARGE_RUN:
            continue
        if member.size > room:
            parts.append([])
            room = LARGE_RUN
        parts[-1].append(member)
        room -= member.size
    return parts


def table_of(members: Sequence[Asked[R]], dtype: np.dtype[Any]) -> Table[R] | None:
    """The rows of all members that are plain; None where none is.

    Args:
        members: of one flow.
        dtype: of its precision.
    """
    places = list(range(len(members)))
    kept = list(members)
    while kept:
        flow = kept[0].flow
        rows, faulty = gather([member.rows for member in kept], kept[0].width, dtype)
        context = None
        if flow.manifest.context_width:
            contexts = [member.context for member in kept if member.context is not None]
            context, more = gather(contexts, flow.manifest.context_width, dtype)
            faulty = [*faulty, *more]
        if not faulty:
            return Table(kept, places, rows, context, list(accumulate([member.rows[1] for member in kept])))
        out = set(faulty)
        places = [place for at, place in enumerate(places) if at not in out]
        kept = [member for at, member in enumerate(kept) if at not in out]
    return None


def tabled(
    answer: Callable[[ServedFlow, Table[R], Replies], Plan[None]],
) -> Callable[[ServedFlow, list[Asked[R]]], Plan[Replies]]:
    """The plan of a group whose requests hold rows.

    Args:
        answer: writes the replies to the members of a table; a member without one is to be asked alone.
    """

    def plan(flow: ServedFlow, members: list[Asked[R]]) -> Plan[Replies]:
        replies: Replies = [None] * len(members)
        table = table_of(members, flow.dtype)
        if table is not None:
            yield from answer(flow, table, replies)
        return replies

    return plan


def ask(run: Run, replies: Replies, places: Sequence[int]) -> Plan[Outputs | None]:
    """The outputs of a run; None where there are none.

    What the engine had no time for is told to each of those that asked, since none of them may be run again. Of any
    other error one row may be the cause: each is then asked alone.

    Args:
        run: of the rows of some members.
        replies: of all members.
        places: of those.
    """
    try:
        return (yield run)
    except (QueueFull, Draining, DeadlineExceeded, EngineLost) as error:
        refusal = problem_reply(error)
        for place in places:
            replies[place] = refusal
    except PushforwardError:
        pass
    return None

"""`POST /interpolate` and `POST /edit`, answered as JSON, for many requests: walks and moves through latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from service.api.grouped.groups import Group, Replies, Table, ask, deal, tabled, take_rows
from service.api.grouped.reading import Asked, Parcel, Reader
from service.api.grouped.rows import gather
from service.api.grouped.writing import Column, Writer, finite_rows
from service.api.native.arrays import NUMBERS
from service.api.native.backend import Backend
from service.api.native.schemas import EditRequest, InterpolateRequest
from service.bundle.bases import UniformBase
from service.engine.verbs.edits import named_direction
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.paths import Path, default_path
from service.engine.verbs.round_trips import greatest_difference
from service.errors import PushforwardError
from service.exchange import Reply
from service.plan import Floats, Plan, Run

__all__ = ["EditGroups", "InterpolateGroups"]

Float64 = npt.NDArray[np.float64]


class InterpolateGroups:
    """`POST /interpolate` of one walk each, for many requests.

    Args:
        backend: of the server.
    """

    def __init__(self, backend: Backend) -> None:
        self._max_work = backend.max_work
        self._reader = Reader(backend, InterpolateRequest, "points", {"points": [], "context": None})

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups: walks of one form are as many walks of one call."""
        members = [self._member(asked) for asked in self._reader.read(parcels)]
        return deal(members, tabled(self._answer), lambda member: (id(member.arguments), member.rows[1]))

    def _member(self, asked: Asked[InterpolateRequest]) -> Asked[InterpolateRequest] | None:
        """A request with its points; None for one that is to be asked alone."""
        said = asked.arguments
        of_data = said.space == "x"
        if said.spacing != "parameter" or not asked.json or type(asked.apart.get("points")) is not list:
            return None
        if not of_data and isinstance(asked.flow.manifest.base, UniformBase):
            return None
        if take_rows(asked, "points", self._max_work, of_data=of_data, steps=said.steps, single=False) is None:
            return None
        segments = asked.rows[1] - 1
        if segments < 1 or (asked.context is not None and not asked.shared):
            return None
        asked.size = (segments * (said.steps - 1) + 1) * asked.flow.event_width
        return asked

    @staticmethod
    def _answer(flow: ServedFlow, table: Table[InterpolateRequest], replies: Replies) -> Plan[None]:
        said, count = table.members[0].arguments, table.members[0].rows[1]
        places, latents = table.places, table.rows
        contexts = None if table.context is None else table.context[::count]
        if said.space == "x":
            outputs = yield from ask(
                Run(flow.forward, latents.reshape(-1, *flow.event_shape), table.context), replies, places
            )
            if outputs is None:
                return
            finite = finite_rows(outputs)
            kept = [at for at in range(len(places)) if finite is None or finite[at * count : (at + 1) * count].all()]
            places = [places[at] for at in kept]
            latents = outputs.value.reshape(-1, count, flow.width)[kept]
            contexts = None if contexts is None else contexts[kept]
        walk, kept = _walk(flow, latents.reshape(-1, count, flow.width), said)
        if walk is None:
            return
        places = [places[at] for at in kept]
        contexts = None if contexts is None else contexts[kept]
        yield from _finish(flow, walk, places, contexts, replies)


def _walk(flow: ServedFlow, latents: Floats, said: InterpolateRequest) -> tuple[Path | None, list[int]]:
    """The walks through points ``[B, K, D]``, without those that have none; and which are left."""
    kept = list(range(len(latents)))
    while kept:
        try:
            kind = said.path or default_path(flow.manifest)
            return Path(latents[kept], said.steps, kind, flow.manifest.base), kept
        except PushforwardError as error:
            out = {reason.row // latents.shape[1] for reason in error.errors if reason.row is not None}
            kept = [walk for at, walk in enumerate(kept) if at not in out] if out else []
    return None, []


def _finish(
    flow: ServedFlow, walk: Path, places: Sequence[int], contexts: Floats | None, replies: Replies
) -> Plan[None]:
    """Run walks and their way back, and write the answers.

    Args:
        flow: whose.
        walk: one for each of the members.
        places: of these.
        contexts: ``[B, C]``, a row for each walk.
        replies: of all members.
    """
    z = walk[0 : len(walk)]
    each = len(z) // len(places)
    along = None if contexts is None else np.repeat(contexts, each, axis=0)
    outputs = yield from ask(Run(flow.inverse, z, along), replies, places)
    if outputs is None:
        return
    back = yield from ask(Run(flow.forward, outputs.value, along), replies, places)
    if back is None:
        return
    error = greatest_difference(back.value, z)
    found, is_number = finite_rows(outputs), np.isfinite(error)
    right = is_number if found is None else found & is_number
    whole: list[bool] = np.asarray(right.reshape(len(places), each).all(axis=1)).tolist()
    if flow.round_trips is not None and any(whole):
        flow.round_trips.observe("inverse", error if all(whole) else error[np.repeat(whole, each)])
    before = Writer(flow, "x").before + b',"t":' + orjson.dumps(walk.t, option=orjson.OPT_SERIALIZE_NUMPY)
    columns = [
        Column("z", z),
        Column("x", outputs.value),
        Column("log_prob", outputs.log_prob),
        Column("round_trip_error", error),
    ]
    for at, (place, answered) in enumerate(zip(places, whole, strict=True)):
        if answered:
            texts = [column.text(at * each, (at + 1) * each) for column in columns]
            replies[place] = Reply(b"%b%b}" % (before, b"".join(texts)))


class _Move(NamedTuple):
    """The moves of one request's rows.

    Args:
        place: of the request, in its group.
        start: its first row.
        stop: one past its last.
        direction: float64 ``[D]``.
        strengths: how far to go.
    """

    place: int
    start: int
    stop: int
    direction: Float64
    strengths: list[float]


class EditGroups:
    """`POST /edit`, for many requests.

    Args:
        backend: of the server.
    """

    def __init__(self, backend: Backend) -> None:
        self._max_work = backend.max_work
        apart = {"x": [], "context": None, "direction": [], "strength": [0.0]}
        self._reader = Reader(backend, EditRequest, "x", apart)

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups."""
        return deal([self._member(asked) for asked in self._reader.read(parcels)], tabled(self._answer))

    def _member(self, asked: Asked[EditRequest]) -> Asked[EditRequest] | None:
        """A request with its rows; None for one that is to be asked alone."""
        strengths, direction = asked.apart.get("strength"), asked.apart.get("direction")
        if type(strengths) is not list or not strengths or not NUMBERS.issuperset(map(type, strengths)):
            return None
        if asked.arguments.returns or not asked.json:
            return None
        if type(direction) is str:
            if direction not in asked.flow.manifest.directions:
                return None
        elif type(direction) is not list or len(direction) != asked.flow.width:
            return None
        times = len(strengths)
        return take_rows(asked, "x", self._max_work, steps=times, times=times)

    @staticmethod
    def _answer(flow: ServedFlow, table: Table[EditRequest], replies: Replies) -> Plan[None]:
        rows = table.rows.reshape(-1, *flow.event_shape)
        outputs = yield from ask(Run(flow.forward, rows, table.context), replies, table.places)
        if outputs is None:
            return
        whole = list(table.whole(finite_rows(outputs)))
        directions = _directions(flow, [member.apart["direction"] for _, member, _, _ in whole])
        moves = [
            _Move(place, start, stop, direction, member.apart["strength"])
            for (place, member, start, stop), direction in zip(whole, directions, strict=True)
            if direction is not None
        ]
        moves = _within_range(moves, outputs.value)
        if moves:
            yield from _move(flow, moves, outputs.value, table.context, replies)


def _directions(flow: ServedFlow, given: Sequence[Any]) -> list[Float64 | None]:
    """Directions as vectors ``[D]``; None for one that leads nowhere, or is none.

    Args:
        flow: whose latent space.
        given: names of the flow's directions, and lists of D items.
    """
    found: list[Float64 | None] = [named_direction(flow, each) if type(each) is str else None for each in given]
    places = [at for at, each in enumerate(given) if type(each) is list]
    while places:
        vectors, faulty = gather([(given[at], 1) for at in places], flow.width, flow.dtype)
        if not faulty:
            for at, vector in zip(places, vectors.astype(np.float64), strict=True):
                found[at] = vector
            break
        out = set(faulty)
        places = [place for at, place in enumerate(places) if at not in out]
    return [each if each is not None and each.any() else None for each in found]


def _within_range(moves: list[_Move], latents: Floats) -> list[_Move]:
    """The moves that stay within the range of the precision, as `service.engine.verbs.edits` has it."""
    sizes = np.abs(latents).max(axis=1).tolist()
    most = float(np.finfo(latents.dtype).max)
    return [
        move
        for move in moves
        if max(sizes[move.start : move.stop])
        + max(abs(strength) for strength in move.strengths) * float(np.abs(move.direction).max())
        < most
    ]


def _move(
    flow: ServedFlow, moves: Sequence[_Move], latents: Floats, context: Floats | None, replies: Replies
) -> Plan[None]:
    """Run the rows of moves, and write the answers.

    Args:
        flow: whose.
        moves: of some of the members.
        latents: ``[N, D]``, of all members' rows.
        context: ``[N, C]``, of the same.
        replies: of all members.
    """
    rows = [row for move in moves for _ in move.strengths for row in range(move.start, move.stop)]
    far = [strength for move in moves for strength in move.strengths for _ in range(move.start, move.stop)]
    which = [at for at, move in enumerate(moves) for _ in range((move.stop - move.start) * len(move.strengths))]
    along = np.stack([move.direction for move in moves])[which]
    z: Floats = (latents[rows] + np.array(far, np.float64)[:, None] * along).astype(latents.dtype)
    outputs = yield from ask(
        Run(flow.inverse, z, None if context is None else context[rows]), replies, [move.place for move in moves]
    )
    if outputs is None:
        return
    before = Writer(flow, "x").before
    columns = [Column("x", outputs.value), Column("z", z), Column("log_prob", outputs.log_prob)]
    finite = finite_rows(outputs)
    start = 0
    for move in moves:
        each = move.stop - move.start
        first, start = start, start + each * len(move.strengths)
        if finite is None or finite[first:start].all():
            texts = [column.text_by_rounds(first, start, each) for column in columns]
            replies[move.place] = Reply(b"%b%b}" % (before, b"".join(texts)))

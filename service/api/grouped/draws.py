"""`GET /sample` and `POST /sample`, for many requests."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np

from service.api.grouped.groups import Group, Replies, ask, deal
from service.api.grouped.reading import Asked, Parcel, Reader
from service.api.grouped.rows import gather, rows_of
from service.api.grouped.writing import Column, Writer, finite_rows
from service.api.native.backend import Backend
from service.api.native.fields import MAX_OFFSET
from service.api.native.sample import DRAWN_SEED_BITS
from service.api.native.schemas import SampleRequest
from service.api.native.streams import STREAM_VALUES
from service.engine.sampling.noise import MAX_SEED, NoiseRows
from service.engine.verbs.flow import ServedFlow
from service.errors import PushforwardError
from service.exchange import Reply
from service.plan import Plan, Run

__all__ = ["SampleGroups", "cut_seed"]

_DIGITS: Final = 20
"""Of a seed, at most."""

_SEED: Final = re.compile(rb"(?:^|&)seed=(0|[1-9][0-9]{0,19})(?=&|$)")


class SampleGroups:
    """Draws of rows, for many requests.

    Args:
        backend: of the server.
        by_query: whether the arguments stand in the query, or in a body.
    """

    def __init__(self, backend: Backend, *, by_query: bool) -> None:
        self._max_work = backend.max_work
        apart = {} if by_query else {"seed": None, "offset": 0, "context": None}
        cut = cut_seed if by_query else None
        self._reader = Reader(backend, SampleRequest, "" if by_query else "context", apart, cut)

    def __call__(self, parcels: Sequence[Parcel]) -> list[Group]:
        """The groups."""
        return deal([self._member(asked) for asked in self._reader.read(parcels)], self._plan)

    def _member(self, asked: Asked[SampleRequest]) -> Asked[SampleRequest] | None:
        """A request that can be drawn beside others; None for one that is to be asked alone."""
        said, flow = asked.arguments, asked.flow
        size = said.n * flow.event_width
        if flow.prior is not None:  # a row outside of it is drawn again
            return None
        if said.returns or said.method != "random" or size > min(self._max_work, STREAM_VALUES):
            return None
        seed, offset = asked.apart.get("seed"), asked.apart.get("offset", 0)
        if seed is None:
            seed = secrets.randbits(DRAWN_SEED_BITS) if said.seed is None else said.seed
        elif said.seed is not None or type(seed) is not int or not 0 <= seed <= MAX_SEED:
            return None  # where it is there twice, it is there in other signs
        if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
            return None
        asked.start = seed, offset or said.offset
        if said.temperature != 1.0 or said.truncation is not None:
            try:
                flow.check_noise(said.n, said.temperature, said.truncation, said.method)
            except PushforwardError:
                return None
        columns = flow.manifest.context_width
        given = asked.apart.get("context")
        given = said.context if given is None else given
        context = None
        if columns:
            if type(given) is not list or not given or type(given[0]) is list:
                return None
            context = rows_of(given, (columns,), columns)
        if (given is not None) != (context is not None):
            return None
        asked.rows, asked.context, asked.size = ([], said.n), context, size
        return asked

    @staticmethod
    def _plan(flow: ServedFlow, members: list[Asked[SampleRequest]]) -> Plan[Replies]:
        replies: Replies = [None] * len(members)
        places = list(range(len(members)))
        contexts = None
        if flow.manifest.context_width:
            pieces = [member.context for member in members if member.context is not None]
            contexts, faulty = gather(pieces, flow.manifest.context_width, flow.dtype)
            if faulty:
                out = set(faulty)
                places = [place for place in places if place not in out]
                if not places:
                    return replies
                kept = [pieces[place] for place in places]
                contexts, _ = gather(kept, flow.manifest.context_width, flow.dtype)
        drawn = [members[place] for place in places]
        seeds = [member.start[0] for member in drawn]
        offsets = [member.start[1] for member in drawn]
        counts = [member.rows[1] for member in drawn]
        said = [member.arguments for member in drawn]
        noise = NoiseRows(
            flow.manifest.base,
            flow.width,
            seeds,
            offsets,
            counts,
            [each.temperature for each in said],
            [each.truncation for each in said],
            contexts,
            [each.noise for each in said],
            flow.dtype,
        )
        each = None if contexts is None else np.repeat(contexts, counts, axis=0)
        outputs = yield from ask(Run(flow.inverse, noise, each), replies, places)
        if outputs is None:
            return replies
        writer = Writer(flow, "x")
        columns = [Column("x", outputs.value), Column("log_prob", outputs.log_prob)]
        of_one = writer.row_writer(b',"seed":%d,"offset":%d,"n":1', columns)
        before = writer.before + b',"seed":'
        finite = finite_rows(outputs)
        start = 0
        for place, member, stop in zip(places, drawn, accumulate(counts), strict=True):
            first, start = start, stop
            if finite is not None and not finite[first:stop].all():
                continue
            n, (seed, offset) = stop - first, member.start
            if not member.json:
                more = {"seed": seed, "offset": offset, "n": n}
                replies[place] = writer.reply(member, columns, first, stop, more)
            elif n == 1:
                replies[place] = Reply(of_one.text(first, seed, offset))
            else:
                texts = b"".join([column.text(first, stop) for column in columns])
                replies[place] = Reply(b'%b%d,"offset":%d,"n":%d%b}' % (before, seed, offset, n, texts))
        return replies


def cut_seed(query: bytes) -> tuple[bytes, dict[str, Any]] | None:
    """Take the seed out of a query, so that what is left is the same for many.

    Returns:
        What is left, and the seed; None where there are several.

    Example:
        >>> cut_seed(b"n=1&seed=7")
        (b'n=1', {'seed': 7})
    """
    before, mark, digits = query.rpartition(b"seed=")
    if mark and digits.isdigit() and digits[:1] != b"0" and len(digits) < _DIGITS and b"seed" not in before:
        if not before:
            return b"", {"seed": int(digits)}
        if before.endswith(b"&"):
            return before[:-1], {"seed": int(digits)}
    found = _SEED.search(query)
    if found is None:
        return query, {}
    rest = query[: found.start()] + query[found.end() :]
    if b"seed" in rest:
        return None
    return rest.removeprefix(b"&"), {"seed": int(found[1])}

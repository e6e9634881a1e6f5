"""The verbs for many plain requests at once: they are read, run and written together.

For a single row a verb takes some 10 µs, nearly all of it Python, and several times what the flow takes for one row
of many. A loaded server gets mostly such requests: nothing but one row of a table, or one row to draw. Here many of
them share one run, one look at their numbers and one text of the results. Each gets byte for byte the verb's own
answer, or none: what is not plain, and what has no plain answer, is left to the verb.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from service.api.codecs import wire
from service.api.codecs.json import json_value, numbers
from service.api.native.answers import flow_identity
from service.api.native.arrays import NUMBERS, plain_rows
from service.api.native.backend import path_version
from service.api.native.rounding import round_numbers
from service.api.native.sample import DRAWN_SEED_BITS
from service.api.problems import problem_reply
from service.bundle.precision import FloatType
from service.engine.registry import Registry
from service.engine.sampling.noise import FirstRows
from service.engine.verbs.flow import ServedFlow
from service.errors import DeadlineExceeded, Draining, EngineLost, MalformedBody, PushforwardError, QueueFull
from service.exchange import Exchange, Reply
from service.plan import Floats, Outputs, Plan, Run

__all__ = ["GroupVerb", "GroupVerbs", "Replies"]

Replies: TypeAlias = list[Reply | None]
"""In the order of the requests; None for one that is to be asked alone."""

GroupVerb: TypeAlias = Callable[[Exchange, Sequence[bytes]], Plan[Replies]]
"""Asks many requests at once: what they all say, and what each says, which is its body, or its query where none has a
body."""

_DRAW: Final = re.compile(rb"(?:n=1(?:&seed=(0|[1-9][0-9]{0,18}))?|seed=(0|[1-9][0-9]{0,18})(?:&n=1)?)?")
"""One row of a seed, which is below 2^64 where it has 19 digits."""


class GroupVerbs:
    """The verbs of one server, for many plain requests at once.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values.
    """

    def __init__(self, registry: Registry, max_work: int) -> None:
        self._registry = registry
        self._max_work = max_work

    def log_prob(self, common: Exchange, bodies: Sequence[bytes]) -> Plan[Replies]:
        """POST /logprob of JSON bodies that hold one row each, and nothing else."""
        flow = self._flow(common)
        if flow is None or not wire.is_json(common.content_type):
            return [None] * len(bodies)
        rows, asked = _rows(bodies, flow.event_width, flow.dtype)

        def texts(outputs: Outputs) -> Iterator[bytes]:
            before = _opened(flow_identity(flow)) + b',"log_prob":['
            for log_prob in numbers(outputs.log_prob):
                yield b"%b%b]}" % (before, log_prob)

        return (yield from _answers(Run(flow.forward, rows, value=False), asked, len(bodies), texts))

    def sample(self, common: Exchange, queries: Sequence[bytes]) -> Plan[Replies]:
        """GET /sample of one row, of a seed that is given or not."""
        flow = self._flow(common)
        if flow is None:
            return [None] * len(queries)
        seeds: list[int] = []
        asked: list[int] = []
        for at, query in enumerate(queries):
            found = _DRAW.fullmatch(query)
            if found is not None:
                digits = found[1] or found[2]
                seeds.append(int(digits) if digits else secrets.randbits(DRAWN_SEED_BITS))
                asked.append(at)
        rows = FirstRows(flow.manifest.base, flow.width, np.array(seeds, np.uint64), flow.dtype)

        def texts(outputs: Outputs) -> Iterator[bytes]:
            before = _opened(flow_identity(flow)) + b',"seed":'
            for drawn in zip(seeds, numbers(outputs.value), numbers(outputs.log_prob), strict=True):
                yield b'%b%d,"offset":0,"n":1,"x":[[%b]],"log_prob":[%b]}' % (before, *drawn)

        return (yield from _answers(Run(flow.inverse, rows), asked, len(queries), texts))

    def _flow(self, common: Exchange) -> ServedFlow | None:
        """The flow that all of them mean, where its rows are those of a table and the answer is JSON."""
        try:
            codec = wire.accepted(common)
            flow = self._registry.find(common.name, path_version(common.version))
        except PushforwardError:
            return None  # told by the verb
        plain = wire.is_json(codec.media_type) and len(flow.event_shape) == 1 and flow.manifest.context_width == 0
        return flow if plain and flow.event_width <= self._max_work else None


def _rows(bodies: Sequence[bytes], width: int, dtype: FloatType) -> tuple[Floats, list[int]]:
    """The rows of all bodies that are plain, ``[N, width]``, and which bodies these are."""
    found: list[list[Any]] = []
    asked: list[int] = []
    for at, body in enumerate(bodies):
        row = _row(body, width)
        if row is not None:
            found.append(row)
            asked.append(at)
    if (few := plain_rows(found, (width,), dtype)) is not None:
        return few, asked
    if not NUMBERS.issuperset(map(type, chain.from_iterable(found))):
        kept = [i for i, row in enumerate(found) if NUMBERS.issuperset(map(type, row))]
        found, asked = [found[i] for i in kept], [asked[i] for i in kept]
    values = np.fromiter(chain.from_iterable(found), np.float64, len(found) * width).reshape(-1, width)
    rows = round_numbers(values, dtype)
    finite = np.isfinite(rows)
    if not finite.all():
        kept = np.flatnonzero(finite.all(axis=1)).tolist()
        rows, asked = rows[kept], [asked[i] for i in kept]
    return rows, asked


def _row(body: bytes, width: int) -> list[Any] | None:
    """The items of a body's only row, whatever they are; None where it is not plain."""
    try:
        arguments = json_value(body)
    except MalformedBody:
        return None
    if type(arguments) is not dict or len(arguments) != 1:
        return None
    row = arguments.get("x")
    if type(row) is list and len(row) == 1 and type(row[0]) is list:
        row = row[0]
    return row if type(row) is list and len(row) == width else None


def _answers(run: Run, asked: Sequence[int], count: int, texts: Callable[[Outputs], Iterator[bytes]]) -> Plan[Replies]:
    """The replies to `count` requests, of which those of `asked` have a row each in the run.

    Args:
        run: of their rows.
        asked: which requests these are.
        count: of all requests.
        texts: what to answer to each row.
    """
    replies: Replies = [None] * count
    if not asked:
        return replies
    try:
        outputs = yield run
    except (QueueFull, Draining, DeadlineExceeded, EngineLost) as error:  # none of them may be run again
        refusal = problem_reply(error)
        for at in asked:
            replies[at] = refusal
    except PushforwardError:  # one row may be at fault: each is asked alone
        pass
    else:
        for at, text, servable in zip(asked, texts(outputs), _servable(outputs), strict=True):
            if servable:
                replies[at] = Reply(text)
    return replies


def _opened(names: Mapping[str, Any]) -> bytes:
    """A JSON object without its end."""
    return orjson.dumps(names)[:-1]


def _servable(outputs: Outputs) -> list[bool]:
    """Which rows' numbers are all finite."""
    if outputs.finite:
        return [True] * len(outputs.log_prob)
    finite = np.isfinite(outputs.log_prob) & np.isfinite(outputs.log_abs_det_jacobian)
    servable: list[bool] = (finite & np.isfinite(outputs.value).all(axis=1)).tolist()
    return servable

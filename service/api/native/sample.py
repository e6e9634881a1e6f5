"""`POST /sample` and `GET /sample`: rows drawn from a flow."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from service.api.codecs import wire
from service.api.codecs.codec import Codec, answer_fields
from service.api.codecs.query import query_arguments
from service.api.native.answers import answer_form, answer_writer, flow_identity, require_room
from service.api.native.backend import Backend, read_context
from service.api.native.places import Place, locate_errors
from service.api.native.schemas import SampleRequest
from service.api.native.streams import STREAM_VALUES, Draw, stream_sample
from service.api.native.validation import validate
from service.drawing import rows_drawing
from service.exchange import Exchange, Reply
from service.pictures.options import Extent
from service.plan import Plan

__all__ = ["DRAWN_SEED_BITS", "sample", "sample_by_query"]

DRAWN_SEED_BITS: Final = 53
"""The bits of a seed that the server chooses: every JSON reader keeps it exact."""


def sample(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Rows of a seed. A body that holds one array is the context."""
    codec = wire.accepted(exchange, pictures=True)
    given, place = backend.decode(exchange, "context")
    return (yield from _sample(backend, exchange, codec, given, "context", place))


def sample_by_query(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Rows of a seed: the same arguments as query parameters, the context as a list with commas."""
    codec = wire.accepted(exchange, pictures=True)
    return (yield from _sample(backend, exchange, codec, query_arguments(exchange.query), "", "query"))


def _sample(
    backend: Backend, exchange: Exchange, codec: Codec, given: Mapping[str, Any], main: str, place: Place
) -> Plan[Reply]:
    """The rows.

    Args:
        backend: of the server.
        exchange: the call.
        codec: of the answer.
        given: the arguments.
        main: the one that stands in the body; empty where there is no body.
        place: of all others.
    """
    asked = validate(SampleRequest, given, place)
    writer = answer_writer(codec, asked, main, place)
    require_room(codec, "x", place, "return" if asked.returns else None)
    flow = backend.find_flow(exchange, asked, place)
    context = read_context(flow, asked.context, "body" if main else place)
    lead = (asked.n,) if context is None or context.ndim == 1 else (len(context), asked.n)
    count = math.prod(lead)
    stream = wire.streaming(codec) if count * flow.event_width > STREAM_VALUES else None
    backend.take_on(count, flow.event_width, 1, (place, "n"), streams=stream is not None)
    writer.check(flow, Extent(count, "n", columns=asked.n if len(lead) > 1 else None))
    seed = secrets.randbits(DRAWN_SEED_BITS) if asked.seed is None else asked.seed
    draw = Draw(
        flow,
        n=asked.n,
        seed=seed,
        offset=asked.offset,
        temperature=asked.temperature,
        context=context,
        truncation=asked.truncation,
        method=asked.method,
        noise=asked.noise,
        round_trip=bool(asked.returns),
    )
    answer = flow_identity(flow) | {"seed": seed, "offset": asked.offset, "n": asked.n}
    if stream is not None:
        streamed = stream_sample(stream, answer_form(flow, "x"), draw, lead, wire.answer_headers(answer))
        return (yield from locate_errors(streamed, main, place))
    found = yield from locate_errors(draw.whole(), main, place)
    drawing = rows_drawing(found.x, found.log_prob)
    fields = answer_fields(found)
    if found.acceptance is not None:  # each context has as many draws
        fields["acceptance"] = float(
            str(found.acceptance.dtype.type(1 / np.mean(1 / found.acceptance, dtype=np.float64)))
        )
    return (yield from writer.write(flow, answer | fields, "x", drawing))

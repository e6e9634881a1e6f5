"""`POST /decode`: latents to data."""

from __future__ import annotations

from service.api.codecs import wire
from service.api.codecs.codec import Codec, answer_fields
from service.api.native.answers import answer_writer, flow_identity, require_room
from service.api.native.backend import Backend
from service.api.native.places import locate_errors
from service.api.native.schemas import DecodeRequest
from service.api.native.validation import validate
from service.drawing import rows_drawing
from service.exchange import Exchange, Reply
from service.pictures.options import Extent
from service.plan import Plan

__all__ = ["decode"]


def decode(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """The data of latents, x = g(z)."""
    codec = wire.accepted(exchange, pictures=True)
    backend.admit(exchange, "inverse")
    return _decode(backend, exchange, codec)


def _decode(backend: Backend, exchange: Exchange, codec: Codec) -> Plan[Reply]:
    given, place = backend.decode(exchange, "z")
    asked = validate(DecodeRequest, given, place)
    writer = answer_writer(codec, asked, "z", place)
    require_room(codec, "x", place, "return" if asked.returns else None)
    flow = backend.find_flow(exchange, asked, place)
    z, context = backend.read_rows(flow, "z", asked.z, asked.context, place)
    writer.check(flow, Extent(len(z), "z"))
    found = yield from locate_errors(flow.decode(z, context, round_trip=bool(asked.returns)), "z", place)
    answer = flow_identity(flow) | answer_fields(found)
    return (yield from writer.write(flow, answer, "x", rows_drawing(found.x, found.log_prob)))

"""`POST /encode`: data to latents."""

from __future__ import annotations

from service.api.codecs import wire
from service.api.codecs.codec import Codec, answer_fields
from service.api.native.answers import answer_form, flow_identity, require_room
from service.api.native.backend import Backend
from service.api.native.places import locate_errors
from service.api.native.schemas import EncodeRequest
from service.api.native.validation import validate
from service.exchange import Exchange, Reply
from service.plan import Plan

__all__ = ["encode"]


def encode(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """The latents of rows, z = f(x). There is no picture of them."""
    codec = wire.accepted(exchange)
    backend.admit(exchange, "forward")
    return _encode(backend, exchange, codec)


def _encode(backend: Backend, exchange: Exchange, codec: Codec) -> Plan[Reply]:
    given, place = backend.decode(exchange, "x")
    asked = validate(EncodeRequest, given, place)
    require_room(codec, "z", place, "return" if asked.returns else None)
    flow = backend.find_flow(exchange, asked, place)
    x, context = backend.read_rows(flow, "x", asked.x, asked.context, place)
    found = yield from locate_errors(flow.encode(x, context, round_trip=bool(asked.returns)), "x", place)
    return wire.encode(codec, flow_identity(flow) | answer_fields(found), answer_form(flow, "z"))

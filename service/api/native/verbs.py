"""The native verbs of one server: each a function from an exchange to a reply, bytes to bytes, whichever door it is.

A verb is read from top to bottom, in the module of its name: decode, find the flow, hold the work against the budget,
ask the engine, write the answer. What is refused because the engine has too much to do is refused by the call itself,
before there is a plan: wherever the plan may be driven, a refusal waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from service.api.native.backend import Backend
from service.api.native.decode import decode
from service.api.native.edit import edit
from service.api.native.encode import encode
from service.api.native.interpolate import interpolate
from service.api.native.log_prob import log_prob
from service.api.native.posterior import posterior
from service.api.native.sample import sample, sample_by_query
from service.api.native.trace import trace
from service.api.native.weights import weights
from service.engine.registry import Registry
from service.exchange import Exchange, Reply
from service.plan import Plan

__all__ = ["Verb", "Verbs"]

Verb = Callable[[Exchange], Plan[Reply]]


class Verbs:
    """Each verb, bound to what the server serves.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values: rows * width * steps.
        max_stream_work: the same for a sample that is streamed, and never in memory whole.
    """

    def __init__(self, registry: Registry, max_work: int, max_stream_work: int) -> None:
        backend = Backend(registry, max_work, max_stream_work)
        self.log_prob: Final[Verb] = partial(_ask, log_prob, backend)
        self.sample: Final[Verb] = partial(_ask, sample, backend)
        self.sample_by_query: Final[Verb] = partial(_ask, sample_by_query, backend)
        self.interpolate: Final[Verb] = partial(_ask, interpolate, backend)
        self.encode: Final[Verb] = partial(_ask, encode, backend)
        self.decode: Final[Verb] = partial(_ask, decode, backend)
        self.trace: Final[Verb] = partial(_ask, trace, backend)
        self.edit: Final[Verb] = partial(_ask, edit, backend)
        self.posterior: Final[Verb] = partial(_ask, posterior, backend)
        self.weights: Final[Verb] = partial(_ask, weights, backend)


def _ask(verb: Callable[[Backend, Exchange], Plan[Reply]], backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Ask a verb for what the caller may use of the server."""
    return verb(backend.for_caller(exchange.caller), exchange)

"""`POST /posterior`: summaries of the draws of each context, without the draws."""

from __future__ import annotations

import secrets

from service.api.codecs import wire
from service.api.codecs.codec import answer_fields
from service.api.native.answers import answer_form, flow_identity
from service.api.native.backend import Backend, read_context
from service.api.native.places import Place, locate_errors
from service.api.native.sample import DRAWN_SEED_BITS
from service.api.native.schemas import PosteriorRequest
from service.api.native.validation import validate
from service.engine.verbs import posterior as engine
from service.engine.verbs.flow import ServedFlow
from service.exchange import Exchange, Reply
from service.plan import Plan

__all__ = ["posterior"]


def posterior(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Mean, deviation, quantiles, intervals and correlation. A body that holds one array is the context."""
    codec = wire.accepted(exchange)
    given, place = backend.decode(exchange, "context")
    asked = validate(PosteriorRequest, given, place)
    flow = backend.find_flow(exchange, asked, place)
    context = read_context(flow, asked.context, "body")
    contexts = 1 if context is None or context.ndim == 1 else len(context)
    _check_answer(backend, flow, asked, contexts, place)
    backend.take_on(contexts * asked.n, flow.event_width, 1, (place, "n"))
    seed = secrets.randbits(DRAWN_SEED_BITS) if asked.seed is None else asked.seed
    plan = engine.posterior(
        flow,
        asked.n,
        seed,
        asked.offset,
        context,
        quantiles=asked.quantiles,
        hpd=asked.hpd,
        correlation=asked.correlation,
        method=asked.method,
        noise=asked.noise,
    )
    found = yield from locate_errors(plan, "context", place)
    answer = flow_identity(flow) | {"seed": seed, "offset": asked.offset, "n": asked.n}
    return wire.encode(codec, answer | answer_fields(found), answer_form(flow, "mean"))


def _check_answer(backend: Backend, flow: ServedFlow, asked: PosteriorRequest, contexts: int, place: Place) -> None:
    """Hold the numbers of the answer against the work budget: few draws may have many correlations.

    Raises:
        OverWorkBudget: they are too many.
    """
    related = flow.event_width if asked.correlation else 0
    each = 2 + len(asked.quantiles) + 2 * len(asked.hpd) + related
    blamed = "correlation" if related > each // 2 else "context"
    loc = ("body" if blamed == "context" else place, blamed)
    backend.check(contexts * each, flow.event_width, loc)

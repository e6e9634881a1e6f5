"""Estimators around a flow: objects with a library's flow as an attribute, and scaling or an embedding beside it.

Such are the density estimators of sbi: `NFlowsFlow`, whose `net` is an nflows Flow that holds all, and `ZukoFlow`,
beside whose zuko Flow the embedding of the context lies. The whole is taken, and held against the estimator's own
log_prob: what it does to rows outside of its flow and its embedding is found by that, and refused.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection, Flow
from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.descriptions import layer_name, one_line
from models.importing.steps import Embedding, per_row
from models.importing.support import place_rows

__all__ = ["adapt_estimator", "check_whole", "held_flows", "posterior_hint"]

_EMBEDDINGS: Final = ("embedding_net", "_embedding_net")
_HOW: Final = (
    "Write a module of your own with forward(x, context) and inverse(z, context) that does all of it (docs/imports.md)"
)


def held_flows(source: nn.Module, libraries: Mapping[str, str]) -> dict[str, nn.Module]:
    """The flows of a library that a module holds as attributes, by name.

    Args:
        source: a module of no library that is adapted.
        libraries: the root package of a class -> its adapter.
    """
    found = {}
    for name, child in source.named_children():
        roots = {kind.__module__.partition(".")[0] for kind in type(child).__mro__}
        whole = any(callable(getattr(child, method, None)) for method in ("log_prob", "sample")) or "FrEIA" in roots
        lazy = any(kind.__name__ == "LazyDistribution" for kind in type(child).__mro__)
        if roots & set(libraries) and (whole or lazy):
            found[name] = child
    return found


def adapt_estimator(source: nn.Module, held: Mapping[str, nn.Module], libraries: Mapping[str, str]) -> AdaptedFlow:
    """Take an estimator as a whole: its flow, and the embedding of the context that lies beside it.

    Args:
        source: in float64 and evaluation mode.
        held: from `held_flows`.
        libraries: the root package of a class -> its adapter.

    Raises:
        Unsupported: it has several flows, no log_prob of its own, or something beside that is not known.
    """
    kind = type(source).__name__
    if len(held) > 1:
        raise Unsupported(f"{kind} holds several flows, {', '.join(f'.{name}' for name in held)}. {_HOW}")
    name, inner = next(iter(held.items()))
    own: Any = getattr(source, "log_prob", None)
    outside = _outside(source, inner)
    if not callable(own):
        beside = [f".{other}" for other, _ in source.named_children() if other != name]
        raise Unsupported(
            f"{kind} is an estimator around the {layer_name(inner)} in its .{name}"
            f"{f', with {_joined(beside)} beside it' if beside else ''}, and has no log_prob to hold the whole "
            f"against. {_HOW}; give its .{name} alone only where nothing outside of it scales rows or context"
        )
    roots = [each.__module__.partition(".")[0] for each in type(inner).__mro__]
    adapter = importlib.import_module(libraries[next(root for root in roots if root in libraries)])
    adapted: AdaptedFlow = adapter.adapt(inner)
    shaped = hasattr(source, "condition_shape") and hasattr(source, "input_shape")
    embedding = adapted.embedding
    if outside is not None:
        within = [embedding.network] if isinstance(embedding, Embedding) else []
        embedding = Embedding(nn.Sequential(outside, *within))
    generate = None if adapted.generate is None else partial(_generate_embedded, adapted.generate, outside)

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        # sbi's shapes: (sample, batch, event) given (batch, condition)
        values: Tensor = own(x.unsqueeze(0), context) if shaped else own(x, *(() if context is None else (context,)))
        return per_row(values.squeeze(0) if shaped else values, x)

    return replace(
        adapted,
        log_prob=log_prob,
        generate=generate,
        embedding=embedding,
        context_width=_stated_width(source) if shaped else None if outside is not None else adapted.context_width,
        part=False,
        estimator=f"{kind}, around the {layer_name(inner)} in its .{name}",
    )


def _generate_embedded(
    inside: Callable[[Tensor, Tensor | None], Tensor], outside: nn.Module | None, z: Tensor, context: Tensor | None
) -> Tensor:
    """The flow's own way back, given the context as the estimator takes it."""
    return inside(z, context if outside is None or context is None else outside(context))


def check_whole(adapted: AdaptedFlow, flow: Flow) -> None:
    """Hold what was taken of an estimator against its own log_prob, on rows inside its box and normal contexts.

    Raises:
        Unsupported: they differ: the estimator does more than its flow and its embedding.
    """
    generator = torch.Generator().manual_seed(0)
    shares = 0.5 + 0.2 * torch.rand(5, *flow.event_shape, generator=generator)
    context = torch.randn(5, flow.context_width, generator=generator) if flow.context_width else None
    steps = [step for step in flow.bijections if isinstance(step, Bijection)]
    x = place_rows(steps, flow.base, shares, flow.scaled_context(context))
    try:
        own = adapted.log_prob(x, context)
    except Exception as error:
        raise Unsupported(f"log_prob of {adapted.estimator} fails: {one_line(error)}") from error
    ours = flow.log_prob(x, context)
    if torch.allclose(own, ours, rtol=1e-5, atol=1e-5, equal_nan=True):
        return
    row = int((own - ours).abs().nan_to_num(nan=math.inf).argmax())
    raise Unsupported(
        f"log_prob of {adapted.estimator} is {float(own[row]):.6g} for a row of which its flow"
        f"{' with the embedding beside it' if adapted.embedding is not None else ''} has {float(ours[row]):.6g}: it "
        f"scales rows or context elsewhere. {_HOW}"
    )


def posterior_hint(source: object) -> str:
    """Advice for an object that is no torch module and has an estimator inside, such as a posterior of sbi; or ""."""
    for name in ("posterior_estimator", "likelihood_estimator", "density_estimator"):
        if isinstance(getattr(source, name, None), nn.Module):
            return f". Give its .{name}, the estimator itself"
    return ""


def _outside(source: nn.Module, inner: nn.Module) -> nn.Module | None:
    """The embedding that lies beside the flow, not in it; None where there is none, or it changes nothing."""
    inside = {id(module) for module in inner.modules()}
    for name in _EMBEDDINGS:
        found = getattr(source, name, None)
        if isinstance(found, nn.Module) and id(found) not in inside and not isinstance(found, nn.Identity):
            return found
    return None


def _stated_width(source: Any) -> int:  # noqa: ANN401  an estimator of sbi's structure
    shape = tuple(source.condition_shape)
    if len(shape) > 1:
        raise Unsupported(
            f"{type(source).__name__} takes a context of shape {list(shape)}: a bundle's context is one row of "
            f"columns. {_HOW}, and reshapes the context"
        )
    return math.prod(shape)


def _joined(names: list[str]) -> str:
    return ", ".join(names[:6])

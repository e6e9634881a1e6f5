"""Estimators around a flow: objects with a library's flow as an attribute, and scaling or an embedding beside it.

Such are the density estimators of sbi: `NFlowsFlow`, whose `net` is an nflows Flow that holds all, and `ZukoFlow`,
beside whose zuko Flow the embedding of the context lies. The whole is taken, and held against the estimator's own
log_prob: what it does to rows outside of its flow and its embedding is found by that, and refused.
"""

from __future__ import annotations

import gc
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from models.flows.flow import Bijection, Flow
from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.descriptions import layer_name, one_line
from models.importing.steps import Embedding, per_row
from models.importing.support import place_rows

__all__ = ["adapt_estimator", "check_whole", "held_flows", "made_modules", "posterior_hint", "refuse_part"]

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
    shape: Any = source.condition_shape if shaped else ()
    condition = tuple(shape)
    before: list[nn.Module] = [nn.Unflatten(1, condition)] if len(condition) > 1 else []
    if outside is not None:
        before.append(outside)
    if before:
        within = [embedding.network] if isinstance(embedding, Embedding) else []
        embedding = Embedding(nn.Sequential(*before, *within))
    embed = nn.Sequential(*before) if before else None
    generate = None if adapted.generate is None else partial(_generate_embedded, adapted.generate, embed)

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        # sbi's shapes: (sample, batch, event) given (batch, condition)
        if not shaped:
            return per_row(own(x, *(() if context is None else (context,))), x)
        given = context if context is None else context.reshape(-1, *condition)
        values: Tensor = own(x.unsqueeze(0), given)
        return per_row(values.squeeze(0), x)

    return replace(
        adapted,
        log_prob=log_prob,
        generate=generate,
        embedding=embedding,
        context_width=math.prod(condition) if shaped else None if outside is not None else adapted.context_width,
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


@contextmanager
def made_modules() -> Iterator[list[nn.Module]]:
    """Keep the modules that are given a part while this lasts: an estimator of which only its flow comes back."""
    made: list[nn.Module] = []

    def keep(module: nn.Module, name: str, part: nn.Module | None) -> None:  # noqa: ARG001  torch's signature
        made.append(module)

    handle = register_module_module_registration_hook(keep)
    try:
        yield made
    finally:
        handle.remove()


def refuse_part(flow: nn.Module) -> None:
    """Let no flow pass that is a part of an estimator whose embedding lies beside it.

    An estimator is found where it is still in memory. A zuko Flow that begins as those which sbi builds is taken for a
    part too, where sbi has been imported.

    Raises:
        Unsupported: it is such a part.
    """
    for parent in [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]:
        held = any(part is flow for part in parent.__dict__.get("_modules", {}).values())
        if held and (beside := _outside(parent, flow)) is not None:
            name = next(name for name, part in parent.named_children() if part is flow)
            kind = type(parent).__name__
            raise Unsupported(
                f"this is the .{name} of a {kind}, beside which a {layer_name(beside)} scales or embeds the "
                f"context: its densities alone are not those of the {kind}. Return the {kind} itself, or the posterior "
                "that holds it"
            )
    if "sbi" in sys.modules and _is_built_by_sbi(flow):
        raise Unsupported(
            "this is a zuko Flow as sbi builds it, which is the .net of an estimator: what scales and embeds the "
            "context lies outside of it. Return the posterior, or its .posterior_estimator. Where nothing lies "
            "outside, return a module of your own that holds the flow and has its log_prob(x, context)"
        )


def _is_built_by_sbi(flow: nn.Module) -> bool:
    """Whether a flow is conditional and begins with the fixed scaling of the rows that sbi puts in front of it."""
    if (type(flow).__module__.partition(".")[0], type(flow).__name__) != ("zuko", "Flow"):
        return False
    steps = list(getattr(getattr(flow, "transform", None), "transforms", ()))
    return len(steps) > 1 and type(steps[0]).__name__ == "UnconditionalTransform"


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


def _joined(names: list[str]) -> str:
    return ", ".join(names[:6])

"""The summary of an import: what was taken, in a few lines for whoever handed it over.

A flow may be an attribute of a larger estimator that scales rows or embeds their context outside of it. The import does
not see that: it says what it has, so that the one who knows the estimator can see what is missing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection, Flow
from models.importing.adapted import AdaptedFlow
from models.importing.context_width import ContextWidth, standardizes
from models.importing.descriptions import layer_name

__all__ = ["summarize"]


def summarize(source: nn.Module, adapted: AdaptedFlow, flow: Flow, context: ContextWidth) -> tuple[str, ...]:
    """Say what was taken: the class, the base, what scales its rows, its context and what that goes through.

    Args:
        source: the module that was handed over.
        adapted: what was read of it.
        flow: what was made of it, in float64.
        context: its context, and how its width was found.
    """
    shape = flow.event_shape
    rows = f"rows of {_counted(shape[0])}" if len(shape) == 1 else f"rows of shape {list(shape)}"
    kind = adapted.estimator or layer_name(source)
    embedded = adapted.embedding is not None and context.columns > 0
    scaling = _scaling_step(adapted, flow)
    lines = [
        f"Flow:   {kind}, {rows}, {len(flow.bijections)} steps; base: {flow.base.title}",
        f"Scales: {f'{scaling} standardizes the rows, inside' if scaling else 'no first step inside scales the rows'}",
        f"Given:  {_context(adapted, context)}",
    ]
    if adapted.part and (not scaling or (context.columns and not embedded)):
        lines.append(
            "Around: nothing around it was taken. Where it is the .net of an estimator, as in sbi, which scales rows "
            "or embeds the context outside of it, give the estimator instead"
        )
    return tuple(lines)


def _counted(columns: int) -> str:
    return f"{columns} column" if columns == 1 else f"{columns} columns"


def _context(adapted: AdaptedFlow, context: ContextWidth) -> str:
    if not context.columns:
        return f"no context ({context.reason})"
    text = f"a context of {_counted(context.columns)} ({context.reason})"
    network = getattr(adapted.embedding, "network", adapted.embedding)
    if network is None:
        return f"{text}; no embedding inside"
    scaled = ", which standardizes it" if any(standardizes(layer) for layer in network.modules()) else ""
    return f"{text}; embedded inside, by {type(network).__name__}{scaled}"


def _scaling_step(adapted: AdaptedFlow, flow: Flow) -> str | None:
    """The name of the first step, where it shifts and scales each column by constants."""
    first = next((step for step in adapted.steps if isinstance(step, Bijection)), None)
    if first is None or first.domain is not None or len(flow.event_shape) != 1:
        return None
    width = flow.width
    x = torch.full((1, width), 0.5, dtype=torch.float64)
    context = torch.zeros(2 * width + 1, flow.context_width, dtype=torch.float64) if flow.context_width else None
    if context is not None and adapted.embedding is not None:
        context = adapted.embedding(context)[0]
    steps = torch.cat((torch.zeros(1, width), 0.25 * torch.eye(width), 0.5 * torch.eye(width))).to(torch.float64)
    moved: Tensor = first(x + steps, context)[0]
    if moved.shape != steps.shape:
        return None
    once, twice = moved[1 : width + 1] - moved[0], moved[width + 1 :] - moved[0]
    slopes = once.diagonal() / 0.25
    affine = torch.allclose(once, 0.25 * torch.diag(slopes)) and torch.allclose(twice, 2 * once)
    shifts = moved[0] - x[0] * slopes
    moves = not torch.allclose(slopes, torch.ones(width).to(slopes)) or not torch.allclose(shifts, 0 * shifts)
    return first.name if affine and moves and _constant(first, x, context) else None


def _constant(step: Bijection, x: Tensor, context: Tensor | None) -> bool:
    """Whether a step is the same for two contexts."""
    if context is None:
        return True
    pair = x.expand(2, -1)
    one, other = step(pair, context[:2])[0], step(pair, context[:2] + 1.0)[0]
    return torch.allclose(one, other)

"""A library's flow as an adapter reads it: its steps, its base, and the functions of the library itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from models.flows.bases import LearntBase
from models.flows.flow import Bijection
from models.importing.descriptions import layer_name
from service.bundle.bases import Base
from service.errors import DataError

__all__ = ["AdaptedFlow", "Unsupported", "unsupported_layer"]


class Unsupported(DataError):
    """A flow, or a layer of one, that cannot be exported; says which layer, why, and the known way out."""


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedFlow:
    """A flow taken apart, all of it in float64 and evaluation mode.

    Args:
        library: the name of the library's distribution on a package index.
        steps: from data to latent.
        base: the distribution of what the last of `base_steps` gives.
        event_shape: the shape of one row as the library takes it; None where the flow does not say.
        log_prob: the library's own, x ``[N, *event]``, context -> ``[N]`` in nats.
        generate: the library's own way back, z ``[N, D]`` of `base`, context -> x; None where it has none.
        context_width: the number of columns of context; None where the flow does not say.
        embedding: what the context goes through before any step.
        base_steps: from what the last step gives, flat, to the latent of `base`.
        channels_first: an event of three axes is ``[C, H, W]``, as the library has it.
        notes: what a reader of the manifest should know.
        part: the flow may be part of an estimator that cannot be seen.
        estimator: the estimator that was taken as a whole, in words; "" for a flow that was handed over itself.
        classes: the context is a class: a column for each, 1 in that of the row and 0 in the others.
    """

    library: str
    steps: list[Bijection]
    base: Base | LearntBase
    event_shape: tuple[int, ...] | None
    log_prob: Callable[[Tensor, Tensor | None], Tensor]
    generate: Callable[[Tensor, Tensor | None], Tensor] | None = None
    context_width: int | None = None
    embedding: Bijection | None = None
    base_steps: list[Bijection] = field(default_factory=list)
    channels_first: bool = True
    notes: list[str] = field(default_factory=list)
    part: bool = True
    estimator: str = ""
    classes: bool = False


def unsupported_layer(layer: object, reason: str, way_out: str) -> Unsupported:
    """The error for a layer that cannot be exported.

    Args:
        layer: the layer.
        reason: why not.
        way_out: what to do instead, a sentence.
    """
    return Unsupported(f"{layer_name(layer)} cannot be exported: {reason}. {way_out}")

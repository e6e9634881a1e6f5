"""A flow as this project trains and exports it: a chain of bijections from data to latent, and a base.

Architectures, preprocessing and adapters each give a `Bijection`; everything downstream (fit, laws, export,
parity) knows only the two classes of this module.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.flows.bases import LearntBase, base_log_prob, in_float32
from models.flows.precision import TORCH_DTYPES, next_number
from service.bundle.bases import Base, UniformBase
from service.bundle.manifest import Support
from service.bundle.precision import Precision

__all__ = ["Bijection", "Flow"]


class Bijection(nn.Module, ABC):
    """One step of a chain: an invertible map with the log-determinants of both directions.

    Both methods give the value and the log-determinant in one pass, so that a conditioner is evaluated once
    in either direction.
    """

    initial_rows: int = 512
    """How many training rows `initialize` asks for: enough to set scales by; more would only take longer."""
    numeric_inverse: bool = False
    """Whether `inverse` searches for its answer, by a fixed number of steps, rather than having a formula."""
    domain: Support | None = None
    """The box that every column of x must lie in; None where `forward` takes all of space."""
    image: Support | None = None
    """The box that every column of y lies in; None where that is all of space, or no such box."""
    narrows: int = 0
    """How many values an event loses by `forward`: those that follow from the others."""

    @property
    def name(self) -> str:
        """What this step of a chain is called: the words of its class's name, in small letters."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", type(self).__name__).lower()

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Towards the latent: y = f(x).

        Args:
            x: ``[N, *in]``.
            context: ``[N, C]``, or None.

        Returns:
            y ``[N, *out]`` and log|det dy/dx| ``[N]`` in nats.
        """

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Towards the data: x = f^-1(y).

        Args:
            y: ``[N, *out]``.
            context: ``[N, C]``, or None.

        Returns:
            x ``[N, *in]`` and log|det dx/dy| ``[N]`` in nats: minus the forward's at that x.
        """

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Before a fit, set the weights that the first training rows decide: none, unless a bijection says so.

        Args:
            x: ``[N, *in]``, training rows as they reach this step.
            context: ``[N, C]``, or None.

        Returns:
            y ``[N, *out]``, what the next step is initialized with.
        """
        y: Tensor = self(x, context)[0]
        return y

    def inside(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Which rows of x ``[N, *in]`` `forward` is defined on: bool ``[N]``; None where `domain` says it."""
        return None

    def nearest(self, x: Tensor) -> Tensor:
        """X ``[N, *in]``, with rows that are not `inside` moved to a place that is."""
        return x

    def tangents(self) -> Tensor | None:
        """The directions ``[D, M]`` in which x may move, where an event has more values than degrees of freedom."""
        return None

    def folded(self) -> Bijection:
        """The same map as a graph holds it, with what follows from the parameters alone worked out: by default this.

        A step overrides it where a graph has no operator for what it does with its parameters, or where that is
        better done once, in float64.
        """
        return self


class Flow(nn.Module):
    """A normalizing flow: bijections applied in order from x to z, and the distribution of z.

    log p(x) = log p_Z(f(x)) + log|det df/dx|, in nats, in the units of x.

    Args:
        event_shape: the shape of one row of x.
        bijections: the chain, from data to latent. The last one gives ``[N, D]``.
        base: the distribution of z, as the manifest writes it, its columns' numbers rounded to the flow's precision; or
            one whose numbers are fitted with the weights.
        support: where the density can be above zero; None for all of space. A row outside has log_prob -inf, and
            goes through the chain from the nearest point inside, so that z stays finite.
        context_width: the number of columns of context; 0 for none.
        context_scaling: what the context goes through before any bijection sees it, so that a caller sends it in
            the units of the data; None for nothing. Its log-determinant does not count: the context is given.
        precision: what the graphs of the flow compute in. Its float64 reference is of the same precision: it means the
            same numbers as the graphs.
    """

    latent: Base | LearntBase

    def __init__(
        self,
        event_shape: Sequence[int],
        bijections: Iterable[Bijection],
        base: Base | LearntBase,
        support: Support | None = None,
        context_width: int = 0,
        context_scaling: Bijection | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.bijections = nn.ModuleList(bijections)
        self.precision = precision
        self.latent = base if isinstance(base, LearntBase) or precision == "float64" else in_float32(base)
        self.support = support
        self.context_width = context_width
        self.context_scaling = context_scaling

    @property
    def width(self) -> int:
        """The number of coordinates of z. An event holds as many values, or more where some follow from others."""
        return math.prod(self.event_shape) - sum(bijection.narrows for bijection in self._steps())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the flow's precision."""
        return TORCH_DTYPES[self.precision]

    @property
    def base(self) -> Base:
        """The distribution of z as the manifest writes it; of a learnt one, its numbers as they are now, rounded."""
        return self.latent.stated(self.precision) if isinstance(self.latent, LearntBase) else self.latent

    def freeze_base(self) -> Flow:
        """Put the numbers that `base` states in the place of those that are learnt, for good; gives the flow itself."""
        stated = self.base
        del self.latent  # a module's place takes modules only
        self.latent = stated
        return self

    def base_log_prob(self, z: Tensor) -> Tensor:
        """Log p_Z(z) in nats ``[N]``, of z ``[N, D]``."""
        return self.latent.log_prob(z) if isinstance(self.latent, LearntBase) else base_log_prob(self.latent, z)

    @property
    def numeric_inverse(self) -> bool:
        """Whether any step of the inverse searches for its answer, rather than having a formula."""
        return any(bijection.numeric_inverse for bijection in self._steps())

    def fold(self) -> Flow:
        """Replace each bijection by its folded form, in place: a flow is folded to be exported, not to be fitted on."""
        self.bijections = nn.ModuleList(bijection.folded() for bijection in self._steps())
        return self

    def _steps(self) -> list[Bijection]:
        return [cast("Bijection", module) for module in self.bijections]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalize: x ``[N, *event]`` -> z ``[N, D]`` and log|det df/dx| ``[N]``."""
        values, terms = self.trace(x, context)
        return values[-1], _sum(terms)

    def trace(self, x: Tensor, context: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Normalize, and keep what lies between: the event after each step of the chain, from x to z.

        Args:
            x: ``[N, *event]``.
            context: ``[N, C]``, or None.

        Returns:
            The event after each bijection, ``[N, ...]``, z last; and each one's log-determinant ``[N]`` in nats. The
            sum of these is log|det df/dx|.
        """
        y = self.nearest(x)
        context = self.scaled_context(context)
        values, terms = [], []
        for bijection in self.bijections:
            y, ladj = bijection(y, context)
            values.append(y)
            terms.append(ladj)
        return values, terms

    @property
    def steps(self) -> list[str]:
        """The names of the chain's steps, from data to latent: ``["standardize", "coupling 1", "coupling 2"]``."""
        names = [bijection.name for bijection in self._steps()]
        several = Counter(names)
        before: Counter[str] = Counter()
        numbered = []
        for name in names:
            before[name] += 1
            numbered.append(f"{name} {before[name]}" if several[name] > 1 else name)
        return numbered

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate: z ``[N, D]`` -> x ``[N, *event]`` and log|det dg/dz| ``[N]``.

        A z outside a uniform base's box goes through the chain from the nearest point inside, so that x is finite;
        its density is zero, and `base_log_prob` says so.
        """
        y = z.clamp(self.latent.low, self.latent.high) if isinstance(self.latent, UniformBase) else z
        context = self.scaled_context(context)
        terms = []
        for bijection in reversed(self._steps()):
            y, ladj = bijection.inverse(y, context)
            terms.append(ladj)
        # rounding can move x onto an open end of the support, where its density would be zero
        return self.nearest(y), _sum(terms)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Initialize every bijection in turn on training rows x ``[N, *event]``, and their context ``[N, C]``."""
        y = self.nearest(x)
        context = self.scaled_context(context)
        for bijection in self._steps():
            y = bijection.initialize(y, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log p(x) in nats ``[N]``; -inf outside the support."""
        z, ladj = self(x, context)
        return self.masked(x, self.base_log_prob(z) + ladj)

    def inverse_log_prob(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Generate, with the density there: x ``[N, *event]``, log|det dg/dz| ``[N]`` and log p(x) ``[N]``.

        log p(g(z)) = log p_Z(z) - log|det dg/dz|, so that x is not sent back through the chain.
        """
        x, ladj = self.inverse(z, context)
        return x, ladj, self.base_log_prob(z) - ladj

    def masked(self, x: Tensor, log_prob: Tensor) -> Tensor:
        """`log_prob` ``[N]``, with -inf for each row of x outside the support."""
        inside = self.in_support(x)
        return log_prob if inside is None else torch.where(inside, log_prob, -math.inf)

    def in_support(self, x: Tensor) -> Tensor | None:
        """Which rows lie inside the support: bool ``[N]``, or None where all of them do, always."""
        inside, first = self._in_box(x), self._steps()[0].inside(x)
        if inside is None or first is None:
            return first if inside is None else inside
        return inside & first

    def _in_box(self, x: Tensor) -> Tensor | None:
        """Which rows lie between the ends of the support."""
        if self.support is None:
            return None
        flat = x.flatten(1)
        low, high = self.support.low, self.support.high
        sides = []
        if low is not None:
            sides.append(flat >= low if self.support.low_closed else flat > low)
        if high is not None:
            sides.append(flat <= high if self.support.high_closed else flat < high)
        if not sides:
            return None
        return (sides[0] & sides[-1]).all(dim=1)

    def tangents(self) -> Tensor | None:
        """The directions ``[D, M]`` in which a row may move; None where it may move in all."""
        return self._steps()[0].tangents()

    def scaled_context(self, context: Tensor | None) -> Tensor | None:
        """A context ``[N, C]`` as the bijections take it."""
        if context is None or self.context_scaling is None:
            return context
        scaled: Tensor = self.context_scaling(context)[0]
        return scaled

    def nearest(self, x: Tensor) -> Tensor:
        """X as the flow reads it: rows outside the support moved to a place inside it, of the flow's precision."""
        x = self._steps()[0].nearest(x)
        if self.support is None or (self.support.low is None and self.support.high is None):
            return x
        low, high = self.support.low, self.support.high
        if low is not None and not self.support.low_closed:
            low = next_number(low, math.inf, self.precision)
        if high is not None and not self.support.high_closed:
            high = next_number(high, -math.inf, self.precision)
        return x.clamp(low, high)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total

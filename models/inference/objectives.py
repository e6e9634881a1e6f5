"""The objectives: losses whose gradients bring a flow to a density.

Reverse KL by the path derivative: the flow's density is evaluated with its parameters held, so that the gradient has no
variance where the flow is the target. Alpha = 2 by annealed rows: the gradient of log q at rows of p^2 / q.

G. Roeder, Y. Wu, D. Duvenaud: Sticking the landing. NeurIPS 2017, arXiv:1703.09194.
L. Midgley and others: Flow annealed importance sampling bootstrap. ICLR 2023, arXiv:2208.01893.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.flows.bases import LearntBase, sample_base
from models.flows.flow import Flow
from models.inference.annealing import WideStart, metropolis
from models.inference.buffer import ReplayBuffer
from models.inference.density import UnconstrainedDensity

__all__ = ["Bound", "annealed_rows", "draw", "likelihood", "replayed", "reverse_kl"]

_MOST_CORRECTION = 10.0  # of the paper: a weight is corrected by no more


class Bound(NamedTuple):
    """A loss, and the evidence lower bound that it was computed from.

    Args:
        loss: a scalar with a gradient.
        elbo: the mean of log p - log q over the rows, in nats; -inf where a row has no density.
    """

    loss: Tensor
    elbo: float


class _LogProb(nn.Module):
    """A flow whose call is its log density, so that it can be called with other parameters."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, u: Tensor, given: Tensor | None) -> Tensor:
        return self.flow.log_prob(u, given)


def reverse_kl(
    flow: Flow,
    density: UnconstrainedDensity,
    rows: int,
    generator: torch.Generator,
    *,
    given: Tensor | None = None,
    start: WideStart | None = None,
    share: float = 1.0,
) -> Bound:
    """KL(q | p) over rows of the flow, with the path-derivative gradient.

    Args:
        flow: q over unconstrained coordinates.
        density: p.
        rows: how many; with `given` one for each row of it.
        generator: of the draws.
        given: ``[N, C]``, the context of each row, for a joint density.
        start: what a tempered density starts from; None for none.
        share: b of the tempered density (1 - b) log start + b log p.
    """
    z, log_share = _draw_latents(flow, rows, generator)
    u, _ = flow.inverse(z, given)
    held = {f"flow.{name}": value.detach() for name, value in flow.named_parameters()}
    log_q = torch.func.functional_call(_LogProb(flow), held, (u, given))
    log_p = density.log_prob(u, given)
    if start is not None and share < 1.0:
        log_p = share * log_p + (1.0 - share) * start.log_prob(u)
    difference = log_p - log_q
    has_density = torch.isfinite(difference.detach())
    if not has_density.any():
        return Bound(torch.full((), math.nan), -math.inf)
    kept = difference[has_density]
    loss = -kept.mean()
    if log_share is not None:  # which normal of a mixture a row is of has no path: its gradient is by its score
        advantage = (kept - kept.mean()).detach()
        loss = loss - (advantage * log_share[has_density]).mean()
    return Bound(loss, float(difference.detach().to(torch.float64).mean()))


def likelihood(flow: Flow, u: Tensor) -> Tensor:
    """The mean negative log density of rows ``[N, M]``: forward KL, up to a constant."""
    return -flow.log_prob(u).mean()


def replayed(flow: Flow, buffer: ReplayBuffer, rows: int, generator: torch.Generator) -> Tensor:
    """Alpha = 2 divergence, by rows of the buffer, whose weights then follow the flow.

    Args:
        flow: q over unconstrained coordinates.
        buffer: rows of p^2 / q.
        rows: how many to draw.
        generator: of the draws.
    """
    places = buffer.draw(rows, generator)
    log_q = flow.log_prob(buffer.u[places])
    change = buffer.follow(places, log_q.detach())
    factor = change.clamp(max=math.log(_MOST_CORRECTION)).exp().to(log_q.dtype)
    return -(factor * log_q).mean()


@torch.no_grad()
def annealed_rows(
    flow: Flow,
    density: UnconstrainedDensity,
    rows: int,
    generator: torch.Generator,
    *,
    temperatures: int,
    steps: int,
    factor: Tensor,
) -> tuple[Tensor, Tensor, Tensor, float, float]:
    """Anneal rows of the flow to p^2 / q by Metropolis steps.

    Args:
        flow: q.
        density: p.
        rows: how many.
        generator: of the draws.
        temperatures: how many, the last of them p^2 / q.
        steps: of Metropolis at each.
        factor: ``[M, M]``, by which normal numbers become a proposal's step.

    Returns:
        The rows ``[N, M]``, the logarithms of their weights, the flow's log density there, the share of proposals that
        were accepted, and the ELBO of the flow that the rows started from.
    """

    def tempered(share: float, u: Tensor) -> tuple[Tensor, Tensor]:
        log_q = flow.log_prob(u)
        ratio = density.log_prob(u) - log_q
        return log_q + 2.0 * share * ratio, ratio

    u, _ = draw(flow, rows, generator)
    ratio = density.log_prob(u) - flow.log_prob(u)
    log_weights = torch.zeros(rows, dtype=torch.float64)
    elbo = float(ratio.to(torch.float64).mean())
    accepted = 0.0
    for number in range(1, temperatures + 1):
        share = number / temperatures
        log_weights += 2.0 / temperatures * ratio.to(torch.float64)
        if number < temperatures:
            log_prob, _ = tempered(share, u)
            u, _, some = metropolis(u, log_prob, lambda v, b=share: tempered(b, v)[0], factor, steps, generator)  # type: ignore[misc]
            _, ratio = tempered(share, u)
            accepted += some / (temperatures - 1)
    return u, log_weights, flow.log_prob(u), accepted, elbo


@torch.no_grad()
def draw(flow: Flow, rows: int, generator: torch.Generator, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw from a flow: u ``[N, M]``, and log q(u) ``[N]``."""
    z, _ = _draw_latents(flow, rows, generator)
    u, _, log_q = flow.inverse_log_prob(z, given)
    return u, log_q


def _draw_latents(flow: Flow, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Draw z ``[N, D]`` with a path to the numbers of a learnt base, and the log share of a mixture's component."""
    if isinstance(flow.latent, LearntBase):
        return flow.latent.draw(rows, generator)
    return sample_base(flow.latent, rows, flow.width, generator, flow.dtype), None

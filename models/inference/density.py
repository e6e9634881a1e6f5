"""The target over all of space: in unconstrained coordinates, the Jacobian of the way there counted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.flows.flow import Bijection
from models.inference.target import Target, describe_row
from service.errors import DataError, Reason

__all__ = ["UnconstrainedDensity"]


class UnconstrainedDensity:
    """log p(u) = log p(x(u)) + log|det dx/du|, u of all the reals.

    Args:
        target: over the user's coordinates x.
        step: x -> u; None where x has no constraint.
        width: the number of coordinates of u.
    """

    def __init__(self, target: Target, step: Bijection | None, width: int) -> None:
        self.target, self.step, self.width = target, step, width

    @property
    def differentiable(self) -> bool:
        """Whether its value has a gradient."""
        return self.target.differentiable

    def to_user(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """U ``[N, M]`` -> x ``[N, D]`` in the user's coordinates, and log|det dx/du| ``[N]``."""
        if self.step is None:
            return u, torch.zeros_like(u[:, 0])
        return self.step.inverse(u)

    def log_prob(self, u: Tensor, given: Tensor | None = None) -> Tensor:
        """Log p of u ``[N, M]``, up to a constant: ``[N]`` in nats, finite or -inf.

        Args:
            u: ``[N, M]``.
            given: ``[N, C]``, the rows that a joint density is of.

        Raises:
            DataError: as `Target.log_density`.
        """
        x, ladj = self.to_user(u)
        return self.target.log_density(x, given) + ladj

    def evaluate(self, u: Tensor) -> Tensor:
        """Log p of u ``[N, M]`` without a gradient."""
        with torch.no_grad():
            return self.log_prob(u)

    def at(self, given: Tensor) -> UnconstrainedDensity:
        """The density of z at one row of x ``[C]`` of a joint density, which it is then of alone."""
        return _AtRow(self, given)

    def check_start(self, u: Tensor, given: Tensor | None = None) -> None:
        """Try the target where a fit starts.

        Args:
            u: ``[N, M]``, rows of the start.
            given: ``[N, C]``, for a joint density.

        Raises:
            DataError: it has no density at any row, a gradient that is not finite, or as `Target.log_density`.
        """
        rows = u.detach().requires_grad_(self.differentiable)
        values = self.log_prob(rows, given)
        finite = torch.isfinite(values)
        if not finite.any():
            raise DataError(
                f"{self.target.title}: log_density is -inf on all {len(u)} rows of the start, so that no fit can "
                "begin. "
                "Give constraints where the density has bounds, or another --start-scale",
                (Reason(("log_density",), f"-inf at z = {describe_row(self.to_user(u[:1])[0][0])}, for one", 0),),
            )
        if not self.differentiable:
            return
        (gradient,) = torch.autograd.grad(values[finite].sum(), rows)
        bad = finite & ~torch.isfinite(gradient).all(dim=1)
        if bad.any():
            row = int(torch.nonzero(bad)[0])
            column = int(torch.nonzero(~torch.isfinite(gradient[row]))[0])
            found = "NaN" if math.isnan(float(gradient[row, column])) else "infinite"
            raise DataError(
                f"{self.target.title}: the gradient of log_density is not finite at {int(bad.sum())} of {len(u)} rows "
                "of the start, though its value is. A torch.where whose other branch overflows does so. Mend it, or "
                "fit without a gradient by --objective ais",
                (Reason(("log_density",), f"{found} at z = {describe_row(self.to_user(u)[0][row])}", row, column),),
            )


class _AtRow(UnconstrainedDensity):
    """A joint density at one row of x."""

    def __init__(self, joint: UnconstrainedDensity, given: Tensor) -> None:
        super().__init__(joint.target, joint.step, joint.width)
        self._given = given

    def log_prob(self, u: Tensor, given: Tensor | None = None) -> Tensor:
        return super().log_prob(u, (self._given if given is None else given).expand(len(u), -1))

"""The inverse of an autoregressive step by Jacobi passes: exact as it is trained, one short Loop once it is exported.

y_i = f(x_i | h(x_<i)) is solved by repeating x <- f^-1(y | h(x)), all columns at once. Whatever it starts from, pass
k leaves column k right, so that as many passes as there are columns give the sequential answer; on a trained flow
it is there, to the bit, after a handful. `models.export.rewrites.loops` makes the Loop out of the two marks that
`jacobi` leaves in an exported graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = ["DOMAIN", "END", "NEAR", "REACH", "START", "Step", "jacobi"]

DOMAIN: Final = "pushforward"
"""The operator domain of the marks; none is left in a finished graph."""
START: Final = "JacobiStart"
"""start -> x: the pass reads x from here on."""
END: Final = "JacobiEnd"
"""x, x after one pass, its log-determinant -> those at which the passes end. The attribute `passes` is the cap, and
`tolerance` the change that a row at rest may still show."""

NEAR: Final = 2.0**-22
"""A tolerance for affine steps: two units in the last place of 1, in float32. With e the error before a pass and J the
step's Jacobian, strictly triangular, the pass changes x by d = (I - J) e and leaves the error J e = J (I - J)^-1 d: of
a MAF of 64 columns 5e-7 in all. Splines blow d up further, and make as many passes for this tolerance as for equal
bits."""

REACH: Final = 1e30
"""What a conditioner is shown is cut to this: between the passes a column may overflow, and inf times a weight that
is masked by 0 is NaN in every column."""

Step = Callable[[Tensor], tuple[Tensor, Tensor]]


def jacobi(
    step: Step, y: Tensor, passes: int, first: Tensor | None = None, tolerance: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Repeat x <- step(x) until x stays what it is.

    In torch the answer is the sequential one, bit for bit, and can be differentiated. In an exported graph a row ends
    with the pass in which every column has |new - x| <= tolerance * (1 + |x|), and every row after `passes`: with a
    tolerance of 0 its answer is the sequential one too, bit for bit. In float64 the tolerance is as many units in the
    last place as it is in float32.

    Args:
        step: x ``[N, D]`` -> f^-1(y | h(x)) ``[N, D]`` and its log|det dx/dy| ``[N]``. Column i of the first may
            depend on the columns of x before it, in some order, and on no other. It is handed finite numbers only.
        y: ``[N, D]``, whose shape and type x has.
        passes: after how many the answer is exact from any start: the number of columns, or of groups of columns
            that do not depend on each other.
        first: ``[N, D]``, x after one pass from anywhere, where that is to be had for less; None to start from zeros.
        tolerance: 0, or `NEAR` for an affine step.

    Returns:
        x ``[N, D]`` and log|det dx/dy| ``[N]`` in nats.

    References:
        Song et al., 2021, https://arxiv.org/abs/2002.03629, algorithm 1.

    Example:
        >>> y = torch.tensor([[1.0, 1.0, 1.0]])
        >>> halved = lambda x: (y + torch.nn.functional.pad(x[:, :-1], (1, 0)) / 2, torch.zeros(1))
        >>> jacobi(halved, y, 3)[0]
        tensor([[1.0000, 1.5000, 1.7500]])
    """
    x = torch.zeros_like(y) if first is None else first
    passes = passes if first is None else max(passes - 1, 1)  # the log-determinant is that of a pass
    if torch.compiler.is_exporting():
        return _marked(step, x, passes, tolerance)
    new, ladj = step(_seen(x))
    for _ in range(passes - 1):
        # a derivative runs through every pass; a value that one pass leaves as it is stays so
        if not new.requires_grad and torch.equal(new, x):
            break
        x = new
        new, ladj = step(_seen(x))
    return new, ladj


def _marked(step: Step, start: Tensor, passes: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """One pass between two marks."""
    x = torch.onnx.ops.symbolic(f"{DOMAIN}::{START}", (start,), dtype=start.dtype, shape=start.shape, version=1)
    new, ladj = step(_seen(x))
    tolerance *= torch.finfo(new.dtype).eps / torch.finfo(torch.float32).eps
    x, ladj = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{END}",
        (x, new, ladj),
        {"passes": passes, "tolerance": tolerance},
        dtypes=(new.dtype, ladj.dtype),
        shapes=(new.shape, ladj.shape),
        version=1,
    )
    return x, ladj


def _seen(x: Tensor) -> Tensor:
    return x.clamp(-REACH, REACH)

"""A family that mixes: couplings, an autoregressive step and a trained matrix in every block."""

from __future__ import annotations

from typing import Final

from models.flows.autoregressive import autoregressive
from models.flows.conditioners import DEFAULT_CONDITIONER, Conditioner, column_orders, coupling_masks
from models.flows.couplings import coupling
from models.flows.flow import Bijection
from models.flows.linear import LULinear
from models.flows.options import check, one_of
from models.flows.univariate import affine_family, spline_family
from service.errors import DataError

__all__ = ["neural_spline_mixed"]

_MAX_BLOCKS: Final = 64
_KINDS: Final = ("spline", "affine", "none")
_SLOPE: Final = 0.05  # of affine steps


def neural_spline_mixed(
    width: int,
    context_width: int = 0,
    *,
    blocks: int = 2,
    couplings: str = "spline",
    autoregression: str = "affine",
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    bins: int = 8,
    bound: float = 5.0,
    slope: float = 0.01,
    masks: str = "alternating",
) -> list[Bijection]:
    """Blocks of a trained matrix y = L U x, a pair of couplings, and an autoregressive step.

    log|det dy/dx| is the sum of theirs: see `LULinear`, `neural_spline_coupling`, `real_nvp`, and `maf`. The matrix
    lets each column condition on mixtures of the others; in a graph it is one constant.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        blocks: the number of blocks, 1 to 64.
        couplings: what moves the columns of a coupling: "spline", "affine", or "none" for no couplings.
        autoregression: what moves the columns of the autoregressive step: "affine", "spline", or "none" for no such
            step, so that both directions are parallel.
        conditioner: how the conditioners are made.
        bins: the number of bins of a spline, 2 to 64.
        bound: where splines end, in standard deviations of a column as the flow starts; above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1). Affine steps and
            matrices scale by the factor 0.05 at least and 20 at most.
        masks: which half conditions in a coupling: "alternating" or "random", see `coupling_masks`.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, there is only one column, or no step takes the context.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 3.2 and appendix B.1. Oliva et al., 2018,
        https://arxiv.org/abs/1801.09819.
    """
    if width < 2:
        raise DataError("neural_spline_mixed mixes columns, so it needs at least 2 columns; the rows have 1")
    check("blocks", 1 <= blocks <= _MAX_BLOCKS, blocks, f"a number from 1 to {_MAX_BLOCKS}")
    one_of("kind of couplings", couplings, _KINDS)
    one_of("kind of autoregression", autoregression, _KINDS)
    if context_width and couplings == autoregression == "none":
        raise DataError("couplings and autoregression are both 'none', so that nothing would heed the context")
    families = {"affine": affine_family(_SLOPE), "spline": spline_family(bins, bound, slope)}
    mask = iter(coupling_masks(width, 2 * blocks, masks))
    steps: list[Bijection] = []
    for order in column_orders(width, blocks, "alternating"):
        steps.append(LULinear(width))
        pair = [next(mask), next(mask)]
        if couplings != "none":
            steps += [coupling(half, context_width, conditioner, families[couplings]) for half in pair]
        if autoregression != "none":
            steps.append(autoregressive(order, context_width, conditioner, families[autoregression]))
    return steps

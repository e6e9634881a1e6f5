"""Families of couplings: one half of the columns is moved by what a network says of the other half.

Both directions are parallel, at the price of one pass of each conditioner.
"""

from __future__ import annotations

from torch import Tensor
from zuko.flows.coupling import GeneralCouplingTransform

from models.flows.conditional import Coupling
from models.flows.conditioners import DEFAULT_CONDITIONER, Conditioner, coupling_masks
from models.flows.flow import Bijection
from models.flows.linear import Scaling
from models.flows.options import check_transforms, one_of
from models.flows.univariate import ADDITIVE, UnivariateFamily, affine_family, bernstein_family, spline_family
from models.flows.zuko_steps import ZukoTransform
from service.errors import DataError

__all__ = ["bernstein", "coupling", "neural_spline_coupling", "nice", "real_nvp"]


def real_nvp(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 8,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    slope: float = 0.05,
    masks: str = "alternating",
) -> list[Bijection]:
    """Affine couplings: y_a = x_a, y_b = x_b exp(s(x_a)) + t(x_a), log|det dy/dx| = sum s(x_a).

    Back, x_b = (y_b - t(y_a)) exp(-s(y_a)). The scale is bounded softly, s = a / (1 + |a / log slope|), which keeps
    |s| below -log slope.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        conditioner: how the conditioners are made.
        slope: the least factor by which one coupling may scale a column, in (0, 1); the greatest is 1 / slope.
        masks: which half conditions: "alternating" or "random", see `coupling_masks`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 4 to 8.
    """
    return _couplings(
        name="real_nvp",
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        masks=masks,
        family=affine_family(slope),
    )


def nice(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 8,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    masks: str = "alternating",
    scaling: str = "diagonal",
) -> list[Bijection]:
    """Additive couplings: y_a = x_a, y_b = x_b + t(x_a), which keep the volume; and a scale for each column at the end.

    log|det dy/dx| is 0 for a coupling, and sum s_i for the scale y_i = exp(s_i) x_i, the same for every row. Back,
    x_b = y_b - t(y_a).

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        conditioner: how the conditioners are made.
        masks: which half conditions: "alternating" or "random", see `coupling_masks`.
        scaling: "diagonal", as in the paper; "none" for a flow that keeps the volume of standardized data.

    Returns:
        The couplings, from data to latent, and the scale. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Dinh et al., 2015, https://arxiv.org/abs/1410.8516, sections 3.2 and 3.3.
    """
    one_of("scaling", scaling, ("diagonal", "none"))
    steps = _couplings(
        name="nice",
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        masks=masks,
        family=ADDITIVE,
    )
    return [*steps, Scaling(width)] if scaling == "diagonal" else steps


def neural_spline_coupling(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 6,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    bins: int = 8,
    bound: float = 5.0,
    slope: float = 0.01,
    masks: str = "alternating",
) -> list[Bijection]:
    """Spline couplings: y_a = x_a, y_b = q(x_b | h(x_a)) with q of each column a rational-quadratic spline.

    q increases on [-bound, bound] through `bins` + 1 knots and is the identity outside, so that the tails are the
    base's. log|det dy/dx| = sum log q'(x_b); back, a quadratic is solved: see `RationalQuadratic`.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        conditioner: how the conditioners are made.
        bins: the number of bins of a spline, 2 to 64.
        bound: where splines end, in standard deviations of a column as the flow starts; above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).
        masks: which half conditions: "alternating" or "random", see `coupling_masks`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, sections 3.1 and 3.2.
    """
    spline = spline_family(bins, bound, slope)
    return _couplings(
        name="neural_spline_coupling",
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        masks=masks,
        family=spline,
    )


def bernstein(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 6,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    degree: int = 16,
    bound: float = 5.0,
    slope: float = 0.01,
    masks: str = "alternating",
) -> list[Bijection]:
    """Couplings of Bernstein polynomials: y_a = x_a, y_b = p(x_b | h(x_a)) with p of each column a polynomial.

    p increases on [-bound, bound] and is the identity outside; as `degree` grows it comes near every increasing
    function. log|det dy/dx| = sum log p'(x_b). Back there is no formula: the inverse is numeric, by bisection with a
    fixed number of steps, see `Bernstein`.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        conditioner: how the conditioners are made.
        degree: of the polynomials, 6 to 32.
        bound: where polynomials end, in standard deviations of a column as the flow starts; above zero.
        slope: how much lower than another a coefficient's step may be at most, in (0, 1).
        masks: which half conditions: "alternating" or "random", see `coupling_masks`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Sick et al., 2020, https://arxiv.org/abs/2004.00464. Arpogaus et al., 2022, https://arxiv.org/abs/2204.13939.
    """
    polynomial = bernstein_family(degree, bound, slope)
    return _couplings(
        name="bernstein",
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        masks=masks,
        family=polynomial,
    )


def coupling(mask: Tensor, context_width: int, conditioner: Conditioner, family: UnivariateFamily) -> Coupling:
    """One coupling that starts as the identity.

    Args:
        mask: bool ``[D]``, which columns condition.
        context_width: the number of columns of context; 0 for none.
        conditioner: how its network is made.
        family: what moves the other columns.
    """
    lazy = GeneralCouplingTransform(
        features=mask.shape[0],
        context=context_width,
        mask=mask,
        univariate=family.transform,
        shapes=family.shapes,
        **conditioner.layers,
    )
    conditioner.initialize(lazy.hyper)
    return Coupling(mask, ZukoTransform(lazy, numeric_inverse=family.numeric_inverse))


def _couplings(
    *,
    name: str,
    width: int,
    context_width: int,
    conditioner: Conditioner,
    transforms: int,
    masks: str,
    family: UnivariateFamily,
) -> list[Bijection]:
    if width < 2:
        raise DataError(f"{name} conditions columns on each other, so it needs at least 2 columns; the rows have 1")
    check_transforms(transforms)
    return [coupling(mask, context_width, conditioner, family) for mask in coupling_masks(width, transforms, masks)]

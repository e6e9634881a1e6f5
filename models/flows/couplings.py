"""Families of couplings: one half of the columns is moved by what a network says of the other half.

Both directions are parallel, at the price of one pass of each conditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.distributions import Transform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import AdditiveTransform, MonotonicAffineTransform

from models.flows.conditioners import Conditioner, check, check_slope, check_transforms, halves, one_of
from models.flows.flow import Bijection
from models.flows.linear import Scaling
from models.flows.univariate import Bernstein, RationalQuadratic
from models.flows.zuko_steps import Coupling
from service.errors import DataError

__all__ = ["bernstein", "check_spline", "coupling", "neural_spline_coupling", "nice", "real_nvp", "spline_shapes"]

_MAX_BINS, _MAX_DEGREE = 64, 32


def real_nvp(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 8,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    slope: float = 0.05,
    reach: float = 10.0,
    dropout: float = 0.0,
    masks: str = "alternating",
) -> list[Bijection]:
    """Affine couplings: y_a = x_a, y_b = x_b exp(s(x_a)) + t(x_a), log|det dy/dx| = sum s(x_a).

    Back, x_b = (y_b - t(y_a)) exp(-s(y_a)). The scale is bounded softly, s = a / (1 + |a / log slope|), which keeps
    |s| below -log slope.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        slope: the least factor by which one coupling may scale a column, in (0, 1); the greatest is 1 / slope.
        reach: how far out a conditioner sees, in standard deviations of a column as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        masks: which half conditions: "alternating" or "random", see `halves`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 4 to 8.
    """
    check_slope(slope)
    affine = partial(MonotonicAffineTransform, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    return _couplings("real_nvp", width, context_width, conditioner, transforms, masks, affine, ((), ()))


def nice(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 8,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    reach: float = 10.0,
    dropout: float = 0.0,
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
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        reach: how far out a conditioner sees, in standard deviations of a column as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        masks: which half conditions: "alternating" or "random", see `halves`.
        scaling: "diagonal", as in the paper; "none" for a flow that keeps the volume of standardized data.

    Returns:
        The couplings, from data to latent, and the scale. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Dinh et al., 2015, https://arxiv.org/abs/1410.8516, sections 3.2 and 3.3.
    """
    one_of("scaling", scaling, ("diagonal", "none"))
    conditioner = Conditioner(hidden, activation, reach, dropout)
    steps = _couplings("nice", width, context_width, conditioner, transforms, masks, AdditiveTransform, ((),))
    return [*steps, Scaling(width)] if scaling == "diagonal" else steps


def neural_spline_coupling(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 6,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    bins: int = 8,
    bound: float = 5.0,
    slope: float = 0.01,
    reach: float = 10.0,
    dropout: float = 0.0,
    masks: str = "alternating",
) -> list[Bijection]:
    """Spline couplings: y_a = x_a, y_b = q(x_b | h(x_a)) with q of each column a rational-quadratic spline.

    q increases on [-bound, bound] through `bins` + 1 knots and is the identity outside, so that the tails are the
    base's. log|det dy/dx| = sum log q'(x_b); back, a quadratic is solved: see `RationalQuadratic`.

    Args:
        width: the number of columns D, at least 2.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of couplings.
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        bins: the number of bins of a spline, 2 to 64.
        bound: where splines end, in standard deviations of a column as the flow starts; above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).
        reach: how far out a conditioner sees, in the same units; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        masks: which half conditions: "alternating" or "random", see `halves`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, sections 3.1 and 3.2.
    """
    check_spline(bins, bound, slope)
    spline = partial(RationalQuadratic, bound=bound, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    return _couplings(
        "neural_spline_coupling", width, context_width, conditioner, transforms, masks, spline, spline_shapes(bins)
    )


def bernstein(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 6,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    degree: int = 16,
    bound: float = 5.0,
    slope: float = 0.01,
    reach: float = 10.0,
    dropout: float = 0.0,
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
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        degree: of the polynomials, 6 to 32.
        bound: where polynomials end, in standard deviations of a column as the flow starts; above zero.
        slope: how much lower than another a coefficient's step may be at most, in (0, 1).
        reach: how far out a conditioner sees, in the same units; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        masks: which half conditions: "alternating" or "random", see `halves`.

    Returns:
        The couplings, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range, or there is only one column.

    References:
        Sick et al., 2020, https://arxiv.org/abs/2004.00464. Arpogaus et al., 2022, https://arxiv.org/abs/2204.13939.
    """
    check("degree", 6 <= degree <= _MAX_DEGREE, degree, f"a number from 6 to {_MAX_DEGREE}")
    check("bound", 0 < bound < float("inf"), bound, "a number above zero")
    check_slope(slope)
    polynomial = partial(Bernstein, bound=bound, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    return _couplings(
        "bernstein", width, context_width, conditioner, transforms, masks, polynomial, ((degree - 4,),), numeric=True
    )


def coupling(
    half: Tensor,
    context_width: int,
    conditioner: Conditioner,
    univariate: Callable[..., Transform],
    shapes: Sequence[tuple[int, ...]],
) -> Coupling:
    """One coupling that starts as the identity.

    Args:
        half: bool ``[D]``, which columns condition.
        context_width: the number of columns of context; 0 for none.
        conditioner: how its network is made.
        univariate: a transform of one column, from its parameters; the identity where they are zero.
        shapes: the shapes of those parameters, for each column.
    """
    lazy = GeneralCouplingTransform(
        features=half.shape[0],
        context=context_width,
        mask=half,
        univariate=univariate,
        shapes=shapes,
        **conditioner.layers,
    )
    conditioner.tame(lazy.hyper)
    return Coupling(lazy)


def _couplings(
    name: str,
    width: int,
    context_width: int,
    conditioner: Conditioner,
    transforms: int,
    masks: str,
    univariate: Callable[..., Transform],
    shapes: Sequence[tuple[int, ...]],
    *,
    numeric: bool = False,
) -> list[Bijection]:
    if width < 2:
        raise DataError(f"{name} conditions columns on each other, so it needs at least 2 columns; the rows have 1")
    check_transforms(transforms)
    steps: list[Bijection] = []
    for half in halves(width, transforms, masks):
        steps.append(coupling(half, context_width, conditioner, univariate, shapes))
        steps[-1].numeric_inverse = numeric
    return steps


def check_spline(bins: int, bound: float, slope: float) -> None:
    """Hold the options of a spline against their ranges."""
    check("bins", 2 <= bins <= _MAX_BINS, bins, f"a number from 2 to {_MAX_BINS}")
    check("bound", 0 < bound < float("inf"), bound, "a number above zero")
    check_slope(slope)


def spline_shapes(bins: int) -> tuple[tuple[int, ...], ...]:
    """The parameters of a spline for each column: widths and heights, slopes at the inner knots."""
    return (2, bins), (bins - 1,)

"""Families of autoregressive steps: every column is moved by what a masked network says of the columns before it.

One direction takes one pass of each conditioner, the other as many as there are columns.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from zuko.flows.autoregressive import MaskedAutoregressiveTransform

from models.flows.conditioners import DEFAULT_CONDITIONER, Conditioner, column_orders
from models.flows.flow import Bijection
from models.flows.inverted import Inverted
from models.flows.options import check_transforms
from models.flows.univariate import UnivariateFamily, affine_family, spline_family
from models.flows.zuko_steps import from_zuko
from service.errors import DataError

__all__ = ["autoregressive", "iaf", "maf", "neural_spline_autoregressive"]

_NARROW: Final = Conditioner(hidden=(64, 64))


def maf(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 5,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    slope: float = 0.05,
    orders: str = "alternating",
) -> list[Bijection]:
    """Affine autoregressive steps: y_i = x_i exp(s_i(x_<i)) + t_i(x_<i), log|det dy/dx| = sum s_i(x_<i).

    Forward in one pass of each conditioner; back, x_i = (y_i - t_i(x_<i)) exp(-s_i(x_<i)), column after column. The
    scale is bounded softly, s = a / (1 + |a / log slope|).

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        conditioner: how the conditioners are made.
        slope: the least factor by which one step may scale a column, in (0, 1); the greatest is 1 / slope.
        orders: the order of the columns: "alternating", "random" or "none", see `column_orders`. With "none" a step
            depends on the context alone, and an affine one is a Gaussian of independent columns.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 3 to 5. Germain et al., 2015,
        https://arxiv.org/abs/1502.03509, for the masks.
    """
    return _steps(
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        orders=orders,
        family=affine_family(slope),
    )


def iaf(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 4,
    conditioner: Conditioner = _NARROW,
    slope: float = 0.05,
    orders: str = "alternating",
) -> list[Bijection]:
    """Inverse autoregressive steps: x_i = y_i exp(s_i(y_<i)) + t_i(y_<i), `maf` the other way round.

    Generating takes one pass of each conditioner; the density, and so fitting, takes one for each column:
    y_i = (x_i - t_i(y_<i)) exp(-s_i(y_<i)), log|det dy/dx| = -sum s_i(y_<i).

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        conditioner: how the conditioners are made; its `reach` is in units of the latent, which they see.
        slope: the least factor by which one step may scale a column, in (0, 1); the greatest is 1 / slope.
        orders: the order of the columns: "alternating", "random" or "none", see `column_orders`. With "none" a step
            depends on the context alone, and an affine one is a Gaussian of independent columns.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Kingma et al., 2016, https://arxiv.org/abs/1606.04934, equations 8 to 11.
    """
    steps = _steps(
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        orders=orders,
        family=affine_family(slope),
    )
    return [Inverted(step) for step in steps]


def neural_spline_autoregressive(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 3,
    conditioner: Conditioner = DEFAULT_CONDITIONER,
    bins: int = 8,
    bound: float = 5.0,
    slope: float = 0.01,
    orders: str = "alternating",
) -> list[Bijection]:
    """Spline autoregressive steps: y_i = q(x_i | h_i(x_<i)) with q of each column a rational-quadratic spline.

    q increases on [-bound, bound] through `bins` + 1 knots and is the identity outside. log|det dy/dx| =
    sum log q'(x_i); back, quadratics are solved, column after column: see `RationalQuadratic`.

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        conditioner: how the conditioners are made.
        bins: the number of bins of a spline, 2 to 64.
        bound: where splines end, in standard deviations of a column as the flow starts; above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).
        orders: the order of the columns: "alternating", "random" or "none", see `column_orders`. With "none" a step
            depends on the context alone, and an affine one is a Gaussian of independent columns.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, sections 3.1 and 3.2.
    """
    return _steps(
        width=width,
        context_width=context_width,
        conditioner=conditioner,
        transforms=transforms,
        orders=orders,
        family=spline_family(bins, bound, slope),
    )


def autoregressive(order: Tensor, context_width: int, conditioner: Conditioner, family: UnivariateFamily) -> Bijection:
    """One autoregressive step that starts as the identity; of one column, a step that depends on the context alone.

    Args:
        order: int64 ``[D]``, the place of each column.
        context_width: the number of columns of context; 0 for none.
        conditioner: how its network is made.
        family: what moves each column.
    """
    alone = {} if order.shape[0] == 1 else {"order": order}
    lazy = MaskedAutoregressiveTransform(
        order.shape[0],
        context_width,
        **alone,
        univariate=family.transform,
        shapes=family.shapes,
        **(conditioner.layers if order.shape[0] > 1 or context_width else {}),
    )
    if hasattr(lazy, "hyper"):
        conditioner.initialize(lazy.hyper)
    else:
        for parameter in lazy.phi:
            nn.init.zeros_(parameter)
    return from_zuko(lazy)[0]


def _steps(
    *,
    width: int,
    context_width: int,
    conditioner: Conditioner,
    transforms: int,
    orders: str,
    family: UnivariateFamily,
) -> list[Bijection]:
    check_transforms(transforms)
    if orders == "none" and not context_width:
        raise DataError("orders = 'none' is for conditional flows: without a context such a step depends on nothing")
    return [
        autoregressive(order, context_width, conditioner, family) for order in column_orders(width, transforms, orders)
    ]

"""Families of autoregressive steps: every column is moved by what a masked network says of the columns before it.

One direction takes one pass of each conditioner, the other as many as there are columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.distributions import Transform
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.transforms import MonotonicAffineTransform

from models.flows.conditioners import Conditioner, check_slope, check_transforms, orders
from models.flows.couplings import check_spline, spline_shapes
from models.flows.flow import Bijection
from models.flows.univariate import RationalQuadratic
from models.flows.zuko_steps import from_zuko

__all__ = ["Inverted", "autoregressive", "iaf", "maf", "neural_spline_autoregressive"]


class Inverted(Bijection):
    """A bijection the other way round: y = g^-1(x), and back x = g(y).

    Args:
        bijection: g.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, *out]`` -> g^-1(x) ``[N, *in]``."""
        return self.bijection.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, *in]`` -> g(y) ``[N, *out]``."""
        x, ladj = self.bijection(y, context)
        return x, ladj

    @property
    def name(self) -> str:
        """The name of what it turns round."""
        return f"inverse {self.bijection.name}"

    def folded(self) -> Bijection:
        """The folded bijection, the other way round."""
        return Inverted(self.bijection.folded())


def maf(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 5,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    slope: float = 0.05,
    reach: float = 10.0,
    dropout: float = 0.0,
    orders: str = "alternating",
) -> list[Bijection]:
    """Affine autoregressive steps: y_i = x_i exp(s_i(x_<i)) + t_i(x_<i), log|det dy/dx| = sum s_i(x_<i).

    Forward in one pass of each conditioner; back, x_i = (y_i - t_i(x_<i)) exp(-s_i(x_<i)), column after column. The
    scale is bounded softly, s = a / (1 + |a / log slope|).

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        slope: the least factor by which one step may scale a column, in (0, 1); the greatest is 1 / slope.
        reach: how far out a conditioner sees, in standard deviations of a column as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        orders: the order of the columns: "alternating" or "random", see `models.flows.conditioners.orders`.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 3 to 5. Germain et al., 2015,
        https://arxiv.org/abs/1502.03509, for the masks.
    """
    check_slope(slope)
    affine = partial(MonotonicAffineTransform, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    return _steps(width, context_width, conditioner, transforms, orders, affine, ((), ()))


def iaf(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 4,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    slope: float = 0.05,
    reach: float = 10.0,
    dropout: float = 0.0,
    orders: str = "alternating",
) -> list[Bijection]:
    """Inverse autoregressive steps: x_i = y_i exp(s_i(y_<i)) + t_i(y_<i), `maf` the other way round.

    Generating takes one pass of each conditioner; the density, and so fitting, takes one for each column:
    y_i = (x_i - t_i(y_<i)) exp(-s_i(y_<i)), log|det dy/dx| = -sum s_i(y_<i).

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        slope: the least factor by which one step may scale a column, in (0, 1); the greatest is 1 / slope.
        reach: how far out a conditioner sees, in units of its own input, the latent's; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        orders: the order of the columns: "alternating" or "random", see `models.flows.conditioners.orders`.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Kingma et al., 2016, https://arxiv.org/abs/1606.04934, equations 8 to 11.
    """
    check_slope(slope)
    affine = partial(MonotonicAffineTransform, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    steps = _steps(width, context_width, conditioner, transforms, orders, affine, ((), ()))
    return [Inverted(step) for step in steps]


def neural_spline_autoregressive(
    width: int,
    context_width: int = 0,
    *,
    transforms: int = 3,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    bins: int = 8,
    bound: float = 5.0,
    slope: float = 0.01,
    reach: float = 10.0,
    dropout: float = 0.0,
    orders: str = "alternating",
) -> list[Bijection]:
    """Spline autoregressive steps: y_i = q(x_i | h_i(x_<i)) with q of each column a rational-quadratic spline.

    q increases on [-bound, bound] through `bins` + 1 knots and is the identity outside. log|det dy/dx| =
    sum log q'(x_i); back, quadratics are solved, column after column: see `RationalQuadratic`.

    Args:
        width: the number of columns D.
        context_width: the number of columns of context; 0 for none.
        transforms: the number of steps.
        hidden: the widths of the conditioner's hidden layers.
        activation: a name of `ACTIVATIONS`.
        bins: the number of bins of a spline, 2 to 64.
        bound: where splines end, in standard deviations of a column as the flow starts; above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).
        reach: how far out a conditioner sees, in the same units; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).
        orders: the order of the columns: "alternating" or "random", see `models.flows.conditioners.orders`.

    Returns:
        The steps, from data to latent. Each starts as the identity.

    Raises:
        DataError: where an option is out of its range.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, sections 3.1 and 3.2.
    """
    check_spline(bins, bound, slope)
    spline = partial(RationalQuadratic, bound=bound, slope=slope)
    conditioner = Conditioner(hidden, activation, reach, dropout)
    return _steps(width, context_width, conditioner, transforms, orders, spline, spline_shapes(bins))


def autoregressive(
    order: Tensor,
    context_width: int,
    conditioner: Conditioner,
    univariate: Callable[..., Transform],
    shapes: Sequence[tuple[int, ...]],
) -> Bijection:
    """One autoregressive step that starts as the identity; of one column, a step that depends on the context alone.

    Args:
        order: int64 ``[D]``, the place of each column.
        context_width: the number of columns of context; 0 for none.
        conditioner: how its network is made.
        univariate: a transform of one column, from its parameters; the identity where they are zero.
        shapes: the shapes of those parameters, for each column.
    """
    alone = {} if order.shape[0] == 1 else {"order": order}
    lazy = MaskedAutoregressiveTransform(
        order.shape[0],
        context_width,
        **alone,
        univariate=univariate,
        shapes=shapes,
        **(conditioner.layers if order.shape[0] > 1 or context_width else {}),
    )
    if hasattr(lazy, "hyper"):
        conditioner.tame(lazy.hyper)
    else:
        for parameter in lazy.phi:
            nn.init.zeros_(parameter)
    return from_zuko(lazy)[0]


def _steps(
    width: int,
    context_width: int,
    conditioner: Conditioner,
    transforms: int,
    kind: str,
    univariate: Callable[..., Transform],
    shapes: Sequence[tuple[int, ...]],
) -> list[Bijection]:
    check_transforms(transforms)
    return [
        autoregressive(order, context_width, conditioner, univariate, shapes)
        for order in orders(width, transforms, kind)
    ]

"""Flows by name: the options of a recipe's `[flow]` table, and the chain that they make.

A new architecture is one function, in the module of its kind, and one entry in `ARCHITECTURES`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from models.flows.autoregressive import iaf, maf, neural_spline_autoregressive
from models.flows.base_options import BaseOptions
from models.flows.couplings import bernstein, neural_spline_coupling, nice, real_nvp
from models.flows.flow import Bijection, Flow
from models.flows.images.architectures import glow, image_real_nvp, image_spline
from models.flows.images.principal import image_principal
from models.flows.mixed import neural_spline_mixed
from models.flows.options import check, one_of
from models.flows.precision import TORCH_DTYPES, round_number
from models.flows.preprocess import Flatten, Logit, Standardize, Whiten
from service.bundle.manifest import Support
from service.bundle.precision import Precision
from service.errors import DataError, Reason

__all__ = ["ARCHITECTURES", "COMMON_OPTIONS", "IMAGES", "build_flow", "default_options"]

IMAGES: Final[Mapping[str, Callable[..., list[Bijection]]]] = MappingProxyType(
    {"image_real_nvp": image_real_nvp, "glow": glow, "image_spline": image_spline, "image_principal": image_principal}
)
"""The image flows: name -> constructor, called as ``constructor(event_shape, context_width, **options)``."""

ARCHITECTURES: Final[Mapping[str, Callable[..., list[Bijection]]]] = MappingProxyType(
    {
        "real_nvp": real_nvp,
        "nice": nice,
        "maf": maf,
        "iaf": iaf,
        "neural_spline_coupling": neural_spline_coupling,
        "neural_spline_autoregressive": neural_spline_autoregressive,
        "neural_spline_mixed": neural_spline_mixed,
        "bernstein": bernstein,
        **IMAGES,
    }
)
"""Name -> constructor, called as ``constructor(width, context_width, **options)``; image flows as `IMAGES` says."""

_AT_ONCE: Final = 4096
"""So many rows go through a logit at once, which holds several numbers in float64 for each value."""

COMMON_OPTIONS: Final = ("whiten", *(field.name for field in fields(BaseOptions)))
"""The options that any architecture takes."""


def build_flow(
    architecture: str,
    options: Mapping[str, Any],
    *,
    rows: Tensor,
    context: Tensor | None = None,
    support: Support | None = None,
    noise: Tensor | None = None,
    seed: int = 0,
    precision: Precision = "float32",
) -> Flow:
    """Compose a flow that is ready to be fitted: preprocessing, architecture, base.

    Args:
        architecture: a name of `ARCHITECTURES`.
        options: keyword -> value, the options of that architecture; ``whiten = true``, which puts a `Whiten` in
            front of it; and ``base``, with its own, as `models.flows.base_options.BaseOptions` says.
        rows: ``[N, *event]``, the training rows as the fit sees them; they give the means and standard deviations.
        context: ``[N, C]``, the context of those rows, or None; it is standardized inside the flow.
        support: a box with two finite ends puts a logit in front, and rows outside have density zero; None for
            all of space.
        noise: ``[D]``, the standard deviations of the normal noise that the fit adds to each column by itself, in the
            units of the rows: a `Whiten` reckons with it. None for none, or for noise in the shape of the rows.
        seed: of the initial weights, which are the same in both precisions. torch's global generator is left as it was.
        precision: of the flow: what it is fitted in, and what its graphs will compute in.

    Returns:
        A flow of that precision on the CPU, whose `state_dict` holds all that a checkpoint needs.

    Raises:
        DataError: for an unknown architecture or option (the nearest name is given), an option of another type or
            out of its range, a constant column, a row outside the support, or too few rows.

    Example:
        >>> import torch
        >>> flow = build_flow("real_nvp", {"transforms": 2, "hidden": [8]}, rows=torch.randn(50, 3))
        >>> flow.log_prob(torch.zeros(1, 3)).shape
        torch.Size([1])
    """
    one_of("architecture", architecture, ARCHITECTURES)
    constructor = ARCHITECTURES[architecture]
    options = dict(options)
    whiten = options.pop("whiten", False)
    check("whiten", isinstance(whiten, bool), whiten, "true or false")
    ending = BaseOptions.pop_from(options)
    _check_options(architecture, constructor, options)
    arguments = _arguments(constructor, options)
    if rows.ndim < 2 or rows.shape[0] < 2 or math.prod(rows.shape[1:]) == 0:
        raise DataError(f"a flow is fitted to at least 2 rows of at least 1 column; the rows have shape {_shape(rows)}")
    if context is not None and (context.ndim != 2 or context.shape[0] != rows.shape[0] or context.shape[1] == 0):
        raise DataError(
            f"context must be [{rows.shape[0]}, C], one row for each event, and has shape {_shape(context)}"
        )
    event_shape = rows.shape[1:]
    image = architecture in IMAGES
    dtype = TORCH_DTYPES[precision]
    channels = event_shape[-1] if image else None
    support, chain = _preprocessing(rows, support, whiten=whiten, noise=noise, channels=channels, precision=precision)
    scaling = None if context is None else Standardize.of(context, dtype)
    context_width = 0 if context is None else context.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chain += constructor(tuple(event_shape) if image else math.prod(event_shape), context_width, **arguments)
        last, base = ending.build(math.prod(event_shape))
    flow = Flow(event_shape, chain + last, base, support, context_width, scaling, precision).to(dtype).eval()
    first = max(step.initial_rows for step in chain)
    flow.initialize(rows[:first].to(dtype), None if context is None else context[:first].to(dtype))
    return flow.train()


def _preprocessing(
    rows: Tensor,
    support: Support | None,
    *,
    whiten: bool,
    noise: Tensor | None,
    channels: int | None,
    precision: Precision,
) -> tuple[Support | None, list[Bijection]]:
    chain: list[Bijection] = []
    values = rows.detach().to(torch.float64)
    if rows.ndim > 2:
        chain.append(Flatten(rows.shape[1:]))
        values = values.flatten(1)
    if support is not None and (support.low is not None or support.high is not None):
        if support.low is None or support.high is None:
            raise DataError("a support is bounded on both sides or on none; a half-line is not provided for")
        # a graph and its float64 reference must mean the same two numbers, and a logit both exclude
        low, high = (round_number(end, precision) for end in (support.low, support.high))
        support = Support(low=low, high=high)
        logit = Logit(low, high, precision)
        outside = ~((values > logit.low) & (values < logit.high))
        if outside.any():
            row, column = torch.nonzero(outside)[0].tolist()
            found = f"expected {logit.low} < x < {logit.high}, and found {float(values[row, column])}"
            raise DataError(
                "a training row lies outside the support",
                (Reason(("rows",), found, row=row, column=column),),
            )
        chain.append(logit)
        values = torch.cat([logit(part)[0] for part in torch.split(values, _AT_ONCE)])
    dtype = TORCH_DTYPES[precision]
    standardize = (
        Standardize.of(values, dtype) if channels is None else Standardize.of_channels(values, channels, dtype)
    )
    chain.append(standardize)
    if whiten:
        chain.append(Whiten.of(standardize(values)[0], dtype, None if noise is None else noise / standardize.std))
    return support, chain


def default_options(constructor: Callable[..., list[Bijection]]) -> dict[str, Any]:
    """The options of an architecture by name, each with its default; those of a conditioner among them."""
    options: dict[str, Any] = {}
    for name, default in _keywords(constructor).items():
        options |= _fields(default) if is_dataclass(default) else {name: default}
    return options


def _keywords(constructor: Callable[..., list[Bijection]]) -> dict[str, Any]:
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _fields(record: Any) -> dict[str, Any]:  # noqa: ANN401  any dataclass
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _arguments(constructor: Callable[..., list[Bijection]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's keywords: the options, and those of a conditioner put together in one record."""
    arguments = dict(options)
    for name, default in _keywords(constructor).items():
        if is_dataclass(default) and not isinstance(default, type):
            given = {field: arguments.pop(field) for field in _fields(default) if field in arguments}
            arguments[name] = replace(default, **given)
    return arguments


def _check_options(architecture: str, constructor: Callable[..., list[Bijection]], options: Mapping[str, Any]) -> None:
    """Hold options against those of the architecture: names, and the types of their defaults."""
    defaults = default_options(constructor)
    for name, value in options.items():
        if name not in defaults:  # "architecture" stands in the same table of a recipe, and is misspelt as well
            one_of(f"option of {architecture}", name, [*defaults, *COMMON_OPTIONS, "architecture"])
            raise DataError(f"{name} is no option of {architecture}: it is given by itself")
        default = defaults[name]
        if isinstance(default, tuple):
            fits = isinstance(value, (list, tuple)) and all(_is_number(v, int) for v in value)
            expected = "a list of whole numbers"
        elif isinstance(default, str):
            fits, expected = isinstance(value, str), "a name"
        elif isinstance(default, int):
            fits, expected = _is_number(value, int), "a whole number"
        else:
            fits, expected = _is_number(value, (int, float)), "a number"
        check(name, fits, value, expected)


def _is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)

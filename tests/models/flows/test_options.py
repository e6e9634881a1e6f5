"""The range of every option, at its ends: the last value that fits and the first that does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from models.architectures import ARCHITECTURES, build_flow, default_options
from models.flows.base_options import BaseOptions
from models.flows.conditioners import Conditioner
from models.flows.images.architectures import image_spline
from models.flows.images.couplings import ConvolutionalConditioner
from models.flows.mixed import neural_spline_mixed
from models.flows.options import check_bound, check_slope, check_transforms, one_of
from models.flows.univariate import bernstein_family, spline_family
from service.bundle.bases import MAX_COMPONENTS, MAX_DEGREES_OF_FREEDOM
from service.bundle.manifest import Support
from service.errors import DataError

JUST_BELOW_1 = math.nextafter(1.0, 0.0)
TINY = 5e-324

RANGES: dict[str, tuple[Callable[..., object], list[object], list[object]]] = {
    "transforms": (check_transforms, [1, 256], [0, 257]),
    "slope": (check_slope, [TINY, JUST_BELOW_1], [0.0, 1.0]),
    "bound": (lambda value: check_bound("bound", value), [TINY, 1e300], [0.0, math.inf, math.nan]),
    "hidden": (lambda value: Conditioner(hidden=value), [(1,), (65536,), (1,) * 32], [(), (0,), (65537,), (1,) * 33]),
    "reach": (lambda value: Conditioner(reach=value), [TINY, 1e300], [0.0, math.inf]),
    "dropout": (lambda value: Conditioner(dropout=value), [0.0, JUST_BELOW_1], [-TINY, 1.0]),
    "hidden of images": (lambda value: ConvolutionalConditioner(hidden=value), [1, 4096], [0, 4097]),
    "blocks of images": (lambda value: ConvolutionalConditioner(blocks=value), [0, 32], [-1, 33]),
    "dropout of images": (lambda value: ConvolutionalConditioner(dropout=value), [0.0, JUST_BELOW_1], [-TINY, 1.0]),
    "bins": (lambda value: spline_family(bins=value, bound=5.0, slope=0.01), [2, 64], [1, 65]),
    "degree": (lambda value: bernstein_family(degree=value, bound=5.0, slope=0.01), [6, 32], [5, 33]),
    "degrees_of_freedom": (
        lambda value: BaseOptions(base="student_t", degrees_of_freedom=value),
        [1, MAX_DEGREES_OF_FREEDOM],
        [0, MAX_DEGREES_OF_FREEDOM + 1],
    ),
    "components": (
        lambda value: BaseOptions(base="mixture", components=value),
        [2, MAX_COMPONENTS],
        [1, MAX_COMPONENTS + 1],
    ),
    "blocks": (
        lambda value: neural_spline_mixed(
            2, blocks=value, couplings="none", autoregression="none", conditioner=Conditioner(hidden=(1,))
        ),
        [1, 64],
        [0, 65],
    ),
    "bins of images": (lambda value: image_spline((2, 2, 1), levels=1, transforms=1, bins=value), [2, 256], [1, 257]),
    "levels": (lambda value: image_spline((4, 8, 1), levels=value, transforms=1), [1, 2], [0, 3]),
}


@pytest.mark.parametrize("name", RANGES)
def test_an_option_fits_at_the_ends_of_its_range_and_not_beyond(name: str) -> None:
    make, fitting, unfitting = RANGES[name]
    for value in fitting:
        make(value)
    for value in unfitting:
        with pytest.raises(DataError, match=f"{name.partition(' ')[0]} must be"):
            make(value)


def test_a_name_with_no_near_one_is_answered_with_all_of_them() -> None:
    with pytest.raises(DataError, match="there is no base 'zzz'; known: one, two"):
        one_of("base", "zzz", ["one", "two"])


def test_two_columns_can_be_coupled_and_two_rows_can_be_fitted() -> None:
    rows = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    for name in ("real_nvp", "neural_spline_mixed"):
        assert build_flow(name, {"hidden": [2]}, rows=rows).width == 2


@pytest.mark.parametrize(("value", "fits"), [(-1.0, False), (-0.999, True), (0.999, True), (1.0, False)])
def test_a_row_on_an_end_of_the_support_is_outside(value: float, *, fits: bool) -> None:
    rows = torch.tensor([[0.0, 0.1], [0.5, 0.2], [value, 0.3]])
    support = Support(low=-1.0, high=1.0)
    if fits:
        build_flow("real_nvp", {"transforms": 1, "hidden": [2]}, rows=rows, support=support)
    else:
        with pytest.raises(DataError, match="outside the support"):
            build_flow("real_nvp", {"transforms": 1, "hidden": [2]}, rows=rows, support=support)


def test_the_options_of_conditioners_are_those_of_every_family_in_one_order() -> None:
    for name, constructor in ARCHITECTURES.items():
        options = list(default_options(constructor))
        assert "conditioner" not in options
        own = ["hidden", "blocks", "activation", "reach", "dropout"] if "levels" in options else None
        own = own or ["hidden", "activation", "reach", "dropout"]
        start = options.index("hidden")
        assert options[start : start + len(own)] == own, name
    assert default_options(ARCHITECTURES["iaf"])["hidden"] == (64, 64)


def test_an_option_of_a_conditioner_leaves_the_others_at_the_family_s_own_defaults() -> None:
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    flow = build_flow("iaf", {"transforms": 1, "dropout": 0.5}, rows=rows)
    widths = {module.out_features for module in flow.modules() if hasattr(module, "out_features")}
    assert widths == {64, 6}

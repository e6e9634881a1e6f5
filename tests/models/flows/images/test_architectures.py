from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from models.architectures import IMAGES, build_flow
from models.export.export import export_flow
from models.flows.conditional import Coupling
from models.flows.flow import Flow
from models.flows.images.layers import InvertibleConvolution, MultiScale
from service.bundle.store import Repository, read_bundle
from service.errors import DataError
from tests.laws.table import normal, randomize

PICTURES = 5.0 * normal(60, 8, 8, 2).float() + 20.0
OPTIONS: dict[str, Any] = {"transforms": 2, "hidden": 6}

every_one = pytest.mark.parametrize("name", [name for name in IMAGES if name != "image_principal"])


def build(name: str, rows: torch.Tensor = PICTURES, seed: int = 0, **options: Any) -> Flow:
    return build_flow(name, {**OPTIONS, **options}, rows=rows, seed=seed)


@every_one
def test_as_built_z_has_mean_0_and_deviation_1(name: str) -> None:
    rows = PICTURES * torch.tensor([1.0, 100.0])
    with torch.no_grad():
        z, _ = build(name, rows)(rows)
    assert abs(float(z.mean())) < 1e-3
    assert abs(float(z.std()) - 1) < 1e-2


@every_one
def test_the_same_seed_and_rows_give_the_same_flow(name: str) -> None:
    one, same, other, rows = build(name), build(name), build(name, seed=1), build(name, PICTURES[10:])
    weights = [flow.state_dict() for flow in (one, same, other, rows)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[3][key]) for key in weights[0])


@every_one
def test_every_pixel_is_moved_and_every_pixel_conditions(name: str) -> None:
    flow = build(name, levels=1, transforms=4)
    randomize(flow.bijections[-1], scale=0.2)
    x = PICTURES[0].double()
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.double()(e[None])[0][0], x).reshape(128, 128)
    weights = jacobian.abs()
    assert bool(((weights > 1e-12).sum(dim=0) > 1).all())
    assert bool(((weights > 1e-12).sum(dim=1) > 1).all())


def test_the_masks_are_a_checkerboard_and_half_of_the_channels_each_with_its_complement() -> None:
    (level,) = build("image_real_nvp", levels=1, transforms=6).bijections[-1].levels
    masks = [set(step.first.tolist()) for step in level if isinstance(step, Coupling)]
    board, others, half, rest = {0, 3, 4, 7}, {1, 2, 5, 6}, {0, 1, 2, 3}, {4, 5, 6, 7}
    assert masks == [board, others, half, rest, board, others]


@pytest.mark.parametrize("name", ["glow", "image_spline"])
def test_the_channels_are_put_in_a_new_order_and_then_their_halves_are_swapped(name: str) -> None:
    (level,) = build(name, levels=1, transforms=4).bijections[-1].levels
    orders = [step.permutation.argmax(dim=1).tolist() for step in level if isinstance(step, InvertibleConvolution)]
    assert orders[1] == orders[3] == [4, 5, 6, 7, 0, 1, 2, 3]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(8))


@every_one
def test_28_by_28_is_halved_twice(name: str) -> None:
    rows = normal(20, 28, 28, 1).float()
    flow = build(name, rows)
    levels = flow.bijections[-1]
    assert isinstance(levels, MultiScale)
    assert levels.shapes == [(2, 14, 14), (8, 7, 7)]
    with pytest.raises(DataError, match="levels must be a number from 1 to 2, as often as 28 x 28 can be halved"):
        build(name, rows, levels=3)


def test_an_image_flow_needs_images_with_even_sides() -> None:
    with pytest.raises(DataError, match=r"events of shape \[H, W, C\]; the rows have shape \[6\]"):
        build("glow", normal(30, 6).float())
    with pytest.raises(DataError, match="they must be even; the images are 7 x 8"):
        build("glow", normal(30, 7, 8, 1).float())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("glow", {"transform": 3}, "did you mean 'transforms'"),
        ("glow", {"transforms": 0}, "transforms must be a number from 1 to 256"),
        ("glow", {"hidden": [8]}, "hidden must be a whole number"),
        ("glow", {"hidden": 0}, "hidden must be a number from 1"),
        ("glow", {"blocks": -1}, "blocks must be a number from 0"),
        ("glow", {"levels": 0}, "levels must be a number from 1 to 3"),
        ("glow", {"slope": 1.0}, "slope must be a number between 0 and 1"),
        ("image_real_nvp", {"slope": 0.0}, "slope must be a number between 0 and 1"),
        ("image_real_nvp", {"transforms": 0}, "transforms must be a number from 1"),
        ("image_real_nvp", {"activation": "rellu"}, "did you mean 'relu'"),
        ("image_real_nvp", {"dropout": 1.0}, "dropout must be a number from 0"),
        ("image_spline", {"bins": 1}, "bins must be a number from 2"),
        ("image_spline", {"box": 0.0}, "box must be a number above zero"),
        ("image_spline", {"slope": 2.0}, "slope must be a number between 0 and 1"),
        ("image_spline", {"reach": math.inf}, "reach must be a number above zero"),
    ],
)
def test_an_option_that_does_not_fit_is_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        build(name, **options)


@pytest.mark.slow  # an export takes seconds; the laws hold its graphs already
def test_a_class_conditional_flow_goes_from_rows_to_a_bundle(tmp_path) -> None:
    """One-hot classes: every conditioner sees them, and the graphs answer for the class that they are given."""
    context = torch.eye(3)[torch.arange(60) % 3]
    rows = PICTURES[:, ::2, ::2]
    flow = build_flow("glow", {**OPTIONS, "transforms": 1}, rows=rows, context=context)
    randomize(flow.bijections[-1], scale=0.1)
    flow.float()
    folder = export_flow(
        flow, repository=Repository(tmp_path), name="classes", held_out=rows, context=context, data="draws"
    )
    bundle = read_bundle(folder)
    assert (bundle.manifest.event_shape, bundle.manifest.context_width) == ([4, 4, 2], 3)
    assert np.unique(bundle.golden.context, axis=0).shape[0] > 1

"""Targets: what is taken, and what is refused with its reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.density import UnconstrainedDensity
from models.inference.target import load_target, take_target
from service.errors import DataError
from tests.models.inference.targets import Gaussian, banana


def density_of(function, dim=2):
    return UnconstrainedDensity(take_target(function, "mine", dim=dim), None, dim)


def test_an_object_in_torch_is_taken_with_its_names_and_its_gradient():
    target = take_target(Gaussian(), "mine")
    assert (target.arrays, target.differentiable, target.names) == ("torch", True, ("slope", "offset"))
    assert take_target(Gaussian, "the class of it").dim == 2


def test_a_function_in_numpy_has_no_gradient():
    target = take_target(banana, "mine", dim=2)
    assert (target.arrays, target.differentiable) == ("numpy", False)
    found = target.log_density(torch.zeros(3, 2))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([-8.0] * 3)


def test_a_detached_target_has_no_gradient():
    assert not take_target(lambda z: -(z.detach() ** 2).sum(dim=1), "mine", dim=2).differentiable


def test_a_file_is_loaded_as_an_import_is(tmp_path: Path):
    (tmp_path / "mine.py").write_text("def density(z):\n    return -(z ** 2).sum(1)\n")
    target = load_target(f"{tmp_path / 'mine.py'}:density", dim=3)
    assert (target.dim, target.differentiable) == (3, True)
    (tmp_path / "mine.py").write_text("def density(z):\n    return -2 * (z ** 2).sum(1)\n")
    assert load_target(f"{tmp_path / 'mine.py'}:density", dim=3).digest != target.digest


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: -(z**2).sum(), "a single number for 5 rows; expected [5]"),
        (lambda z: -(z**2), "the shape [5, 2] for 5 rows"),
        (lambda z: -(z**2).sum(dim=1, keepdim=True), "the shape [5, 1]"),
        (lambda z: z[:, 0] * float("nan"), "NaN for 5 of 5 rows; expected a finite number, or -inf"),
        (lambda z: z[:, 0] * 0 + float("inf"), "+inf for 5 of 5 rows"),
        (lambda z: "text", "a str; expected [5] numbers"),
    ],
)
def test_a_bad_answer_is_told_with_its_shape_or_row(function, said):
    target = take_target(function, "mine", dim=2)
    with pytest.raises(DataError, match=re.escape(f"mine: log_density gave {said}")):
        target.log_density(torch.ones(5, 2))


def test_a_bad_row_is_shown():
    target = take_target(lambda z: torch.where(z[:, 0] > 3, float("nan"), -(z[:, 0] ** 2)), "mine", dim=2)
    with pytest.raises(DataError) as caught:
        target.log_density(torch.tensor([[0.0, 1.0], [4.0, 5.0]]))
    assert caught.value.errors[0].row == 1
    assert caught.value.errors[0].reason == "NaN at z = [4, 5]"


def test_a_target_that_raises_is_told():
    def fails(z):
        if z[0, 0] > 2:
            raise RuntimeError("a matrix was singular")
        return -(z**2).sum(dim=1)

    with pytest.raises(DataError, match=r"mine: log_density failed: .*a matrix was singular"):
        take_target(fails, "mine", dim=2).log_density(torch.full((2, 2), 3.0))
    with pytest.raises(DataError, match=r"takes neither a torch tensor .* nor a NumPy array"):
        take_target(lambda z: z.nothing, "mine", dim=2)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "does not say how many coordinates"),
        ({"dim": 0}, "dim must be a whole number"),
        ({"dim": True}, "dim must be a whole number"),
        ({"dim": 2, "names": ("a",)}, "1 names for 2 coordinates"),
        ({"dim": 2, "names": ("a", "a")}, "the name 'a' is empty, too long, or stands twice"),
        ({"dim": 2, "names": "ab"}, "names must be a list of texts"),
    ],
)
def test_a_wrong_attribute_is_told(attributes, said):
    made = type("Mine", (), {"log_density": lambda self, z: -(z**2).sum(1), **attributes})
    with pytest.raises(DataError, match=said):
        take_target(made(), "mine")


def test_the_dim_of_an_option_must_be_the_targets():
    with pytest.raises(DataError, match="has dim 2, and --dim is 3"):
        take_target(Gaussian(), "mine", dim=3)


def test_a_start_without_density_is_told():
    density = density_of(lambda z: torch.where(z[:, 0] > 100, 0.0, float("-inf")) + 0 * z[:, 1])
    with pytest.raises(DataError, match="-inf on all 16 rows of the start"):
        density.check_start(torch.randn(16, 2))


def test_a_gradient_that_is_nan_is_told():
    density = density_of(lambda z: torch.where(z[:, 0] > 0, -(z[:, 0].sqrt()), -(z[:, 0] ** 2)) - z[:, 1] ** 2)
    with pytest.raises(DataError, match="gradient of log_density is not finite") as caught:
        density.check_start(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    assert (caught.value.errors[0].row, caught.value.errors[0].column) == (1, 0)


def test_numpy_rows_are_double():
    seen = []

    def function(z):
        z = np.asarray(z) if isinstance(z, np.ndarray) else fail()
        seen.append(z.dtype)
        return -(z**2).sum(axis=1)

    def fail():
        raise TypeError("arrays only")

    take_target(function, "mine", dim=2).log_density(torch.zeros(2, 2))
    assert set(seen) == {np.dtype(np.float64)}

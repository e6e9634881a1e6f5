from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from service.bundle.bases import (
    AnyBase,
    Base,
    DiagonalNormalBase,
    MixtureBase,
    NormalBase,
    StudentTBase,
    UniformBase,
)
from service.bundle.manifest import Manifest
from service.errors import ManifestInvalid
from tests.service.bundle.conftest import make_manifest

DIAGONAL = DiagonalNormalBase(mean=[1.0, -2.0], standard_deviation=[0.5, 3.0])
MIXTURE = MixtureBase(
    weights=[0.25, 0.75], means=[[0.0, 1.0], [-4.0, 2.0]], standard_deviations=[[1.0, 2.0], [0.5, 0.25]]
)
BASES = [NormalBase(), DIAGONAL, StudentTBase(degrees_of_freedom=3), MIXTURE, UniformBase(low=-1.0, high=2.0)]

ADAPTER: TypeAdapter[Base] = TypeAdapter(AnyBase)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.family)
def test_what_is_written_is_read_back_also_after_it_was_used(base):
    manifest = make_manifest(base=base)
    assert base.reading
    used = [getattr(base, name, None) for name in ("frame", "frames", "thresholds")]
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.base == base
    read = [getattr(again.base, name, None) for name in ("frame", "frames", "thresholds")]
    assert again.base == base, read  # both have made arrays of their numbers by now
    assert type(again.base) is type(base)
    assert set(json.loads(manifest.to_json())["base"]) == set(type(base).model_fields), used


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"family": "cauchy"}, "student_t"),
        ({"family": "normal", "mean": [0.0]}, "mean"),
        ({"family": "diagonal_normal", "mean": [0.0]}, "standard_deviation"),
        ({"family": "diagonal_normal", "mean": [], "standard_deviation": []}, "at least 1"),
        ({"family": "diagonal_normal", "mean": [0.0, 1.0], "standard_deviation": [1.0]}, "has 1 and 2"),
        ({"family": "diagonal_normal", "mean": [0.0], "standard_deviation": [0.0]}, "greater than 0"),
        ({"family": "diagonal_normal", "mean": [0.0], "standard_deviation": [-1.0]}, "greater than 0"),
        ({"family": "diagonal_normal", "mean": ["0"], "standard_deviation": [1.0]}, "valid number"),
        ({"family": "student_t"}, "degrees_of_freedom"),
        ({"family": "student_t", "degrees_of_freedom": 0}, "greater than or equal to 1"),
        ({"family": "student_t", "degrees_of_freedom": 101}, "less than or equal to 100"),
        ({"family": "student_t", "degrees_of_freedom": 2.5}, "valid integer"),
        ({"family": "mixture", "weights": [], "means": [], "standard_deviations": []}, "at least 1"),
        (
            {"family": "mixture", "weights": [0.5, 0.4], "means": [[0.0]] * 2, "standard_deviations": [[1.0]] * 2},
            "sum to 1, and sum to 0.9",
        ),
        (
            {"family": "mixture", "weights": [0.5, 0.6], "means": [[0.0]] * 2, "standard_deviations": [[1.0]] * 2},
            "sum to 1, and sum to 1.1",
        ),
        (
            {"family": "mixture", "weights": [1.0, 0.0], "means": [[0.0]] * 2, "standard_deviations": [[1.0]] * 2},
            "greater than 0",
        ),
        (
            {"family": "mixture", "weights": [1.0], "means": [[0.0]] * 2, "standard_deviations": [[1.0]]},
            "1 weights needs 1 rows of means, and has 2",
        ),
        (
            {"family": "mixture", "weights": [0.5, 0.5], "means": [[0.0]] * 2, "standard_deviations": [[1.0]]},
            "2 rows of standard_deviations, and has 1",
        ),
        (
            {
                "family": "mixture",
                "weights": [0.5, 0.5],
                "means": [[0.0, 1.0], [0.0]],
                "standard_deviations": [[1.0, 1.0]] * 2,
            },
            "row 1 of means has 1 values, and row 0 of means has 2",
        ),
        ({"family": "mixture", "weights": [1.0], "means": [[]], "standard_deviations": [[]]}, "at least 1"),
        ({"family": "uniform", "low": 1.0, "high": 1.0}, "low < high"),
    ],
)
def test_numbers_that_make_no_distribution_are_refused(content, message):
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_json(json.dumps(content))


@pytest.mark.parametrize("base", [DIAGONAL, MIXTURE], ids=lambda base: base.family)
def test_a_base_of_another_width_than_the_latent_is_refused(base):
    assert make_manifest(base=base).base.width == 2
    content = json.loads(make_manifest(base=base).to_json()) | {"event_shape": [3], "latent_width": 3}
    with pytest.raises(ManifestInvalid) as raised:
        Manifest.from_json(json.dumps(content).encode())
    assert "the base is of 2 coordinates, and latent_width is 3" in raised.value.errors[0].reason


def test_weights_that_miss_one_by_rounding_are_taken_as_they_are_meant():
    third = float(np.float32(1 / 3))
    base = MixtureBase(weights=[third] * 3, means=[[0.0]] * 3, standard_deviations=[[1.0]] * 3)
    assert base.thresholds.tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-15)


def test_a_base_is_told_in_words():
    assert [base.reading for base in BASES] == [
        "N(0, 1) in each",
        "N(mean, deviation^2) in each, means -2 to 1, deviations 0.5 to 3",
        "Student-t with 3 degrees of freedom in each",
        "a mixture of 2 diagonal normals, weights 0.25 to 0.75, means -4 to 2, deviations 0.25 to 2",
        "U(-1, 2) in each",
    ]
    assert StudentTBase(degrees_of_freedom=1).reading == "Student-t with 1 degree of freedom in each"

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from service.bundle.context_scale import MAX_CONTEXT, ContextScale
from service.bundle.manifest import Manifest
from service.errors import ManifestInvalid
from tests.service.bundles import affine


def test_quantiles_of_the_contexts_themselves_are_even():
    contexts = np.random.default_rng(0).normal(size=(3000, 3)) @ np.diag([1e-3, 1.0, 1e4]) + 7
    scale = ContextScale.of(contexts)
    quantiles = np.sort(scale.quantile(contexts))
    assert len(scale.distances) == 1001
    np.testing.assert_allclose(quantiles, np.linspace(0, 1, 3000), atol=2e-3)
    assert quantiles[0] > 0


def test_the_scale_does_not_depend_on_units():
    contexts = np.random.default_rng(1).normal(size=(200, 2))
    moved = contexts @ [[2.0, 5.0], [0.0, 3.0]] - 4
    one, other = ContextScale.of(contexts), ContextScale.of(moved)
    np.testing.assert_allclose(one.quantile(contexts), other.quantile(moved))


def test_a_column_that_does_not_vary_and_one_of_classes():
    classes = np.eye(3)[np.arange(60) % 3]
    scale = ContextScale.of(np.hstack([classes, np.ones((60, 1))]))
    assert scale.quantile(np.array([[1.0, 0, 0, 1]]))[0] > 0
    assert scale.quantile(np.array([[1.0, 0, 0, 2], [1, 1, 0, 1], [np.inf, 0, 0, 1]])).tolist() == [0, 0, 0]


def test_no_scale_of_a_wide_context_or_of_one_row():
    assert ContextScale.of(np.zeros((9, MAX_CONTEXT + 1))) is None
    assert ContextScale.of(np.zeros((1, 2))) is None
    assert ContextScale.of(np.zeros((5, 0))) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": [0.0]}, "different widths"),
        ({"distances": [2.0, 1.0]}, "ascend"),
        ({"distances": [-1.0, 1.0]}, "greater than or equal"),
        ({"rows": 1}, "greater than or equal"),
    ],
)
def test_what_is_no_scale(change, match):
    content = ContextScale.of(np.random.default_rng(0).normal(size=(9, 2))).model_dump()
    with pytest.raises(ValidationError, match=match):
        ContextScale.model_validate({**content, **change})


def test_a_manifest_keeps_it_and_holds_its_width():
    scale = ContextScale.of(np.random.default_rng(0).normal(size=(9, 2)))
    manifest = affine(context_width=2, context_scale=scale).manifest
    assert Manifest.from_json(manifest.to_json()).context_scale == scale
    assert "context_scale" not in json.loads(affine(context_width=2).manifest.to_json())
    content = json.loads(manifest.to_json())
    content["context_scale"] = ContextScale.of(np.zeros((9, 3))).model_dump()
    with pytest.raises(ManifestInvalid) as told:
        Manifest.from_json(json.dumps(content).encode())
    assert "is of 3 columns, not 2" in told.value.errors[0].reason

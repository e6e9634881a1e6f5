from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from service.bundle.manifest import Manifest
from service.bundle.priors import Prior, Simplex
from service.errors import DigestMismatch, ManifestInvalid
from tests.service.bundles import affine

BOX = Prior(low=[-1.0, None], high=[1.0, 2.0])


def test_a_row_lies_in_a_box_with_its_ends():
    rows = np.array([[0, 0], [-1, 2], [1, -1e30], [-1.01, 0], [0, 2.01], [0, -np.inf], [np.nan, 0]])
    assert BOX.inside(rows).tolist() == [True, True, True, False, False, False, False]
    assert Prior(low=[None], high=[None]).inside(np.array([[np.inf], [1.0]])).tolist() == [False, True]


def test_shares_of_a_simplex():
    prior = Prior(low=[None, None, None], high=[None, None, 5.0], simplexes=[Simplex(first=0, count=2)])
    rows = np.array([[0.5, 0.5, 9.0], [0.5, 0.4, -9.0], [0.6, 0.5, 0], [-0.1, 0.5, 0], [0, 0, 0], [1, 0, 0]])
    assert prior.inside(rows).tolist() == [False, True, False, False, True, True]


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        ({"low": [0.0], "high": [0.0]}, "excludes everything"),
        ({"low": [0.0, 0.0], "high": [1.0]}, "low has 2 ends, and high has 1"),
        ({"low": [], "high": []}, "at least 1"),
        ({"low": [0.0, 0.0], "high": [None, None], "simplexes": [{"first": 1, "count": 2}]}, "past the last"),
        ({"low": [0.5, 0.6], "high": [None, None], "simplexes": [{"first": 0, "count": 2}]}, "excludes everything"),
        ({"low": [None, None], "high": [None, -1.0], "simplexes": [{"first": 0, "count": 2}]}, "excludes everything"),
        ({"low": [float("nan")], "high": [None]}, "finite"),
        ({"low": [0.0], "high": [1.0], "kind": "box"}, "not permitted"),
    ],
)
def test_a_prior_that_is_none(prior, match):
    with pytest.raises(ValidationError, match=match):
        Prior.model_validate(prior)


def test_a_manifest_without_a_prior_has_no_such_key_and_one_with_it_keeps_it():
    without, with_prior = affine().manifest, affine(prior=BOX).manifest
    assert "prior" not in json.loads(without.to_json())
    assert Manifest.from_json(without.to_json()) == without
    assert Manifest.from_json(with_prior.to_json()).prior == BOX


def test_a_prior_is_under_the_digest_and_of_the_event_s_width():
    content = json.loads(affine(prior=BOX).manifest.to_json())
    content["prior"]["high"] = [5.0, 5.0]
    with pytest.raises(DigestMismatch):
        Manifest.from_json(json.dumps(content).encode())
    content = json.loads(affine(event_shape=(2,)).manifest.to_json())
    content["prior"] = {"low": [0.0], "high": [1.0]}
    with pytest.raises(ManifestInvalid) as told:
        Manifest.from_json(json.dumps(content).encode())
    assert "prior is of 1 coordinates" in told.value.errors[0].reason

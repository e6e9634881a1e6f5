"""The shipped digits' directions: made from the data by the shipped graph, and worth walking along."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from models.data.builtin import load
from models.zoo.build import ZOO
from models.zoo.directions import KINDS, with_directions
from service.bundle.store import Bundle, Repository, read_bundle
from service.engine.loading import load_flow
from service.engine.verbs.edits import edit
from service.plan import run_now


@pytest.fixture(scope="module")
def digits() -> Bundle:
    return read_bundle(Repository(ZOO).path("digits"))


def test_the_shipped_directions_are_those_that_a_build_adds(digits: Bundle) -> None:
    bare = Bundle(digits.manifest.model_copy(update={"directions": {"own": [0.0] * 64}}), digits.graphs, digits.golden)
    data = load("digits")
    made = with_directions(bare, data, KINDS["digits"](data)).directions
    assert list(made) == ["own", *map(str, range(10))]
    for name, direction in digits.manifest.directions.items():
        np.testing.assert_allclose(made[name], direction, atol=1e-5)  # another processor rounds the last digits apart


def test_a_3_is_walked_towards_an_8(digits: Bundle) -> None:
    data = load("digits")
    label = data.beside["digit"]
    x = data.rows.astype(np.float32)
    nearest = KNeighborsClassifier(5).fit(x.reshape(len(x), -1), label)
    walked = run_now(edit(load_flow(digits), x[label == 3][:50], "8", [0.0, 2.0, 4.0]))
    found = [nearest.predict(step.reshape(50, -1)) for step in walked.x]
    eights = [float((step == 8).mean()) for step in found]
    assert (found[0] == 3).mean() > 0.95
    assert eights[0] == 0
    assert eights[0] < eights[1] < eights[2]
    assert eights[2] > 0.9

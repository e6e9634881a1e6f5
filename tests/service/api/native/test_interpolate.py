"""/interpolate over HTTP: one walk, several, and contexts on the way."""

from __future__ import annotations

import numpy as np


def test_interpolate(client):
    points = [[-0.5, 0.5], [1.5, 0.0], [1.0, 1.0]]
    document = client.post("/interpolate", json={"points": points, "steps": 5}).json()
    assert list(document) == ["model", "version", "t", "z", "x", "log_prob", "round_trip_error"]
    assert document["t"] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    np.testing.assert_allclose(document["x"][::4], points, atol=1e-5)
    assert max(document["round_trip_error"]) < 1e-5
    assert len(client.post("/interpolate", json={"points": points}).json()["t"]) == 21


def test_interpolate_between_latents_with_context(client):
    body = {"points": [[0, 0, 1], [0, 1, 0]], "space": "z", "path": "linear", "steps": 3, "context": [1, 2]}
    document = client.post("/models/conditional/interpolate", json=body).json()
    np.testing.assert_allclose(document["z"], [[0, 0, 1], [0, 0.5, 0.5], [0, 1, 0]])


def test_several_walks_are_each_what_it_is_alone(client):
    walks = np.random.default_rng(0).normal(size=(3, 4, 2)).round(3).tolist()
    for spacing in ("parameter", "arc_length"):
        body = {"steps": 5, "spacing": spacing}
        document = client.post("/interpolate", json={"points": walks, **body}).json()
        assert np.shape(document["x"]) == (3, 13, 2)
        assert np.shape(document["t"]) == ((13,) if spacing == "parameter" else (3, 13))
        for at, walk in enumerate(walks):
            alone = client.post("/interpolate", json={"points": walk, **body}).json()
            for name in ("z", "x", "log_prob", "round_trip_error"):
                assert document[name][at] == alone[name]
            assert alone["t"] == (document["t"] if spacing == "parameter" else document["t"][at])


def test_several_walks_of_images_whole_or_flat(client):
    walks = np.random.default_rng(0).normal(size=(2, 3, 2, 3, 1)).round(3)
    whole, flat = (
        client.post("/models/image/interpolate", json={"points": points.tolist(), "steps": 3}).json()
        for points in (walks, walks.reshape(2, 3, 6))
    )
    assert whole == flat
    assert np.shape(whole["x"]) == (2, 5, 2, 3, 1)
    between = client.post("/models/image/interpolate", json={"points": whole["z"], "space": "z", "steps": 2}).json()
    assert between["z"] == whole["z"]


def test_a_walk_from_one_condition_to_another(client):
    body = {"points": [[0, 0, 1]] * 2, "space": "z", "steps": 3, "context": [[1, 2], [3, 2]]}
    walk = client.post("/models/conditional/interpolate", json=body).json()
    for x, context in zip(walk["x"], [[1, 2], [2, 2], [3, 2]], strict=True):
        alone = client.post("/models/conditional/decode", json={"z": [0, 0, 1], "context": context}).json()
        assert alone["x"] == [x]
    assert max(walk["round_trip_error"]) < 1e-5

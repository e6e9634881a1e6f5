from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pushforward.client.answers import Decoded, Encoded, ModelInfo, Path, Samples, Scores
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.payload import join_answers

WHO = {"model": "square", "version": 2}


def test_a_density_of_zero_is_restored():
    payload = WHO | {
        "log_prob": [-0.5, None],
        "in_support": [True, False],
        "base_log_prob": [-0.7, None],
        "bits_per_dim": [0.7, None],
        "typicality": [0.1, None],
        "quantile": [0.5, 0.0],
        "anomaly": [False, True],
    }
    scores = Scores.read(payload)
    assert scores.log_prob.tolist() == [-0.5, -np.inf]
    assert scores.in_support.tolist() == [True, False]
    assert scores.base_log_prob[1] == -np.inf
    assert scores.bits_per_dim[1] == np.inf
    assert scores.typicality[1] == np.inf
    assert scores.anomaly.tolist() == [False, True]
    assert scores.z is None


def test_without_a_row_outside_all_are_inside():
    assert Scores.read(WHO | {"log_prob": [1.0, 2.0]}).in_support.tolist() == [True, True]


MAIN = [
    (Scores, {"log_prob": [1.0]}, "log_prob"),
    (Samples, {"x": [[1.0]], "log_prob": [2.0], "seed": 3, "offset": 0}, "x"),
    (Encoded, {"z": [[1.0]], "log_abs_det_jacobian": [2.0], "log_prob": [3.0]}, "z"),
    (Decoded, {"x": [[1.0]], "log_abs_det_jacobian": [2.0], "log_prob": [3.0]}, "x"),
    (Path, {"t": [0.0], "z": [[1.0]], "x": [[2.0]], "log_prob": [3.0], "round_trip_error": [0.0]}, "x"),
]


@pytest.mark.parametrize(("kind", "payload", "main"), MAIN)
def test_an_answer_stands_for_its_main_array(kind, payload, main):
    answer = kind.read(WHO | payload)
    array = np.asarray(answer)
    assert array is getattr(answer, main) or np.shares_memory(array, getattr(answer, main))
    assert array.dtype == np.float32
    assert np.asarray(answer, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(answer), getattr(answer, main))
    assert len(answer) == 1
    assert (answer.model, answer.version) == ("square", 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.model = "other"


@pytest.mark.parametrize(("kind", "payload", "main"), MAIN)
def test_each_key_is_needed(kind, payload, main):
    for name in [*payload, "model", "version"]:
        with pytest.raises(UnexpectedAnswer):
            kind.read({k: v for k, v in (WHO | payload).items() if k != name})


def test_joining_keeps_what_is_not_an_array():
    parts = [Samples.read(WHO | {"x": [[float(i)]], "log_prob": [None], "seed": 3, "offset": i}) for i in range(3)]
    whole = join_answers(parts)
    assert whole.x.tolist() == [[0.0], [1.0], [2.0]]
    assert whole.log_prob.tolist() == [-np.inf] * 3
    assert (whole.seed, whole.offset) == (3, 0)
    assert join_answers(parts[:1]) is parts[0]


FLOW = {
    "name": "wine",
    "version": 2,
    "versions": [1, 2],
    "state": "ready",
    "default": True,
    "event_shape": [2],
    "context_width": 0,
    "features": [{"name": "a", "unit": None}, {"name": "b"}],
    "context_features": [],
}
"""An entry of GET /models."""


def test_a_flow_described():
    info = ModelInfo.read(FLOW)
    assert (info.name, info.version, info.versions, info.default) == ("wine", 2, (1, 2), True)
    assert (info.event_shape, info.context_width, info.features) == ((2,), 0, ("a", "b"))
    assert info.context_features == ()
    given = FLOW | {"context_width": 1, "context_features": [{"name": "kind=b", "column": "kind", "category": "b"}]}
    assert ModelInfo.read(given).context_features == ("kind=b",)
    assert info.manifest is None
    assert ModelInfo.read(FLOW | {"manifest": {"format": 1}}).manifest == {"format": 1}


def test_a_flow_that_could_not_be_read():
    known = {name: FLOW[name] for name in ("name", "version", "versions", "default")}
    info = ModelInfo.read(known | {"state": "failed"})
    for name in ("event_shape", "context_width", "features", "context_features"):
        with pytest.raises(UnexpectedAnswer, match=f"does not say the {name} of 'wine', whose state is 'failed'"):
            getattr(info, name)
    with pytest.raises(UnexpectedAnswer):
        ModelInfo.read({"name": "wine"})

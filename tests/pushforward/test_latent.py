"""The calls that look into a flow: both clients, against a real server process."""

from __future__ import annotations

import httpx
import numpy as np
import orjson
import pytest

from pushforward.client import answers, errors, posterior_answers
from pushforward.client.payload import join_answers
from tests.service import bundles

X = np.array([[0.5, 0.25], [1.0, -0.5], [0.0, 2.0]], np.float32)


@pytest.fixture
def client(connect, server):
    return connect(server)


def test_a_trace(client):
    found = client.trace(X, model="traced")
    assert [step.name for step in found.steps] == ["x", "centre", "scale"]
    assert found.steps[0].value.tolist() == X.tolist()
    there = client.encode(X, model="traced")
    np.testing.assert_allclose(found.steps[-1].value, there.z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_abs_det_jacobian, there.log_abs_det_jacobian, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(found), there.log_prob, rtol=1e-5)
    drawn = client.sample(3, seed=7, model="traced")
    by_seed = client.trace(n=3, seed=7, model="traced")
    assert by_seed.steps[0].value.tolist() == drawn.x.tolist()
    np.testing.assert_allclose(client.trace(z=[[1.0, 2.0]], model="traced").steps[-1].value, [[1, 2]], rtol=1e-5)
    assert client.model("traced").trace == ("centre", "scale")
    assert client.model("affine").trace == ()


def test_a_flow_without_its_chain(client):
    with pytest.raises(errors.InvalidRequest, match="exported without its chain") as caught:
        client.trace(X)
    assert caught.value.code == "not_traceable"


def test_an_edit(client):
    found = client.edit(X, [1.0, 0.5], [0, -2.0])
    assert (found.x.shape, found.z.shape, found.log_prob.shape) == ((2, 3, 2), (2, 3, 2), (2, 3))
    z = client.encode(X).z
    np.testing.assert_array_equal(found.z[0], z)
    np.testing.assert_allclose(found.z[1], z - 2 * np.array([1, 0.5], np.float32), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(found), found.x)
    assert found.in_support.all()
    moved = client.edit(X[:1], X[1:], [1.0])
    np.testing.assert_allclose(moved.z[0, 0], z[2] - z[1] + z[0], rtol=1e-5)
    named = client.edit(X, "right", [1.0], model="traced")
    assert named.x.tolist() == client.edit(X, [1.0, 0.0], [1.0], model="traced").x.tolist()
    assert client.model("traced").directions == ("right",)


def test_density_zero_in_an_edit(client):
    found = client.edit([[1.0], [2.0]], [1.0], [0.1, 9.0], model="square")
    assert found.in_support.tolist() == [[True, True], [False, False]]
    assert np.isneginf(found.log_prob[1]).all()


def test_a_large_edit_travels_in_pieces(connect, server):
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    whole = connect(server).edit(x, [1.0, 0.0], [0.5, 1.0, 2.0])
    pieces = connect(server, max_values=70).edit(x, [1.0, 0.0], [0.5, 1.0, 2.0])
    assert pieces.x.tolist() == whole.x.tolist()
    assert pieces.log_prob.tolist() == whole.log_prob.tolist()


def test_an_edit_is_cut_by_what_comes_back(connect):
    sent = []

    def handler(request):
        body = orjson.loads(request.content)
        sent.append(len(body["x"]))
        s, n = len(body["strength"]), len(body["x"])
        payload = {"x": np.zeros((s, n, 2)), "z": np.zeros((s, n, 2)), "log_prob": np.zeros((s, n))}
        whole = {"model": "flow", "version": 1, **payload}
        return httpx.Response(200, content=orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY))

    found = connect(handler, max_values=40).edit(np.zeros((9, 2)), [1.0, 1.0], [0.0] * 5)
    assert sent == [4, 4, 1]
    assert found.x.shape == (5, 9, 2)


def test_weights_of_a_flow_against_itself(client):
    drawn = client.sample(200, seed=3)
    found = client.weights(drawn.log_prob, n=200, seed=3)
    np.testing.assert_allclose(found.weights, 1 / 200, rtol=1e-6)
    assert found.ess == pytest.approx(200)
    assert found.pareto_k is None
    assert found.verdict.startswith("good: ")
    assert found.log_evidence == pytest.approx(0.0, abs=1e-6)
    assert found.log_evidence_se == pytest.approx(0.0, abs=1e-6)


def test_weights_of_rows_and_of_nothing(client):
    found = client.weights([0.0, -np.inf, -1.0], X)
    assert found.weights.dtype == np.float64
    assert found.weights[1] == 0
    assert np.isneginf(found.log_weights[1])
    assert np.asarray(found).tolist() == found.weights.tolist()


def test_importance_draws_asks_the_target_and_weighs(client):
    seen = []

    flow = bundles.affine()
    (mean,), (further,), (beyond,) = (flow.inverse(np.full((1, 2), z), None)[0] for z in (0.0, 0.3, 1.0))

    def log_target(x):
        seen.append(x)
        return -0.5 * (((x - further) / (beyond - mean)) ** 2).sum(axis=1)

    found = client.importance(log_target, 4000, 5)
    assert len(seen) == 1
    assert seen[0].tolist() == client.sample(4000, seed=5).x.tolist() == found.x.tolist()
    assert (found.seed, len(found)) == (5, 4000)
    ratios = np.exp(found.log_target - found.log_prob)
    np.testing.assert_allclose(found.weights, ratios / ratios.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.mean(found.x), further, atol=0.1)
    assert found.mean(found.x[:, 0] > 0).shape == ()
    assert 1 < found.ess < 4000
    assert found.pareto_k is not None
    drawn = client.importance(lambda x: np.zeros(len(x)), 3, context=[0.5, 1.0], model="conditional")
    assert client.sample(3, seed=drawn.seed, context=[0.5, 1.0], model="conditional").x.tolist() == drawn.x.tolist()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda c: c.importance(lambda x: x, 3, 1), "a number for each of the 3 rows, and gave the shape \\[3, 2\\]"),
        (lambda c: c.importance(lambda x: x[:, 0] * np.nan, 3, 1), "log_target, row 0: nan is neither"),
        (lambda c: c.weights([0, np.inf], X[:2]), "log_target, row 1: inf is neither"),
        (lambda c: c.weights(["a"], X[:1]), "log_target must be numbers"),
        (lambda c: c.edit(X, [1.0, 0.0], [np.nan]), "strength must be finite numbers"),
        (lambda c: c.edit(X, [1.0, 0.0], "far"), "strength must be numbers"),
        (lambda c: c.edit(X, 5.0, [1.0]), "direction must be one vector or two rows, and has the shape \\[\\]"),
        (lambda c: c.edit(X, X, [1.0]), "direction must be one vector or two rows, and has the shape \\[3, 2\\]"),
        (lambda c: c.edit(X, [np.nan, 0.0], [1.0]), "direction"),
    ],
)
def test_what_cannot_be_sent_is_refused_here(client, ask, match):
    with pytest.raises(errors.InvalidInput, match=match):
        ask(client)


def test_an_unknown_direction(client):
    with pytest.raises(errors.InvalidRequest, match="did you mean 'right'"):
        client.edit(X, "rigth", [1.0], model="traced")


@pytest.mark.parametrize("left_out", ["steps", "log_prob"])
def test_an_answer_that_is_no_trace(left_out):
    payload = {"model": "a", "version": 1, "steps": [], "log_prob": []}
    del payload[left_out]
    with pytest.raises(errors.UnexpectedAnswer):
        answers.Trace.read(payload)


@pytest.mark.parametrize(
    "changed", [{"ess": None}, {"log_evidence_se": "0"}, {"verdict": 3}, {"pareto_k": "x"}, {"weights": 1}]
)
def test_an_answer_that_is_no_weights(changed):
    said = {"ess": 1.0, "ess_share": 1.0, "pareto_k": None, "pareto_k_threshold": None, "verdict": "unknown: few"}
    said |= {"log_evidence": 0.0, "log_evidence_se": 0.0}
    payload = {"model": "a", "version": 1, "weights": [1.0], "log_weights": [0.0], **said}
    assert posterior_answers.Weights.read(payload).pareto_k_threshold == -np.inf
    with pytest.raises(errors.UnexpectedAnswer):
        posterior_answers.Weights.read({**payload, **changed})


def test_pieces_of_an_edit_go_together_along_their_rows():
    payload = {"model": "a", "version": 1, "x": [[[1.0]]], "z": [[[1.0]]], "log_prob": [[0.0]]}
    one = answers.Edited.read(payload)
    assert join_answers([one, one], 1).x.shape == (1, 2, 1)


CONTEXTS = np.float32([[0.5, -1.0], [2.0, 0.0], [-0.25, 1.0], [0.0, 0.0], [1.5, 3.0]])


def test_a_posterior(client):
    found = client.posterior(CONTEXTS, 50, seed=7, quantiles=[0.25, 0.75], hpd=0.5, model="conditional")
    drawn = client.sample(50, seed=7, context=CONTEXTS, model="conditional").x
    assert found.mean.dtype == np.float32
    np.testing.assert_allclose(found.mean, drawn.mean(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.std, drawn.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.quantiles, np.quantile(drawn, [0.25, 0.75], axis=1).swapaxes(0, 1), rtol=1e-4)
    width = drawn.shape[-1]
    assert (found.hpd.shape, found.correlation.shape) == ((5, 1, 2, width), (5, width, width))
    np.testing.assert_array_equal(np.asarray(found), found.mean)
    one = client.posterior(CONTEXTS[1], 50, seed=7, quantiles=(), hpd=(), correlation=False, model="conditional")
    np.testing.assert_array_equal(one.mean, found.mean[1:2])
    assert (one.quantiles, one.hpd, one.correlation) == (None, None, None)


def test_many_contexts_travel_in_pieces_under_one_seed(connect, server):
    whole = connect(server).posterior(CONTEXTS, 20, seed=3, model="conditional")
    pieces = connect(server, max_values=45).posterior(CONTEXTS, 20, seed=3, model="conditional")
    np.testing.assert_array_equal(pieces.hpd, whole.hpd)
    drawn = connect(server, max_values=45).posterior(CONTEXTS, 20, model="conditional")
    again = connect(server).posterior(CONTEXTS, 20, seed=drawn.seed, model="conditional")
    np.testing.assert_array_equal(drawn.std, again.std)


def test_levels_that_are_no_numbers_are_refused_before_anything_is_sent(client):
    for levels in ([[0.5]], [np.nan], "high"):
        with pytest.raises(errors.InvalidInput, match="quantiles"):
            client.posterior(CONTEXTS, quantiles=levels, model="conditional")


def test_a_sample_of_a_flow_with_a_prior_says_how_many_draws_lay_inside():
    payload = {"model": "a", "version": 1, "seed": 1, "offset": 0, "n": 1, "x": [[1.0]], "log_prob": [0.0]}
    assert answers.Samples.read(payload).acceptance is None
    assert answers.Samples.read({**payload, "acceptance": 0.75}).acceptance == 0.75

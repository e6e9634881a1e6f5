"""Both clients against a real server process."""

from __future__ import annotations

import asyncio
import math
from random import Random

import httpx
import numpy as np
import pytest

import pushforward
from pushforward.client import errors
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.plan import run_now
from tests.service import bundles


@pytest.fixture(scope="session")
def local(repository):
    """The same flows, run in this process."""
    return lambda name: load_flow(read_bundle(Repository(repository).path(name)))


@pytest.fixture
def client(connect, server):
    return connect(server)


def bits(array):
    assert array.dtype == np.float32
    return array.view(np.uint32).tolist()


def rows(count, *event, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *event)).astype(np.float32)


def test_densities_are_the_flows_to_the_bit(client, local):
    x = rows(500, 2)
    log_prob = client.log_prob(x)
    assert bits(log_prob) == bits(run_now(local("affine").log_prob(x)).log_prob)
    assert np.allclose(log_prob, bundles.affine().log_prob(x), rtol=1e-5)


def test_a_single_event_is_one_row(client):
    assert bits(client.log_prob([0.5, 1.5])) == bits(client.log_prob([[0.5, 1.5]]))
    image = rows(1, 2, 3, 1)
    assert bits(client.log_prob(image[0], model="image")) == bits(client.log_prob(image, model="image"))


def test_zero_density_is_minus_infinity(client):
    scores = client.log_prob([[0.25], [5.0], [4.0]], model="square", returns=["bits_per_dim", "quantile", "typicality"])
    assert scores.log_prob[1] == -np.inf
    assert scores.in_support.tolist() == [True, False, True]
    assert np.allclose(scores.log_prob[[0, 2]], [-math.log(4 * 0.5), -math.log(8)], rtol=1e-6)
    assert scores.bits_per_dim[1] == np.inf
    assert scores.typicality[1] == np.inf
    assert client.log_prob([[0.25]], model="square", returns=[]).in_support.tolist() == [True]


def test_all_that_can_be_asked_for(client):
    names = ["z", "log_abs_det_jacobian", "base_log_prob", "quantile", "typicality", "bits_per_dim"]
    scores = client.log_prob(rows(7, 2), returns=names, alarm_rate=0.5)
    for name in names:
        assert getattr(scores, name).shape == ((7, 2) if name == "z" else (7,))
    assert np.allclose(scores.base_log_prob + scores.log_abs_det_jacobian, scores.log_prob, atol=1e-5)
    assert (scores.anomaly == (scores.quantile < 0.5)).all()


def test_same_seed_same_rows(client, local):
    ten = client.sample(10, seed=7)
    five = client.sample(5, seed=7, offset=5)
    assert bits(ten.x[5:]) == bits(five.x)
    assert bits(ten.log_prob[5:]) == bits(five.log_prob)
    assert (ten.seed, ten.offset, ten.model, ten.version) == (7, 0, "affine", 2)
    assert bits(ten.x) == bits(run_now(local("affine").sample(10, 7)).x)
    drawn = client.sample(4)
    assert bits(client.sample(4, seed=drawn.seed).x) == bits(drawn.x)


def test_the_greatest_seed(client):
    seed = (1 << 64) - 1
    assert client.sample(1, seed=seed).seed == seed


def test_temperature_and_the_flows_own_density(client):
    cold = client.sample(5, seed=1, temperature=0.0)
    assert len({tuple(row) for row in cold.x.tolist()}) == 1
    assert bits(cold.log_prob) == bits(client.log_prob(cold.x)) or np.allclose(cold.log_prob, client.log_prob(cold.x))


def test_large_inputs_travel_in_pieces(connect, server):
    x = rows(12_000, 2)
    whole = connect(server, max_values=5000).log_prob(x)  # the server takes bodies of 200,000 bytes
    parts = [connect(server).log_prob(part) for part in np.split(x, 8)]
    assert bits(whole) == bits(np.concatenate(parts))
    with pytest.raises(errors.TooLarge) as caught:
        connect(server).log_prob(x)
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")


def test_one_row_of_context_goes_with_every_piece(connect, server):
    x, context = rows(20, 2), rows(1, 2, seed=1)
    whole = connect(server, model="conditional")
    cut = connect(server, model="conditional", max_values=6)
    assert bits(cut.log_prob(x, context=context)) == bits(whole.log_prob(x, context=context))
    assert bits(cut.encode(x, context=context).z) == bits(whole.encode(x, context=context).z)
    assert bits(cut.decode(x, context=context).x) == bits(whole.decode(x, context=context).x)


def test_large_samples_travel_in_pieces(connect, server, local):
    drawn = connect(server, max_values=5000).sample(6000, seed=3, offset=11)
    expected = run_now(local("affine").sample(6000, 3, 11))
    assert bits(drawn.x) == bits(expected.x)
    assert bits(drawn.log_prob) == bits(expected.log_prob)


def test_there_and_back(client):
    x = rows(20, 2, 3, 1)
    encoded = client.encode(x, model="image")
    assert encoded.z.shape == (20, 6)
    decoded = client.decode(encoded.z, model="image")
    assert decoded.x.shape == x.shape
    assert np.allclose(decoded.x, x, atol=1e-5)
    assert np.allclose(decoded.log_abs_det_jacobian, -encoded.log_abs_det_jacobian, atol=1e-5)
    assert np.allclose(decoded.log_prob, encoded.log_prob, atol=1e-4)


def test_a_walk_passes_through_its_points(client):
    points = rows(3, 2)
    walk = client.interpolate(points, steps=5)
    assert np.allclose(walk.x[[np.flatnonzero(walk.t == k)[0] for k in range(3)]], points, atol=1e-5)
    assert walk.x.shape == (len(walk.t), 2)
    straight = client.interpolate(points, steps=5, path="linear", space="z")
    assert np.allclose(straight.z[0], points[0], atol=1e-6)
    assert straight.round_trip_error.max() < 1e-4


def test_context(client, local):
    x, context = rows(6, 2), rows(6, 2, seed=1)
    given = client.log_prob(x, context=context, model="conditional")
    assert np.allclose(given, bundles.affine("conditional", context_width=2).log_prob(x, context), rtol=1e-5)
    one = client.log_prob(x, context=context[0], model="conditional")
    assert bits(one) == bits(client.log_prob(x, context=np.tile(context[0], (6, 1)), model="conditional"))
    assert bits(one) == bits(client.log_prob(x, context=context[:1], model="conditional"))
    each = client.sample(3, seed=2, context=context[:2], model="conditional")
    assert each.x.shape == (2, 3, 2)
    assert bits(each.x[1]) == bits(client.sample(3, seed=2, context=context[1], model="conditional").x)
    encoded = client.encode(x, context=context, model="conditional")
    assert np.allclose(client.decode(encoded.z, context=context, model="conditional").x, x, atol=1e-5)
    assert bits(encoded.z[2:3]) == bits(client.encode(x[2:3], context=context[2], model="conditional").z)
    walk = client.interpolate(x[:2], context=context[0], steps=3, model="conditional")
    assert np.allclose(walk.x[[0, -1]], x[:2], atol=1e-5)


@pytest.mark.parametrize("verb", ["log_prob", "encode", "decode", "interpolate", "sample"])
def test_a_context_of_another_width(client, verb):
    given = {} if verb == "sample" else {{"decode": "z", "interpolate": "points"}.get(verb, "x"): rows(6, 2)}
    with pytest.raises(errors.InvalidRequest, match=r"\[2\], and found \[3\]"):
        getattr(client, verb)(**given, context=[1.0, 2.0, 3.0], model="conditional")
    with pytest.raises(errors.InvalidRequest, match="a context of 2 columns is needed, and there is none"):
        getattr(client, verb)(**given, model="conditional")
    with pytest.raises(errors.InvalidRequest, match="takes no context"):
        getattr(client, verb)(**given, context=[1.0], model="affine")
    if verb != "sample":
        with pytest.raises(errors.InvalidRequest, match="context"):
            getattr(client, verb)(**given, context=rows(4, 2), model="conditional")


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize("noise", ["independent", "common"])
def test_a_context_has_the_same_rows_in_any_company_and_in_pieces(connect, server, local, method, noise):
    how = {"seed": 2, "offset": 3, "method": method, "noise": noise}
    contexts = np.concatenate([rows(20, 2, seed=1), np.float32([[0.0, 1.0], [-0.0, 1.0]])])
    whole = connect(server, model="conditional").sample(300, context=contexts, **how)
    assert bits(whole.x) == bits(run_now(local("conditional").sample(300, context=contexts, **how)).x)
    cut = connect(server, model="conditional", max_values=700)
    assert bits(cut.sample(300, context=contexts, **how).x) == bits(whole.x)
    for at in (0, 7, 19):
        assert bits(cut.sample(300, context=contexts[at], **how).x) == bits(whole.x[at])
    assert bits(whole.x[20]) == bits(whole.x[21])
    encoded = [cut.encode(whole.x[at], context=contexts[at]).z for at in (0, 1)]
    assert np.allclose(*encoded, atol=1e-5) == (noise == "common")


def test_a_stream_of_several_contexts_is_their_whole_sample(server):
    contexts = rows(3, 2, seed=1)
    for noise in ("independent", "common"):
        with pushforward.Client(server, model="conditional", max_values=900) as client:
            blocks = list(client.stream_sample(700, seed=5, context=contexts, noise=noise))
            whole = client.sample(700, seed=5, context=contexts, noise=noise)
        assert len(blocks) > 2
        assert bits(np.concatenate([block.x for block in blocks], axis=1)) == bits(whole.x)


@pytest.mark.parametrize("noise", ["independent", "common"])
def test_traces_and_weights_of_a_context_are_of_its_rows(client, noise):
    context = [1.0, -2.0]
    drawn = client.sample(40, seed=7, context=context, noise=noise, model="given")
    asked = {"n": 40, "seed": 7, "context": context, "noise": noise, "model": "given"}
    assert bits(client.trace(**asked).steps[0].value) == bits(drawn.x)
    assert client.weights(drawn.log_prob, **asked).ess == pytest.approx(40)
    found = client.importance(lambda x: -0.5 * (x**2).sum(axis=1), 40, 7, context=context, noise=noise, model="given")
    assert bits(found.x) == bits(drawn.x)
    by_rows = client.weights(found.log_target, drawn.x, context=context, model="given")
    assert np.allclose(found.weights, by_rows.weights, rtol=1e-4)


def test_the_clients_own_flow(connect, server):
    client = connect(server, model="affine", version=1)
    assert client.sample(1).version == 1
    assert client.sample(1, version=2).version == 2
    assert client.encode([[1.0]], model="square").model == "square"


def test_what_is_served(client):
    assert [(flow.name, flow.version) for flow in client.models()] == [
        ("affine", 1),
        ("affine", 2),
        ("classes", 1),
        ("conditional", 1),
        ("given", 1),
        ("image", 1),
        ("square", 1),
        ("traced", 1),
    ]
    listed = {flow.name: flow for flow in client.models()}
    assert [listed[name].event_shape for name in listed] == [(2,), (2,), (2,), (2,), (2, 3, 1), (1,), (2,)]
    assert [listed[name].context_width for name in listed] == [0, 3, 2, 2, 0, 0, 0]
    assert listed["classes"].context_features == ("dose", "kind=red", "kind=7")
    assert listed["conditional"].context_features == ()
    assert listed["affine"].features == ("column 0", "column 1")
    assert listed["image"].features == ()
    assert listed["affine"].manifest is None
    info = client.model()
    assert info.manifest["event_shape"] == [2]
    assert (info.name, info.version, info.versions, info.state, info.default) == ("affine", 2, (1, 2), "ready", True)
    assert (info.event_shape, info.context_width, info.features) == ((2,), 0, ("column 0", "column 1"))
    assert client.model("conditional").context_width == 2
    assert client.model("image").event_shape == (2, 3, 1)
    assert client.model("affine", 1).version == 1
    assert client.live()
    assert client.ready()


@pytest.mark.parametrize(
    ("call", "kind", "status", "code"),
    [
        (lambda c: c.log_prob([[1, 2]], model="nosuch"), errors.NotFound, 404, "flow_not_found"),
        (lambda c: c.log_prob([[1, 2]], version=9), errors.NotFound, 404, "version_not_found"),
        (lambda c: c.model("nosuch"), errors.NotFound, 404, "flow_not_found"),
        (lambda c: c.model("affine", 9), errors.NotFound, 404, "version_not_found"),
        (lambda c: c.log_prob([[1, 2, 3]]), errors.InvalidRequest, 422, "wrong_shape"),
        (lambda c: c.log_prob([[1, 2]], context=[1.0]), errors.InvalidRequest, 422, "wrong_shape"),
        (lambda c: c.log_prob([[1, 2]], returns=["y"]), errors.InvalidRequest, 422, "invalid_argument"),
        (lambda c: c.sample(0), errors.InvalidRequest, 422, "invalid_argument"),
        (lambda c: c.sample(2, seed=-1), errors.InvalidRequest, 422, "invalid_argument"),
        (lambda c: c.interpolate([[1.0], [9.0]], model="square"), errors.InvalidRequest, 422, "out_of_support"),
        (lambda c: c.interpolate([[1.0, 2.0]] * 2, steps=10**6), errors.InvalidRequest, 422, "over_work_budget"),
        (lambda c: c.log_prob([[3e38, 3e38]]), errors.InvalidRequest, 422, "not_finite"),
        (
            lambda c: c.sample(1, seed=1, temperature=2.0, model="square"),
            errors.InvalidRequest,
            422,
            "invalid_argument",
        ),
    ],
)
def test_the_servers_refusals(client, call, kind, status, code):
    with pytest.raises(kind) as caught:
        call(client)
    error = caught.value
    assert (error.status, error.code) == (status, code)
    assert error.detail


def test_a_refusal_names_the_row(client):
    with pytest.raises(errors.InvalidRequest) as caught:
        client.log_prob([[1, 2], [3e38, 3e38], [1, 2]])
    assert caught.value.errors[0].row == 1


class Breaks(httpx.HTTPTransport):
    """A network that breaks off, somewhere in the answer, every other request at random."""

    def __init__(self, seed):
        super().__init__()
        self.random = Random(seed)
        self.broken = 0

    def handle_request(self, request):
        response = super().handle_request(request)
        if self.random.random() < 0.5:
            self.broken += 1
            return httpx.Response(200, stream=Cut(response, self.random.random()))
        return response


class Cut(httpx.SyncByteStream):
    def __init__(self, response, share):
        self.response, self.share = response, share

    def __iter__(self):
        body = self.response.read()
        yield body[: int(self.share * len(body))]
        raise httpx.ReadError("the connection was lost")

    def close(self):
        self.response.close()


@pytest.mark.parametrize("noise", [{}, {"temperature": 0.5, "method": "sobol"}])
def test_a_stream_that_breaks_off_and_goes_on_is_the_unbroken_one(server, noise):
    transport = Breaks(1)
    with pushforward.Client(server) as client:
        whole = client.sample(3000, seed=5, offset=2, **noise)
    with pushforward.Client(server, transport=transport, max_values=512, sleep=lambda _: None, retries=20) as client:
        blocks = list(client.stream_sample(3000, seed=5, offset=2, **noise))
    assert transport.broken > 3
    assert [block.offset for block in blocks] == [2 + 256 * at for at in range(12)]
    assert bits(np.concatenate([block.x for block in blocks])) == bits(whole.x)
    assert bits(np.concatenate([block.log_prob for block in blocks])) == bits(whole.log_prob)


def test_a_stream_that_is_given_up_goes_on_later(server):
    with pushforward.Client(server, max_values=512) as client:
        first = next(iter(client.stream_sample(1000, round_trip=True)))
        rest = client.sample(1000 - len(first.x), seed=first.seed, offset=first.offset + len(first.x))
        whole = client.sample(1000, seed=first.seed)
    assert bits(np.concatenate([first.x, rest.x])) == bits(whole.x)
    assert first.round_trip_error.shape == (256,)


def test_the_asynchronous_stream_is_the_same(server):
    async def blocks():
        async with pushforward.AsyncClient(server, max_values=512) as client:
            return [block.x async for block in client.stream_sample(700, seed=5)]

    with pushforward.Client(server) as client:
        whole = client.sample(700, seed=5)
    assert bits(np.concatenate(asyncio.run(blocks()))) == bits(whole.x)


def test_round_trips_come_with_what_is_asked(client):
    x = rows(4, 2)
    encoded = client.encode(x, round_trip=True)
    decoded = client.decode(encoded.z, round_trip=True)
    scores = client.log_prob(x, returns=["round_trip_error"])
    drawn = client.sample(4, seed=1, round_trip=True)
    for answer in (encoded, decoded, scores, drawn):
        assert answer.round_trip_error.shape == (4,)
        assert answer.round_trip_error.max() < 1e-5
    assert client.encode(x).round_trip_error is None

"""The law of a flow of float64: nothing on its way rounds further, in any media type, batch and neighbourhood."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest

from service.app import create_app
from service.bundle.manifest import Manifest, seal_older
from service.bundle.store import Golden, read_bundle
from service.engine.loading import load_flow
from service.engine.sampling.noise import BaseNoise
from service.engine.sampling.stream_keys import stream_keys
from service.engine.verbs.flow import ServedFlow
from service.errors import BundleError, UnexpectedFile
from service.plan import run_now
from tests.service.bundles import Parts, affine, bundle, coupling, image, in_float64, install, square, traced
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess

FLOWS: dict[str, Parts] = {
    "wide": in_float64(traced(affine("two-moons")), "wide"),
    "wide-conditional": in_float64(traced(affine("conditional", 1, (3,), 2)), "wide-conditional"),
    "wide-image": in_float64(traced(image()), "wide-image"),
    "wide-square": in_float64(square(), "wide-square"),
    "wide-coupling": in_float64(coupling(width=5), "wide-coupling"),
}
ROWS = np.random.default_rng(4).normal(size=(5, 2))
NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    install(root, *FLOWS.values(), traced(affine("two-moons")))
    with InProcess(create_app(settings_for(root))) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(client) -> dict[str, ServedFlow]:
    return {name: client.app.state.registry.find(name) for name in FLOWS}


def post(client, path, body, **headers):
    reply = client.request("POST", path, content=json.dumps(body), headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def npy(array):
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def rows_for(flow: ServedFlow, count: int) -> np.ndarray:
    return 0.25 + np.random.default_rng(1).random((count, *flow.event_shape))


def context_for(flow: ServedFlow, count: int) -> np.ndarray | None:
    width = flow.manifest.context_width
    return np.random.default_rng(2).normal(size=(count, width)) if width else None


@pytest.mark.parametrize("name", FLOWS)
def test_densities_are_those_of_the_closed_form_in_float64(served, name):
    flow = served[name]
    x, context = rows_for(flow, 7), context_for(flow, 7)
    found = run_now(flow.log_prob(x, context, returns=("z", "quantile", "typicality", "base_log_prob")))
    assert {found.log_prob.dtype, *(value.dtype for value in found.extras.values())} == {np.dtype(np.float64)}
    # the constants of these graphs were made in float32
    np.testing.assert_allclose(found.log_prob, FLOWS[name].log_prob(x, context), rtol=3e-8, atol=3e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_a_row_has_the_same_bits_in_any_batch(served, name):
    flow = served[name]
    x, context = rows_for(flow, 70), context_for(flow, 70)
    whole = run_now(flow.log_prob(x, context, returns=("z",)))
    for start, stop in ((0, 1), (3, 8), (13, 70)):
        part = run_now(flow.log_prob(x[start:stop], None if context is None else context[start:stop], returns=("z",)))
        assert part.log_prob.tobytes() == whole.log_prob[start:stop].tobytes()
        assert part.extras["z"].tobytes() == whole.extras["z"][start:stop].tobytes()


@pytest.mark.parametrize("name", FLOWS)
def test_row_i_of_a_seed_is_one_value_and_no_float32(served, name):
    flow = served[name]
    context = context_for(flow, 1)
    ten = run_now(flow.sample(10, seed=3, context=None if context is None else context[0]))
    five = run_now(flow.sample(5, seed=3, offset=5, context=None if context is None else context[0]))
    assert ten.x[5:].tobytes() == five.x.tobytes()
    assert (ten.x != ten.x.astype(np.float32)).mean() > 0.9


def test_latents_round_to_those_of_float32(served):
    base = served["wide"].manifest.base
    wide = BaseNoise(base, 2, seed=3, offset=0, count=50, dtype=np.dtype(np.float64))[0:50]
    assert wide.astype(np.float32).tobytes() == BaseNoise(base, 2, seed=3, offset=0, count=50)[0:50].tobytes()


def test_contexts_that_only_float64_tells_apart_have_streams_of_their_own():
    near = np.array([[0.1], [np.nextafter(0.1, 1)], [0.0], [-0.0]])
    one, other, zero, minus_zero = stream_keys(near)
    assert one != other
    assert zero == minus_zero
    assert len(set(stream_keys(near.astype(np.float32)))) == 2


def test_json_is_float64_both_ways_and_says_so(client, served):
    answer = post(client, "/models/wide/logprob", {"x": ROWS.tolist(), "return": ["z"]}).json()
    expected = run_now(served["wide"].log_prob(ROWS, returns=("z",)))
    assert list(answer)[:3] == ["model", "version", "precision"]
    assert answer["precision"] == "float64"
    assert np.array(answer["log_prob"]).tobytes() == expected.log_prob.tobytes()
    assert np.array(answer["z"]).tobytes() == expected.extras["z"].tobytes()
    assert "precision" not in post(client, "/logprob", {"x": ROWS.tolist()}).json()


def test_a_large_body_and_many_small_ones_are_as_exact(client, served):
    many = np.random.default_rng(5).normal(size=(9000, 2))
    large = post(client, "/models/wide/logprob", {"x": many.tolist()}).json()["log_prob"]
    expected = run_now(served["wide"].log_prob(many)).log_prob
    assert np.array(large).tobytes() == expected.tobytes()
    alone = [post(client, "/models/wide/logprob", {"x": [row]}).json()["log_prob"][0] for row in many[:4].tolist()]
    assert np.array(alone).tobytes() == expected[:4].tobytes()


def test_the_one_text_that_float32_rounds_twice_is_left_alone(client):
    tie = 7.038531e-26
    z = post(client, "/models/wide/trace", {"x": [[tie, -tie]]}).json()["steps"][0]["value"]
    assert z == [[tie, -tie]]
    # another float32 would have another text
    assert '"value":[[7.038531e-26,-7.038531e-26]]' in post(client, "/trace", {"x": [[tie, -tie]]}).text


def test_npy_and_arrow_carry_float64_and_take_float32(client, served):
    expected = run_now(served["wide"].log_prob(ROWS)).log_prob
    for accept in (NPY, ARROW):
        reply = client.request(
            "POST", "/models/wide/logprob", content=npy(ROWS), headers={"content-type": NPY, "accept": accept}
        )
        assert reply.headers["pushforward-precision"] == "float64"
        if accept == NPY:
            found = np.load(io.BytesIO(reply.content))
        else:
            found = pa.ipc.open_stream(reply.content).read_all()["log_prob"].to_numpy()
        assert found.dtype == np.float64
        assert found.tobytes() == expected.tobytes()
    single = ROWS.astype(np.float32)
    reply = client.request(
        "POST", "/models/wide/logprob", content=npy(single), headers={"content-type": NPY, "accept": NPY}
    )
    exact = run_now(served["wide"].log_prob(single.astype(np.float64))).log_prob
    assert np.load(io.BytesIO(reply.content)).tobytes() == exact.tobytes()


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_text_is_read_back_bit_for_bit(client, served, accept):
    reply = client.request("GET", "/models/wide/sample?n=4&seed=1", headers={"accept": accept})
    expected = run_now(served["wide"].sample(4, seed=1))
    if accept == "text/csv":
        found = np.array([[float(cell) for cell in line.split(",")] for line in reply.text.splitlines()[1:]])[:, :2]
    else:
        found = np.array([json.loads(line)["x"] for line in reply.text.splitlines()])
    assert found.tobytes() == expected.x.tobytes()


def test_one_drawn_row_is_the_first_of_its_seed(client, served):
    one = client.request("GET", "/models/wide/sample?n=1&seed=9").json()
    assert np.array(one["x"]).tobytes() == run_now(served["wide"].sample(1, seed=9)).x.tobytes()


def test_walks_edits_traces_and_weights_are_float64(client):
    points = [[0.1, 0.2], [1.3, -0.7]]
    walk = post(client, "/models/wide/interpolate", {"points": points, "steps": 5}).json()
    assert max(walk["round_trip_error"]) < 1e-12
    np.testing.assert_allclose([walk["x"][0], walk["x"][-1]], points, rtol=1e-13)
    moved = post(client, "/models/wide/edit", {"x": points, "direction": [1, 0], "strength": [0.0]}).json()
    np.testing.assert_allclose(moved["x"][0], points, rtol=1e-13)
    steps = post(client, "/models/wide/trace", {"x": points}).json()["steps"]
    assert steps[0]["value"] == points
    weights = post(client, "/models/wide/weights", {"n": 40, "seed": 1, "log_target": [0.0] * 40}).json()
    assert weights["precision"] == "float64"


def test_a_picture_is_drawn(client):
    reply = client.request("GET", "/models/wide/sample?n=50&seed=1", headers={"accept": "image/png"})
    assert reply.content.startswith(b"\x89PNG")


def test_a_number_beyond_float32_is_taken_and_one_beyond_float64_refused(client):
    assert post(client, "/models/wide/trace", {"x": [[1e39, 0.0]]}).json()["steps"][0]["value"] == [[1e39, 0.0]]
    refused = client.request("POST", "/models/wide/logprob", content='{"x": [[1e400, 0]]}')
    assert refused.status_code == 422
    assert refused.json()["code"] == "not_finite"
    assert "beyond the range of float32" in client.request("POST", "/logprob", content='{"x": [[1e39, 0]]}').text


def test_a_flow_says_its_precision(client):
    assert client.request("GET", "/models/wide").json()["precision"] == "float64"
    listed = {flow["name"]: flow["precision"] for flow in client.request("GET", "/models").json()["models"]}
    assert listed["two-moons"] == "float32"
    described = client.request("GET", "/openapi.json").json()["components"]["schemas"]
    assert "precision" in described["Flow"]["properties"]
    assert "precision" in described["LogProbResponse"]["properties"]


def test_a_graph_of_another_precision_than_the_manifest_says_is_not_served(tmp_path):
    parts = FLOWS["wide"]
    lied = parts.manifest.model_copy(update={"precision": "float32"})
    with pytest.raises(UnexpectedFile, match="x must be float32"):
        read_bundle(install(tmp_path / "a", Parts(lied, parts.files, parts.forward, parts.inverse)).path("wide"))
    narrow = affine("two-moons")
    golden = Golden.from_npz(parts.files["golden.npz"], parts.manifest)
    mixed = {**narrow.files, "golden.npz": golden.to_npz()}
    manifest = narrow.manifest.model_copy(update={"precision": "float64"})
    with pytest.raises(BundleError, match="must be float64 of shape"):
        load_flow(bundle(tmp_path / "b", Parts(manifest, mixed, narrow.forward, narrow.inverse)))


def test_a_manifest_without_a_precision_is_of_float32():
    manifest = affine("two-moons").manifest
    document = json.loads(manifest.to_json())
    assert document.pop("precision") == "float32"
    sealed = seal_older(json.dumps(document).encode(), edited=True)
    assert Manifest.from_json(sealed).precision == "float32"

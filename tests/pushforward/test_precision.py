"""The law of the client and a flow of float64: what goes there and comes back is not rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from pushforward.client.errors import InvalidInput
from service.app import create_app
from service.engine.verbs.flow import ServedFlow
from service.plan import run_now
from service.settings import Settings
from tests.service.bundles import affine, in_float64, install, traced
from tests.service.inprocess import InProcess

ROWS = np.random.default_rng(0).normal(size=(6, 2))
CONTEXT = np.random.default_rng(1).normal(size=(6, 3))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    root = tmp_path_factory.mktemp("repository")
    install(root, affine("plain"), in_float64(traced(affine("wide")), "wide"))
    install(root, in_float64(affine("given", context_width=3), "given"))
    with InProcess(create_app(Settings(repository=root, default_flow="plain", threads=1))) as opened:
        yield opened


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


@pytest.fixture
def client(connect: Callable[..., Any], app: InProcess, asked: list[httpx.Request]) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        reply = app.request(request.method, str(request.url), content=request.content, headers=dict(request.headers))
        return httpx.Response(reply.status_code, content=reply.content, headers={"content-type": "application/json"})

    return connect(answer)


def served(app: InProcess, name: str) -> ServedFlow:
    flow: ServedFlow = app.app.state.registry.find(name)
    return flow


def test_float64_is_not_rounded_and_a_flow_is_met_once(client: Any, app: InProcess, asked: list[httpx.Request]) -> None:
    expected = run_now(served(app, "wide").log_prob(ROWS)).log_prob
    for requests in (2, 1):
        asked.clear()
        found = client.log_prob(ROWS, model="wide")
        assert found.dtype == np.float64
        assert found.tobytes() == expected.tobytes()
        assert len(asked) == requests, "the precision is learnt from the first answer"


def test_a_flow_of_float32_is_asked_once_and_answers_as_ever(
    client: Any, app: InProcess, asked: list[httpx.Request]
) -> None:
    found = client.log_prob(ROWS)
    assert found.dtype == np.float32
    assert found.tobytes() == run_now(served(app, "plain").log_prob(ROWS.astype(np.float32))).log_prob.tobytes()
    assert len(asked) == 1


def test_float32_goes_as_the_number_that_it_is(client: Any, app: InProcess) -> None:
    single = ROWS.astype(np.float32)
    expected = run_now(served(app, "wide").encode(single.astype(np.float64)))
    found = client.encode(single, model="wide")
    assert found.precision == "float64"
    assert found.z.tobytes() == expected.z.tobytes()


def test_every_array_of_an_answer_is_float64(client: Any) -> None:
    scores = client.log_prob(ROWS, model="wide", returns=["z", "quantile", "base_log_prob"])
    samples = client.sample(300, seed=3, model="wide", round_trip=True)
    walk = client.interpolate(ROWS[:2], model="wide", steps=4)
    moved = client.edit(ROWS, [1.0, 0.1], [0.0, 0.3], model="wide")
    traced_rows = client.trace(ROWS, model="wide")
    arrays = [scores.log_prob, scores.z, scores.quantile, samples.x, samples.log_prob, walk.x, moved.x, moved.z]
    arrays += [step.value for step in traced_rows.steps] + [traced_rows.log_prob, traced_rows.log_abs_det_jacobian]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}
    assert traced_rows.steps[0].value.tobytes() == ROWS.tobytes()
    assert samples.x.tobytes() == client.sample(300, seed=3, model="wide").x.tobytes()


def test_a_context_is_not_rounded(client: Any, app: InProcess) -> None:
    expected = run_now(served(app, "given").sample(3, seed=1, context=CONTEXT))
    assert client.sample(3, seed=1, context=CONTEXT, model="given").x.tobytes() == expected.x.tobytes()
    one = run_now(served(app, "given").sample(3, seed=1, context=CONTEXT[0]))
    assert client.sample(3, seed=1, context=CONTEXT[0], model="given").x.tobytes() == one.x.tobytes()


def test_a_stream_of_a_context_is_not_rounded(client: Any, app: InProcess) -> None:
    expected = run_now(served(app, "given").sample(400, seed=1, context=CONTEXT[0]))
    if not hasattr(client, "_runner"):  # of AsyncClient it is an asynchronous iterator
        blocks = [block.x for block in client.stream_sample(400, seed=1, context=CONTEXT[0], model="given")]
        assert np.concatenate(blocks).tobytes() == expected.x.tobytes()


def test_a_number_beyond_float32_is_for_flows_of_float64(client: Any) -> None:
    far = [[1e39, 0.0]]
    assert client.trace(far, model="wide").steps[0].value.tolist() == far
    with pytest.raises(InvalidInput, match="1e\\+39 is beyond the range of float32"):
        client.trace(far)


def test_the_server_says_the_precision(client: Any) -> None:
    assert client.model("wide").precision == "float64"
    assert client.model("plain").precision == "float32"

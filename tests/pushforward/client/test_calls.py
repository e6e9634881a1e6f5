from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.client.arrays import dump_numbers
from pushforward.client.calls import MAX_VALUES, Calls
from pushforward.client.connection import run_blocking
from pushforward.client.delivery import HttpAnswer, HttpRequest
from pushforward.client.errors import InvalidInput, UnexpectedAnswer


class Flow:
    """A stand-in for a server: answers each row by itself, and remembers what it was sent."""

    def __init__(self, event: tuple[int, ...] = (2,)) -> None:
        self.event = event
        self.asked: list[dict[str, Any]] = []
        self.version = 3

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        arguments = orjson.loads(request.body) if request.body else dict(request.query)
        self.asked.append({"path": request.path, "method": request.method, **arguments})
        given = {"model": "flow", "version": self.version}
        if request.path == "sample":
            n, offset = int(arguments.get("n", 1)), int(arguments.get("offset", 0))
            seed = int(arguments.get("seed", 11))
            contexts = arguments.get("context")
            rows = np.stack([self.row(seed, i) for i in range(offset, offset + n)])
            if isinstance(contexts, list):
                rows = np.stack([rows + np.float32(c[0]) for c in contexts])
            log_prob = rows.reshape(*rows.shape[: -len(self.event)], -1).sum(-1)
            return self.reply(given | {"seed": seed, "offset": offset, "n": n}, x=rows, log_prob=log_prob)
        key = "z" if request.path == "decode" else "x"
        x = np.array(arguments[key], np.float32)
        x = x.reshape(-1, *self.event)
        flat = x.reshape(len(x), -1)
        if "context" in arguments:
            flat = flat + np.atleast_2d(np.array(arguments["context"], np.float32))[:, :1]
        out = {"encode": "z", "decode": "x"}.get(request.path)
        arrays = {"log_prob": flat.sum(1), "log_abs_det_jacobian": flat[:, 0]}
        return self.reply(given, **arrays, **({out: flat * 2} if out else {"z": flat * 2}))

    def row(self, seed: int, index: int) -> np.ndarray:
        return np.random.default_rng([seed, index]).normal(size=self.event).astype(np.float32)

    def reply(self, given: dict[str, Any], **arrays: np.ndarray) -> HttpAnswer:
        members = [orjson.dumps(given)[1:-1], *(f'"{k}":'.encode() + dump_numbers(v) for k, v in arrays.items())]
        return HttpAnswer(200, b"{" + b",".join(members) + b"}")


class Sent:
    """A connection that remembers the bodies that it was sent, and gives no answer of this API."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        self.asked.append(orjson.loads(request.body or b"{}"))
        return HttpAnswer(200, b"")


def calls(connection: Any, **options: Any) -> Calls:
    rules = {"model": None, "version": None, "timeout": 60.0, "retries": 3, "max_values": MAX_VALUES}
    return Calls(connection, **{**rules, **options}, clock=lambda: 0.0, random=None)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.sampled_from([(2,), (1,), (2, 2, 1)]), st.booleans())
def test_pieces_joined_are_the_whole(rows, bound, event, with_context):
    x = np.random.default_rng(rows).normal(size=(rows, *event)).astype(np.float32)
    context = np.arange(rows, dtype=np.float32)[:, None] if with_context else None
    for verb in ("log_prob", "encode", "decode"):
        more = {"returns": []} if verb == "log_prob" else {}
        whole = run_blocking(getattr(calls(Flow(event)), verb)(x, context=context, **more))
        flow = Flow(event)
        cut = run_blocking(getattr(calls(flow, max_values=bound), verb)(x, context=context, **more))
        for name in ("log_prob", "z", "x"):
            if getattr(whole, name, None) is not None:
                assert getattr(cut, name).tobytes() == getattr(whole, name).tobytes()
        width = int(np.prod(event)) + with_context
        assert len(flow.asked) == -(-rows // max(1, bound // width)) if rows * width > bound else len(flow.asked) == 1


@settings(deadline=None)
@given(st.integers(1, 1200), st.integers(0, 50), st.integers(20, 3000), st.sampled_from([None, 5]))
def test_samples_in_pieces_are_the_whole(n, offset, bound, seed):
    flow = Flow()
    drawn = run_blocking(calls(flow, max_values=bound).sample(n, seed=seed, offset=offset))
    expected = np.stack([flow.row(seed or 11, i) for i in range(offset, offset + n)])
    assert drawn.x.tobytes() == expected.tobytes()
    assert (drawn.seed, drawn.offset, len(drawn.log_prob)) == (seed or 11, offset, n)
    starts = [int(asked["offset"]) for asked in flow.asked]
    counts = [int(asked["n"]) for asked in flow.asked]
    assert sum(counts) == n
    assert starts == [offset + sum(counts[:i]) for i in range(len(counts))]
    left = n - counts[0]
    for count in counts[1:]:
        assert count == min(max(1, bound // 2), left)
        left -= count


def test_a_wide_context_counts_in_the_size_of_a_request():
    flow = Flow()
    context = np.zeros((10, 98), np.float32)
    run_blocking(calls(flow, max_values=300).log_prob(np.ones((10, 2)), context=context))
    assert [len(asked["x"]) for asked in flow.asked] == [3, 3, 3, 1]
    assert [len(asked["context"]) for asked in flow.asked] == [3, 3, 3, 1]


def test_samples_of_many_contexts_travel_in_pieces():
    flow = Flow()
    context = np.arange(50, dtype=np.float32).reshape(50, 1)
    drawn = run_blocking(calls(flow, max_values=64).sample(3, offset=2, context=context))
    assert [len(asked["context"]) for asked in flow.asked] == [21, 21, 8]
    assert [asked.get("seed") for asked in flow.asked] == [None, 11, 11]
    assert [asked.get("version") for asked in flow.asked] == [None, 3, 3]
    assert drawn.x.shape == (50, 3, 2)
    expected = np.stack([flow.row(11, i) for i in (2, 3, 4)]) + context[:, None]
    np.testing.assert_array_equal(drawn.x, expected)
    assert (drawn.seed, drawn.offset) == (11, 2)


def test_samples_of_several_contexts_are_joined_along_their_rows():
    flow = Flow()
    context = np.array([[0.0], [10.0]], np.float32)
    drawn = run_blocking(calls(flow, max_values=64).sample(700, seed=5, context=context))
    assert drawn.x.shape == (2, 700, 2)
    assert drawn.log_prob.shape == (2, 700)
    rows = np.stack([flow.row(5, i) for i in range(700)])
    assert drawn.x.tobytes() == np.stack([rows, rows + np.float32(10)]).tobytes()
    assert {asked["method"] for asked in flow.asked} == {"POST"}


def test_the_first_answer_fixes_flow_version_and_seed_for_the_rest():
    flow = Flow()
    run_blocking(calls(flow, max_values=100).sample(1000))
    assert "seed" not in flow.asked[0]
    assert "version" not in flow.asked[0]
    assert all((a["model"], a["version"], a["seed"]) == ("flow", "3", "11") for a in flow.asked[1:])
    flow = Flow()
    run_blocking(calls(flow, max_values=4).log_prob(np.ones((9, 2))))
    assert [asked.get("version") for asked in flow.asked] == [None, 3, 3, 3, 3]


def test_a_simple_sample_is_a_get_with_only_what_was_said():
    flow = Flow()
    run_blocking(calls(flow).sample(2, seed=7, temperature=0.5, context=[0.25, 1e-45], model="wine", version=4))
    assert flow.asked == [
        {
            "path": "sample",
            "method": "GET",
            "model": "wine",
            "version": "4",
            "n": "2",
            "seed": "7",
            "offset": "0",
            "temperature": "0.5",
            "context": "0.25,1e-45",
        }
    ]


@pytest.mark.parametrize(
    ("own", "given", "sent"),
    [
        ((None, None), (None, None), (None, None)),
        (("a", 2), (None, None), ("a", 2)),
        (("a", 2), ("a", None), ("a", 2)),
        (("a", 2), ("b", None), ("b", None)),
        (("a", 2), ("b", 5), ("b", 5)),
        (("a", 2), (None, 5), ("a", 5)),
    ],
)
def test_which_flow_a_call_means(own, given, sent):
    flow = Flow()
    run_blocking(calls(flow, model=own[0], version=own[1]).encode([[1, 2]], model=given[0], version=given[1]))
    assert (flow.asked[0].get("model"), flow.asked[0].get("version")) == sent


def test_what_is_asked_for_travels_along():
    flow = Flow()
    scores = run_blocking(calls(flow).log_prob([1, 2], context=[0.5], returns=["z", "quantile"], alarm_rate=0.01))
    assert flow.asked[0] == {
        "path": "logprob",
        "method": "POST",
        "x": [1.0, 2.0],
        "context": [0.5],
        "return": ["z", "quantile"],
        "alarm_rate": 0.01,
    }
    assert scores.z.shape == (1, 2)
    assert scores.in_support.tolist() == [True]


def test_one_row_of_context_is_sent_with_every_piece():
    flow = Flow()
    run_blocking(calls(flow, max_values=4).log_prob(np.ones((5, 2)), context=[[0.5]]))
    assert [asked["context"] for asked in flow.asked] == [[[0.5]]] * 3
    assert [len(asked["x"]) for asked in flow.asked] == [2, 2, 1]


def test_context_and_rows_that_do_not_go_together():
    with pytest.raises(InvalidInput, match="context has 3 rows, and x has 4"):
        run_blocking(calls(Flow(), max_values=4).log_prob(np.ones((4, 2)), context=np.ones((3, 1))))


def test_nothing_is_sent_of_input_that_cannot_be():
    flow = Flow()
    with pytest.raises(InvalidInput):
        run_blocking(calls(flow).log_prob([[1, np.nan]]))
    with pytest.raises(InvalidInput, match="context"):
        run_blocking(calls(flow).sample(1, seed=1, context=[np.inf]))
    assert flow.asked == []


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"3", b"{}", b'{"model": "a"}', b'{"model": 1, "version": 1}']
)
def test_an_answer_that_is_not_of_this_api(content):
    class Other:
        async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
            return HttpAnswer(200, content)

    with pytest.raises(UnexpectedAnswer):
        run_blocking(calls(Other()).encode([[1, 2]]))


@pytest.mark.parametrize(("rows", "words"), [(0, "no rows"), (4, "4 rows, and 3 were asked for")])
def test_another_number_of_samples_than_was_asked_for(rows, words):
    class Generous(Flow):
        async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
            x = np.zeros((rows, 2), np.float32)
            return self.reply({"model": "flow", "version": 1, "seed": 1, "offset": 0}, x=x, log_prob=x[:, 0])

    with pytest.raises(UnexpectedAnswer, match=words):
        run_blocking(calls(Generous()).sample(3))


def test_a_blocking_call_waits_for_no_event_loop():
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for an event loop"):
        run_blocking(waits())


def test_a_small_request_is_not_cut_and_its_context_is_for_the_server_to_judge():
    connection = Sent()
    with pytest.raises(UnexpectedAnswer):
        run_blocking(calls(connection, max_values=11).encode(np.ones((4, 2)), context=np.ones((3, 1))))
    assert [(len(asked["x"]), len(asked["context"])) for asked in connection.asked] == [(4, 3)]


def test_a_single_event_is_one_request_whatever_its_size():
    flow = Flow((50,))
    run_blocking(calls(flow, max_values=10).encode(np.ones(50)))
    assert [len(asked["x"]) for asked in flow.asked] == [50]


def test_defaults_of_a_walk_are_left_out():
    for spacing, sent in (("parameter", {}), ("arc_length", {"spacing": "arc_length"})):
        connection = Sent()
        with pytest.raises(UnexpectedAnswer):
            run_blocking(calls(connection).interpolate([[1, 2], [3, 4]], spacing=spacing))
        points = {"points": [[1.0, 2.0], [3.0, 4.0]], "space": "x", "steps": 11}
        assert connection.asked == [points | sent]


@pytest.mark.parametrize(
    ("direction", "sent"),
    [("8", "8"), ([1.0, 2.0], [1.0, 2.0]), ([[1, 2], [3, 4]], {"from": [1.0, 2.0], "to": [3.0, 4.0]})],
)
def test_a_direction_as_it_is_sent(direction, sent):
    connection = Sent()
    with pytest.raises(UnexpectedAnswer):
        run_blocking(calls(connection).edit([1, 2], direction, [1, 2]))
    assert connection.asked == [{"x": [1.0, 2.0], "direction": sent, "strength": [1.0, 2.0]}]


@pytest.mark.parametrize(
    ("direction", "strength", "words"),
    [
        (5.0, [1.0], "direction must be one vector or two rows"),
        ([[1.0, 2.0]], [1.0], "direction must be one vector or two rows"),
        (np.ones((3, 2)), [1.0], "direction must be one vector or two rows"),
        ([np.nan], [1.0], "direction holds a value"),
        ([1.0], [[1.0]], "strength must be finite numbers"),
        ([1.0], [np.inf], "strength must be finite numbers"),
        ([1.0], "far", "strength must be numbers"),
    ],
)
def test_a_direction_or_a_strength_that_cannot_be_sent(direction, strength, words):
    connection = Sent()
    with pytest.raises(InvalidInput, match=words):
        run_blocking(calls(connection).edit([1, 2], direction, strength))
    assert connection.asked == []


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_target_that_is_too_large_or_no_number(value):
    connection = Sent()
    with pytest.raises(InvalidInput, match=f"log_target, row 1: {value} is neither finite"):
        run_blocking(calls(connection).weights([-np.inf, value], n=2, seed=1))
    assert connection.asked == []


def test_a_target_of_another_shape_than_the_draws():
    with pytest.raises(InvalidInput, match=r"each of the 3 rows, and gave the shape \[3, 2\]"):
        run_blocking(calls(Flow()).importance(lambda x: x, 3, 1))

"""The law: what is asked together is answered as its verb answers it alone, byte for byte, or is left to the verb."""

from __future__ import annotations

import io
import json
import random
from typing import NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.grouped.draws import cut_seed
from service.api.grouped.reading import Parcel
from service.api.grouped.verbs import GroupVerbs
from service.api.native.sample import DRAWN_SEED_BITS
from service.api.native.verbs import Verbs
from service.api.problems import problem_reply
from service.app import create_app
from service.bundle.priors import Prior
from service.engine.verbs.flow import RETURNS
from service.errors import DeadlineExceeded, Draining, EngineFailed, QueueFull
from service.exchange import Exchange
from service.plan import LARGE_RUN, Run, advance, run_now
from tests.service.bundles import affine, in_float64, install, shares
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess

BUDGET = 400


class Question(NamedTuple):
    query: bytes = b""
    body: bytes = b""


LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def registry(client):
    return client.app.state.registry


@pytest.fixture(scope="module")
def verbs(registry):
    return Verbs(registry, BUDGET, BUDGET)


@pytest.fixture(scope="module")
def groups(registry):
    return GroupVerbs(registry, BUDGET)


def alone(verb, exchange):
    try:
        return run_now(verb(exchange))
    except Exception as error:
        return problem_reply(error)


def parcels_of(exchanges):
    """Exchanges by their heads, and the places of each parcel's."""
    found = {}
    for at, each in enumerate(exchanges):
        head = each._replace(query=(), body=b"")
        found.setdefault(head[:-1], (head, []))[1].append(at)
    parcels, order = [], []
    for head, places in found.values():
        parcels.append(Parcel(head, [Question(text_of(exchanges[at].query), exchanges[at].body) for at in places]))
        order += places
    return parcels, order


def text_of(query):
    return "&".join(f"{name}={text}" for name, text in query).encode()


def together(group_verb, exchanges):
    """The replies of one turn; None for who is asked alone."""
    parcels, order = parcels_of(exchanges)
    replies = [None] * len(exchanges)
    asked = set()
    for places, plan in group_verb(parcels):
        for place, reply in zip(places, run_now(plan), strict=True):
            assert place not in asked
            asked.add(place)
            replies[order[place]] = reply
    return replies


def assert_law(group_verb, verb, exchanges):
    replies = together(group_verb, exchanges)
    for exchange, reply in zip(exchanges, replies, strict=True):
        assert reply is None or reply == alone(verb, exchange), exchange
    return replies


def post(body, name=None, version=None, accept=None, kind="application/json"):
    return Exchange(name, version, (), kind, accept, body if isinstance(body, bytes) else json.dumps(body).encode())


WIDTHS = {"two-moons": 2, "conditional": 3, "image": 6, "square": 1, "coupling": 5}
SHAPES = {"image": (2, 3, 1)}
CONTEXTS = {"conditional": 2}
names = st.sampled_from(list(WIDTHS))
odd_numbers = st.sampled_from([1e30, 1e39, -1e39, 1 << 70, 7.038531e-26, -5, None, True, "1", [1.0], {"a": 1}])
accepts = st.sampled_from([None, "*/*", "application/json", "application/x-npy", "text/csv", "image/png", "text/html"])
heads = st.tuples(
    st.sampled_from([None, None, "1", "2", "x"]),
    accepts,
    st.sampled_from([None, "application/json", "application/json; charset=latin-1", "text/plain"]),
)


@st.composite
def rows_of(draw, name, count=None, width=None):
    """Rows as JSON: mostly plain, and now and then with something odd in them."""
    shape = (width,) if width else SHAPES.get(name, (WIDTHS[name],))
    n = count or draw(st.sampled_from([1, 1, 1, 2, 4, 17]))
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    flat = [[rng.choice([round(rng.uniform(0.1, 1.9), 3), 1]) for _ in range(int(np.prod(shape)))] for _ in range(n)]
    if draw(st.integers(0, 9)) == 0:
        flat[rng.randrange(n)][0] = draw(odd_numbers)
    if draw(st.integers(0, 14)) == 0:
        flat[rng.randrange(n)].append(1)
    if len(shape) > 1 and draw(st.booleans()):
        try:
            nested = np.array(flat, object).reshape(n, *shape).tolist()
        except ValueError:
            return flat
        return nested[0] if n == 1 and draw(st.integers(0, 3)) == 0 else nested
    return flat[0] if n == 1 and draw(st.integers(0, 3)) == 0 else flat


def beside(draw, name, body):
    """The arguments that any call may have beside its rows, in any order."""
    width = CONTEXTS.get(name)
    if width and draw(st.integers(0, 9)):
        several = draw(st.integers(0, 3)) == 0
        value = draw(st.lists(st.sampled_from([0, 0.5, 1]), min_size=width, max_size=width))
        body["context"] = [value] * draw(st.sampled_from([1, 2, 4])) if several else value
    elif draw(st.integers(0, 14)) == 0:
        body["context"] = draw(st.sampled_from([[1], None, "x", [[1.0, None]]]))
    if draw(st.integers(0, 2)) == 0:
        body["model"] = draw(st.sampled_from([name, name, name, "nowhere", None, 5]))
    if draw(st.integers(0, 5)) == 0:
        body["version"] = draw(st.sampled_from([1, 2, "1", True, 7]))
    if draw(st.integers(0, 14)) == 0:
        body[draw(st.sampled_from(["size", "columns", "unknown", "y", "column 0", "é"]))] = 1
    return dict(draw(st.permutations(list(body.items()))))


def exchange_of(draw, name, body):
    version, accept, kind = draw(heads) if draw(st.integers(0, 3)) == 0 else (None, None, "application/json")
    named = name if body.get("model") != name or draw(st.booleans()) else None
    text = json.dumps(body, indent=draw(st.sampled_from([None, None, 1])), ensure_ascii=False)
    return Exchange(named, version, (), kind, accept, text.encode())


@st.composite
def densities(draw):
    name = draw(names)
    body = {"x": draw(rows_of(name))}
    if draw(st.booleans()):
        body["return"] = draw(
            st.lists(
                st.sampled_from([*RETURNS, "nothing"]),
                max_size=3,
            )
        )
    if draw(st.integers(0, 3)) == 0:
        body["alarm_rate"] = draw(st.sampled_from([0.1, 0.5, 1, 0, "x", None]))
    return exchange_of(draw, name, beside(draw, name, body))


@LAW
@given(st.lists(densities(), min_size=1, max_size=12))
def test_densities(groups, verbs, exchanges):
    assert_law(groups.log_prob, verbs.log_prob, exchanges)


@st.composite
def transforms(draw, argument):
    name = draw(names)
    body = {argument: draw(rows_of(name, width=WIDTHS[name] if argument == "z" else None))}
    if draw(st.integers(0, 5)) == 0:
        body["return"] = draw(st.sampled_from([[], ["round_trip_error"], ["z"]]))
    return exchange_of(draw, name, beside(draw, name, body))


@LAW
@given(st.lists(transforms("x"), min_size=1, max_size=12))
def test_encoding(groups, verbs, exchanges):
    assert_law(groups.encode, verbs.encode, exchanges)


@LAW
@given(st.lists(transforms("z"), min_size=1, max_size=12))
def test_decoding(groups, verbs, exchanges):
    assert_law(groups.decode, verbs.decode, exchanges)


@st.composite
def traces(draw):
    name = draw(names)
    body = {"x": draw(rows_of(name))}
    more = draw(st.sampled_from([{}, {}, {}, {"z": [[1, 1]]}, {"n": 2, "seed": 1}, {"offset": 0}, {"noise": "common"}]))
    return exchange_of(draw, name, beside(draw, name, body | more))


@LAW
@given(st.lists(traces(), min_size=1, max_size=10))
def test_tracing(groups, verbs, exchanges):
    assert_law(groups.trace, verbs.trace, exchanges)


@st.composite
def walks(draw):
    name = draw(names)
    space = draw(st.sampled_from(["x", "x", "z"]))
    count = draw(st.sampled_from([2, 2, 2, 3, 1]))
    points = draw(rows_of(name, count=count, width=WIDTHS[name] if space == "z" else None))
    if draw(st.integers(0, 9)) == 0:
        points = [points, points]
    if space == "z" and draw(st.integers(0, 3)) == 0 and isinstance(points[0], list):
        points = [[1.0] * WIDTHS[name], [-1.0] * WIDTHS[name]]  # opposite
    body = {"points": points, "space": space} if space == "z" or draw(st.booleans()) else {"points": points}
    body["steps"] = draw(st.sampled_from([2, 5, 5, 5, 9, 40]))
    if draw(st.integers(0, 2)) == 0:
        body["path"] = draw(st.sampled_from(["linear", "slerp", None, "none"]))
    if draw(st.integers(0, 4)) == 0:
        body["spacing"] = draw(st.sampled_from(["parameter", "arc_length"]))
    return exchange_of(draw, name, beside(draw, name, body))


@LAW
@given(st.lists(walks(), min_size=1, max_size=12))
def test_walks(groups, verbs, exchanges):
    assert_law(groups.interpolate, verbs.interpolate, exchanges)


@st.composite
def edits(draw):
    name = draw(names)
    width = WIDTHS[name]
    vector = st.lists(st.sampled_from([0, 0.5, -1, 2]), min_size=width, max_size=width)
    directions = st.one_of(
        vector, vector, st.sampled_from(["right", "nothing", None, 5, [1e39] * width, [None] * width])
    )
    strengths = st.lists(st.sampled_from([0, 0.5, -1.5, 2]), min_size=1, max_size=3)
    body = {
        "x": draw(rows_of(name)),
        "direction": draw(directions),
        "strength": draw(st.one_of(strengths, strengths, st.sampled_from([[], None, 1, ["x"], [1e300], [True]]))),
    }
    if draw(st.integers(0, 5)) == 0:
        body["return"] = ["round_trip_error"]
    return exchange_of(draw, name, beside(draw, name, body))


@LAW
@given(st.lists(edits(), min_size=1, max_size=12))
def test_edits(groups, verbs, exchanges):
    assert_law(groups.edit, verbs.edit, exchanges)


draws = {
    "n": [1, 1, 3, 10, 0, "x", 300],
    "seed": [0, 7, 18446744073709551615, 18446744073709551616, -1, 1.0, True],
    "offset": [0, 5, -1, (1 << 53) - 1],
    "temperature": [1, 0.5, 2, -1, 0],
    "truncation": [None, 1.5, 0],
    "method": ["random", "sobol", "none"],
    "noise": ["independent", "common"],
    "return": [[], ["round_trip_error"]],
}


@st.composite
def samples(draw):
    name = draw(names)
    body = {"seed": draw(st.sampled_from([1, 2, 3, 4]))}
    for key in draw(st.lists(st.sampled_from(list(draws)), max_size=3)):
        body[key] = draw(st.sampled_from(draws[key]))
    return exchange_of(draw, name, beside(draw, name, body))


@LAW
@given(st.lists(samples(), min_size=1, max_size=20))
def test_draws(groups, verbs, exchanges):
    assert_law(groups.sample, verbs.sample, exchanges)


queries = st.sampled_from(
    [
        *(
            "seed=7",
            "n=1&seed=7",
            "seed=7&n=1",
            "seed=0",
            "seed=18446744073709551615",
            "n=10&seed=4",
            "seed=5&offset=3",
        ),
        *("seed=18446744073709551616", "seed=9999999999999999999", "seed=07", "n=2&seed=7", "seed=-1", "seed="),
        *("n=1&n=1&seed=1", "seed=7&seed=7", "seed=7&offset=3", "seed=7&", "&seed=7", "seed=1.0", "n=01&seed=3"),
        *("seed=7&temperature=2", "seed=7&return=round_trip_error", "model=square&seed=7", "unknown=1&seed=2"),
        *("seed=3&%73eed=4", "xseed=3&seed=4", "seed=7&context=0.5,1", "seed=7&context=0.5", "seed=7&noise=common"),
        *("temperature=0.5&seed=8&n=2", "seed=8&columns=3", "method=sobol&seed=1", "truncation=1&seed=3"),
    ]
)


@LAW
@given(names, accepts, st.lists(queries, min_size=1, max_size=40))
def test_draws_by_query(groups, verbs, name, accept, texts):
    parcel = Parcel(Exchange(name, None, (), None, accept), [Question(text.encode()) for text in texts])
    for places, plan in groups.sample_by_query([parcel]):
        for place, reply in zip(places, run_now(plan), strict=True):
            exchange = parcel.common._replace(query=tuple(parse_qsl(texts[place], keep_blank_values=True)))
            assert reply is None or reply == alone(verbs.sample_by_query, exchange), texts[place]


def npy(array):
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


@st.composite
def arrays(draw):
    name = draw(names)
    width = WIDTHS[name]
    shape = draw(
        st.sampled_from([(1, width), (1, width), (width,), (4, width), (width, 1), (1, width + 1), (), (0, width)])
    )
    if name in SHAPES and draw(st.booleans()):
        shape = draw(st.sampled_from([SHAPES[name], (2, *SHAPES[name])]))
    dtype = draw(st.sampled_from(["<f4", "<f4", "<f8", ">f4", "<i8", "|u1", "<f2", "<c8"]))
    array = (np.arange(int(np.prod(shape))) % 3 + 1).reshape(shape).astype(dtype)
    odd = {"<f8": [7.038531e-26, 1e39, np.nan, np.inf], "<f4": [np.nan], "<i8": [(1 << 53) + 1, (1 << 25) + 1]}.get(
        dtype
    )
    if odd and array.size and draw(st.integers(0, 3)) == 0:
        array.flat[0] = draw(st.sampled_from(odd))
    if draw(st.integers(0, 4)) == 0:
        array = np.asfortranarray(array)
    body = npy(array)
    body = body[:-1] if draw(st.integers(0, 9)) == 0 else body
    query = [("context", "0.5,1")] if name in CONTEXTS and draw(st.integers(0, 4)) else []
    query += draw(
        st.sampled_from([[], [], [("return", "z,quantile")], [("alarm_rate", "0.1")], [("x", "1")], [("model", name)]])
    )
    accept = draw(st.sampled_from(["application/x-npy", None, "text/csv"]))
    return Exchange(name, None, tuple(query), "application/x-npy", accept, body)


@LAW
@given(st.lists(arrays(), min_size=1, max_size=12))
def test_arrays(groups, verbs, exchanges):
    assert_law(groups.log_prob, verbs.log_prob, exchanges)
    assert_law(groups.encode, verbs.encode, exchanges)


BROKEN = [
    *(b"", b"[]", b"{}", b"null", b'{"x": [[1, 2]]} ', b'{"x": [[1, 2]]}}', b'{"x": [[1, 2]]},{"x": [[3, 4]]}'),
    *(b'{"x": [[NaN, 1]]}', b'{"x": [[1, 2]], "x": [[3, 4]]}', b'{"x": [[-0, -0.0]]}', b'{"x": [[1e400, 1]]}'),
    *(b'{"z": [[1, 2]]}', b'{"x": [[1, 2]], "model": "square"}', b'{"x": {"y": 1}}', b"\xff", b'{"x": 1, "y": 2}'),
    *(
        b'{"x": [[1, 2]], "alarm_rate": NaN}',
        b'{"x": [[1, 2]], "alarm_rate": null}',
        b'{"x": [[1, 2]], "model": "\\ud800"}',
    ),
    b'\xef\xbb\xbf{"x": [[1, 2]]}',
]


@LAW
@given(st.lists(st.sampled_from(BROKEN), min_size=1, max_size=12))
def test_broken_bodies(groups, verbs, bodies):
    for group_verb, verb in (
        (groups.log_prob, verbs.log_prob),
        (groups.interpolate, verbs.interpolate),
        (groups.sample, verbs.sample),
        (groups.edit, verbs.edit),
    ):
        exchanges = [post(body) for body in bodies]
        if verb is not verbs.sample:
            assert_law(group_verb, verb, exchanges)
        else:  # of those that are answered, the seeds are the server's
            assert all(reply is None or reply.status == 200 for reply in together(group_verb, exchanges))


X = [0.5, 1.0]
PLAIN = {
    "log_prob": [
        *({"x": [X]}, {"x": X}, {"model": "two-moons", "x": [X]}, {"x": [X], "version": 1, "model": "two-moons"}),
        *({"x": [X], "return": ["quantile"]}, {"return": ["z", "typicality"], "x": [X]}, {"x": [X], "alarm_rate": 0.1}),
        *({"x": [X] * 4}, {"x": [X] * 16}, {"model": "image", "x": [[1] * 6]}, {"model": "coupling", "x": [[1] * 5]}),
        {"model": "image", "x": np.ones((1, 2, 3, 1)).tolist()},
        {"model": "conditional", "x": [[1, 2, 3]], "context": [0.5, 1]},
        {"model": "conditional", "x": [[1, 2, 3]] * 2, "context": [[0.5, 1], [0, 1]]},
    ],
    "encode": [
        {"x": [X]},
        {"model": "image", "x": [[1] * 6]},
        {"model": "conditional", "x": [[1, 2, 3]], "context": [0, 1]},
    ],
    "decode": [{"z": [X]}, {"model": "image", "z": [[1] * 6]}, {"z": [X] * 4}],
    "sample": [
        {"seed": 1},
        {"n": 10, "seed": 1, "temperature": 0.5},
        {"model": "conditional", "seed": 3, "context": [1, 0]},
    ],
    "interpolate": [
        *({"points": [X, [1, 1]], "steps": 5}, {"points": [X, [1, 1], [2, 1]]}, {"points": [X, [1, 1]], "space": "z"}),
        {"model": "image", "points": [[1] * 6, [2] * 6]},
        {"model": "conditional", "points": [[1, 2, 3], [2, 2, 2]], "context": [0, 1]},
    ],
    "edit": [
        {"x": [X], "direction": [1, 0], "strength": [0.5, 1]},
        {"model": "image", "x": [[1] * 6] * 2, "direction": [1] * 6, "strength": [1]},
    ],
    "trace": [{"x": [X]}, {"model": "image", "x": [[1] * 6] * 2}],
}


@pytest.mark.parametrize("verb", list(PLAIN))
def test_what_is_plain_is_asked_together_whatever_else_it_says(groups, verbs, verb):
    """And a bad request between them changes nothing for its neighbours."""
    exchanges = [post(body) for body in PLAIN[verb]]
    replies = assert_law(getattr(groups, verb), getattr(verbs, verb), exchanges)
    assert None not in replies
    assert {reply.status for reply in replies} == {200}
    main = {"decode": "z", "interpolate": "points", "sample": "n"}.get(verb, "x")
    bad = [post({**PLAIN[verb][0], main: value}) for value in ([[1e39, 0], [1, 1]], [["x", 1], [1, 2]], 1e400)]
    mixed = together(getattr(groups, verb), [exchange for each in exchanges for exchange in (bad[0], each, *bad)])
    assert mixed[1::5] == replies


SHARES = [0.25, 0.75, 0.5]
OTHER = [0.625, 0.375, -1]
NARROWED = {
    "log_prob": {"x": [SHARES, OTHER], "return": ["z", "bits_per_dim"]},
    "encode": {"x": SHARES},
    "decode": {"z": [[0.5, -1], [0, 0]]},
    "sample": {"n": 3, "seed": 5},
    "interpolate": {"points": [SHARES, OTHER], "steps": 4},
    "edit": {"x": [SHARES], "direction": [1, -0.5], "strength": [0, 1.5]},
}


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory):
    """The registry of flows whose events are wider than their latents."""
    root = tmp_path_factory.mktemp("narrowed")
    prior = Prior(low=[0.2, None, None], high=[None, None, 1.0])
    install(root, affine("two-moons"), shares("two"), shares("moved", 1, 2), in_float64(shares(), "double"))
    install(root, shares("leaky", prior=prior))
    with InProcess(create_app(settings_for(root))) as opened:
        yield opened.app.state.registry


@pytest.mark.parametrize("verb", list(NARROWED))
def test_latents_may_be_narrower_than_events(narrowed, verb):
    names = ["two", "leaky", "double", "two", "moved", "double", "leaky", "moved"]
    contexts = {"moved": {"context": [0.5, -1]}}
    exchanges = [post({**NARROWED[verb], **contexts.get(name, {})}, name) for name in names]
    if verb == "interpolate":
        exchanges += [post({"points": [[0, 1], [1, 0], [-1, 2]], "space": "z", "steps": 3}, "two")] * 2
    group_verb = getattr(GroupVerbs(narrowed, BUDGET), verb)
    replies = assert_law(group_verb, getattr(Verbs(narrowed, BUDGET, BUDGET), verb), exchanges)
    alone = [at for at, reply in enumerate(replies) if reply is None]
    assert alone == ([1, 6] if verb == "sample" else [])  # a draw outside of the prior is drawn again
    wrong = [post({**NARROWED[verb], **contexts.get(name, {}), "context": [[1]]}, name) for name in names]
    mixed = together(group_verb, [each for pair in zip(wrong, exchanges, strict=False) for each in pair])
    assert mixed[1::2] == replies[: len(names)]


def test_those_of_one_lane_are_one_run(groups):
    exchanges = [post({"x": [X]}), post({"x": [X] * 3, "return": ["z"]}), post({"x": [X], "model": "two-moons"})]
    exchanges += [
        post({"x": [X]}, "two-moons"),
        post({"x": [X], "version": 2}),
        Exchange(body=npy(np.ones((1, 2))), content_type="application/x-npy"),
    ]
    parcels, _ = parcels_of(exchanges)
    (group,) = groups.log_prob(parcels)
    run = advance(group.plan)
    assert len(run.rows) == 8


def test_a_group_is_not_larger_than_the_event_loop_can_write(registry, verbs):
    groups = GroupVerbs(registry, 1 << 20)
    exchanges = [post({"x": [X] * 200}) for _ in range(64)]
    parcels, _ = parcels_of(exchanges)
    runs = [advance(group.plan) for group in groups.encode(parcels)]
    assert len(runs) > 1
    assert max(run.size for run in runs) <= LARGE_RUN
    assert sum(len(run.rows) for run in runs) == 64 * 200
    assert groups.encode([Parcel(Exchange(), [Question(body=json.dumps({"x": [X] * 5000}).encode())])]) == []


def test_seeds_that_the_server_draws_differ(groups):
    replies = together(groups.sample, [post({})] * 20)
    seeds = {json.loads(reply.body)["seed"] for reply in replies}
    assert len(seeds) == 20
    assert all(0 <= seed < 1 << DRAWN_SEED_BITS for seed in seeds)


def test_the_work_budget_holds(registry):
    assert GroupVerbs(registry, 1).log_prob([Parcel(Exchange(), [Question(body=b'{"x": [[1, 2]]}')])]) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(QueueFull("full", retry_seconds=2.0), 429), (Draining("no more"), 503), (DeadlineExceeded("late"), 504)],
)
@pytest.mark.parametrize("verb", list(PLAIN))
def test_what_there_was_no_time_for_is_told_to_each(groups, verb, error, status):
    parcels, _ = parcels_of([post(PLAIN[verb][0]), post(PLAIN[verb][0])])
    (group,) = getattr(groups, verb)(parcels)
    assert isinstance(advance(group.plan), Run)
    replies = advance(group.plan, error).value
    assert replies == [problem_reply(error)] * 2
    assert replies[0].status == status


@pytest.mark.parametrize("verb", list(PLAIN))
def test_a_run_that_fails_sends_each_on_alone(groups, verb):
    parcels, _ = parcels_of([post(PLAIN[verb][0]), post(PLAIN[verb][0])])
    (group,) = getattr(groups, verb)(parcels)
    advance(group.plan)
    assert advance(group.plan, EngineFailed("it broke")).value == [None, None]


@pytest.mark.parametrize("verb", list(PLAIN))
def test_rows_without_finite_numbers_are_left_to_the_verb(groups, verb):
    parcels, _ = parcels_of([post(PLAIN[verb][0])] * 3)
    (group,) = getattr(groups, verb)(parcels)
    step = advance(group.plan)
    first = True
    while isinstance(step, Run):
        outputs = step.lane.runner(step.rows[0 : len(step.rows)], None)
        if first:
            outputs = outputs._replace(log_prob=outputs.log_prob.copy(), finite=False)
            outputs.log_prob[len(outputs.log_prob) // 2] = np.nan
        first = False
        step = advance(group.plan, outputs)
    assert [reply is None for reply in step.value] == [False, True, False]


def test_a_density_of_zero_is_left_to_the_verb(groups, verbs):
    exchanges = [post(body, "square") for body in ({"x": [[0.5]]}, {"x": [[-5]]}, {"x": [2.5]})]
    replies = together(groups.log_prob, exchanges)
    answers = [alone(verbs.log_prob, exchange) for exchange in exchanges]
    assert b"in_support" in answers[1].body
    assert replies == [answers[0], None, answers[2]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", (b"", {})),
        (b"n=2&seed=7&offset=3", (b"n=2&offset=3", {"seed": 7})),
        (b"seed=7&seed=8", None),
        (b"seed=x", (b"seed=x", {})),
    ],
)
def test_the_seed_is_cut_out_of_a_query(query, expected):
    assert cut_seed(query) == expected


def test_what_is_remembered_is_bounded(registry):
    """Whatever strangers send: neither long texts nor many are kept."""
    reader = GroupVerbs(registry, BUDGET).log_prob._reader
    for at in range(5000):
        body = json.dumps({"x": [X], "model": f"flow-{at}"}).encode()
        reader.read([Parcel(Exchange(accept=f"text/{at}, */*"), [Question(body=body)])])
    long = "x" * 600
    body = json.dumps({"x": [X], "model": long}).encode()
    reader.read([Parcel(Exchange(accept=f"text/{long}, */*"), [Question(body=body)])])
    kept = [*reader._known, *reader._types]
    assert len(reader._known) <= 4096
    assert len(reader._types) <= 4096
    assert not any(long in str(key) for key in kept)

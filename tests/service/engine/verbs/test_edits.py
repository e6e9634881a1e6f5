from __future__ import annotations

import difflib

import numpy as np
import pytest

from service.engine.verbs.edits import Between, edit, named_direction
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, NotFinite, OutOfSupport, WrongShape
from service.plan import run_now
from tests.service.engine.verbs.test_flow import some_rows

EVERY = ["two-moons", "conditional", "image", "coupling", "square"]


def with_directions(flow: ServedFlow, **directions: list[float]) -> ServedFlow:
    manifest = flow.manifest.model_copy(update={"directions": directions})
    return ServedFlow(manifest, flow.golden, flow.forward, flow.inverse)


@pytest.mark.parametrize("name", EVERY)
def test_strength_0_is_the_round_trip(flows, parts, name):
    flow = flows[name]
    x, context = some_rows(parts[name], 30)
    found = run_now(edit(flow, x, np.ones(flow.width), [0.0], context))
    there = run_now(flow.encode(x, context))
    back = run_now(flow.decode(there.z, context))
    np.testing.assert_array_equal(found.z[0], there.z)
    np.testing.assert_array_equal(found.x[0], back.x)
    np.testing.assert_array_equal(found.log_prob[0], back.log_prob)


@pytest.mark.parametrize("name", EVERY)
def test_from_one_row_to_another_strength_1_lands_on_its_latent(flows, parts, name):
    flow = flows[name]
    x, context = some_rows(parts[name], 2)
    one = None if context is None else context[:1]
    found = run_now(edit(flow, x[:1], Between(x[:1], x[1:]), [1.0, 0.5], one))
    ends = run_now(flow.encode(x, one)).z
    np.testing.assert_array_equal(found.z[0], ends[1:])
    np.testing.assert_allclose(found.x[0], x[1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.z[1, 0], ends.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_rows_are_moved_strength_by_strength(flows, parts):
    flow = flows["conditional"]
    x, context = some_rows(parts["conditional"], 100)
    strengths, direction = [-2.0, 0.25, 3.0], np.array([0.5, 0.0, -1.0])
    found = run_now(edit(flow, x, direction, strengths, context))
    assert (found.x.shape, found.z.shape, found.log_prob.shape) == ((3, 100, 3), (3, 100, 3), (3, 100))
    z = run_now(flow.encode(x, context)).z
    for at, strength in enumerate(strengths):
        moved = (z + strength * direction).astype(np.float32)
        back = run_now(flow.decode(moved, context))
        np.testing.assert_array_equal(found.z[at], moved)
        np.testing.assert_array_equal(found.x[at], back.x)
        np.testing.assert_array_equal(found.log_prob[at], back.log_prob)


def test_a_row_is_the_same_bits_whatever_rows_and_strengths_are_beside_it(flows, parts):
    flow = flows["coupling"]
    x, _ = some_rows(parts["coupling"], 7)
    direction = np.array([1.0, -1.0, 0.5, 0.0, 2.0])
    many = run_now(edit(flow, x, direction, [-1.0, 0.7, 2.0]))
    alone = run_now(edit(flow, x[3:4], direction, [0.7]))
    np.testing.assert_array_equal(alone.x[0, 0], many.x[1, 3])
    np.testing.assert_array_equal(alone.log_prob[0, 0], many.log_prob[1, 3])


def test_one_row_of_context_is_for_all(flows, parts):
    flow = flows["conditional"]
    x, context = some_rows(parts["conditional"], 5)
    one = run_now(edit(flow, x, np.ones(3), [0.5, 1.0], context[:1]))
    each = run_now(edit(flow, x, np.ones(3), [0.5, 1.0], np.repeat(context[:1], 5, axis=0)))
    np.testing.assert_array_equal(one.x, each.x)


def test_a_direction_by_name(flows, parts):
    flow = with_directions(flows["two-moons"], right=[1.0, 0.5], up=[0.0, 1.0])
    x, _ = some_rows(parts["two-moons"], 3)
    named = run_now(edit(flow, x, "right", [1.0]))
    given = run_now(edit(flow, x, np.array([1.0, 0.5]), [1.0]))
    np.testing.assert_array_equal(named.x, given.x)


def test_an_unknown_direction_is_refused_with_the_names_that_there_are(flows):
    flow = with_directions(flows["two-moons"], right=[1.0, 0.5], up=[0.0, 1.0])
    with pytest.raises(InvalidArgument, match="no direction 'rigth'; did you mean 'right'\\? it has right, up"):
        named_direction(flow, "rigth")
    with pytest.raises(InvalidArgument, match="it has none: give the direction itself, or two rows"):
        named_direction(flows["two-moons"], "right")


def test_nowhere_is_no_direction(flows, parts):
    x, _ = some_rows(parts["two-moons"], 2)
    with pytest.raises(InvalidArgument, match="direction: every value is zero"):
        run_now(edit(flows["two-moons"], x, np.zeros(2), [1.0]))
    with pytest.raises(InvalidArgument, match="the two rows have the same latent"):
        run_now(edit(flows["two-moons"], x, Between(x[:1], x[:1]), [1.0]))


def test_a_row_without_a_latent(flows):
    outside = np.array([[1.0], [-1.0]], np.float32)
    with pytest.raises(OutOfSupport, match="x, row 1 lies where the density is zero") as caught:
        run_now(edit(flows["square"], outside, np.ones(1), [0.1]))
    assert [(reason.loc, reason.row) for reason in caught.value.errors] == [(("x",), 1)]
    with pytest.raises(OutOfSupport, match="direction, row 1"):
        run_now(edit(flows["square"], outside[:1], Between(outside[:1], outside[1:]), [0.1]))


def test_moved_out_of_the_base_the_density_is_zero(flows):
    found = run_now(edit(flows["square"], np.array([[1.0]], np.float32), np.ones(1), [0.5, 5.0]))
    assert np.isfinite(found.log_prob[0]).all()
    assert np.isneginf(found.log_prob[1]).all()
    assert np.isfinite(found.x).all()


def test_what_is_moved_beyond_float32(flows, parts):
    x, _ = some_rows(parts["coupling"], 3)
    with pytest.raises(NotFinite, match="strength: a row would be moved beyond the range of float32"):
        run_now(edit(flows["coupling"], x, np.full(5, 1e30), [1.0, 1e20]))


def test_a_row_whose_answer_is_beyond_float32_is_named(flows, parts):
    x, _ = some_rows(parts["square"], 3)
    with pytest.raises(NotFinite, match="row 0: the flow's answer for this row") as caught:
        run_now(edit(flows["square"], x, np.ones(1), [0.0, 1e30]))
    assert [reason.row for reason in caught.value.errors] == [0, 1, 2]


def test_the_way_between_two_rows_takes_one_context(flows, parts):
    x, context = some_rows(parts["conditional"], 2)
    with pytest.raises(WrongShape, match="the way between two rows takes one row of context, and there are 2"):
        run_now(edit(flows["conditional"], x, Between(x[:1], x[1:]), [1.0], context))


def test_a_name_is_not_compared_at_length(flows, monkeypatch):
    compared = []
    matches = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, *rest: compared.append(name) or matches(name, *rest))
    with pytest.raises(InvalidArgument, match=r"has no direction 'r{64}'; it has right$"):
        named_direction(with_directions(flows["two-moons"], right=[1.0, 0.0]), "r" * 100_000)
    assert [len(name) for name in compared] == [256]


def test_twenty_directions_are_listed_and_more_are_told(flows):
    names = {f"d{at:02}": [1.0, 0.0] for at in range(21)}
    with pytest.raises(InvalidArgument, match=r"it has d00, .*, d19 and more$"):
        named_direction(with_directions(flows["two-moons"], **names), "zzzz")
    names.pop("d20")
    with pytest.raises(InvalidArgument, match=r"it has d00, .*, d19$"):
        named_direction(with_directions(flows["two-moons"], **names), "zzzz")

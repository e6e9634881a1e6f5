"""The box found rows, and the density in it, held against the flow's own log_prob."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.batching.queues import Limits
from service.engine.verbs.density_map import SAMPLED_ROWS, SIDES, density_map, density_map_rows
from service.engine.verbs.flow import ServedFlow
from service.errors import NotFinite, WrongShape
from service.plan import Outputs, run_now


@pytest.mark.parametrize("name", ["two-moons", "square"])
def test_a_cell_has_the_density_at_its_middle(flows, name):
    flow = flows[name]
    x = np.full((1, flow.width), 1.5, np.float32)
    found = run_now(density_map(flow, x))
    side = SIDES[flow.width]
    assert found.log_prob.shape == (side,) * flow.width
    assert density_map_rows(flow.width) > found.log_prob.size
    assert (found.low < 1.5).all()
    assert (found.high > 1.5).all()
    step = (found.high - found.low) / side
    at = (side // 3, side // 2)[: flow.width]  # along the last column first
    middle = (found.low + (np.array(at[::-1]) + 0.5) * step).astype(np.float32)
    assert found.log_prob[at] == run_now(flow.log_prob(middle[None])).log_prob[0]


def test_the_box_holds_rows_far_out_and_the_flow_itself(flows):
    flow = flows["two-moons"]
    drawn = run_now(flow.sample(100, 5)).x
    far = np.array([[500.0, 0.0]], np.float32)
    found = run_now(density_map(flow, far))
    assert found.high[0] > 500
    assert (np.median(drawn, axis=0) > found.low).all()
    assert (np.median(drawn, axis=0) < found.high).all()


def test_the_density_is_zero_beyond_the_support(flows):
    found = run_now(density_map(flows["square"], np.array([[-3.0], [9.0]], np.float32)))
    assert np.isneginf(found.log_prob[[0, -1]]).all()
    assert np.isfinite(found.log_prob).any()


def test_a_context_that_is_not_the_flows_is_refused(flows):
    with pytest.raises(WrongShape):
        run_now(density_map(flows["two-moons"], np.zeros((1, 2), np.float32), np.zeros(3, np.float32)))


def test_a_context_too_far_out_is_the_callers_matter(flows):
    with pytest.raises(NotFinite) as caught:
        run_now(density_map(flows["conditional"], np.zeros((1, 3), np.float32), np.full(2, 3e38, np.float32)))
    assert caught.value.errors[0].loc == ("context",)


@pytest.mark.parametrize("rows", [[[0.0, 0.0]], [[-40.0, 70.0], [25.0, -3.0]]])
def test_the_box_has_a_tenth_of_its_width_on_each_side(flows, rows):
    flow = flows["two-moons"]
    x = np.array(rows, np.float32)
    sampled = run_now(flow.sample(SAMPLED_ROWS, seed=0)).x
    low = np.minimum(np.quantile(sampled, 0.005, axis=0), x.min(axis=0))
    high = np.maximum(np.quantile(sampled, 0.995, axis=0), x.max(axis=0))
    found = run_now(density_map(flow, x))
    np.testing.assert_allclose(found.low, low - 0.1 * (high - low), rtol=1e-6)
    np.testing.assert_allclose(found.high, high + 0.1 * (high - low), rtol=1e-6)


class Constant:
    """A flow that gives the same row always."""

    width = 2

    def __init__(self, row):
        self.row = np.array(row, np.float32)

    def __call__(self, rows, context):
        value = np.broadcast_to(self.row, rows.shape).copy()
        return Outputs(value, rows[:, 0] * 0, rows[:, 0] * 0, finite=True)


@pytest.mark.parametrize(
    ("row", "margins"), [([0.5, 0.0], [1e-5, 1e-5]), ([-2000.0, 3e6], [0.02, 30.0]), ([3.4028e38, -3.4028e38], None)]
)
def test_the_box_around_one_point_has_a_width_that_float32_can_tell(flows, workers, row, margins):
    good, lane = flows["two-moons"], workers.lane(Constant(row), Limits())
    found = run_now(density_map(ServedFlow(good.manifest, good.golden, lane, lane), np.array([row], np.float32)))
    point, largest = np.array(row, np.float32).astype(np.float64), float(np.finfo(np.float32).max)
    if margins is None:  # the box ends with float32
        assert (found.high[0], found.low[1]) == (largest, -largest)
    else:
        np.testing.assert_allclose([point - found.low, found.high - point], [margins, margins], rtol=1e-5)
    assert (found.low.astype(np.float32) < found.high.astype(np.float32)).all()


def test_the_rows_of_a_map():
    assert [density_map_rows(width) for width in (1, 2)] == [512 + 512, 512 + 160 * 160]

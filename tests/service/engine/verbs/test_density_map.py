"""The box found rows, and the density in it, held against the flow's own log_prob."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.verbs.density_map import SIDES, density_map, density_map_rows
from service.errors import NotFinite, WrongShape
from service.plan import run_now


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

"""Pictures of answers: the runs of the flow that they take, and the limits held before the verb runs."""

from __future__ import annotations

import numpy as np
import pytest

from service.bundle.manifest import Quantization, Support
from service.drawing import density_drawing, draw, draw_answer, edit_drawing, map_rows, rows_drawing, walks_drawing
from service.engine.verbs.density_map import density_map_rows
from service.engine.verbs.edits import edit
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.interpolate import interpolate
from service.errors import InvalidArgument
from service.pictures.options import Extent, PictureOptions
from service.pictures.rendering import PlottedRows
from service.plan import Finished, advance, run_now

USUAL = PictureOptions()


def rows_run(plan):
    """The number of rows of each run of a plan."""
    sizes, step = [], advance(plan)
    while not isinstance(step, Finished):
        sizes.append(len(step.rows))
        step = advance(plan, run_now(one_run(step)))
    assert step.value.startswith(b"\x89PNG")
    return sizes


def one_run(run):
    return (yield run)


def some(flow, count=4):
    drawn = run_now(flow.sample(count, 1, context=np.zeros(2, np.float32) if flow.conditions else None))
    return drawn.x, drawn.log_prob


@pytest.mark.parametrize("name", ["two-moons", "square", "image", "coupling", "conditional"])
def test_rows_in_their_density_take_the_runs_of_the_map_where_there_is_one(flows, name):
    flow = flows[name]
    context = np.zeros((1, 2), np.float32) if name == "conditional" else None
    x, log_prob = some(flow)
    assert sum(rows_run(draw(flow, density_drawing(x, log_prob, context), USUAL))) == map_rows(flow)
    assert map_rows(flow) == (density_map_rows(flow.width) if name in ("two-moons", "square") else 0)
    assert rows_run(draw(flow, rows_drawing(x, log_prob), USUAL)) == []


@pytest.mark.parametrize(("name", "mapped"), [("two-moons", True), ("square", False), ("image", False)])
def test_walks_lie_on_a_map_of_two_columns(flows, name, mapped):
    flow = flows[name]
    x, _ = some(flow)
    walked = run_now(interpolate(flow, x[:3], 4))
    moved = run_now(edit(flow, x, np.full(flow.width, 0.01), [0.0, 1.0]))
    for drawing in (walks_drawing(walked, 4, None), edit_drawing(moved, [0.0, 1.0], None)):
        assert sum(rows_run(draw(flow, drawing, USUAL))) == (map_rows(flow) if mapped else 0)


def test_rows_of_several_contexts_have_no_map(flows):
    good = flows["two-moons"]
    x, log_prob = some(good)
    same, other = np.ones((4, 2), np.float32), np.eye(4, 2, dtype=np.float32)
    assert rows_run(draw(good, density_drawing(x, log_prob, other), USUAL)) == []
    with pytest.raises(Exception, match="takes no context"):  # a map is run, with the context
        rows_run(draw(good, density_drawing(x, log_prob, same), USUAL))


def test_a_picture_over_its_limits_is_refused_before_the_verb_runs(flows):
    flow = flows["image"]
    plan = draw_answer(flow, USUAL, Extent(10_000, "n"), flow.sample(10_000, 1), lambda _: pytest.fail("it was drawn"))
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        advance(plan)


LEVELS = Quantization(low=0, high=4, step=1, reading="")


@pytest.mark.parametrize(
    ("levels", "support", "ends"),
    [
        (LEVELS, Support(low=-9.0, high=9.0), (0.0, 4.0)),
        (LEVELS.model_copy(update={"high": 0.0}), Support(low=-9.0, high=9.0), (-9.0, 9.0)),
        (None, Support(low=-9.0, high=9.0), (-9.0, 9.0)),
        (None, Support(low=-9.0), None),
        (None, Support(high=9.0), None),
        (None, None, None),
    ],
)
def test_black_and_white_are_the_ends_of_the_levels_or_of_the_support(flows, monkeypatch, levels, support, ends):
    good = flows["image"]
    manifest = good.manifest.model_copy(update={"quantization": levels, "support": support})
    flow = ServedFlow(manifest, good.golden, good.forward, good.inverse)
    seen = []
    monkeypatch.setattr(PlottedRows, "render", lambda self, events, options, grid: seen.append(events) or b"")
    run_now(draw(flow, rows_drawing(*some(good)), USUAL))
    assert [(events.shape, events.value_range) for events in seen] == [((2, 3, 1), ends)]

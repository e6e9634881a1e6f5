from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from service.engine.canary import check_golden, measure_parity, probe
from service.engine.verbs.flow import ServedFlow
from service.errors import ParityFailed, QueueFull
from service.plan import run_now
from tests.service.bundles import affine, bundle, coupling, square


@pytest.mark.parametrize("name", ["two-moons", "conditional", "image", "square", "coupling"])
def test_a_right_flow_passes(flows, name):
    run_now(check_golden(flows[name]))
    run_now(probe(flows[name]))


@pytest.mark.parametrize(
    ("field", "change", "quantity"),
    [
        ("log_prob", 1e-2, "forward log_prob"),
        ("z", 1e-2, "forward z"),
        ("log_abs_det_jacobian", 1e-2, "forward log_abs_det_jacobian"),
        ("x", 1e-2, "inverse x"),
    ],
)
def test_a_wrong_answer_is_found_and_named(flows, field, change, quantity):
    good = flows["two-moons"]
    golden = dataclasses.replace(good.golden, **{field: getattr(good.golden, field) + np.float32(change)})
    flow = ServedFlow(good.manifest, golden, good.forward, good.inverse)
    for plan in (check_golden(flow), probe(flow)):
        with pytest.raises(ParityFailed) as caught:
            run_now(plan)
        assert ("golden", quantity) in [reason.loc for reason in caught.value.errors]


def test_a_wrong_inverse_is_found(flows):
    good = flows["two-moons"]
    flow = ServedFlow(good.manifest, good.golden, good.forward, good.forward)
    with pytest.raises(ParityFailed) as caught:
        run_now(check_golden(flow))
    assert ("golden", "inverse x") in [reason.loc for reason in caught.value.errors]


def test_the_probe_passes_by_a_full_queue(flows):
    good = flows["two-moons"]

    class Full:
        width = 2

        def __init__(self, lane):
            self.lane = lane

        def submit(self, run, done):
            if run.bounded:
                raise QueueFull("full")
            self.lane.submit(run, done)

    flow = ServedFlow(good.manifest, good.golden, Full(good.forward), Full(good.inverse))
    run_now(probe(flow))
    with pytest.raises(QueueFull):
        run_now(check_golden(flow))


@pytest.mark.parametrize("made", [affine, square, coupling, lambda: affine(context_width=2)])
def test_the_parity_table(tmp_path, made):
    table = measure_parity(bundle(tmp_path, made()), (1, 7, 1000))
    assert {row.batch for row in table} == {1, 7, 1000}
    assert len({row.quantity for row in table}) * 3 == len(table)
    assert all(row.passed for row in table)


def test_the_parity_table_shows_what_is_wrong(tmp_path):
    good = bundle(tmp_path, affine())
    wrong = dataclasses.replace(good, golden=dataclasses.replace(good.golden, log_prob=good.golden.log_prob + 1))
    failed = [row for row in measure_parity(wrong, (4,)) if not row.passed]
    assert {row.quantity for row in failed} == {"forward log_prob", "inverse log_prob"}
    assert all(row.error > row.tolerance for row in failed)

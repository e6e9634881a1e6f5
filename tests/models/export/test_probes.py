from __future__ import annotations

import numpy as np
import pytest

from models.export.probes import FAR, MAX_HELD_OUT, OUTSIDE, make_probes, outside_support
from service.bundle.manifest import Support

ROWS = np.random.default_rng(0).normal(5, 2, (600, 3)).astype(np.float32)


def test_held_out_rows_come_first_and_are_spread_over_all_of_them() -> None:
    probes = make_probes(ROWS, None, None)
    held_out = probes.x[probes.held_out]
    assert held_out.shape == (MAX_HELD_OUT, 3)
    assert np.array_equal(held_out[[0, -1]], ROWS[[0, -1]])
    assert np.array_equal(make_probes(ROWS[:5], None, None).x[:5], ROWS[:5])


def test_the_others_lie_far_outside_the_data() -> None:
    probes = make_probes(ROWS, None, None)
    distance = np.abs((probes.x[probes.held_out.stop :] - ROWS.mean(0)) / ROWS.std(0)).max(axis=1)
    assert sorted(set(distance.round(3).tolist())) == pytest.approx(list(FAR), rel=1e-3)
    assert max(FAR) == 30
    assert probes.describe(probes.x.shape[0] - 1) == "a row 30 standard deviations from the mean"


def test_a_bounded_support_is_tried_on_its_ends_next_to_them_and_outside() -> None:
    support = Support(low=0.0, high=16.5)
    probes = make_probes(ROWS.clip(0.1, 16), None, support)
    others = probes.x[probes.held_out.stop :]
    edge = np.nextafter(np.float32(16.5), np.float32(0))
    for value in (0.0, 16.5, edge, np.nextafter(np.float32(0), np.float32(1)), 24.75):
        assert np.any(others == np.float32(value)), value
    far = [row for row, label in zip(others, probes.labels, strict=True) if "deviations" in label]
    assert np.min(far) >= 0
    assert np.max(far) <= 16.5


@pytest.mark.parametrize("support", [Support(low=0.0, high=16.5), Support(low=0.0)])
def test_without_edges_rows_are_tried_inside_and_outside_and_not_near_the_ends(support: Support) -> None:
    probes = make_probes(ROWS.clip(0.1, 16), None, support, edges=False)
    others = probes.x[probes.held_out.stop :]
    outside = np.array([label == OUTSIDE for label in probes.labels])
    assert outside.any()
    assert (others[outside] == np.float32(outside_support(support))).any(axis=1).all()
    inside = others[~outside]
    assert inside.min() > 1e-3
    assert support.high is None or inside.max() < 16.5 - 1e-3


def test_other_rows_borrow_the_context_of_held_out_ones() -> None:
    context = np.arange(600, dtype=np.float32)[:, None]
    probes = make_probes(ROWS, context, Support(low=-100.0, high=100.0))
    assert probes.context is not None
    assert probes.context.shape == (probes.x.shape[0], 1)
    assert np.isin(probes.context, context).all()


def test_images_keep_their_shape() -> None:
    probes = make_probes(ROWS.reshape(150, 2, 3, 2), None, None)
    assert probes.x.shape[1:] == (2, 3, 2)


@pytest.mark.parametrize(
    ("support", "outside"),
    [
        (Support(low=0.0, high=4.0), 6.0),
        (Support(high=4.0), 5.0),
        (Support(low=0.0), -1.0),
    ],
)
def test_outside_is_outside(support: Support, outside: float) -> None:
    assert outside_support(support) == outside


def test_all_of_space_has_no_outside() -> None:
    with pytest.raises(ValueError, match="no outside"):
        outside_support(Support())

"""Summaries of draws: against NumPy on the draws themselves, and whatever the blocks they are computed in."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.verbs import posterior as module
from service.engine.verbs.posterior import posterior, summarize
from service.errors import NotFinite, Reason, WrongShape
from service.plan import Run, advance, run_now

LEVELS = [0.0, 0.05, 0.5, 0.731, 1.0]


def shortest(values, held):
    """The shortest interval with this many of the values, by trying each."""
    ordered = np.sort(values)
    ends = [
        (ordered[at + held - 1] - ordered[at], ordered[at], ordered[at + held - 1])
        for at in range(len(values) - held + 1)
    ]
    return min(ends)[1:]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_summaries_are_those_of_numpy(dtype, n):
    draws = (np.random.default_rng(n).gamma(2.0, size=(4, n, 3)) * [1.0, 100.0, 1e-3] + [0, 5, 0]).astype(dtype)
    found = summarize(draws, LEVELS, [0.5, 0.9, 1.0])
    wide = draws.astype(np.float64)
    near = {"rtol": 2e-6 if dtype == np.float32 else 1e-12}
    assert {part.dtype for part in found if part is not None} == {np.dtype(dtype)}
    np.testing.assert_allclose(found.mean, wide.mean(axis=1), **near)
    np.testing.assert_allclose(found.std, wide.std(axis=1), **near, atol=1e-9)
    np.testing.assert_allclose(found.quantiles, np.quantile(wide, LEVELS, axis=1).swapaxes(0, 1), **near)
    for context in range(4):
        for at, held in enumerate((-(-n // 2), int(np.ceil(0.9 * n)), n)):
            for column in range(3):
                expected = shortest(draws[context, :, column], held)
                np.testing.assert_array_equal(found.hpd[context, at, :, column], expected)
        if n > 2:
            np.testing.assert_allclose(
                found.correlation[context], np.corrcoef(wide[context].T), atol=1e-6 if dtype == np.float32 else 1e-12
            )


def test_a_coordinate_that_does_not_vary_has_no_correlation():
    draws = np.random.default_rng(0).normal(size=(1, 50, 3))
    draws[:, :, 1] = 7.0
    found = summarize(draws, hpd=[0.5])
    np.testing.assert_array_equal(found.correlation[0, 1], [0, 1, 0])
    assert (found.std[0, 1], found.hpd[0, 0, :, 1].tolist()) == (0, [7, 7])


def test_draws_at_the_end_of_the_range_have_finite_summaries():
    for dtype in (np.float32, np.float64):
        top = np.finfo(dtype).max
        draws = np.array([[[-top], [top], [top], [0.0]]], dtype)
        found = summarize(draws, [0.5], [0.5])
        assert all(np.isfinite(part).all() for part in found if part is not None)
        np.testing.assert_allclose(found.mean, [[top / 4]], rtol=1e-6)
        np.testing.assert_array_equal(found.hpd[0, 0, :, 0], [top, top])


@pytest.mark.parametrize("values", [1, 40, 1 << 18])
@pytest.mark.parametrize("how", [{}, {"method": "sobol"}, {"noise": "common"}])
def test_the_draws_are_those_of_sample_whatever_the_blocks(flows, monkeypatch, values, how):
    monkeypatch.setattr(module, "_BLOCK_VALUES", values)
    flow, context = flows["conditional"], np.float32([[0.5, -1], [2, 0], [0.5, 1], [-3, 1], [0, 0]])
    drawn = run_now(flow.sample(20, 7, 3, context=context, **how)).x
    found = run_now(posterior(flow, 20, 7, 3, context, quantiles=LEVELS, hpd=[0.8], **how))
    for part, expected in zip(found, summarize(drawn, LEVELS, [0.8]), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_no_block_holds_more_draws_than_it_may(flows, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VALUES", 100)
    seen = []
    monkeypatch.setattr(
        module, "summarize", lambda draws, *a, **k: seen.append(draws.shape) or summarize(draws, *a, **k)
    )
    run_now(posterior(flows["conditional"], 10, 1, context=np.zeros((8, 2), np.float32)))
    assert seen == [(3, 10, 3), (3, 10, 3), (2, 10, 3)]


def test_a_flow_without_context_has_one_posterior(flows):
    found = run_now(posterior(flows["image"], 30, 1, quantiles=[0.5], hpd=[0.5, 0.9]))
    event = flows["image"].event_shape
    width = int(np.prod(event))
    assert found.mean.shape == (1, *event)
    assert found.quantiles.shape == (1, 1, *event)
    assert found.hpd.shape == (1, 2, 2, *event)
    assert found.correlation.shape == (1, width, width)


def test_a_context_that_is_too_far_out_is_named_by_its_place_in_the_whole(flows, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VALUES", 1)
    context = np.zeros((5, 2), np.float32)
    context[3] = 3e38
    with pytest.raises(NotFinite, match=r"^row 3: ") as told:
        run_now(posterior(flows["conditional"], 4, 1, context=context))
    assert told.value.errors == (Reason(("context",), told.value.errors[0].reason, 3),)


def test_a_context_is_held_against_the_flow_before_anything_is_drawn(flows):
    for context in (None, np.zeros((2, 5), np.float32)):
        with pytest.raises(WrongShape):
            run_now(posterior(flows["conditional"], 4, 1, context=context))


def test_a_long_summary_of_few_draws_is_told_with_their_run(flows, monkeypatch):
    """So that no event loop computes and writes it."""
    monkeypatch.setattr(module, "_BLOCK_VALUES", 6)
    contexts = np.float32([[0.5, -1.0], [2.0, 0.0], [-0.25, 1.0]])
    plan = posterior(flows["conditional"], 1, 7, context=contexts, quantiles=[0.5] * 20, hpd=[0.5])
    sizes = []
    step = advance(plan)
    while isinstance(step, Run):
        sizes.append(step.size - len(step.rows) * 3)
        step = advance(plan, step.lane.runner(step.rows[0 : len(step.rows)], step.context[0 : len(step.rows)]))
    each = sum(part[0].size for part in step.value if part is not None)
    assert each == 3 * (2 + 20 + 2 + 3)
    assert sizes == [2 * each, 3 * each]

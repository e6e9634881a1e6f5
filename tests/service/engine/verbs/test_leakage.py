"""A flow with a prior: how much of its mass lies inside, against the closed form, and draws that all lie inside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.bundle.priors import Prior, Simplex
from service.engine.batching.queues import Limits
from service.engine.loading import load_flow
from service.engine.verbs import acceptance as acceptance_module
from service.engine.verbs import rejection
from service.engine.verbs.acceptance import AcceptanceCache
from service.engine.verbs.posterior import posterior
from service.errors import InvalidArgument, OverWorkBudget
from service.guard import WorkLimit
from service.plan import run_now
from tests.service.bundles import affine, bundle, shares

BOX = Prior(low=[-0.5, None], high=[1.0, 0.4])
CONTEXTS = np.float32([[0.0, 0.0], [0.5, -0.25], [-0.5, 0.5]])


@pytest.fixture(scope="module")
def parts():
    return affine("leaky", 1, (2,), 2, prior=BOX)


@pytest.fixture(scope="module")
def make(tmp_path_factory, workers):
    root = tmp_path_factory.mktemp("leaky")
    return lambda parts: load_flow(bundle(root / parts.manifest.name, parts), workers, Limits(chunk_rows=512))


@pytest.fixture(scope="module")
def flow(make, parts):
    return make(parts)


def cdf(value):
    return 0.5 * math.erfc(-value / math.sqrt(2))


def mass(parts, context):
    """The mass inside `BOX`: the coordinates are independent normal numbers."""
    corners, _ = parts.forward(np.array([[-0.5, 0.0], [1.0, 0.4]]), np.repeat([context], 2, axis=0).astype(np.float64))
    return (cdf(corners[1, 0]) - cdf(corners[0, 0])) * cdf(corners[1, 1])


def test_the_acceptance_is_the_mass_inside_within_its_error(flow, parts):
    found = run_now(flow.acceptance(CONTEXTS, 3))
    expected = np.array([mass(parts, context) for context in CONTEXTS])
    assert (found.standard_error < 2e-3).all()
    assert (np.abs(found.share - expected) < 5 * found.standard_error + 1e-4).all()


def test_a_corrected_density_integrates_to_one_and_is_zero_outside(flow, parts):
    rows = np.float32([[0.0, 0.0], [0.9, 0.39], [1.1, 0.0], [0.0, 0.5]])
    context = np.repeat(CONTEXTS[1:2], 4, axis=0)
    found = run_now(flow.log_prob(rows, context, correct=True))
    plain = run_now(flow.log_prob(rows, context)).log_prob
    np.testing.assert_allclose(found.log_prob[:2], plain[:2] - math.log(mass(parts, CONTEXTS[1])), atol=5e-3)
    assert np.isneginf(found.log_prob[2:]).all()
    assert found.acceptance.share.shape == (4,)
    one = run_now(flow.log_prob(rows, CONTEXTS[1:2], correct=True))
    np.testing.assert_array_equal(one.log_prob, found.log_prob)


def test_an_acceptance_is_one_value_and_is_measured_once(flow, make, monkeypatch):
    whole = run_now(flow.acceptance(CONTEXTS, 3))
    monkeypatch.setattr(acceptance_module, "_BLOCK_VALUES", 1)
    again = make(affine("leaky-again", 1, (2,), 2, prior=BOX))
    for at in (2, 0, 1):
        alone = run_now(again.acceptance(CONTEXTS[at : at + 1], 1))
        assert (alone.share[0], alone.standard_error[0]) == (whole.share[at], whole.standard_error[at])
    monkeypatch.setattr(acceptance_module, "_shares", None)  # is not called again
    backwards = run_now(flow.acceptance(np.ascontiguousarray(CONTEXTS[::-1]), 3))
    np.testing.assert_array_equal(backwards.share, whole.share[::-1])
    run_now(flow.acceptance(np.float32([[-0.0, -0.0]]), 1))


def test_the_cache_forgets_the_oldest():
    cache = AcceptanceCache(capacity=2)
    for key in (b"a", b"b"):
        cache.put(key, (0.5, 0.0))
    cache.get(b"a")
    cache.put(b"c", (0.5, 0.0))
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert len(cache) == 2


def test_a_small_mass_is_measured_with_more_points(make):
    parts = affine("narrow", 1, (2,), 0)
    mean, _ = parts.inverse(np.zeros((1, 2)), None)
    low, high = (mean[0] + sign * 0.01 for sign in (-1, 1))
    flow = make(affine("narrow", 1, (2,), 0, prior=Prior(low=low.tolist(), high=high.tolist())))
    found = run_now(flow.acceptance(None, 1))
    corners, _ = parts.forward(np.array([low, high]), None)
    expected = (cdf(corners[1, 0]) - cdf(corners[0, 0])) * (cdf(corners[1, 1]) - cdf(corners[0, 1]))
    assert expected < 1e-3
    assert abs(found.share[0] - expected) < 6 * found.standard_error[0] + 1e-6


def test_the_points_are_within_a_limit_and_what_was_measured_is_kept(make):
    parts = affine("narrower", 1, (2,), 2)
    mean, _ = parts.inverse(np.zeros((1, 2)), np.zeros((1, 2)))
    low, high = (mean[0] + sign * 0.02 for sign in (-1, 1))
    flow = make(affine("narrower", 1, (2,), 2, prior=Prior(low=low.tolist(), high=high.tolist())))
    contexts = np.float32([[0, 0], [1e-3, 0], [2e-3, 0]])
    points = acceptance_module.POINTS
    most = WorkLimit(2, 1, 2 * (3 + 2 * acceptance_module._MORE) * points, ("correct",))
    with pytest.raises(OverWorkBudget, match=rf"{(3 + 3 * acceptance_module._MORE) * points} rows of 2 values"):
        run_now(flow.log_prob(np.zeros((3, 2), np.float32), contexts, correct=True, check_points=most.check))
    first = run_now(flow.acceptance(contexts[:2], 2, WorkLimit(2, 1, 0, ("correct",)).check))
    assert (first.share < 2e-3).all()
    np.testing.assert_array_equal(run_now(flow.acceptance(contexts, 3, most.check)).share[:2], first.share)


def test_a_prior_that_the_flow_has_no_mass_in_is_refused(make, monkeypatch):
    flow = make(affine("elsewhere", 1, (2,), 2, prior=Prior(low=[1e3, 1e3], high=[2e3, 2e3])))
    with pytest.raises(InvalidArgument, match=r"^context, row 0: none of \d+ draws lies inside"):
        run_now(flow.log_prob(np.zeros((1, 2), np.float32), CONTEXTS[:1], correct=True))
    monkeypatch.setattr(rejection, "MAX_TRIES", 7)
    with pytest.raises(OverWorkBudget, match=r"^row 0: 5 of 5 rows have no draw inside the prior under this") as told:
        run_now(flow.sample(5, 1, context=CONTEXTS[0]))
    assert told.value.errors[0].loc == ("context",)


def test_a_flow_without_a_prior_has_nothing_to_correct(flows):
    with pytest.raises(InvalidArgument, match="has no prior"):
        run_now(flows["two-moons"].log_prob(np.zeros((1, 2), np.float32), correct=True))


@pytest.mark.parametrize("how", [{}, {"method": "sobol"}, {"noise": "common"}, {"truncation": 2.0, "temperature": 0.9}])
def test_draws_lie_inside_and_are_the_same_whatever_is_drawn_with_them(flow, how):
    whole = run_now(flow.sample(300, 7, context=CONTEXTS, **how))
    assert BOX.inside(whole.x.reshape(-1, 2)).all()
    for at in range(3):
        alone = run_now(flow.sample(300, 7, context=CONTEXTS[at], **how))
        np.testing.assert_array_equal(alone.x, whole.x[at])
    for start, count in ((0, 5), (5, 120), (299, 1)):
        part = run_now(flow.sample(count, 7, start, context=CONTEXTS[[2, 0]], **how))
        np.testing.assert_array_equal(part.x, whole.x[[2, 0], start : start + count])
        np.testing.assert_array_equal(part.log_prob, whole.log_prob[[2, 0], start : start + count])


def test_what_lay_inside_anyway_is_kept_and_what_did_not_is_drawn_again(flow, make):
    plain = make(affine("plain", 1, (2,), 2))
    before = run_now(plain.sample(400, 3, context=CONTEXTS[0])).x
    found = run_now(flow.sample(400, 3, context=CONTEXTS[0]))
    inside = BOX.inside(before)
    assert 0.1 < inside.mean() < 0.95
    np.testing.assert_array_equal(found.x[inside], before[inside])
    again = found.x[~inside]
    assert len(np.unique(again, axis=0)) == len(again)
    assert np.isclose(run_now(flow.log_prob(found.x, CONTEXTS[:1])).log_prob, found.log_prob, atol=1e-4).all()


def test_draws_are_distributed_as_the_flow_inside_and_the_acceptance_is_told(flow, parts):
    found = run_now(flow.sample(20_000, 1, context=CONTEXTS[1]))
    assert found.acceptance.shape == (1,)
    share = mass(parts, CONTEXTS[1])
    assert abs(found.acceptance[0] - share) < 5 * math.sqrt(share * (1 - share) / 20_000 / share)
    z, _ = parts.forward(found.x.astype(np.float64), np.repeat(CONTEXTS[1:2], 20_000, axis=0).astype(np.float64))
    ends, _ = parts.forward(np.array([[-0.5, 0.0], [1.0, 0.4]]), np.repeat(CONTEXTS[1:2], 2, axis=0).astype(np.float64))
    low, high = cdf(ends[0, 0]), cdf(ends[1, 0])
    uniform = (np.array([cdf(value) for value in z[:, 0]]) - low) / (high - low)
    distance = np.abs(np.sort(uniform) - (np.arange(20_000) + 0.5) / 20_000).max()
    assert distance < 1.95 / math.sqrt(20_000)  # Kolmogorov's bound at 0.1%


def test_round_trips_and_posteriors_are_of_the_rows_that_were_kept(flow):
    found = run_now(flow.sample(100, 5, context=CONTEXTS, round_trip=True))
    assert (found.round_trip_error < 1e-4).all()
    summary = run_now(posterior(flow, 100, 5, context=CONTEXTS))
    np.testing.assert_allclose(summary.mean, found.x.mean(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(summary.acceptance, found.acceptance)


def test_an_image_s_and_a_simplex_s_draws_lie_inside(make):
    mean, _ = affine("shares", 1, (3,), 0).inverse(np.zeros((1, 3)), None)
    likely = int(np.abs(mean[0] - 0.5).argmin())
    prior = Prior(low=[None] * 3, high=[None] * 3, simplexes=[Simplex(first=likely, count=1)])
    flow = make(affine("shares", 1, (3,), 0, prior=prior))
    found = run_now(flow.sample(50, 1))
    assert found.acceptance[0] < 0.9
    assert prior.inside(found.x).all()
    flat = make(affine("pixels", 1, (1, 2, 1), 0, prior=Prior(low=[0.0, 0.0], high=[9.0, 9.0])))
    x = run_now(flat.sample(50, 1)).x
    assert x.shape == (50, 1, 2, 1)
    assert (x >= 0).all()


def test_a_constrained_flow_s_density_is_corrected_by_its_mass_inside(make):
    """Its events are wider than its latents."""
    flow = make(shares("constrained", prior=Prior(low=[0.5, None, None], high=[None, None, 0.0])))
    rows = np.float32([[0.75, 0.25, -1.0], [0.25, 0.75, -1.0]])
    found = run_now(flow.log_prob(rows, correct=True))
    assert found.acceptance.share[0] == pytest.approx(0.25, abs=1e-3)
    assert found.log_prob[0] == pytest.approx(run_now(flow.log_prob(rows)).log_prob[0] + math.log(4), abs=1e-2)
    assert np.isneginf(found.log_prob[1])
    assert flow.prior.inside(run_now(flow.sample(50, 1)).x).all()

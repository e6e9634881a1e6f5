"""The law of several contexts in one call: each has draws of its own, the same as when it is asked alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from service.engine.loading import load_flow
from service.engine.sampling.noise import BaseNoise
from service.plan import run_now
from tests.service.bundles import affine, bundle

CONTEXTS = 1000
BINS = 20


@pytest.fixture(scope="module")
def parts():
    """x ~ N(mean + context @ W, std), in closed form."""
    return affine("conditional", event_shape=(2,), context_width=3)


@pytest.fixture(scope="module")
def flow(parts, tmp_path_factory):
    return load_flow(bundle(tmp_path_factory.mktemp("law"), parts))


def some_contexts(seed):
    return np.random.default_rng(seed).normal(size=(CONTEXTS, 3)).astype(np.float32)


def ranks(flow, parts, seed, **noise):
    """The rank of a true draw among 99 of the flow, of each context and column, ``[CONTEXTS, 2]``."""
    contexts = some_contexts(seed)
    z = np.random.default_rng(1000 + seed).normal(size=(CONTEXTS, 2))
    truth, _ = parts.inverse(z, contexts.astype(np.float64))
    drawn = run_now(flow.sample(99, seed, context=contexts, **noise))
    return (drawn.x < truth[:, None]).sum(axis=1)


def uniformity(found):
    """The p-value that ranks 0 to 99 are equally frequent."""
    return stats.chisquare(np.bincount(found * BINS // 100, minlength=BINS)).pvalue


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_ranks_of_a_thousand_contexts_in_one_call_are_uniform(flow, parts, seed):
    # Simulation-based calibration (Talts et al. 2018). The seeds are fixed, so that the p-values are too.
    found = ranks(flow, parts, seed)
    for column in found.T:
        assert uniformity(column) > 1e-3


def test_ranks_tell_common_noise(flow, parts):
    found = ranks(flow, parts, 0, noise="common")
    assert max(uniformity(column) for column in found.T) < 1e-6


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize("row", [0, 1, 12_345])
def test_a_row_of_a_thousand_contexts_has_the_distribution_of_the_base(flow, parts, method, row):
    contexts = some_contexts(3)
    drawn = run_now(flow.sample(1, 5, row, context=contexts, method=method))
    z, _ = parts.forward(drawn.x[:, 0].astype(np.float64), contexts.astype(np.float64))
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.12  # 4 standard deviations of 0
    assert abs(np.corrcoef(z[1:, 0], z[:-1, 0])[0, 1]) < 0.12


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_a_context_has_the_same_rows_alone_and_in_any_company_and_order(flow, method):
    contexts = some_contexts(4)
    whole = run_now(flow.sample(3, 7, 2, context=contexts, method=method))
    order = np.random.default_rng(5).permutation(CONTEXTS)
    mixed = run_now(flow.sample(3, 7, 2, context=contexts[order], method=method))
    assert mixed.x.tobytes() == whole.x[order].tobytes()
    assert mixed.log_prob.tobytes() == whole.log_prob[order].tobytes()
    for at in (0, 500, 999):
        for one in (contexts[at], contexts[at : at + 1]):
            alone = run_now(flow.sample(3, 7, 2, context=one, method=method))
            assert alone.x.tobytes() == whole.x[at].tobytes()
            assert alone.log_prob.tobytes() == whole.log_prob[at].tobytes()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_ten_rows_of_each_context_are_five_and_the_next_five(flow, method):
    contexts = some_contexts(6)
    ten = run_now(flow.sample(10, 7, context=contexts, method=method)).x
    five = [run_now(flow.sample(5, 7, offset, context=contexts, method=method)).x for offset in (0, 5)]
    assert ten.tobytes() == np.concatenate(five, axis=1).tobytes()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_minus_zero_and_zero_are_one_context(flow, method):
    zeros = np.float32([[0.0, 1.5, 0.0], [-0.0, 1.5, 0.0], [0.0, 1.5, -0.0], [0.0, -1.5, 0.0]])
    x = run_now(flow.sample(4, 7, context=zeros, method=method)).x
    assert x[0].tobytes() == x[1].tobytes() == x[2].tobytes()
    assert not np.isin(x[3], x[0]).any()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_common_noise_is_that_of_no_context(flow, method):
    contexts = some_contexts(8)[:50]
    how = {"temperature": 0.5, "truncation": 1.5, "method": method}
    z = BaseNoise(flow.manifest.base, 2, 7, 3, 4, **how)[0:4]
    for given in (contexts, contexts[0]):
        drawn = run_now(flow.sample(4, 7, 3, context=given, noise="common", **how))
        each = np.atleast_2d(given)
        expected = run_now(flow.decode(np.tile(z, (len(each), 1)), np.repeat(each, 4, axis=0)))
        assert drawn.x.tobytes() == expected.x.tobytes()
        assert drawn.log_prob.tobytes() == expected.log_prob.tobytes()


def test_neither_temperature_nor_truncation_is_part_of_the_key(flow, parts):
    contexts = some_contexts(9)[:5]

    def latents(**how):
        x = run_now(flow.sample(4, 7, context=contexts, **how)).x.reshape(20, 2)
        return parts.forward(x.astype(np.float64), np.repeat(contexts, 4, axis=0).astype(np.float64))[0]

    np.testing.assert_allclose(latents(temperature=0.5), 0.5 * latents(), atol=1e-5)
    np.testing.assert_allclose(latents(truncation=30.0), latents(), atol=1e-5)

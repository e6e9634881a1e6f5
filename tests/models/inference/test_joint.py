"""The evidence of a joint density: means over rows of x."""

from __future__ import annotations

import numpy as np
import pytest

from models.inference.evidence import Evidence, Missed
from models.inference.joint import JointEvidence, mean_evidence


def evidence(log_evidence: float, k: float | None = 0.3) -> Evidence:
    return Evidence(log_evidence - 0.5, 0.01, log_evidence, 0.03, 0.8, k, 0.0, np.zeros(10))


def test_annealing_of_some_rows_is_compared_with_draws_on_the_same_rows():
    rows = tuple(evidence(value) for value in (1.0, 2.0, 6.0))
    mean = mean_evidence(rows)
    assert mean.log_evidence == pytest.approx(3.0)
    assert mean.elbo == pytest.approx(2.5)
    assert mean.log_evidence_se == pytest.approx(0.03 / 3**0.5)
    nothing = Missed(0.0, 0, None)
    found = JointEvidence(rows, ((1.1, 0.04), (2.3, 0.04)), (nothing, nothing))
    value, error = found.annealed_mean(mean)
    assert value == pytest.approx(3.2)  # 0.2 more than draws, over the two rows that were annealed
    assert error == pytest.approx((2 * (0.03**2 + 0.04**2)) ** 0.5 / 2)


def test_a_pareto_k_that_no_row_has_is_unknown():
    assert mean_evidence([evidence(1.0, None), evidence(2.0, None)]).pareto_k is None

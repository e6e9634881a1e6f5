"""The verdict: each word has its finding, and the gravest decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.inference.evidence import Evidence, Missed
from models.inference.verdict import judge_fit

NOTHING = Missed(0.0, 0, None)


def evidence(log_evidence=0.0, se=0.001, ess=0.9, k=0.3, outside=0.0) -> Evidence:
    return Evidence(log_evidence - 0.1, 0.001, log_evidence, se, ess, k, outside, np.zeros(10))


def judge(kept=None, annealed=(0.0, 0.02), missed=NOTHING, restarts=None, rise=0.0, names=()):
    kept = kept or evidence()
    return judge_fit(kept, annealed, missed, restarts or [kept, kept], rise, names)


def test_a_fit_that_annealing_agrees_with_is_good():
    verdict = judge()
    assert verdict.word == "good"
    assert "log Z of 2 restarts differs by 0.000 nats, which their errors explain" in verdict.sentences


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("modes_missing", {"annealed": (0.5, 0.05)}),
        ("modes_missing", {"missed": Missed(0.01, 12, (1.0, 2.0))}),
        ("not_converged", {"kept": evidence(ess=0.01)}),
        ("not_converged", {"kept": evidence(outside=0.1)}),
        ("not_converged", {"rise": 1.0}),
        ("not_converged", {"restarts": [evidence(), evidence(0.5)]}),
        ("heavy_tails", {"kept": evidence(k=0.8)}),
        ("modes_missing", {"kept": evidence(k=0.8, ess=0.01), "annealed": (0.5, 0.05)}),
        ("not_converged", {"kept": evidence(k=0.8, ess=0.01)}),
    ],
)
def test_each_word_has_its_finding(word, given):
    assert judge(**given).word == word


@pytest.mark.parametrize(
    "given",
    [
        {"annealed": (0.5, 0.3)},  # its error explains it
        {"annealed": (-0.9, 0.05)},  # annealing did not get there: that says nothing against the flow
        {"annealed": (-math.inf, math.inf)},
        {"missed": Missed(0.5, 1, (1.0,))},  # one chain
        {"rise": math.nan},
        {"kept": evidence(k=None)},
    ],
)
def test_what_proves_nothing_is_not_held_against_a_fit(given):
    assert judge(**given).word == "good"


def test_annealing_that_fell_short_is_told():
    assert "annealing reached less than the flow" in " ".join(judge(annealed=(-0.9, 0.05)).sentences)


def test_the_place_of_a_missed_mode_is_shown_by_name():
    verdict = judge(missed=Missed(0.4, 300, (1.25, -2.0)), names=("slope", "offset"))
    assert "slope = 1.25, offset = -2" in verdict.sentences[0]


def test_restarts_that_disagree_are_told():
    verdict = judge(kept=evidence(0.5), annealed=(0.5, 0.02), restarts=[evidence(0.5), evidence(0.0)])
    assert verdict.word == "good"
    assert "log Z of 2 restarts differs by 0.500 nats, more than their errors explain" in " ".join(verdict.sentences)

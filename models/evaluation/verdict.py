"""The verdict on a flow, in words: what was found, the gravest first. Must not import torch.

A p-value alone says whether a flow is exact, which none is on enough rows: a grade follows from how far off it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from models.evaluation.evaluate import Diagnosis
from models.evaluation.likelihood import Evaluation, Score

__all__ = ["Grade", "Verdict", "judge"]

Grade = Literal["good", "fair", "poor"]

_P: Final = 0.01  # a p-value below this is told
_FAIR_AUROC: Final = 0.6
_POOR_AUROC: Final = 0.75
_FAIR_COVERAGE: Final = 0.05  # from level to coverage
_POOR_COVERAGE: Final = 0.15
_FAIR_OVERFIT: Final = 0.1  # nats a dimension, from held-out to training rows
_ERRORS: Final = 3.0  # standard errors that a difference must have to be told
_SHOWN: Final = 5  # columns that a sentence names


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, in words.

    Args:
        grade: "good", "fair" or "poor": that of the gravest finding.
        sentences: the findings, each a sentence without a final full stop, the gravest first.
    """

    grade: Grade
    sentences: tuple[str, ...]


def judge(
    evaluation: Evaluation,
    diagnosis: Diagnosis,
    columns: Sequence[str],
    *,
    outside: Sequence[str] = (),
    same_rows: bool = False,
    shift: tuple[float, float] | None = None,
) -> Verdict:
    """Say what was found.

    Args:
        evaluation: the likelihoods.
        diagnosis: the tests.
        columns: the names of the columns of x; of pixels, their places.
        outside: where the rows are whose log_prob is -inf; the figures leave them out.
        same_rows: whether the rows may be those that the flow was fitted to.
        shift: the mean log_prob of the rows that the bundle was calibrated by, and the p-value of the test that
            log_prob is distributed alike here; None where these are the same rows.

    Returns:
        The verdict.
    """
    found: list[tuple[Grade, str]] = []
    if outside:
        found.append(("poor", _zero_density(outside)))
    found += _against_simple(evaluation)
    found += _overfit(evaluation)
    found += _densities(diagnosis)
    found += _told_apart(diagnosis, columns)
    found += _ranks(diagnosis, columns)
    found += _tarp(diagnosis)
    if shift is not None and shift[1] < _P:
        found.append(
            ("fair", (f"log_prob is not distributed as over the rows that the bundle was calibrated by, whose mean is "
                     f"{shift[0]:.3f} (p {shift[1]:.1g}): quantiles and alarm rates do not hold for "
                     "these rows"))
        )  # fmt: skip
    if same_rows:
        found.append(
            ("fair", ("the data has the name of the file that the flow was fitted to: rows that it was fitted to "
                     "flatter it, so that held-out ones should be given"))
        )  # fmt: skip
    order: tuple[Grade, ...] = ("poor", "fair", "good")
    found.sort(key=lambda each: order.index(each[0]))
    return Verdict(found[0][0], tuple(sentence for _, sentence in found))


def _zero_density(outside: Sequence[str]) -> str:
    several = f"{len(outside)} rows have" if len(outside) > 1 else "1 row has"
    return (
        f"{several} log_prob -inf, the first of them {outside[0]}: outside the flow's support, or so far out that "
        "float32 holds no number for it. The mean over all rows is -inf; the other figures leave them out"
    )


def _against_simple(evaluation: Evaluation) -> list[tuple[Grade, str]]:
    given = "a linear Gaussian, given the context" if evaluation.context_width else "a full-covariance Gaussian"
    found = [_compare(evaluation.gain, given, worse="poor")]
    if evaluation.mixture is not None:
        gain = Score(evaluation.flow.log_prob - evaluation.mixture.log_prob)
        components = evaluation.components
        what = f"a mixture of {components} Gaussians" if components > 1 else "a mixture of Gaussians (1 is best)"
        found.append(_compare(gain, what, worse="fair"))
    return found


def _compare(gain: Score, what: str, worse: Grade) -> tuple[Grade, str]:
    said = f"by {abs(gain.mean):.3f} ± {gain.standard_error:.3f} nats a row"
    if gain.mean > _ERRORS * gain.standard_error:
        return "good", f"the flow is better than {what} {said}"
    if gain.mean < -_ERRORS * gain.standard_error:
        return worse, f"the flow is WORSE than {what} {said}"
    said = f"{gain.mean:+.3f} ± {gain.standard_error:.3f} nats a row"
    return "fair" if worse == "poor" else "good", f"the flow is not better than {what}: {said}"


def _overfit(evaluation: Evaluation) -> list[tuple[Grade, str]]:
    if evaluation.train is None:
        return []
    ahead = evaluation.train.mean - evaluation.flow.mean
    error = math.hypot(evaluation.train.standard_error, evaluation.flow.standard_error)
    if ahead <= max(_ERRORS * error, _FAIR_OVERFIT * evaluation.width):
        return []
    return [("fair", (f"the flow gives its training rows {ahead:.3f} ± {error:.3f} nats a row more than held-out rows: "
                     "it has learnt some of them by heart"))]  # fmt: skip


def _densities(diagnosis: Diagnosis) -> list[tuple[Grade, str]]:
    off = max(diagnosis.coverage, key=lambda each: abs(each.covered - each.level))
    distance = abs(off.covered - off.level)
    p = diagnosis.log_prob.p_value
    if p >= _P:
        return [("good", f"log_prob of held-out rows is spread as that of the flow's own samples (p {p:.2g})")]
    kind = "too narrow" if off.covered < off.level else "too wide"
    grade: Grade = "good" if distance < _FAIR_COVERAGE else "fair" if distance < _POOR_COVERAGE else "poor"
    said = f"the region that should hold {off.level:.0%} of the rows holds {off.covered:.1%} (p {p:.1g})"
    return [(grade, f"the density is {kind}: {said}")]


def _told_apart(diagnosis: Diagnosis, columns: Sequence[str]) -> list[tuple[Grade, str]]:
    found: list[tuple[Grade, str]] = []
    samples = diagnosis.samples
    auroc = samples.judged
    if samples.atoms:
        named = _named([columns[atom.column] for atom in samples.atoms])
        said = f"values repeat in {named} ({samples.atoms[0].kind}), as no sample of a density does"
        found.append(("good", f"{said}, which may give the table away: AUROC {samples.auroc:.3f} as it stands"))
    besides = "with samples rounded to these values " if samples.atoms else ""
    certain = auroc - 0.5 > _ERRORS * samples.standard_error
    grade: Grade = "good"
    if certain and auroc >= _FAIR_AUROC:
        grade = "fair" if auroc < _POOR_AUROC else "poor"
    words = {
        "good": "hardly tells samples from held-out rows" if certain else "does not tell samples from held-out rows",
        "fair": "tells some samples from held-out rows",
        "poor": "tells samples from held-out rows",
    }[grade]
    said = f"{besides}a classifier {words}: AUROC {auroc:.3f} ± {samples.standard_error:.3f}, and 0.5 is perfect"
    telling = [columns[column] for column, _ in samples.telling]
    if telling and grade != "good":
        said += f"; it tells them by {_named(telling)}"
    return [*found, (grade, said)]


def _ranks(diagnosis: Diagnosis, columns: Sequence[str]) -> list[tuple[Grade, str]]:
    p = diagnosis.ranks_p_value
    if p is None:
        return []
    if p >= _P:
        return [("good", f"each value ranks evenly among samples at its row's context (p {p:.2g})")]
    count = len(diagnosis.ranks)
    wrong = [columns[at] for at, test in enumerate(diagnosis.ranks) if test.p_value * count < _P]
    distance = max(test.statistic for test in diagnosis.ranks)
    grade: Grade = "good" if distance < _FAIR_COVERAGE else "fair" if distance < _POOR_COVERAGE else "poor"
    said = f"{_named(wrong)} do not rank evenly among samples at the row's context (p {p:.1g}"
    return [(grade, f"{said}, distance {distance:.3f})")]


def _tarp(diagnosis: Diagnosis) -> list[tuple[Grade, str]]:
    if diagnosis.tarp is None:
        return []
    p, distance = diagnosis.tarp.p_value, diagnosis.tarp.statistic
    if p >= _P:
        return [("good", f"rows lie as far from random points as samples at their context (p {p:.2g})")]
    grade: Grade = "good" if distance < _FAIR_COVERAGE else "fair" if distance < _POOR_COVERAGE else "poor"
    said = f"rows do not lie as far from random points as samples at their context (p {p:.1g}"
    return [(grade, f"{said}, distance {distance:.3f})")]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

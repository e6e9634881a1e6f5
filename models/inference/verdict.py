"""The verdict on a fit to a density, in words: whether it can be relied on, and why not.

A flow that misses a mode looks perfect by its own draws: they never go there. So its evidence is held against that of
annealing from a wide start, and its density against the ends of those chains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from models.inference.evidence import Evidence, Missed

__all__ = ["InferenceVerdict", "VerdictWord", "judge_fit", "judge_joint"]

VerdictWord = Literal["good", "heavy_tails", "modes_missing", "not_converged"]

_ERRORS: Final = 4.0  # standard errors that two log Z must differ by to be told apart
_LEAST_GAP: Final = 0.05  # nats, beside them
_MISSED_SHARE: Final = 0.002
_MISSED_ROWS: Final = 3
_HEAVY_K: Final = 0.7
_LEAST_ESS: Final = 0.05
_RISE: Final = 0.1  # nats: of the ELBO in the last tenth of a stage, over the tenth before it

_TITLES: Final = {
    "good": "good",
    "heavy_tails": "heavy tails",
    "modes_missing": "modes missing",
    "not_converged": "not converged",
}


@dataclass(frozen=True, slots=True)
class InferenceVerdict:
    """What was found, in words.

    Args:
        word: as the manifest has it.
        sentences: the findings, each a sentence without a final full stop, the gravest first.
    """

    word: VerdictWord
    sentences: tuple[str, ...]

    @property
    def title(self) -> str:
        """The word as text."""
        return _TITLES[self.word]


def judge_fit(
    kept: Evidence,
    annealed: tuple[float, float],
    missed: Missed,
    restarts: Sequence[Evidence],
    rise: float,
    names: Sequence[str],
) -> InferenceVerdict:
    """Judge a fit to one density.

    Args:
        kept: of the flow that is kept.
        annealed: log Z by annealed importance sampling, and its standard error.
        missed: what the flow has too little of.
        restarts: of all restarts, the kept one among them.
        rise: of the ELBO at the end of the fit, in nats; NaN where it was not measured.
        names: of the coordinates.
    """
    found: list[tuple[VerdictWord, str]] = []
    found += _missing(kept, annealed, missed, names)
    found += _unfinished(kept, restarts, rise)
    found += _heavy(kept)
    if not found:
        said = f"an effective share of {kept.ess_share:.2f} of the draws, and log Z by annealing agrees"
        found.append(("good", said))
    notes = [*_annealing_short(kept, annealed), *_disagreement(restarts)]
    order: tuple[VerdictWord, ...] = ("modes_missing", "not_converged", "heavy_tails", "good")
    found.sort(key=lambda each: order.index(each[0]))
    return InferenceVerdict(found[0][0], (*(sentence for _, sentence in found), *notes))


def judge_joint(
    rows: Sequence[Evidence], annealed: Sequence[tuple[float, float]], missed: Sequence[Missed], rise: float
) -> InferenceVerdict:
    """Judge q(z given x) over rows of x.

    Args:
        rows: of each row of x that was measured.
        annealed: log p(x) of the first of them by annealed importance sampling, and its standard error.
        missed: what the flow has too little of at each of these.
        rise: of the ELBO at the end of the fit, in nats.
    """
    found: list[tuple[VerdictWord, str]] = []
    pairs = zip(rows, annealed, missed, strict=False)
    lost = sum(bool(_missing(row, evidence, found_there, ())) for row, evidence, found_there in pairs)
    if lost > 0.1 * len(annealed):
        found.append(
            (
                "modes_missing",
                f"at {lost} of {len(annealed)} rows of x annealing finds density that the flow does not have",
            )
        )
    few = sum(row.ess_share < _LEAST_ESS for row in rows)
    if few > 0.1 * len(rows):
        said = f"at {few} of {len(rows)} rows of x fewer than {_LEAST_ESS:.0%} of the draws count"
        found.append(("not_converged", said))
    if rise > _RISE:
        found.append(("not_converged", f"the ELBO still rose by {rise:.2f} nats at the end: give more --steps"))
    heavy = sum(row.pareto_k is not None and row.pareto_k >= _HEAVY_K for row in rows)
    if heavy > 0.2 * len(rows):
        found.append(
            ("heavy_tails", f"at {heavy} of {len(rows)} rows of x the weights have a Pareto k of {_HEAVY_K} or more")
        )
    if not found:
        found.append(("good", f"the weights can be relied on at {len(rows) - heavy} of {len(rows)} rows of x"))
    return InferenceVerdict(found[0][0], tuple(sentence for _, sentence in found))


def _missing(
    kept: Evidence, annealed: tuple[float, float], missed: Missed, names: Sequence[str]
) -> list[tuple[VerdictWord, str]]:
    found: list[tuple[VerdictWord, str]] = []
    gap, error = annealed[0] - kept.log_evidence, math.hypot(annealed[1], kept.log_evidence_se)
    if gap > _LEAST_GAP + _ERRORS * error:
        found.append(
            ("modes_missing", (f"annealing from a wide start finds log Z = {annealed[0]:.3f} ± {annealed[1]:.3f}, and "
                     f"the flow's own draws {kept.log_evidence:.3f} ± {kept.log_evidence_se:.3f}: the flow covers "
                     f"{math.exp(-gap):.0%} of what is there"))
        )  # fmt: skip
    if missed.share >= _MISSED_SHARE and missed.rows >= _MISSED_ROWS:
        where = ""
        if missed.example is not None:
            shown = [f"{value:.3g}" for value in missed.example[:6]]
            labels = [f"{name} = " for name in names[:6]] or [""] * len(shown)
            more = ", …" if len(missed.example) > len(shown) else ""
            where = ", for one at " + ", ".join(f"{a}{b}" for a, b in zip(labels, shown, strict=True)) + more
        found.append(
            ("modes_missing", (f"{missed.share:.1%} of the target's mass lies where the flow has as good as no "
                     f"density ({missed.rows} ends of annealed chains){where}. Try --objective auto, or a wider "
                     "--start-scale"))
        )  # fmt: skip
    return found


def _unfinished(kept: Evidence, restarts: Sequence[Evidence], rise: float) -> list[tuple[VerdictWord, str]]:
    found: list[tuple[VerdictWord, str]] = []
    if kept.outside > 0.01:
        found.append(
            ("not_converged", (f"{kept.outside:.1%} of the draws lie where the target has no density: give its bounds "
                     "as constraints"))
        )  # fmt: skip
    if kept.ess_share < _LEAST_ESS:
        said = f"{kept.ess_share:.1%} of the draws count, and {_LEAST_ESS:.0%} is the least"
        found.append(("not_converged", f"{said}: give more --steps, or a richer flow"))
    if rise > _RISE:
        found.append(("not_converged", f"the ELBO still rose by {rise:.2f} nats at the end: give more --steps"))
    apart = [each for each in restarts if _apart(kept, each) and each.log_evidence > kept.log_evidence]
    if apart:
        found.append(("not_converged", "another restart found more of the evidence than the flow that was kept"))
    return found


def _heavy(kept: Evidence) -> list[tuple[VerdictWord, str]]:
    if kept.pareto_k is None or kept.pareto_k < _HEAVY_K:
        return []
    said = f"the weights' tail has a Pareto k of {kept.pareto_k:.2f}, and {_HEAVY_K} is the most"
    hint = "the target has heavier tails than the flow. Try --flow-option base=student_t, or more --steps"
    return [("heavy_tails", f"{said}: {hint}")]


def _annealing_short(kept: Evidence, annealed: tuple[float, float]) -> list[str]:
    gap, error = kept.log_evidence - annealed[0], math.hypot(annealed[1], kept.log_evidence_se)
    if not gap > _LEAST_GAP + _ERRORS * error:
        return []
    said = f"annealing reached less than the flow: its log Z is {gap:.3f} nats lower"
    hint = "Give more --chains and --chain-steps, or a --start-scale that fits the target"
    return [f"{said}, so that it says little of missing modes. {hint}"]


def _disagreement(restarts: Sequence[Evidence]) -> list[str]:
    """What the restarts say of each other."""
    if len(restarts) < 2:
        return ["one restart: nothing to compare it with"]
    values = [each.log_evidence for each in restarts]
    spread = max(values) - min(values)
    many = f"log Z of {len(restarts)} restarts differs by {spread:.3f} nats"
    if any(_apart(one, other) for one in restarts for other in restarts):
        return [f"{many}, more than their errors explain: some of them have missed modes or not converged"]
    return [f"{many}, which their errors explain"]


def _apart(one: Evidence, other: Evidence) -> bool:
    gap = abs(one.log_evidence - other.log_evidence)
    return not gap <= _LEAST_GAP + _ERRORS * math.hypot(one.log_evidence_se, other.log_evidence_se)

"""The evaluation of a flow on held-out rows: its likelihood beside simpler densities, and tests of its samples.

`pushforward train` and `pushforward evaluate` both come here. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.data.labelled_rows import MIN_ROWS
from models.data.readers import FloatArray
from models.evaluation.density import Density, Draws
from models.evaluation.likelihood import Evaluation, Gaussian, Score
from models.evaluation.mixture import Mixture
from models.evaluation.two_sample import FOLDS, Margin, TwoSample, compare_margins, compare_samples
from models.evaluation.uniformity import (
    Coverage,
    Uniformity,
    base_quantiles,
    measure_coverage,
    measure_tarp,
    sample_quantiles,
    smallest_p,
)
from service.errors import DataError

__all__ = ["Diagnosis", "HeldOutRows", "WorstRow", "diagnose", "measure_likelihood", "stages"]

WORST: Final = 10
"""So many rows of least density are told."""

_FOLDS: Final = 5  # of the Gaussian and the mixture, where training rows are not known
_TRAINING_ROWS: Final = 10_000  # that the flow is scored on: an error of a hundredth of their spread
_COMPARED: Final = 5000  # rows, at most, that a classifier tells from samples
_SAMPLES: Final = 10_000  # at most, that quantiles are taken among
_EACH: Final = 99  # samples at each context, which makes a hundred ranks
_CONTEXTS: Final = 1000  # at most, that have samples of their own
_VALUES: Final = 1 << 22  # at most, of all samples of one kind


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """Rows that a flow was not fitted to, and those that it was fitted to where they are known. All are flat.

    Args:
        rows: ``[N, D]`` as they are scored: values on a grid are spread over their bins.
        context: ``[N, C]`` their context; None for a flow without.
        centres: ``[N, D]`` the same rows as the user has them; None where none of their values is spread.
        step: ``[D]`` the bins' widths, 0 where a column is not spread; None where none is.
        train: ``[M, D]`` the training rows, spread alike; None where they are not known.
        train_context: ``[M, C]`` their context.
    """

    rows: FloatArray
    context: FloatArray | None = None
    centres: FloatArray | None = None
    step: FloatArray | None = None
    train: FloatArray | None = None
    train_context: FloatArray | None = None

    @property
    def log_bins(self) -> float | None:
        """The sum of log(step), where every column is spread; else None."""
        return float(np.log(self.step).sum()) if self.step is not None and bool((self.step > 0).all()) else None


@dataclass(frozen=True, slots=True)
class WorstRow:
    """One of the rows of least density.

    Args:
        row: its number among the held-out rows, from 0.
        log_prob: in nats.
        quantile: the share of the flow's own samples, at the same context, with a lower log_prob.
        column: the place of the value that lies furthest out among the others.
        deviations: how far that lies from the column's median, in standard deviations of the column.
    """

    row: int
    log_prob: float
    quantile: float
    column: int
    deviations: float


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What the tests of a flow's samples, densities and latents found.

    Args:
        log_prob: the quantiles of log_prob among samples.
        coverage: of the regions of greatest density.
        latents: one test for each coordinate of z.
        samples: held-out rows told from samples.
        margins: one comparison for each column.
        ranks: one test for each column of a conditional flow, among samples at the row's own context; else empty.
        tarp: of a conditional flow, the distances of rows from random points among those of such samples; else None.
        ranked: the places of the rows that `log_prob` and `ranks` are of.
        drawn: the samples that quantiles were taken among: of all rows, or at each context.
        worst: the rows of least density, the least first.
    """

    log_prob: Uniformity
    coverage: tuple[Coverage, ...]
    latents: tuple[Uniformity, ...]
    samples: TwoSample
    margins: tuple[Margin, ...]
    ranks: tuple[Uniformity, ...]
    tarp: Uniformity | None
    ranked: npt.NDArray[np.intp]
    drawn: int
    worst: tuple[WorstRow, ...]

    @property
    def latents_p_value(self) -> float:
        """The p-value of all coordinates of z as one test."""
        return smallest_p(self.latents)

    @property
    def ranks_p_value(self) -> float | None:
        """The p-value of the ranks of all columns as one test; None for a flow without a context."""
        return smallest_p(self.ranks) if self.ranks else None


def measure_likelihood(density: Density, held_out: HeldOutRows, seed: int) -> Evaluation:
    """Score a flow on held-out rows, beside a Gaussian and a mixture of Gaussians.

    Both are fitted to the training rows where these are known. Else each fold of the held-out rows is scored by those
    that are fitted to the other folds.

    Args:
        density: the flow.
        held_out: the rows.
        seed: of folds and mixtures.

    Returns:
        The scores.

    Raises:
        DataError: a row has no finite log_prob, each is counted; or there are too few rows for folds.
    """
    rows, context, centres = held_out.rows, held_out.context, held_out.centres
    flow = Score(_require_finite(density.log_prob(rows, context), "held-out", rows))
    if held_out.train is not None:
        simple = _Simple.fit(held_out.train, held_out.train_context, seed)
        scored = simple.log_prob(rows, context)
        centred = None if centres is None else simple.gaussian.log_prob(centres, context)
        components, ridged = simple.components, simple.gaussian.ridged
    else:
        scored, centred, components, ridged = _cross_fit(held_out, seed)
    train = None
    if held_out.train is not None:
        given = None if held_out.train_context is None else held_out.train_context[:_TRAINING_ROWS]
        train = Score(_require_finite(density.log_prob(held_out.train[:_TRAINING_ROWS], given), "training"))
    return Evaluation(
        width=rows.shape[1],
        flow=flow,
        gaussian=Score(scored[0]),
        gaussian_ridged=ridged,
        log_bins=held_out.log_bins,
        centres=None
        if centres is None
        else Score(_require_finite(density.log_prob(centres, context), "held-out", centres)),
        centres_gaussian=None if centred is None else Score(centred),
        context_width=0 if context is None else context.shape[1],
        mixture=None if scored[1] is None else Score(scored[1]),
        components=components,
        train=train,
    )


def _require_finite(scores: FloatArray, which: str, rows: FloatArray | None = None) -> FloatArray:
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        shown = "" if rows is None else f", {rows[int(bad[0])].tolist()[:8]}"
        raise DataError(
            f"the fitted flow gives {bad.size} of {len(scores)} {which} rows no finite log_prob: the first is "
            f"{which} row {bad[0]}{shown}"
        )
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class _Simple:
    """The Gaussian and the mixture that stand beside a flow."""

    gaussian: Gaussian
    mixture: Mixture | None

    @classmethod
    def fit(cls, rows: FloatArray, context: FloatArray | None, seed: int) -> _Simple:
        gaussian = Gaussian.fit(rows, context)
        return cls(gaussian, Mixture.fit(gaussian, rows, context, seed))

    @property
    def components(self) -> int:
        return 0 if self.mixture is None else self.mixture.components

    def log_prob(self, rows: FloatArray, context: FloatArray | None) -> tuple[FloatArray, FloatArray | None]:
        mixture = None if self.mixture is None else self.mixture.log_prob(rows, context)
        return self.gaussian.log_prob(rows, context), mixture


def _cross_fit(
    held_out: HeldOutRows, seed: int
) -> tuple[tuple[FloatArray, FloatArray | None], FloatArray | None, int, bool]:
    """The scores of each row by what is fitted to the other folds: Gaussian and mixture, then at bins' centres."""
    rows, context, centres = held_out.rows, held_out.context, held_out.centres
    if len(rows) < MIN_ROWS:
        raise DataError(
            f"{len(rows)} rows are too few to fit a Gaussian beside the flow: at least {MIN_ROWS} are needed, or "
            "training rows (--train)"
        )
    folds = np.random.default_rng(seed).permutation(np.arange(len(rows)) % _FOLDS)
    gaussian, mixture = np.empty(len(rows)), np.empty(len(rows))
    centred = None if centres is None else np.empty(len(rows))
    fitted, components, ridged = True, 0, False
    for fold in range(_FOLDS):
        scored, others = folds == fold, folds != fold
        given = None if context is None else context[scored]
        simple = _Simple.fit(rows[others], None if context is None else context[others], seed)
        gaussian[scored], found = simple.log_prob(rows[scored], given)
        components, ridged = max(components, simple.components), ridged or simple.gaussian.ridged
        if found is None:
            fitted = False
        else:
            mixture[scored] = found
        if centres is not None and centred is not None:
            centred[scored] = simple.gaussian.log_prob(centres[scored], given)
    return (gaussian, mixture if fitted else None), centred, components if fitted else 0, ridged


def stages() -> int:
    """How many stages `diagnose` has."""
    return FOLDS + 4


def diagnose(
    density: Density, held_out: HeldOutRows, log_prob: FloatArray, seed: int, progress: Callable[[int], object]
) -> Diagnosis:
    """Test the samples, densities and latents of a flow against held-out rows.

    Args:
        density: the flow.
        held_out: the rows; all lie inside the support.
        log_prob: ``[N]`` the flow's, of these rows.
        seed: of samples, folds and trees.
        progress: called with the number of stages done since, `stages` in all.

    Returns:
        What was found.
    """
    rows, context = held_out.rows, held_out.context
    seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(4)]
    compared = np.sort(np.random.default_rng(seeds[0]).permutation(len(rows))[: _rows_at_once(rows.shape[1])])
    if context is None:
        drawn = density.sample(_sample_count(rows.shape), None, seeds[1])
        ranked = np.arange(len(rows))
        samples = drawn.rows[0, : len(compared)]
        compared = compared[: len(samples)]
    else:
        samples = density.sample(1, context[compared], seeds[1]).rows[:, 0]
        progress(1)
        ranked = compared[: max(1, min(_CONTEXTS, _VALUES // (_EACH * rows.shape[1])))]
        drawn = density.sample(_EACH, context[ranked], seeds[2])
    progress(1 if context is not None else 2)
    finite = np.isfinite(samples).all(axis=1)
    samples, compared = samples[finite], compared[finite]
    if context is None:
        scores = drawn.log_prob[0]
        quantiles = Uniformity.among(log_prob, scores[~np.isnan(scores)], seeds[3])
    else:
        quantiles = Uniformity.of(sample_quantiles(log_prob[ranked], drawn.log_prob, seeds[3]))
    latents = base_quantiles(density.base, density.latents(rows, context))
    progress(1)
    two_sample = compare_samples(
        rows[compared], samples, None if context is None else context[compared], seeds[3], progress
    )
    ranks = () if context is None else _ranks(rows[ranked], drawn, seeds[3])
    found = Diagnosis(
        log_prob=quantiles,
        coverage=measure_coverage(quantiles.quantiles),
        latents=tuple(Uniformity.of(column) for column in latents.T),
        samples=two_sample,
        margins=compare_margins(rows, samples) if context is None else compare_margins(rows[compared], samples),
        ranks=ranks,
        tarp=None if context is None else measure_tarp(rows[ranked], drawn.rows, context[ranked], seeds[3]),
        ranked=ranked,
        drawn=drawn.log_prob.shape[1],
        worst=_worst(density, rows, context, log_prob, drawn if context is None else None, seeds),
    )
    progress(1)
    return found


def _rows_at_once(width: int) -> int:
    return max(2, min(_COMPARED, _VALUES // width))


def _sample_count(shape: Sequence[int]) -> int:
    rows, width = shape
    return max(2, min(_SAMPLES, max(1000, rows), _VALUES // width))


def _ranks(rows: FloatArray, drawn: Draws, seed: int) -> tuple[Uniformity, ...]:
    columns = range(rows.shape[1])
    return tuple(Uniformity.of(sample_quantiles(rows[:, at], drawn.rows[:, :, at], seed)) for at in columns)


def _worst(
    density: Density,
    rows: FloatArray,
    context: FloatArray | None,
    log_prob: FloatArray,
    drawn: Draws | None,
    seeds: Sequence[int],
) -> tuple[WorstRow, ...]:
    order = np.argsort(log_prob, kind="stable")[:WORST]
    if drawn is None and context is not None:
        drawn = density.sample(_EACH, context[order], seeds[2])
    if drawn is None:
        raise ValueError("rows without a context come with the samples of all")
    quantiles = (drawn.log_prob < log_prob[order][:, None]).mean(axis=1)
    spread = rows.std(axis=0)
    distances = (rows[order] - np.median(rows, axis=0)) / np.where(spread > 0, spread, 1.0)
    furthest = np.abs(distances).argmax(axis=1)
    return tuple(
        WorstRow(
            row=int(row),
            log_prob=float(log_prob[row]),
            quantile=float(quantile),
            column=int(column),
            deviations=float(distances[at, column]),
        )
        for at, (row, quantile, column) in enumerate(zip(order, quantiles, furthest, strict=True))
    )

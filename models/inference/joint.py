"""A joint density of z and x: the rows of x that q(z given x) is fitted to, and what it comes to on others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import torch
from torch import Tensor

from models.data.load import load_data
from models.data.split import derived_generator
from models.flows.precision import TORCH_DTYPES
from models.inference.annealing import WideStart, anneal, plan_schedule
from models.inference.density import UnconstrainedDensity
from models.inference.evidence import Evidence, Missed, annealed_evidence, find_missed, measure_joint
from models.inference.recipe import InferenceRecipe
from models.inference.run import FitRun
from models.recipe import Recipe
from service.bundle.manifest import ContextFeature
from service.errors import DataError

__all__ = ["JointEvidence", "JointRows", "load_rows", "mean_evidence", "measure_rows"]

_HELD_OUT: Final = 0.1  # of the rows
_MAX_MEASURED: Final = 100  # rows of x
_MAX_ANNEALED: Final = 4  # of them
_CHAINS: Final = 500
_EFFICIENCY: Final = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class JointRows:
    """The rows of x.

    Args:
        train: ``[N, C]``, those that the flow is fitted to.
        held_out: ``[K, C]``, those that it is measured on.
        features: the names of the columns; empty where the file has none.
        words: where they are from, in words.
        digest: of them all.
    """

    train: Tensor
    held_out: Tensor
    features: tuple[ContextFeature, ...]
    words: str
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class JointEvidence:
    """What q(z given x) comes to on held-out rows of x.

    Args:
        rows: the evidence for each.
        annealed: log p(x) by annealing, and its standard error, for the first of them.
        missed: what the flow has too little of at these.
    """

    rows: tuple[Evidence, ...]
    annealed: tuple[tuple[float, float], ...]
    missed: tuple[Missed, ...]

    def annealed_mean(self, mean: Evidence) -> tuple[float, float]:
        """Log p(x) by annealing as a mean over all rows, and its standard error.

        Only some rows were annealed: the mean of their differences from the draws is added to the mean of all rows.

        Args:
            mean: of `rows`.
        """
        pairs = list(zip(self.annealed, self.rows, strict=False))
        gap = fmean(value - row.log_evidence for (value, _), row in pairs)
        errors = (math.hypot(error, row.log_evidence_se) for (_, error), row in pairs)
        return mean.log_evidence + gap, math.hypot(*errors) / len(pairs)


def load_rows(recipe: InferenceRecipe) -> JointRows:
    """Read the rows of x of a recipe, and hold a tenth of them out by its seed.

    Raises:
        DataError: the file is not there, holds no table of finite numbers, has fewer than 20 rows, or a column that is
            the same in all rows that are fitted to.
    """
    table = load_data(Recipe.parse({"data": {"source": recipe.target.rows}, "seed": recipe.seed}))
    if table.rows.ndim != 2:
        raise DataError(f"{recipe.target.rows} holds images; a joint density takes rows of x, one a row of a table")
    rows = torch.from_numpy(table.rows).to(TORCH_DTYPES[recipe.fit.precision])
    if len(rows) < 20:
        raise DataError(f"{recipe.target.rows} has {len(rows)} rows; at least 20 are needed")
    order = torch.randperm(len(rows), generator=derived_generator(recipe.seed, "rows of x"))
    held = max(2, int(_HELD_OUT * len(rows)))
    return JointRows(
        train=rows[order[held:]],
        held_out=rows[order[:held]],
        features=tuple(ContextFeature(name=each.name, unit=each.unit) for each in table.features),
        words=table.words,
        digest=table.digest,
    )


def measure_rows(run: FitRun, rows: JointRows, draws: int, density: UnconstrainedDensity) -> JointEvidence:
    """Measure a fit on held-out rows of x.

    Args:
        run: with a fitted flow.
        rows: of x.
        draws: how many for all rows together.
        density: the joint density.
    """
    flow, measured = run.fitted().eval(), rows.held_out[:_MAX_MEASURED]
    each = max(200, draws // len(measured))
    found = measure_joint(flow, density, measured, each, derived_generator(run.seed, "evidence"))
    generator = derived_generator(run.seed, "annealing of rows")
    annealed, missed = [], []
    for row, own in zip(measured[:_MAX_ANNEALED], found, strict=False):
        slice_ = density.at(row)
        start = WideStart(density.width, run.fit.start_scale)
        schedule = plan_schedule(
            start,
            slice_.evaluate,
            chains=_CHAINS,
            steps=run.fit.chain_steps,
            efficiency=_EFFICIENCY,
            generator=generator,
            dtype=run.dtype,
        )
        chains = anneal(
            start,
            slice_.evaluate,
            schedule,
            chains=_CHAINS,
            steps=run.fit.chain_steps,
            generator=generator,
            dtype=run.dtype,
        )
        annealed.append(annealed_evidence([chains]))
        missed.append(find_missed(flow, slice_, [chains], own.log_evidence, given=row))
    return JointEvidence(tuple(found), tuple(annealed), tuple(missed))


def mean_evidence(rows: Sequence[Evidence]) -> Evidence:
    """The means over rows of x, with the standard errors over them.

    Args:
        rows: of each row of x.
    """
    count = len(rows)
    ks = sorted(row.pareto_k for row in rows if row.pareto_k is not None)
    elbo, evidence = [row.elbo for row in rows], [row.log_evidence for row in rows]
    return Evidence(
        elbo=fmean(elbo),
        elbo_se=_error(elbo),
        log_evidence=fmean(evidence),
        log_evidence_se=math.sqrt(sum(row.log_evidence_se**2 for row in rows)) / count,
        ess_share=fmean(row.ess_share for row in rows),
        pareto_k=ks[len(ks) // 2] if ks else None,
        outside=fmean(row.outside for row in rows),
        log_weights=rows[0].log_weights,
    )


def _error(values: Sequence[float]) -> float:
    tensor = torch.tensor(values, dtype=torch.float64)
    return float(tensor.std() / math.sqrt(len(values))) if len(values) > 1 else math.inf

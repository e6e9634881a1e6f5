"""The start of a fit: the split of the rows, the flow, and the search for what the recipe leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models.architectures import build_flow
from models.data.load import Table
from models.data.split import Split, derived_generator, derived_seed, describe_split, split
from models.flows.flow import Flow
from models.flows.precision import TORCH_DTYPES
from models.flows.preprocess import quantized_support
from models.recipe import Recipe
from models.training.checkpoint import Checkpoint
from models.training.fit import Perturbation, Run, mostly_repeated, noise_choices
from models.training.search import Choice, Trial, search
from service.bundle.manifest import Support

__all__ = ["FitStart", "begin_fit"]


@dataclass(frozen=True, slots=True, eq=False)
class FitStart:
    """What a fit begins with.

    Args:
        table: all rows.
        seen: the training rows, dequantized once.
        run: the fit, before its first epoch or at the epoch where it goes on.
        choice: what the search chose; nothing where there was none.
    """

    table: Table
    seen: Tensor
    run: Run
    choice: Choice = field(default_factory=Choice)

    @property
    def parts(self) -> Split:
        """The rows of the table, split."""
        return self.run.split

    @property
    def flow(self) -> Flow:
        """The flow that is fitted."""
        return self.run.flow

    @property
    def perturbation(self) -> Perturbation:
        """What is added to rows."""
        return self.run.perturbation


def begin_fit(
    recipe: Recipe,
    table: Table,
    resumed: Checkpoint | None,
    *,
    tell: Callable[[str], None],
    watch: Callable[[Trial], None] | None,
) -> FitStart:
    """Begin a fit: as a checkpoint left it, or by a search for what the recipe leaves open, or plainly.

    Args:
        recipe: as it was given.
        table: all rows.
        resumed: the checkpoint, if any.
        tell: called with a line before each stage.
        watch: called after each epoch of the search.
    """
    parts = split(table, recipe.data, recipe.seed, TORCH_DTYPES[recipe.fit.precision])
    fitting = (
        f"Fitting {recipe.flow.architecture} to {len(parts.train)} rows, split {describe_split(table, recipe.data)}."
    )
    if resumed is not None:
        start = _start(recipe.override(resumed.chosen), table, parts)
        start.run.restore(resumed)
        if not resumed.finished:
            tell(fitting)
        return replace(start, choice=Choice.of(resumed.chosen))
    start = _start(recipe, table, parts)
    tell(fitting)
    step = start.perturbation.step
    if not recipe.fit.search or parts.train.ndim > 2:
        return start
    if table.low is None and mostly_repeated(parts.train if step is None else parts.train[:, step == 0]):
        tell("Most values repeat, so that no density is there to choose options by: the fit is a plain one.")
        return start
    found = search(
        recipe,
        lambda candidate: _start(candidate, table, parts).run,
        rows=len(parts.train),
        width=parts.train.shape[1],
        noises=noise_choices(parts.train, step=step, bounded=table.low is not None),
        watch=watch,
    )
    if found is None:
        return start
    choice, run = found
    tell(f"Chosen by validation rows: {choice.words}.")
    return replace(start, run=run, choice=choice)


def _start(recipe: Recipe, table: Table, parts: Split) -> FitStart:
    """Build the flow of a recipe and its fit, before the first epoch."""
    precision = recipe.fit.precision
    dtype = TORCH_DTYPES[precision]
    step = None if table.step is None else torch.from_numpy(table.step).to(dtype)
    perturbation = Perturbation.of(
        parts.train, step=step, noise=recipe.fit.noise, bounded=table.low is not None, context=parts.train_context
    )
    support = None
    if table.low is not None and table.high is not None:
        support = Support(low=table.low, high=table.high)
        if table.step is not None:
            support = quantized_support(table.low, table.high, float(table.step.max()), precision)
    seen = perturbation.dequantized(parts.train, derived_generator(recipe.seed, "statistics"))
    whiten = seen.ndim == 2 if recipe.flow.whiten is None else recipe.flow.whiten
    flow = build_flow(
        recipe.flow.architecture,
        {**recipe.flow.options, "whiten": whiten},
        rows=seen,
        context=parts.train_context,
        support=support,
        noise=perturbation.column_noise,
        seed=derived_seed(recipe.seed, "weights"),
        precision=precision,
    )
    run = Run(flow, parts, recipe.fit, seed=recipe.seed, perturbation=perturbation)
    return FitStart(table=table, seen=seen, run=run)

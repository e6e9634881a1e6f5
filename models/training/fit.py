"""The fit by maximum likelihood: weights that give the training rows the greatest density, stopped by validation rows.

It knows rows and a flow; of files the checkpoint's only, and of the recipe `FitRecipe` only.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.data.split import Split, derived_generator, derived_seed
from models.flows.flow import Flow
from models.flows.preprocess import correlation_matrix, dequantize
from models.recipe import FitRecipe
from models.training.checkpoint import Checkpoint, EpochRecord, Origin
from service.errors import DataError

__all__ = [
    "FitResult",
    "Perturbation",
    "Run",
    "finish",
    "fit",
    "kernel_noise",
    "log_prob",
    "mean_log_prob",
    "mostly_repeated",
    "noise_choices",
    "repeats",
    "reproducible",
    "usual_noise",
]

MAX_SKIPPED: Final = 20
"""More steps than this in a row without a finite gradient end a fit."""

LEAST_GAIN: Final = 1e-3
"""In nats: a fit goes on while validation gains at least so much within its patience."""

_SCORED_ROWS, _SCORED_VALUES = 4096, 2**20  # at once; a network's hidden values are many times as many
_LITTLE_NOISE, _KERNEL_SHARE, _REPEATED = 0.02, 0.3, 0.5  # of `usual_noise`
_BY_CHANCE, _FEW_EQUAL = 3, 0.05  # of `repeats`
_FEW_ROWS: Final = 2000  # below it there is no detail to be found that a kernel's noise would hide


@dataclass(frozen=True, slots=True, eq=False)
class Perturbation:
    """What is added to rows, freshly drawn each time: noise over each bin, and normal noise.

    x + U(-step/2, step/2) + e F, with e of independent standard normals. For a table F = s C^(1/2) diag(deviations),
    where s is the noise and C the correlation matrix: it is s standard deviations of every direction, however narrow
    that is. For images, and for tables of which most values repeat, F = s diag(deviations).

    Args:
        step: ``[*event]`` in the units of x, 0 where a column is not dequantized; None for no column.
        factor: F in the units of x: ``[D, D]`` of a table, the diagonal ``[*event]`` of images; None for no normal
            noise.
        along_columns: whether the normal noise of each column is its own, though columns be correlated.
        repeated: whether some values repeat, so that a density at the rows themselves has no bound: then the validation
            rows get the noise too, once.
    """

    step: Tensor | None = None
    factor: Tensor | None = None
    along_columns: bool = False
    repeated: bool = False

    @classmethod
    def of(
        cls,
        train: Tensor,
        *,
        step: Tensor | None,
        noise: float | None,
        bounded: bool,
        context: Tensor | None = None,
    ) -> Perturbation:
        """The perturbation of a fit: normal noise on columns that are neither dequantized nor bounded.

        Args:
            train: ``[N, *event]`` the training rows.
            step: ``[*event]`` the bins' widths, 0 where a column is not dequantized; None for no column.
            noise: in standard deviations, see `FitRecipe`; None for `usual_noise` of those columns.
            bounded: whether the data is bounded, and so goes without normal noise.
            context: ``[N, C]``, what the rows are conditioned on: the noise has the shape of what a linear regression
                on it leaves over.

        Returns:
            What the fit adds to rows.
        """
        free = _free(train, step)
        if noise == 0 or bounded or not free.any():
            return cls(step)
        noise = usual_noise(train[:, free]) if noise is None else noise
        if train.ndim > 2:
            deviation = train.to(torch.float64).std(dim=0, correction=0).to(train.dtype)
            return cls(step, torch.where(free, noise * deviation, 0.0))
        rows = train[:, free].to(torch.float64)
        rows = rows - rows.mean(dim=0)
        factor = torch.zeros(len(free), len(free), dtype=torch.float64)
        if mostly_repeated(train[:, free]):  # a grid lies along the columns, and so does what fills it
            factor[free, free] = noise * rows.std(dim=0, correction=0)
            return cls(step, factor.to(train.dtype), along_columns=True)
        if context is not None:
            given = context.to(torch.float64)
            given = (given - given.mean(dim=0)) / given.std(dim=0, correction=0)
            rows = rows - given @ torch.linalg.lstsq(given, rows, driver="gelsd").solution
        factor[torch.outer(free, free)] = (noise * _shape_factor(rows)).flatten()
        return cls(step, factor.to(train.dtype), repeated=repeats(train[:, free]))

    @property
    def column_noise(self) -> Tensor | None:
        """The standard deviations ``[D]`` of noise along the columns of a table; None for any other."""
        return self.factor.diagonal() if self.factor is not None and self.along_columns else None

    def dequantized(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Rows ``[N, *event]`` spread over their bins; the same rows where nothing is dequantized."""
        return rows if self.step is None else dequantize(rows, self.step, generator)

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Rows ``[N, *event]`` as a step of the fit sees them."""
        rows = self.dequantized(rows, generator)
        if self.factor is None:
            return rows
        normal = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        return rows + (normal @ self.factor if rows.ndim == 2 else normal * self.factor)


def noise_choices(train: Tensor, *, step: Tensor | None, bounded: bool) -> tuple[float, ...]:
    """The noises that a search may choose from, the likeliest first; empty where no column takes any.

    Where values repeat it is the usual one alone: the less noise, the higher the spikes at those values, without bound.
    Where none do, validation rows guard against spikes, and many rows go without noise.

    Args:
        train: ``[N, D]`` the training rows.
        step: ``[D]`` the bins' widths, 0 where a column is not dequantized; None for no column.
        bounded: whether the data is bounded, and so goes without normal noise.
    """
    free = _free(train, step)
    if bounded or not free.any():
        return ()
    rows = train[:, free]
    if repeats(rows):
        return (usual_noise(rows),)
    return (0.0 if len(rows) >= _FEW_ROWS else _LITTLE_NOISE, kernel_noise(*rows.shape))


def _free(train: Tensor, step: Tensor | None) -> Tensor:
    """Which columns of rows ``[N, *event]`` are not dequantized: bool ``[*event]``."""
    return torch.ones(train.shape[1:], dtype=torch.bool) if step is None else step == 0


def _shape_factor(rows: Tensor) -> Tensor:
    """C^(1/2) diag(deviations) ``[D, D]``, by which standard normals get the covariance of centred rows ``[N, D]``."""
    deviation = rows.std(dim=0, correction=0)
    scaled = rows / torch.where(deviation > 0, deviation, 1.0)
    values, vectors = torch.linalg.eigh(correlation_matrix(scaled))
    factor: Tensor = (vectors * values.sqrt()) @ vectors.T * deviation
    return factor


def repeats(rows: Tensor) -> bool:
    """Whether values repeat in any column of ``[N, D]``, as on a grid, in atoms, or in rows that stand twice.

    A few that stand two or three times do not count: of many float32 numbers some are equal by chance.
    """
    for column in rows.unbind(dim=1):
        _, times = torch.unique(column, return_counts=True)
        if int(times.max()) > _BY_CHANCE or int(times[times > 1].sum()) > _FEW_EQUAL * len(column):
            return True
    return False


def usual_noise(rows: Tensor) -> float:
    """The noise that a fit adds to continuous columns where nothing else is said, in standard deviations.

    0.02 where values are as good as never repeated. Where more than half of them are, there is no density to be
    found, and its estimate would grow spikes at those values: the rows are then spread as a kernel density estimate
    spreads them, by a share of the normal reference rule, 0.3 n^(-1/(D+4)).

    Args:
        rows: ``[N, D]``.

    References:
        Silverman, 1986, Density Estimation, equation 4.15. Rothfuss et al., 2019, https://arxiv.org/abs/1907.08982,
        on noise as what keeps a likelihood from overfitting.
    """
    return kernel_noise(*rows.shape) if mostly_repeated(rows) else _LITTLE_NOISE


def mostly_repeated(rows: Tensor) -> bool:
    """Whether more than half of the values of ``[N, D]`` stand more than once in their column."""
    repeated = 0
    for column in rows.unbind(dim=1):
        _, times = torch.unique(column, return_counts=True)
        repeated += int(times[times > 1].sum())
    return repeated > _REPEATED * rows.numel()


def kernel_noise(count: int, width: int) -> float:
    """0.3 n^(-1/(D+4)): a share of the normal reference rule for n rows of D columns, in standard deviations."""
    return float(_KERNEL_SHARE * count ** (-1 / (width + 4)))


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a fit went; the flow itself holds its best weights.

    Args:
        history: an entry for each epoch.
        best_epoch: the epoch whose weights were kept.
        stopped: why it ended, in words.
    """

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""


def mean_log_prob(flow: Flow, rows: Tensor, context: Tensor | None = None) -> float:
    """The mean of log p(x) over rows, in nats, summed in float64.

    Args:
        flow: a flow.
        rows: ``[N, *event]``.
        context: ``[N, C]``; None for a flow without.

    Returns:
        One number.
    """
    return float(log_prob(flow, rows, context).to(torch.float64).mean())


def log_prob(flow: Flow, rows: Tensor, context: Tensor | None = None) -> Tensor:
    """Log p(x) of rows, without gradients, as the flow is served (dropout off).

    Args:
        flow: a flow; it is left in the mode that it was in.
        rows: ``[N, *event]``.
        context: ``[N, C]``; None for a flow without.

    Returns:
        ``[N]`` in nats.
    """
    training = flow.training
    flow.eval()
    with torch.no_grad():
        at_once = max(1, min(_SCORED_ROWS, _SCORED_VALUES // flow.width))
        parts = torch.split(rows, at_once)
        contexts = [None] * len(parts) if context is None else torch.split(context, at_once)
        scores = torch.cat([flow.log_prob(x, c) for x, c in zip(parts, contexts, strict=True)])
    flow.train(training)
    return scores


def fit(
    flow: Flow,
    split: Split,
    options: FitRecipe,
    *,
    seed: int,
    perturbation: Perturbation | None = None,
    origin: Origin | None = None,
    work: Path | None = None,
    resumed: Checkpoint | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    seconds_between: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Maximize mean log p(x + noise) over the training rows, and keep the weights best on validation rows.

    A context is given as it is: only x has noise.

    The same flow, rows, options and seed give the same weights, bit for bit, on one kind of machine; so does a fit
    that was cut off and goes on from its checkpoint.

    Args:
        flow: as built; fitted in place.
        split: ``[N, *event]`` each, in the flow's precision and in the user's units, and their context where the flow
            takes one.
        options: how.
        seed: of the order of rows and of all noise.
        perturbation: what is added to rows; None for nothing.
        origin: what the fit belongs to, for its checkpoints.
        work: the folder for checkpoints; None for none.
        resumed: where to go on from.
        observe: called after each epoch.
        seconds_between: at least so many seconds between two checkpoints; the last is always written.
        clock: seconds, ascending.

    Returns:
        How it went.

    Raises:
        DataError: where the likelihood is not finite, again and again, or on every validation row.
    """
    run = Run(flow, split, options, seed=seed, perturbation=perturbation or Perturbation())
    if resumed is not None:
        run.restore(resumed)
    return finish(run, origin=origin, work=work, observe=observe, seconds_between=seconds_between, clock=clock)


def finish(
    run: Run,
    *,
    origin: Origin | None = None,
    chosen: Mapping[str, Any] | None = None,
    work: Path | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    seconds_between: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Make the epochs that are left of a fit, and put the best weights into its flow.

    Args:
        run: a fit, at any of its epochs.
        origin: what the fit belongs to, for its checkpoints.
        chosen: the options that a search chose, for its checkpoints; None for none.
        work: the folder for checkpoints; None for none.
        observe: called after each epoch.
        seconds_between: at least so many seconds between two checkpoints; the last is always written.
        clock: seconds, ascending.

    Returns:
        How it went.

    Raises:
        DataError: where the likelihood is not finite, again and again, or on every validation row.
    """
    with reproducible(run.options.threads):
        written = clock()
        while not run.finished:
            record = run.epoch()
            if observe is not None:
                observe(record)
            if work is not None and (run.finished or clock() - written >= seconds_between):
                run.checkpoint(origin or Origin(recipe={}, data=""), chosen or {}).save(work)
                written = clock()
    run.flow.load_state_dict(run.best)
    run.flow.eval()
    return FitResult(run.history, run.best_epoch, run.stopped)


class Run:
    """A fit, epoch by epoch.

    Args:
        flow: as built; fitted in place.
        split: as `fit` takes it.
        options: how.
        seed: of the order of rows and of all noise.
        perturbation: what is added to rows.
    """

    def __init__(self, flow: Flow, split: Split, options: FitRecipe, *, seed: int, perturbation: Perturbation) -> None:
        self.flow, self.split, self.options, self.perturbation = flow, split, options, perturbation
        self.seed = seed
        self.generator = derived_generator(seed, "fit")
        spread = perturbation if perturbation.repeated else perturbation.dequantized
        self.validation = spread(  # drawn once: epochs must be compared on the same rows
            split.validation, derived_generator(seed, "validation")
        )
        self.learning_rate = options.first_learning_rate(len(split.train))
        self.optimizer = torch.optim.AdamW(
            flow.parameters(), lr=self.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.schedule = _schedule(self.optimizer, options)
        self.average = AveragedModel(flow, multi_avg_fn=partial(_forget, options.average))
        self.history: list[EpochRecord] = []
        self.best: Mapping[str, Tensor] = _snapshot(flow)
        self.best_epoch = 0
        self.skipped_in_a_row = 0

    @property
    def best_validation(self) -> float:
        """The greatest mean log-likelihood of the validation rows so far; minus infinity before the first."""
        return self.history[self.best_epoch - 1].validation if self.best_epoch else -math.inf

    @property
    def _last_gain(self) -> int:
        """The last epoch that brought a gain worth waiting for; small gains add up until they are one."""
        reached, last = -math.inf, 0
        for record in self.history:
            if record.validation > reached + LEAST_GAIN:
                reached, last = record.validation, record.epoch
        return last

    @property
    def stopped(self) -> str:
        """Why the fit is over, in words; empty where it is not."""
        done = len(self.history)
        if done - self._last_gain >= self.options.patience:
            return f"validation gained under {LEAST_GAIN:g} nats in {self.options.patience} epochs"
        return f"all {done} epochs were done" if done >= self.options.epochs else ""

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to make."""
        return bool(self.stopped)

    def epoch(self) -> EpochRecord:
        """Make one pass over the training rows, then score the validation rows.

        Raises:
            DataError: the fit is over, and no epoch had a finite validation likelihood.
        """
        rate = float(self.optimizer.param_groups[0]["lr"])
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            torch.manual_seed(derived_seed(self.seed, f"epoch {len(self.history) + 1}"))
            train, skipped = self._pass()
        judged = cast("Flow", self.average.module)
        validation = mean_log_prob(judged, self.validation, self.split.validation_context)
        number = len(self.history) + 1
        better = validation > self.best_validation  # false for NaN: such weights are never the best
        best = validation if better else self.best_validation
        if better:
            self.best, self.best_epoch = _snapshot(judged), number
        self.history.append(
            EpochRecord(
                epoch=number, train=train, validation=validation, best=best, learning_rate=rate, skipped=skipped
            )
        )
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(validation if math.isfinite(validation) else -math.inf)
        else:
            self.schedule.step()
        if self.finished and not self.best_epoch:
            raise DataError(f"the fit diverged: after none of {number} epochs was the validation likelihood finite")
        return self.history[-1]

    def _pass(self) -> tuple[float, int]:
        rows, context = self.split.train, self.split.train_context
        order = torch.randperm(len(rows), generator=self.generator)
        total, seen, skipped = 0.0, 0, 0
        self.flow.train()
        for batch in torch.split(order, self.options.rows_in_a_step(len(rows))):
            x = self.perturbation(rows[batch], self.generator)
            loss = -self.flow.log_prob(x, None if context is None else context[batch]).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's Tensor.backward carries no types
            norm = nn.utils.clip_grad_norm_(self.flow.parameters(), self.options.clip)
            value = loss.item()
            if math.isfinite(value) and math.isfinite(norm.item()):
                self.optimizer.step()
                self.average.update_parameters(self.flow)
                total, seen, self.skipped_in_a_row = total - value * len(batch), seen + len(batch), 0
                continue
            skipped, self.skipped_in_a_row = skipped + 1, self.skipped_in_a_row + 1
            if self.skipped_in_a_row > MAX_SKIPPED:
                raise DataError(
                    f"the fit diverged: in epoch {len(self.history) + 1}, {self.skipped_in_a_row} steps in a row had "
                    "no finite likelihood or gradient; try a smaller learning rate than "
                    f"{self.learning_rate:g}, or look for rows far from all others"
                )
        return (total / seen if seen else math.nan), skipped

    def checkpoint(self, origin: Origin, chosen: Mapping[str, Any]) -> Checkpoint:
        """The state of the fit, to be written to disk.

        Args:
            origin: what the fit belongs to.
            chosen: the options that a search chose.
        """
        return Checkpoint(
            origin=origin,
            chosen=chosen,
            epoch=len(self.history),
            finished=self.finished,
            weights=self.flow.state_dict(),
            average=self.average.state_dict(),
            best=self.best,
            best_epoch=self.best_epoch,
            skipped_in_a_row=self.skipped_in_a_row,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            generator=self.generator.get_state(),
            history=self.history,
        )

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint of the same fit."""
        self.flow.load_state_dict(state.weights)
        self.average.load_state_dict(dict(state.average))
        self.optimizer.load_state_dict(dict(state.optimizer))
        self.schedule.load_state_dict(dict(state.schedule))
        self.generator.set_state(state.generator)
        self.history = list(state.history)
        self.best, self.best_epoch = state.best, state.best_epoch
        self.skipped_in_a_row = state.skipped_in_a_row


def _forget(factor: float, mean: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
    """Move a running mean of weights one step on, in place.

    After t steps it forgets by min(factor, (1 + t) / (10 + t)): of a short fit the mean is over its last tenth or so,
    and not over its first steps.

    Args:
        factor: by which the mean forgets in the end.
        mean: the running mean.
        weights: the weights after a step.
        steps: how many the mean has seen.
    """
    now = min(factor, (1 + int(steps)) / (10 + int(steps)))
    get_ema_multi_avg_fn(now)(mean, weights, steps)  # type: ignore[no-untyped-call]  # torch gives it no types


def _snapshot(flow: Flow) -> dict[str, Tensor]:
    return copy.deepcopy(flow.state_dict())


def _schedule(optimizer: torch.optim.Optimizer, options: FitRecipe) -> LRScheduler:
    if options.schedule == "plateau":
        # Three times within the patience, so that smaller steps are tried before the fit ends.
        return ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=0.5,
            patience=max(1, options.patience // 4),
            threshold=LEAST_GAIN,
            threshold_mode="abs",
        )
    if options.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=options.epochs)
    return LambdaLR(optimizer, _constant)


def _constant(_: int) -> float:
    return 1.0


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads, on which sums depend, for as long as a block runs."""
    deterministic, many = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(many)

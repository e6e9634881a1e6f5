"""Maximum likelihood finds what it should, the same each time, and goes on after a kill as if nothing had been."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models.training.fit
from models.data.split import Split
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Standardize
from models.recipe import FitRecipe
from models.training.checkpoint import CHECKPOINT_FILE, Checkpoint, EpochRecord, Origin
from models.training.fit import (
    MAX_SKIPPED,
    FitResult,
    Perturbation,
    fit,
    log_prob,
    mean_log_prob,
    reproducible,
    usual_noise,
)
from service.bundle.bases import NormalBase
from service.errors import DataError

CORRELATED = torch.tensor([[2.0, 0.0], [1.5, 0.5]])


def gaussian_split(count: int = 2000, seed: int = 0) -> Split:
    """Rows of N(1, L L^T) for L = `CORRELATED`."""
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    x = 1.0 + z @ CORRELATED.T
    return Split(x[: count // 2], x[count // 2 : 3 * count // 4], x[3 * count // 4 :])


def small_flow(split: Split, dropout: float = 0.0) -> Flow:
    from models.architectures import build_flow

    options = {"transforms": 2, "hidden": [16], "dropout": dropout}
    return build_flow("real_nvp", options, rows=split.train, seed=1)


def fitted(seed: int = 0, *, dropout: float = 0.0, work: Path | None = None, resume: bool = False, **options):
    split = gaussian_split(400)
    flow = small_flow(split, dropout)
    recipe = FitRecipe(**{"epochs": 6, "batch_size": 64, "noise": 0.05, "schedule": "cosine", **options})
    perturbation = Perturbation.of(split.train, step=None, noise=recipe.noise, bounded=False)
    found = Checkpoint.load(work) if resume else None
    result = fit(
        flow, split, recipe, seed=seed, perturbation=perturbation, work=work, resumed=found, seconds_between=0.0
    )
    return flow, result


def same(one: Flow, other: Flow) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Scale(Bijection):
    """z = x * exp(s): one weight, whose likelihood is known."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.expand(len(x)) * x.shape[1]

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y * (-self.log_scale).exp(), -self.log_scale.expand(len(y)) * y.shape[1]


def scale_flow(start: float = 0.0) -> Flow:
    return Flow([1], [Scale(start)], NormalBase())


def test_a_correlated_gaussian_is_fitted_to_its_entropy():
    split = gaussian_split(3000)
    flow = small_flow(split)
    fit(flow, split, FitRecipe(epochs=25, batch_size=128, learning_rate=5e-3), seed=0)
    exact = torch.distributions.MultivariateNormal(torch.ones(2), scale_tril=CORRELATED)
    assert mean_log_prob(flow, split.test) == pytest.approx(float(exact.log_prob(split.test).mean()), abs=0.05)
    assert mean_log_prob(flow, split.test) == pytest.approx(-float(exact.entropy()), abs=0.15)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_weights(dropout):
    torch.manual_seed(98)  # the global stream has no say
    one, _ = fitted(3, dropout=dropout)
    torch.manual_seed(99)
    assert same(one, fitted(3, dropout=dropout)[0])
    assert not same(one, fitted(4, dropout=dropout)[0])


def test_a_fit_leaves_the_global_state_as_it_was():
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    fitted(dropout=0.3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    with reproducible(1):
        assert torch.are_deterministic_algorithms_enabled()


def passing_by() -> Split:
    """Training rows pull the scale past the value that is best for validation rows."""
    z = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    return Split(0.1 * z, 0.5 * z, 0.5 * z)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_best_weights_are_kept_not_the_last(average):
    split, flow = passing_by(), scale_flow()
    recipe = FitRecipe(epochs=60, batch_size=64, learning_rate=0.05, schedule="constant", patience=60, average=average)
    result = fit(flow, split, recipe, seed=0)
    assert 5 < result.best_epoch < 30
    assert mean_log_prob(flow, split.validation) == result.history[-1].best
    assert result.history[-1].validation < result.history[-1].best - 1
    assert math.exp(-flow.bijections[0].log_scale.item()) == pytest.approx(0.5, rel=0.1)


def test_it_stops_when_validation_gains_nothing():
    result = fit(scale_flow(), passing_by(), FitRecipe(batch_size=64, learning_rate=0.05, patience=5), seed=0)
    assert len(result.history) == result.best_epoch + 5 < 500
    assert result.stopped == "validation gained under 0.001 nats in 5 epochs"


GAINED_NOTHING = "validation gained under 0.001 nats in 2 epochs"


@pytest.mark.parametrize(
    ("validations", "best_epoch", "best", "stopped"),
    [
        ([1.0, 1.0, 1.0], 1, [1.0, 1.0, 1.0], GAINED_NOTHING),  # a tie gains nothing
        ([1.0, 0.5, 1.5, 1.5, 1.0], 3, [1.0, 1.0, 1.5, 1.5, 1.5], GAINED_NOTHING),
        (
            [1.0, math.nan, 2.0, math.nan, 2.0],
            3,
            [1.0, 1.0, 2.0, 2.0, 2.0],
            GAINED_NOTHING,
        ),
        ([-3.0, -2.0, -1.0, -2.0, 0.0, -1.0], 5, [-3.0, -2.0, -1.0, -1.0, 0.0, 0.0], "all 6 epochs were done"),
        (
            [1.0, 2.0, 3.0, 4.0, 3.0, 2.0],
            4,
            [1.0, 2.0, 3.0, 4.0, 4.0, 4.0],
            GAINED_NOTHING,
        ),
    ],
)
def test_the_best_epoch_is_the_first_of_equals_and_patience_counts_from_it(
    monkeypatch, validations, best_epoch, best, stopped
):
    told = iter(validations)
    monkeypatch.setattr(models.training.fit, "mean_log_prob", lambda *_: next(told))
    result = fit(scale_flow(), passing_by(), FitRecipe(epochs=6, batch_size=64, patience=2), seed=0)
    assert (result.best_epoch, result.stopped) == (best_epoch, stopped)
    assert [record.best for record in result.history] == best
    assert next(told, None) is None


@pytest.mark.parametrize(("gain", "epochs"), [(2e-3, 60), (4e-4, 60), (0.9e-4, 11)])
def test_a_fit_goes_on_while_it_gains_slowly(monkeypatch, gain, epochs):
    """Small gains add up; what stays under 0.001 nats in all of the patience is no gain."""
    told = (gain * epoch for epoch in range(100))
    monkeypatch.setattr(models.training.fit, "mean_log_prob", lambda *_: next(told))
    result = fit(scale_flow(), passing_by(), FitRecipe(epochs=60, batch_size=64, patience=10), seed=0)
    assert len(result.history) == epochs
    assert result.best_epoch == epochs  # the best weights are kept, however small the gain


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_the_mean_of_a_short_fit_is_of_its_last_steps(steps):
    weights, mean = [torch.zeros(1)], [torch.zeros(1)]
    for step in range(1, steps + 1):
        weights[0].fill_(step)
        models.training.fit._forget(0.99, mean, weights, torch.tensor(step))
    lag = steps - float(mean[0])
    assert lag < 1 + steps / 5
    assert models.training.fit._forget(0.0, mean, weights, torch.tensor(1000)) is None
    assert float(mean[0]) == steps  # 0 is for the last weights alone


def test_an_epochs_likelihood_is_the_mean_over_the_rows_of_its_steps():
    split, flow = passing_by(), scale_flow()
    before = mean_log_prob(flow, split.train)
    recipe = FitRecipe(epochs=1, batch_size=24, learning_rate=1e-9)  # steps of 24, 24 and 16 rows, that change nothing
    assert fit(flow, split, recipe, seed=0).history[0].train == pytest.approx(before, rel=1e-5)


def test_every_epoch_is_observed_and_told():
    seen: list[EpochRecord] = []
    split = gaussian_split(100)
    result = fit(small_flow(split), split, FitRecipe(epochs=3), seed=0, observe=seen.append)
    assert seen == result.history
    assert [record.epoch for record in seen] == [1, 2, 3]
    assert result.stopped == "all 3 epochs were done"
    assert [r.best for r in seen] == [max(s.validation for s in seen[: i + 1]) for i in range(3)]


def test_a_step_is_clipped_to_its_norm():
    # rows of size 1000 have a gradient of about 10^6; Adam would hide its size, so it is read off the weight
    x = torch.full((64, 1), 1000.0)
    flow = scale_flow()
    norms: list[float] = []
    parameter = next(flow.parameters())
    parameter.register_post_accumulate_grad_hook(lambda p: norms.append(abs(float(p.grad))))
    fit(flow, Split(x, x, x), FitRecipe(epochs=1, batch_size=64, clip=0.5, average=0.0), seed=0)
    assert norms[0] > 1e5
    assert abs(float(parameter.grad)) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "constant"])
def test_schedules(schedule):
    recipe = FitRecipe(epochs=60, batch_size=64, learning_rate=0.1, patience=40, schedule=schedule, average=0.0)
    rates = [record.learning_rate for record in fit(scale_flow(), passing_by(), recipe, seed=0).history]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    if schedule == "constant":
        assert set(rates) == {0.1}
    elif schedule == "cosine":
        assert rates[30] == pytest.approx(0.05)
    else:
        assert set(rates) == {0.1, 0.05, 0.025, 0.0125}  # halved three times within the patience


class Breaks(Scale):
    """Not finite for the first `times` training batches: the likelihood, or its gradient alone."""

    def __init__(self, times: int, *, gradient_alone: bool = False) -> None:
        super().__init__()
        self.register_buffer("left", torch.tensor(float(times)))
        self.gradient_alone = gradient_alone

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, ladj = super().forward(x)
        if self.training and self.left > 0:
            self.left -= 1
            nothing = torch.sqrt(self.log_scale - self.log_scale.detach())  # 0, with an infinite slope
            return y, ladj + nothing if self.gradient_alone else ladj * math.nan
        return y, ladj


def test_a_step_that_is_not_finite_is_left_out_and_counted():
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    flow = Flow([1], [Breaks(3)], NormalBase())
    result = fit(flow, Split(x, x, x), FitRecipe(epochs=2, batch_size=16), seed=0)
    assert [record.skipped for record in result.history] == [3, 0]
    assert all(math.isfinite(record.train) for record in result.history)
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_a_step_whose_gradient_alone_is_not_finite_is_left_out_too():
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    flow = Flow([1], [Breaks(3, gradient_alone=True)], NormalBase())
    result = fit(flow, Split(x, x, x), FitRecipe(epochs=2, batch_size=16), seed=0)
    assert [record.skipped for record in result.history] == [3, 0]
    assert all(torch.isfinite(p).all() for p in flow.parameters())


def test_steps_that_are_never_finite_are_an_error():
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    flow = Flow([1], [Breaks(10**6)], NormalBase())
    with pytest.raises(DataError, match=rf"diverged: in epoch \d+, {MAX_SKIPPED + 1} steps in a row.*learning rate"):
        fit(flow, Split(x, x, x), FitRecipe(epochs=50, batch_size=16), seed=0)


class BreaksMostly(Scale):
    """Finite for one training batch after each `MAX_SKIPPED` that are not."""

    calls = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, ladj = super().forward(x)
        self.calls += self.training
        return y, ladj * math.nan if self.training and self.calls % (MAX_SKIPPED + 1) else ladj


def test_as_many_steps_in_a_row_as_are_allowed_are_no_error():
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    epochs = MAX_SKIPPED // 2 + 1  # of 4 steps each: two finite steps, and as many as are allowed before each
    result = fit(
        Flow([1], [BreaksMostly()], NormalBase()), Split(x, x, x), FitRecipe(epochs=epochs, batch_size=16), seed=0
    )
    assert sum(record.skipped for record in result.history) == 4 * epochs - 2


def test_validation_that_is_never_finite_is_an_error():
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    nothing = torch.full((4, 1), math.nan)
    with pytest.raises(DataError, match="after none of 2 epochs was the validation likelihood finite"):
        fit(scale_flow(), Split(x, nothing, x), FitRecipe(epochs=2), seed=0)


# --- noise


def test_noise_is_fresh_and_spares_what_is_dequantized_or_bounded():
    train = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    perturbation = Perturbation.of(train, step=torch.tensor([1.0, 0.0]), noise=0.1, bounded=False)
    generator = torch.Generator().manual_seed(0)
    first, second = (perturbation(train, generator) - train for _ in range(2))
    assert not torch.equal(first, second)
    assert float(first[:, 0].abs().max()) <= 0.5001  # dequantized: uniform over the bin, and nothing besides
    assert float(first[:, 0].std()) == pytest.approx(1 / math.sqrt(12), rel=0.05)
    assert float(first[:, 1].std()) == pytest.approx(10.0, rel=0.05)
    bounded = Perturbation.of(train, step=None, noise=0.1, bounded=True)
    assert torch.equal(bounded(train, generator), train)
    assert torch.equal(Perturbation()(train, generator), train)


@pytest.mark.parametrize("narrowness", [1.0, 0.1, 0.01])
def test_noise_has_the_shape_of_the_rows_however_narrow_they_are(narrowness):
    """Its covariance is that of the rows, times the square of the noise, and so in any units."""
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, narrowness, 1.0])
    train = z @ torch.tensor([[1.0, 20.0, 0.0], [-1.0, 20.0, 0.0], [0.0, 3.0, 5.0]])
    factor = Perturbation.of(train, step=None, noise=0.05, bounded=False).factor.double()
    exact = train.double() - train.double().mean(dim=0)
    covariance = exact.T @ exact / len(exact)
    ratios = torch.linalg.eigvals(torch.linalg.solve(covariance, factor.T @ factor)).real.sqrt()
    torch.testing.assert_close(ratios, torch.full((3,), 0.05, dtype=torch.float64), rtol=0.15, atol=0)


def test_noise_of_conditional_rows_has_the_shape_of_what_the_context_leaves_over():
    context = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    left = 0.01 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(1))
    train = context @ torch.tensor([[2.0, 1.0], [0.0, 3.0]]) + left
    factor = Perturbation.of(train, step=None, noise=0.1, bounded=False, context=context).factor
    torch.testing.assert_close(factor, 1e-3 * torch.eye(2), rtol=0.1, atol=1e-4)


def test_images_take_noise_pixel_by_pixel():
    images = torch.randn(200, 2, 2, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0])[:, None]
    perturbation = Perturbation.of(images, step=None, noise=0.1, bounded=False)
    torch.testing.assert_close(perturbation.factor, 0.1 * images.std(dim=0, correction=0))
    added = perturbation(images, torch.Generator().manual_seed(0)) - images
    assert added.shape == images.shape
    torch.testing.assert_close(added.std(dim=0), perturbation.factor, rtol=0.3, atol=0)


def test_noise_along_the_columns_is_told_apart_from_noise_in_the_shape_of_the_rows():
    train = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    grid = train.round(decimals=1)
    grid[:, 1] = train[:, 1].round()
    found = Perturbation.of(grid, step=None, noise=0.2, bounded=False).column_noise
    torch.testing.assert_close(found, 0.2 * grid.std(dim=0, correction=0))
    assert Perturbation.of(train, step=None, noise=0.2, bounded=False).column_noise is None
    assert Perturbation.of(grid, step=None, noise=0.2, bounded=True).column_noise is None
    assert Perturbation().column_noise is None


def with_zeros(rows: Tensor) -> Tensor:
    """A fifth of the first column is 0."""
    return torch.where(torch.arange(len(rows))[:, None] * torch.tensor([1.0, 9.0]) < len(rows) / 5, 0.0, rows)


def test_validation_rows_are_spread_where_some_values_repeat():
    split = gaussian_split(400)
    atom = Split(with_zeros(split.train), with_zeros(split.validation), split.test)
    for parts, spread in ((split, False), (atom, True)):
        perturbation = Perturbation.of(parts.train, step=None, noise=0.1, bounded=False)
        run = models.training.fit.Run(small_flow(parts), parts, FitRecipe(), seed=0, perturbation=perturbation)
        assert torch.equal(run.validation, parts.validation) is not spread


def test_where_most_values_repeat_noise_lies_along_the_columns():
    grid = (2 * gaussian_split(400).train).round()
    perturbation = Perturbation.of(grid, step=None, noise=0.1, bounded=False)
    torch.testing.assert_close(perturbation.factor, 0.1 * torch.diag(grid.std(dim=0, correction=0)))
    assert not perturbation.repeated  # validation rows stay: nothing is chosen by them but when to stop


def test_noise_is_little_where_values_are_not_repeated_and_a_kernels_where_they_are():
    continuous = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    assert usual_noise(continuous) == 0.02
    repeated = (4 * continuous).round()
    assert usual_noise(repeated) == pytest.approx(0.3 * 1000 ** (-1 / 7))
    assert usual_noise(torch.cat((continuous, repeated[:, :1]), dim=1)) == 0.02  # fewer than half of the values
    assert usual_noise(torch.cat((continuous[:, :1], repeated), dim=1)) == pytest.approx(0.3 * 1000 ** (-1 / 8))
    half = torch.tensor([[0.0], [0.0], [1.0], [2.0]])
    assert usual_noise(half) == 0.02  # just half of the values are no more than half
    assert usual_noise(half[:3]) == pytest.approx(0.3 * 3 ** (-1 / 5))


def test_the_usual_noise_is_that_of_the_columns_that_get_any():
    continuous = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    train = torch.cat((continuous, (4 * continuous).round()), dim=1)
    step = torch.tensor([0.0, 1.0])
    found = Perturbation.of(train, step=step, noise=None, bounded=False).factor
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.02 * float(continuous.std(correction=0)), 0.0])))
    assert Perturbation.of(train, step=None, noise=None, bounded=True).factor is None
    assert Perturbation.of(train, step=torch.ones(2), noise=None, bounded=False).factor is None


def test_repeated_values_do_not_draw_the_density_to_infinity():
    x = torch.zeros(256, 1)
    x[::2] = 1.0
    flow = scale_flow()
    flow.bijections.insert(0, Standardize.of(x))
    split = Split(x, x, x)
    fit(flow, split, FitRecipe(epochs=5), seed=0, perturbation=Perturbation.of(x, step=None, noise=0.1, bounded=False))
    assert mean_log_prob(flow, x) < 0


def test_log_prob_is_the_served_one_and_restores_the_mode():
    split = gaussian_split(100)
    flow = small_flow(split, dropout=0.5)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    flow.train()
    assert torch.equal(log_prob(flow, split.test), log_prob(flow, split.test))
    assert flow.training


def test_wide_rows_are_scored_a_few_at_a_time(monkeypatch):
    """A convolution's hidden values are many times the row's: all rows at once would not fit into memory."""
    split = gaussian_split(100)
    flow = small_flow(split)
    whole, width, seen = log_prob(flow, split.test), split.test.shape[1], []
    monkeypatch.setattr(models.training.fit, "_SCORED_VALUES", 7 * width)
    monkeypatch.setattr(flow, "log_prob", lambda x, c, true=flow.log_prob: seen.append(len(x)) or true(x, c))
    torch.testing.assert_close(log_prob(flow, split.test), whole)
    assert max(seen) == 7
    assert sum(seen) == len(split.test)


# --- resuming


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_fit_cut_after_any_epoch_ends_in_the_same_weights(tmp_path, dropout):
    whole, told = fitted(dropout=dropout)

    class Cut(Exception):
        pass

    for cut in (1, 4):
        work = tmp_path / f"{cut}"
        split = gaussian_split(400)
        recipe = FitRecipe(epochs=6, batch_size=64, noise=0.05, schedule="cosine")
        perturbation = Perturbation.of(split.train, step=None, noise=0.05, bounded=False)

        def stop(record: EpochRecord, cut: int = cut) -> None:
            if record.epoch == cut + 1:  # after the checkpoint of `cut`, before its own
                raise Cut

        with pytest.raises(Cut):
            fit(
                small_flow(split, dropout), split, recipe, seed=0, perturbation=perturbation, work=work, observe=stop,
                seconds_between=0.0,
            )  # fmt: skip
        assert Checkpoint.load(work).epoch == cut
        resumed, result = fitted(dropout=dropout, work=work, resume=True)
        assert same(resumed, whole)
        assert result == told


CHILD = """
import os, signal, sys
from pathlib import Path
import models.training.fit
from tests.models.training.test_fit import fitted

calls = 0
true = models.training.fit.Perturbation.__call__

def perturb(self, rows, generator):
    global calls
    calls += 1
    if calls == 15:  # in the middle of the fourth epoch of four batches each
        os.kill(os.getpid(), signal.SIGKILL)
    return true(self, rows, generator)

models.training.fit.Perturbation.__call__ = perturb
fitted(work=Path(sys.argv[1]))
"""


def test_a_fit_killed_in_the_middle_of_an_epoch_ends_in_the_same_weights(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=Path(__file__).parents[3], capture_output=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert Checkpoint.load(tmp_path).epoch == 3
    resumed, result = fitted(work=tmp_path, resume=True)
    whole, told = fitted()
    assert same(resumed, whole)
    assert result == told


def test_a_finished_fit_is_not_fitted_further(tmp_path):
    one, told = fitted(work=tmp_path)
    assert Checkpoint.load(tmp_path).finished
    other, again = fitted(work=tmp_path, resume=True)
    assert same(one, other)
    assert again == told


@pytest.mark.parametrize(("seconds", "epochs"), [(5.0, [3, 6, 7]), (4.0, [2, 4, 6, 7]), (100.0, [7])])
def test_checkpoints_are_written_by_the_clock_and_at_the_end(tmp_path, monkeypatch, seconds, epochs):
    saved: list[int] = []
    true = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, folder: (saved.append(self.epoch), true(self, folder)))
    split = gaussian_split(100)
    ticks = iter(range(0, 1000, 2))  # each look at the clock is two seconds after the one before
    result = fit(
        small_flow(split), split, FitRecipe(epochs=7), seed=0, origin=Origin({}, ""), work=tmp_path,
        clock=lambda: float(next(ticks)), seconds_between=seconds,
    )  # fmt: skip
    assert isinstance(result, FitResult)
    assert saved == epochs
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


# --- conditional flows


def conditional_split() -> tuple[Split, Tensor]:
    """Rows of N(c, 1 + c^2 / 4) in two columns, c from -2 to 2; and the exact log_prob of the test rows."""
    generator = torch.Generator().manual_seed(0)
    c = 4 * torch.rand(4000, 1, generator=generator) - 2
    variance = 1 + c * c / 4
    x = c + variance.sqrt() * torch.randn(4000, 2, generator=generator)
    exact = (-0.5 * (x - c) ** 2 / variance - 0.5 * torch.log(2 * math.pi * variance)).sum(dim=1)
    parts = slice(0, 2400), slice(2400, 3000), slice(3000, None)
    return Split(*(x[part] for part in parts), *(c[part] for part in parts)), exact[parts[2]]


def conditional_flow(split: Split) -> Flow:
    from models.architectures import build_flow

    options = {"transforms": 2, "hidden": [32]}
    return build_flow("real_nvp", options, rows=split.train, context=split.train_context, seed=1)


def test_a_conditional_density_is_recovered():
    split, exact = conditional_split()
    flow = conditional_flow(split)
    fit(flow, split, FitRecipe(epochs=12, learning_rate=0.01, noise=0.0, average=0.9), seed=0)
    found = log_prob(flow, split.test, split.test_context)
    assert float((exact - found).mean()) < 0.03  # nats: how far the flow is from the truth, by Kullback and Leibler
    assert float((exact - found).abs().mean()) < 0.15
    assert mean_log_prob(flow, split.test, split.test_context.flip(0)) < float(found.mean()) - 0.5
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    for c in (-1.5, 0.0, 1.5):
        with torch.no_grad():
            x, _ = flow.inverse(z, torch.full((4000, 1), c))
        torch.testing.assert_close(x.mean(dim=0), torch.full((2,), c), atol=0.2, rtol=0.0)
        torch.testing.assert_close(x.var(dim=0), torch.full((2,), 1 + c * c / 4), atol=0.0, rtol=0.2)


def test_a_conditional_fit_that_is_cut_off_ends_in_the_same_weights(tmp_path):
    split, _ = conditional_split()
    options = FitRecipe(epochs=3, batch_size=400)
    whole, broken, resumed = (conditional_flow(split) for _ in range(3))
    fit(whole, split, options, seed=2)

    def cut(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(broken, split, options, seed=2, work=tmp_path, observe=cut, seconds_between=0.0)
    fit(resumed, split, options, seed=2, work=tmp_path, resumed=Checkpoint.load(tmp_path))
    assert same(whole, resumed)
    assert not same(whole, conditional_flow(split))

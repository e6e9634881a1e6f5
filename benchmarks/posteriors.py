"""`python -m benchmarks.posteriors`: fits to densities whose evidence and moments are known, one core, several seeds.

Each fit is one restart of `pushforward vi` with the options that the table names. Time is that of the processor, so
that other work on the machine does not count.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Gamma, constraints

from models.data.split import derived_generator
from models.inference.constraints import constrain
from models.inference.density import UnconstrainedDensity
from models.inference.evidence import annealed_evidence, find_missed, measure
from models.inference.objectives import draw
from models.inference.recipe import InferenceFit
from models.inference.run import FitRun
from models.inference.target import take_target
from models.inference.verdict import judge_fit
from models.recipe import FlowRecipe
from models.training.fit import reproducible

_MOMENT_DRAWS: Final = 200_000
_LOG_2_PI: Final = math.log(2 * math.pi)


class EightSchools:
    """Eight schools, non-centred: mu ~ N(0, 5), tau ~ half-Cauchy(5), eta ~ N(0, 1), theta = mu + tau eta."""

    dim = 10
    names = ("mu", "tau", *(f"eta{number}" for number in range(8)))
    constraints = (constraints.real, constraints.positive, *[constraints.real] * 8)
    effects = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
    errors = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)

    def log_density(self, z: Tensor) -> Tensor:
        mu, tau, eta = z[:, 0], z[:, 1], z[:, 2:]
        effects, errors = z.new_tensor(self.effects), z.new_tensor(self.errors)
        prior = -0.5 * (mu / 5) ** 2 - math.log(5) - 0.5 * _LOG_2_PI
        prior = prior + math.log(2 / (math.pi * 5)) - torch.log1p((tau / 5) ** 2)
        prior = prior - 0.5 * (eta * eta).sum(dim=1) - 4 * _LOG_2_PI
        scaled = (effects - mu[:, None] - tau[:, None] * eta) / errors
        return prior - 0.5 * (scaled * scaled).sum(dim=1) - float(errors.log().sum()) - 4 * _LOG_2_PI


class Funnel:
    """Neal's funnel: v ~ N(0, 3), nine x ~ N(0, exp(v / 2))."""

    dim = 10

    def log_density(self, z: Tensor) -> Tensor:
        v, x = z[:, 0], z[:, 1:]
        first = -0.5 * (v / 3) ** 2 - math.log(3) - 0.5 * _LOG_2_PI
        return first - 0.5 * (x * x).sum(dim=1) * torch.exp(-v) - 4.5 * v - 4.5 * _LOG_2_PI


class ManyWell:
    """The many-well of fab-torch in 6 coordinates: 8 modes."""

    dim = 6

    def log_density(self, z: Tensor) -> Tensor:
        a, b = z[:, 0::2], z[:, 1::2]
        return (-(a**4) + 6 * a**2 + 0.5 * a - 0.5 * b**2).sum(dim=1)


class Bounded:
    """A Dirichlet of four coordinates, a gamma and a beta on (-1, 3), side by side."""

    dim = 6
    constraints = (*[constraints.simplex] * 4, constraints.positive, constraints.interval(-1.0, 3.0))
    concentration = (0.8, 1.5, 2.0, 4.0)
    gamma = (2.5, 1.5)
    beta = (2.0, 3.0)

    def log_density(self, z: Tensor) -> Tensor:
        simplex = Dirichlet(z.new_tensor(self.concentration), validate_args=False).log_prob(z[:, :4])
        positive = Gamma(*map(z.new_tensor, self.gamma), validate_args=False).log_prob(z[:, 4])
        inside = Beta(*map(z.new_tensor, self.beta), validate_args=False).log_prob((z[:, 5] + 1) / 4) - math.log(4)
        return simplex + positive + inside


def banana(z: npt.NDArray[np.float64]) -> Any:
    """A banana in NumPy: x0 ~ N(0, 2), x1 ~ N(x0^2 / 2 - 2, 0.5), not normalized."""
    first, second = np.asarray(z).T
    return -0.5 * (first**2 / 4 + (second - 0.5 * first**2 + 2) ** 2 / 0.25)


Check = tuple[str, float, float, bool]
"""What is checked, its value, its bound, and whether the value must be at least the bound (else at most)."""


@dataclass(frozen=True)
class Case:
    """A target and what must come out.

    Args:
        name: of the target.
        target: the density.
        log_z: its evidence in nats.
        ess: the least effective share; None where none is asked for.
        error: the greatest error of log Z in nats.
        moments: draws ``[N, D]`` -> further checks.
        fit: options of the fit that are not the default ones.
        flow: options of the flow, likewise.
        dim: the number of coordinates, where the target does not say it.
    """

    name: str
    target: object
    log_z: float
    ess: float | None
    error: float
    moments: Callable[[Tensor], list[Check]]
    fit: dict[str, Any] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)
    dim: int | None = None

    @property
    def title(self) -> str:
        """The name, and the options that are not the default ones."""
        given = ", ".join(f"{key} = {value}" for key, value in {**self.flow, **self.fit}.items())
        return f"{self.name} ({given})" if given else self.name


def _none(_: Tensor) -> list[Check]:
    return []


def _schools_moments(x: Tensor) -> list[Check]:
    return [
        ("mu, in sd", abs(float(x[:, 0].mean()) - 4.397) / 3.318, 0.1, False),
        ("tau, in sd", abs(float(x[:, 1].mean()) - 3.598) / 3.220, 0.1, False),
    ]


def _wells(x: Tensor) -> list[Check]:
    shares = (x[:, 0::2] > 0).to(torch.float64).mean(dim=0)
    return [("share in each well", float((shares - 0.844).abs().max()), 0.02, False)]


def _bounded_moments(x: Tensor) -> list[Check]:
    a = torch.tensor(Bounded.concentration, dtype=torch.float64)
    mean = a / a.sum()
    shape, rate = Bounded.gamma
    p, q = Bounded.beta
    means = torch.cat([mean, torch.tensor([shape / rate, 4 * p / (p + q) - 1], dtype=torch.float64)])
    variances = torch.cat(
        [
            mean * (1 - mean) / (a.sum() + 1),
            torch.tensor([shape / rate**2, 16 * p * q / ((p + q) ** 2 * (p + q + 1))], dtype=torch.float64),
        ]
    )
    exact = x.to(torch.float64)
    outside = ((exact[:, :5] <= 0).any(dim=1) | (exact[:, 5] <= -1) | (exact[:, 5] >= 3)).sum()
    outside += ((exact[:, :4].sum(dim=1) - 1).abs() > 1e-5).sum()
    return [
        ("means, relative", float(((exact.mean(dim=0) - means) / means.abs()).abs().max()), 0.01, False),
        ("deviations, relative", float((exact.std(dim=0) / variances.sqrt() - 1).abs().max()), 0.01, False),
        ("draws outside", float(outside), 0.0, False),
    ]


CASES: Final = (
    Case("eight schools", EightSchools(), -31.3113, 0.95, 0.005, _schools_moments),
    Case(
        "funnel",
        Funnel(),
        0.0,
        0.9,
        0.01,
        _none,
        fit={"steps": 3000, "learning_rate": 2e-3},
        flow={"architecture": "real_nvp", "hidden": [64, 64], "whiten": False},
    ),
    Case("many-well", ManyWell(), 30.8804, 0.3, 0.02, _wells),
    Case("simplex, positive, interval", Bounded(), 0.0, None, 0.02, _bounded_moments),
    Case("banana, NumPy", banana, math.log(2 * math.pi), None, 0.02, _none, dim=2),
)


def fit(case: Case, seed: int, changes: dict[str, Any]) -> tuple[list[Check], str, float]:
    """Fit one target once.

    Args:
        case: the target.
        seed: of the fit.
        changes: options of the fit.

    Returns:
        What was checked, the verdict, and the seconds of the processor.
    """
    began = time.process_time()
    with reproducible(1):
        target = take_target(case.target, case.name, dim=case.dim)
        step = constrain(target.constraints, target.dim, case.name)
        density = UnconstrainedDensity(target, step, target.dim if step is None else step.reals)
        options = InferenceFit(**{**case.fit, **changes})
        run = FitRun(density, FlowRecipe(**case.flow), options, seed=seed)
        while not run.finished:
            run.round()
        if run.annealed is None:
            raise ValueError("a fit to a single density anneals first")
        found = measure(run.fitted().eval(), density, options.draws, derived_generator(seed, "evidence"))
        seconds = time.process_time() - began
        annealed = annealed_evidence([run.annealed])
        missed = find_missed(run.fitted(), density, [run.annealed], found.log_evidence)
        verdict = judge_fit(found, annealed, missed, [found], run.rise(), target.names).word
        u, _ = draw(run.fitted(), _MOMENT_DRAWS, derived_generator(seed, "moments"))
        checks: list[Check] = [("abs(log Z error)", abs(found.log_evidence - case.log_z), case.error, False)]
        if case.ess is not None:
            checks.insert(0, ("ESS", found.ess_share, case.ess, True))
        return [*checks, *case.moments(density.to_user(u)[0])], verdict, seconds


def summarize(case: Case, fits: Sequence[tuple[list[Check], str, float]]) -> list[str]:
    """The lines of a table for one target: median and worst of each check."""
    lines = []
    seconds = statistics.median(each[2] for each in fits)
    verdicts = ", ".join(each[1] for each in fits)
    for at, (name, _, bound, least) in enumerate(fits[0][0]):
        values = [checks[at][1] for checks, _, _ in fits]
        worst = min(values) if least else max(values)
        middle = statistics.median(values)
        kept = middle >= bound if least else middle <= bound
        needed = f"{'at least' if least else 'at most'} {bound:g}"
        lines.append(
            f"| {case.title} | {name} | {needed} | {middle:.4f} | {worst:.4f} | {'yes' if kept else 'NO'} "
            f"| {seconds:.0f} s | {verdicts} |"
        )
    return lines


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Fits of each target.")
@click.option("--only", type=click.Choice([case.name for case in CASES]), multiple=True, help="Only these targets.")
@click.option("--option", "given", multiple=True, metavar="NAME=VALUE", help="An option of the fit, such as steps=500.")
def main(seeds: int, only: Sequence[str], given: Sequence[str]) -> None:
    """Print what each target came to: the median of the seeds, and the worst."""
    changes: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        changes[name] = value if name in ("objective", "precision") else (float(value) if "." in value else int(value))
    click.echo("| target | what | needed | median | worst | kept | processor | verdicts |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if not only or case.name in only:
            fits = []
            for seed in range(seeds):
                fits.append(fit(case, seed, changes))
                click.echo(f"{case.name}, seed {seed}: {fits[-1]}", err=True)
            click.echo("\n".join(summarize(case, fits)))


if __name__ == "__main__":
    main()

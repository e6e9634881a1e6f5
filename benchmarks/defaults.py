"""The benchmark of the defaults, beside zuko's flows and a Gaussian: `python -m benchmarks.defaults`.

Each table is fitted by `pushforward train`'s defaults, and by a flow of zuko on standardized columns, with Adam and
early stopping, on the same rows: the same are held out. What is printed is the mean log_prob of the held-out rows in
nats, in the units of the data, with its standard error, and the processor time, of which the search is a part.

Tables of an .npz, of ADBench's form, are the normal rows. Their values repeat, and a density has no bound there: the
same U(-spread/2, spread/2) is added to every cell once, for all flows alike.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import torch
import zuko
from torch import Tensor
from tqdm import tqdm

from models.data.load import load_data
from models.data.split import Split, split
from models.recipe import Recipe
from models.training.train import train

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A table: rows, and what they are given.

    Args:
        rows: ``[N, D]``.
        context: ``[N, C]``; None for nothing.
    """

    rows: Rows
    context: Rows | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a flow reached.

    Args:
        mean: of the held-out rows' log_prob, in nats.
        error: its standard error.
        seconds: of the processor.
        words: what else there is to say.
    """

    mean: float
    error: float
    seconds: float
    words: str


def narrow(random: np.random.Generator) -> Pairs:
    """Two columns that are nearly equal: x1 = x0 + 0.005 e."""
    x = random.normal(size=(4000, 2))
    return Pairs(np.stack([x[:, 0], x[:, 0] + 0.005 * x[:, 1]], axis=1))


def small(random: np.random.Generator) -> Pairs:
    """700 rows of 12 columns, of which the second six are curved functions of the first."""
    z = random.normal(size=(700, 6))
    return Pairs(np.concatenate([z, np.sin(2 * z) + 0.3 * random.normal(size=z.shape)], axis=1))


def two_moons(random: np.random.Generator) -> Pairs:
    """Simulated pairs of two parameters and two numbers: sbibm's two_moons.

    References:
        Lueckmann et al., 2021, https://arxiv.org/abs/2101.04653, appendix T.8.
    """
    parameters = random.uniform(-1, 1, (10_000, 2))
    angle, radius = random.uniform(-np.pi / 2, np.pi / 2, 10_000), random.normal(0.1, 0.01, 10_000)
    a, b = parameters.T
    moved = np.stack([-np.abs(a + b), b - a], axis=1) / math.sqrt(2)
    crescent = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)
    return Pairs(parameters, crescent + moved)


def slcp(random: np.random.Generator) -> Pairs:
    """Simulated pairs of five parameters and four points of the plane: sbibm's slcp.

    References:
        Lueckmann et al., 2021, https://arxiv.org/abs/2101.04653, appendix T.3.
    """
    count = 20_000
    parameters = random.uniform(-3, 3, (count, 5))
    mean, (first, second), slant = parameters[:, :2], parameters[:, 2:4].T ** 2, np.tanh(parameters[:, 4])
    noise = random.normal(size=(count, 4, 2))
    across = slant[:, None] * noise[:, :, 0] + np.sqrt(1 - slant**2)[:, None] * noise[:, :, 1]
    points = mean[:, None] + np.stack([first[:, None] * noise[:, :, 0], second[:, None] * across], axis=2)
    return Pairs(parameters, points.reshape(count, 8))


SIMULATED: Final[Mapping[str, Callable[[np.random.Generator], Pairs]]] = MappingProxyType(
    {"narrow": narrow, "small": small, "two_moons": two_moons, "slcp": slcp}
)
"""Name -> the function that draws the table."""


def read_normals(path: Path, random: np.random.Generator, spread: float) -> Pairs:
    """The normal rows of a table of ADBench's form, spread; a constant column is left out."""
    with np.load(path) as arrays:
        rows = arrays["X"][arrays["y"] == 0].astype(np.float64)
    rows = rows[:, np.ptp(rows, axis=0) > 0]
    return Pairs(rows + spread * random.uniform(-0.5, 0.5, rows.shape))


def fit_by_default(pairs: Pairs, seed: int, folder: Path, *, searched: bool, show: tqdm[Any]) -> tuple[Figures, Split]:
    """Fit as `pushforward train` does where nothing is said: to the bundle and its report.

    Args:
        pairs: the table.
        seed: of the fit, and of what is held out.
        folder: for all files.
        searched: whether options are chosen.
        show: the progress.

    Returns:
        The figures; and the rows as they were split.
    """
    context = {} if pairs.context is None else {"context": pairs.context}
    np.savez(folder / "rows.npz", X=pairs.rows, **context)
    recipe = Recipe.parse(
        {
            "name": "fitted",
            "out": str(folder / "flows"),
            "seed": seed,
            "data": {"source": str(folder / "rows.npz"), "key": "X", "context": list(context)},
            "fit": {"search": searched},
        }
    )
    said: list[str] = []
    began = time.process_time()
    trained = train(
        recipe,
        say=said.append,
        observe=lambda record: show.set_postfix_str(f"epoch {record.epoch}"),
        watch=lambda trial: show.set_postfix_str(f"search {trial.done}/{trial.planned}"),
    )
    seconds = time.process_time() - began
    score = trained.evaluation.flow
    chosen = next((line for line in said if line.startswith("Chosen")), "plain")
    gaussian = trained.evaluation.gaussian.mean
    words = f"Gaussian {gaussian:.3f}; {chosen.rstrip('.')}; {len(trained.history)} epochs in {trained.seconds:.0f} s"
    return Figures(score.mean, score.standard_error, seconds, words), split(load_data(recipe), recipe.data, seed)


def fit_by_zuko(parts: Split, seed: int, flow: zuko.flows.Flow, show: tqdm[Any]) -> Figures:
    """Fit a flow of zuko as most would: standardized, Adam, batches of 200, until 20 epochs have gained nothing.

    Args:
        parts: the rows.
        seed: of the order of rows.
        flow: of the rows' width and context.
        show: the progress.
    """
    began = time.process_time()
    torch.manual_seed(seed)
    scale = parts.train.std(dim=0)
    rows = [(x - parts.train.mean(dim=0)) / scale for x in (parts.train, parts.validation, parts.test)]
    given = [parts.train_context, parts.validation_context, parts.test_context]
    if parts.train_context is not None:
        centre, spread = parts.train_context.mean(dim=0), parts.train_context.std(dim=0)
        given = [None if c is None else (c - centre) / spread for c in given]

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        values: Tensor = flow(c).log_prob(x) - scale.log().sum()
        return values

    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-4 if parts.train_context is not None else 1e-3)
    best, best_epoch, epoch = -math.inf, 0, 0
    kept: Mapping[str, Tensor] = {}
    while epoch - best_epoch < 20:
        epoch += 1
        for batch in torch.randperm(len(rows[0])).split(200):
            loss = -log_prob(rows[0][batch], None if given[0] is None else given[0][batch]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's Tensor.backward carries no types
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
        with torch.no_grad():
            reached = float(log_prob(rows[1], given[1]).mean())
        show.set_postfix_str(f"zuko, epoch {epoch}")
        if reached > best:
            best, best_epoch, kept = reached, epoch, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(kept)
    with torch.no_grad():
        scores = log_prob(rows[2], given[2])
    error = float(scores.std()) / math.sqrt(len(scores))
    return Figures(float(scores.mean()), error, time.process_time() - began, f"{epoch} epochs")


def peers(parts: Split) -> dict[str, zuko.flows.Flow]:
    """Flows of zuko: a spline flow; and for pairs a masked autoregressive flow, as sbi's NPE fits it by default."""
    width = parts.train.shape[1]
    given = 0 if parts.train_context is None else parts.train_context.shape[1]
    found = {"zuko NSF": zuko.flows.NSF(width, given, transforms=3, hidden_features=(128, 128))}
    if given:
        found["zuko MAF, as NPE"] = zuko.flows.MAF(width, given, transforms=5, hidden_features=(50, 50))
    return found


@click.command()
@click.argument("tables", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--only", "names", type=click.Choice(list(SIMULATED)), multiple=True, help="Of the simulated tables.")
@click.option("--seed", default=0, show_default=True)
@click.option("--spread", default=0.01, show_default=True, help="Of the cells of TABLES, which repeat.")
@click.option("--plain", is_flag=True, help="Fit without the search too.")
@click.option("--no-peers", is_flag=True, help="Leave zuko's flows out.")
def main(
    tables: Sequence[Path], names: Sequence[str], seed: int, spread: float, *, plain: bool, no_peers: bool
) -> None:
    """Print what the defaults reach on simulated tables, and on TABLES, .npz files with X and y."""
    torch.set_num_threads(1)
    chosen = names or (() if tables else tuple(SIMULATED))
    drawn = {name: SIMULATED[name](np.random.default_rng(seed)) for name in chosen}
    drawn |= {path.stem: read_normals(path, np.random.default_rng(seed), spread) for path in tables}
    print("| table | fit | held out, nats | processor, s | |\n" + "| --- " * 5 + "|")
    with tqdm(drawn.items(), unit="table") as progress:
        for name, pairs in progress:
            for searched in (True, False) if plain else (True,):
                with tempfile.TemporaryDirectory() as folder:
                    found, parts = fit_by_default(pairs, seed, Path(folder), searched=searched, show=progress)
                _print_line(name, "pushforward" if searched else "pushforward --no-search", found)
            torch.manual_seed(seed)
            for label, flow in ({} if no_peers else peers(parts)).items():
                _print_line(name, label, fit_by_zuko(parts, seed, flow, progress))


def _print_line(table: str, fit: str, found: Figures) -> None:
    tqdm.write(f"| {table} | {fit} | {found.mean:.3f} ± {found.error:.3f} | {found.seconds:.0f} | {found.words} |")


if __name__ == "__main__":
    main()

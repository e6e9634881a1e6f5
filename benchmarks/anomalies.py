"""Served log_prob as an anomaly score: `python -m benchmarks.anomalies TABLE.npz ...`, beside three usual scores.

Each table is an .npz of ADBench's form, rows `X` and `y` = 1 for an anomaly. For each seed half of the normal rows is
fitted, by `pushforward train`'s defaults; the other half and all anomalies are sent to a server, and scored by
-log_prob. What is printed is the area under the ROC curve: the chance that an anomaly scores above a normal row.

A column that is constant over the fitted rows has no density there, and is left out, as `train` would ask for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from benchmarks.serving import pushforward as served
from models.evaluation.likelihood import Gaussian
from models.recipe import Recipe
from models.training.train import train
from pushforward import Client

Rows = npt.NDArray[np.float64]

SCORES: Final = ("flow", "Gaussian", "kNN", "isolation forest")


def split_rows(rows: Rows, anomaly: npt.NDArray[np.bool_], seed: int) -> tuple[Rows, Rows, npt.NDArray[np.bool_]]:
    """Rows to fit, rows to score, and which of those are anomalies."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~anomaly))
    fitted, rest = normal[: len(normal) // 2], normal[len(normal) // 2 :]
    scored = np.concatenate((rest, np.flatnonzero(anomaly)))
    varies = np.ptp(rows[fitted], axis=0) > 0
    return rows[fitted][:, varies], rows[scored][:, varies], anomaly[scored]


def score_by_flow(fitted: Rows, scored: Rows, seed: int, flow: dict[str, Any], show: tqdm[Any]) -> Rows:
    """-log_prob as a server answers it, in nats."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "fitted.npy", fitted)
        recipe = Recipe.parse(
            {
                "name": "normals",
                "out": str(folder / "flows"),
                "seed": seed,
                "data": {"source": str(folder / "fitted.npy")},
                "flow": flow,
            }
        )
        trained = train(recipe, observe=lambda record: show.set_postfix_str(f"epoch {record.epoch}"))
        with served(trained.bundle) as server, Client(f"http://127.0.0.1:{server.port}") as client:
            return -client.log_prob(scored.astype(np.float32)).astype(np.float64)


def score_by_others(fitted: Rows, scored: Rows, seed: int) -> dict[str, Rows]:
    """What else one would try, on standardized columns: the scores of EVIDENCE's kind, higher for stranger rows."""
    a, b = ((rows - fitted.mean(axis=0)) / fitted.std(axis=0) for rows in (fitted, scored))
    forest = IsolationForest(random_state=seed).fit(a)
    return {
        "Gaussian": -Gaussian.fit(fitted).log_prob(scored),
        "kNN": NearestNeighbors(n_neighbors=5).fit(a).kneighbors(b)[0][:, -1],
        "isolation forest": -forest.score_samples(b),
    }


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--flow", "architecture", help="An architecture by name; else the default of `pushforward train`.")
def main(tables: Sequence[Path], seeds: int, architecture: str | None) -> None:
    """Print the area under the ROC curve for each table: mean ± standard deviation over seeds, and the least."""
    flow = {} if architecture is None else {"architecture": architecture}
    print("| table | columns | " + " | ".join(SCORES) + " |\n" + "| --- " * (len(SCORES) + 2) + "|")
    for table in tables:
        with np.load(table) as arrays:
            rows, anomaly = arrays["X"].astype(np.float64), arrays["y"].astype(bool)
        found: dict[str, list[float]] = {name: [] for name in SCORES}
        with tqdm(range(seeds), desc=table.stem, unit="seed") as progress:
            for seed in progress:
                fitted, scored, label = split_rows(rows, anomaly, seed)
                scores = {
                    "flow": score_by_flow(fitted, scored, seed, flow, progress),
                    **score_by_others(fitted, scored, seed),
                }
                for name, score in scores.items():
                    found[name].append(float(roc_auc_score(label, score)))
        cells = [_cell(found[name]) for name in SCORES]
        print(f"| {table.stem} | {rows.shape[1]} | " + " | ".join(cells) + " |", flush=True)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.4f} (least {min(values):.4f})" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()

"""Every family of flow for tables, fitted, exported, served and asked: `python -m benchmarks.families`.

Each family is fitted to two-moons and to the normal rows of ADBench's pendigits with its default options, and its
bundle is served. What is printed is the held-out log-likelihood as the server answers it, and the greatest error of
the served log_prob against float64, relative to one plus its size, over the bundle's golden rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

import click
import numpy as np
from tqdm import tqdm

from benchmarks.serving import pushforward as served
from models.architectures import ARCHITECTURES, IMAGES
from models.recipe import Recipe
from models.training.train import train
from pushforward import Client
from service.bundle.parity import relative_error
from service.bundle.store import read_bundle

FIT: Final = {"learning_rate": 2e-3, "schedule": "cosine", "batch_size": 512}
EPOCHS: Final = {"two-moons": 25, "pendigits": 100}
"""About 1,100 steps of each fit."""


def measure_family(name: str, family: str, data: dict[str, Any], show: tqdm[Any]) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.parse(
            {
                "name": "fitted",
                "out": folder,
                "data": data,
                "flow": {"architecture": family, "whiten": False},
                "fit": {**FIT, "epochs": EPOCHS[name]},
            }
        )
        began = monotonic()
        trained = train(recipe, observe=lambda record: show.set_postfix_str(f"{family}, epoch {record.epoch}"))
        seconds = monotonic() - began
        bundle = read_bundle(trained.bundle)
        golden = bundle.golden
        held_out = np.load(trained.report / "held_out.npy")
        with served(trained.bundle) as server, Client(f"http://127.0.0.1:{server.port}") as client:
            error = relative_error(client.log_prob(golden.x), golden.log_prob)
            scores = client.log_prob(held_out).astype(np.float64)
        score = trained.evaluation.served
        spread = f"{scores.mean():.3f} ± {score.standard_error:.3f}"
        size = sum(map(len, bundle.graphs.values())) / 1000
        cells = (name, f"`{family}`", spread, f"{error:.1e}", f"{bundle.manifest.parity.log_prob:.1e}")
        return "| " + " | ".join((*cells, f"{size:.0f} kB", f"{seconds:.0f} s")) + " |"


@click.command()
@click.argument("pendigits", type=click.Path(exists=True, path_type=Path))
@click.option("--family", "families", type=click.Choice([a for a in ARCHITECTURES if a not in IMAGES]), multiple=True)
def main(pendigits: Path, families: Sequence[str]) -> None:
    """Fit every family to two-moons and to PENDIGITS, an .npz with X and y, and print the table."""
    tables: dict[str, dict[str, Any]] = {
        "two-moons": {"source": "two-moons"},
        "pendigits": {"source": str(pendigits), "where": ["y=0"]},
    }
    chosen = families or [name for name in ARCHITECTURES if name not in IMAGES]
    print("| table | family | held-out log_prob | HTTP against float64 | gate | graphs | fit and export |")
    print("| --- " * 7 + "|")
    with tqdm(total=len(tables) * len(chosen), unit="fit") as progress:
        for name, data in tables.items():
            for family in chosen:
                tqdm.write(measure_family(name, family, data, progress))
                progress.update()


if __name__ == "__main__":
    main()

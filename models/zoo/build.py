"""The build of a shipped flow: its bundle made anew from its recipe, and held against the one that is shipped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from models.data.builtin import load
from models.evaluation.likelihood import Gaussian
from models.export.export import export_flow
from models.flows.analytic import ANALYTIC
from models.flows.bases import sample_base
from models.recipe import Recipe
from models.training.train import train
from models.zoo.directions import KINDS, with_directions
from service.bundle.manifest import Manifest
from service.bundle.store import Repository, read_bundle
from service.errors import DataError

__all__ = ["AGREEMENT", "LONG", "NAMES", "ZOO", "Comparison", "build", "compare"]

ZOO: Final = Path(__file__).resolve().parent
"""The repository of the shipped flows."""

NAMES: Final = tuple(sorted(path.parent.name for path in ZOO.glob("*/recipe.toml")))
"""The shipped flows."""

LONG: Final = frozenset({"faces"})
"""Those whose fit takes long: made anew where they are named."""

AGREEMENT: Final = 0.05
"""How far a retrained flow's held-out log-likelihood may lie from the shipped one's, in nats per dimension."""

ANALYTIC_ROWS: Final = 4000


@dataclass(frozen=True, slots=True)
class Comparison:
    """Held-out log-likelihood of a bundle beside the shipped one's.

    Args:
        made: mean log_prob of the bundle, in nats.
        shipped: that of the shipped bundle.
        width: D.
    """

    made: float
    shipped: float
    width: int

    @property
    def difference(self) -> float:
        """In nats per dimension; positive where the new bundle is better."""
        return (self.made - self.shipped) / self.width

    @property
    def agrees(self) -> bool:
        """Whether the two are within `AGREEMENT`."""
        return abs(self.difference) <= AGREEMENT


def build(
    name: str, repository: Repository, *, report: Path | None = None, say: Callable[[str], None] | None = None
) -> Manifest:
    """Fit and export one shipped flow, as the next version of that name in `repository`.

    Args:
        name: one of `NAMES`.
        repository: where the bundle goes; it need not exist.
        report: the folder for the training's report; None to throw it away. A closed form has none.
        say: called with a few words before each stage.

    Returns:
        The new bundle's manifest.

    Raises:
        DataError: where there is no shipped flow of that name.
    """
    if name not in NAMES:
        raise DataError(f"there is no shipped flow {name!r}; there are {', '.join(NAMES)}")
    recipe = Recipe.read(ZOO / name / "recipe.toml").override({"name": name, "out": str(repository.root)})
    if recipe.flow.architecture in ANALYTIC:
        return read_bundle(_build_analytic(recipe, name, repository, say)).manifest
    kinds = KINDS.get(name)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=recipe.fit.epochs, unit=" epochs", disable=None) as bar:
        scratch = Path(folder)
        if kinds is not None:  # a version never changes: its directions are added before it is installed
            recipe = recipe.override({"out": str(scratch / "repository")})
        result = train(
            recipe,
            work=scratch / "work",
            report=report or scratch / "report",
            observe=lambda _: _advance(bar),
            say=say,
        )
        made = read_bundle(result.bundle)
    if kinds is None:
        return made.manifest
    data = load(name)
    manifest = with_directions(made, data, kinds(data))
    manifest = manifest.model_copy(update={"version": repository.next_version(name)})
    return read_bundle(repository.install_next(manifest, made.files())).manifest


def _build_analytic(recipe: Recipe, name: str, repository: Repository, say: Callable[[str], None] | None) -> Path:
    """A closed form is calibrated on a sample of its own."""
    flow = ANALYTIC[recipe.flow.architecture]()
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        rows = flow.inverse(sample_base(flow.base, 2 * ANALYTIC_ROWS, flow.width, generator))[0]
    fitted, held_out = rows[:ANALYTIC_ROWS], rows[ANALYTIC_ROWS:]
    gaussian = Gaussian.fit(fitted.double().numpy()).log_prob(held_out.double().numpy())
    return export_flow(
        flow,
        repository=repository,
        name=name,
        held_out=held_out,
        description=recipe.description,
        gaussian_mean=float(np.mean(gaussian)),
        data=f"none: a closed form, calibrated on {ANALYTIC_ROWS} draws of its own",
        recipe=recipe.published(),
        seed=recipe.seed,
        progress=say,
    )


def _advance(bar: Any) -> None:  # noqa: ANN401  tqdm carries no types
    bar.update()


def compare(made: Manifest) -> Comparison | None:
    """Hold a bundle's held-out log-likelihood against the newest shipped one's; None where none is shipped yet."""
    zoo = Repository(ZOO)
    if not zoo.versions(made.name):
        return None
    shipped = read_bundle(zoo.path(made.name)).manifest
    return Comparison(made=made.calibration.mean, shipped=shipped.calibration.mean, width=made.event_width)

"""`pushforward train`: fit a flow to a table or to images, and export it as a bundle.

Every option of a recipe is a flag here; flags win over the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from models.recipe import Recipe
from pushforward.cli.fit_options import FitBar, fit_options, pace_options, read_recipe

if TYPE_CHECKING:
    from models.training.checkpoint import EpochRecord
    from models.training.search import Trial
    from models.training.train import TrainingResult

__all__ = ["command", "conclude"]


_HELP: Final = """Fit a flow to DATA and export it as a bundle.

DATA is a CSV, .npy, .npz, Parquet or Feather file, a folder of PNG images, or a built-in data set (two-moons, digits,
wine).
Before the fit, each column is examined for marks of missing values, heavy tails, and more digits than float32 keeps.
If there are any, the command says what to do.

\b
pushforward train table.csv --out flows --name table
pushforward train data.npz --where y=0 --out flows --name normals --seed 1
pushforward train --recipe recipe.toml --resume
"""


@click.command(help=_HELP)
@click.argument("data", required=False)
@fit_options(Recipe)
@pace_options
def command(
    data: str | None,
    recipe_file: Path | None,
    flow_option: tuple[str, ...],
    resume: bool,
    restart: bool,
    work: Path | None,
    report: Path | None,
    checkpoint_seconds: float,
    quiet: bool,
    **flags: Any,  # noqa: ANN401  one for each option of a recipe
) -> None:
    """Fit a flow to DATA."""
    recipe = read_recipe(Recipe, recipe_file, flags, flow_option, ("data", data))
    # torch takes seconds to import: a wrong flag is refused before that.
    from models.training.train import train

    with _Progress(recipe.fit.epochs, quiet=quiet) as progress:
        result = train(
            recipe,
            resume=resume,
            restart=restart,
            work=work,
            report=report,
            observe=progress.observe,
            watch=progress.watch,
            say=progress.say,
            seconds_between=checkpoint_seconds,
        )
    if not quiet:
        conclude(result)


class _Progress(FitBar):
    """A bar of epochs with the nats as they stand: one of the search, and then one of the fit."""

    def __init__(self, epochs: int, *, quiet: bool) -> None:
        super().__init__("epoch", quiet=quiet)
        self.epochs = epochs

    def observe(self, record: EpochRecord) -> None:
        """Show an epoch of the fit."""
        self.advance(
            f"train {record.train:.3f}, validation {record.validation:.3f}, best {record.best:.3f} nats",
            total=self.epochs,
            before=record.epoch - 1,
            done=record.epoch,
        )

    def watch(self, trial: Trial) -> None:
        """Show an epoch of the search."""
        self.advance(
            f"choosing: {trial.words}: {trial.validation:.3f} nats",
            total=trial.planned,
            before=trial.done - 1,
            done=trial.done,
        )


def conclude(result: TrainingResult) -> None:
    """Print what a training came to, and what to type next."""
    from models.training.held_out_files import list_held_out_files
    from models.training.places import serve_command

    recipe, evaluation = result.recipe, result.evaluation
    lines = [("flow", evaluation.flow), ("Gaussian", evaluation.gaussian), ("gain", evaluation.gain)]
    if evaluation.mixture is not None:
        lines.insert(2, ("mixture", evaluation.mixture))
    click.echo(f"\nHeld-out log-likelihood of {recipe.name}, version {result.version}, in nats a row:")
    for name, score in lines:
        bits = None if name == "gain" else evaluation.bits_per_dim(score)
        click.echo(
            f"  {name:<9}{score.mean:>10.3f} ± {score.standard_error:.3f}"
            f"   {score.mean / evaluation.width:.4f} per dimension" + ("" if bits is None else f", {bits:.4f} bits")
        )
    for name, bits in recipe.data.published.items():
        click.echo(f"  published, {name}: {bits:g} bits per dimension")
    if evaluation.centres is not None:
        score = evaluation.centres
        click.echo(f"  {'served':<9}{score.mean:>10.3f} ± {score.standard_error:.3f}   at the centres of the bins")
    for said in result.warnings:
        click.secho(f"WARNING: {said}.", bold=True)
    click.echo(f"Verdict: {result.verdict.grade}")
    for sentence in result.verdict.sentences:
        click.echo(f"- {sentence}")
    click.echo(f"Fitted in {result.seconds:.0f} s: {len(result.history)} epochs, the best of them {result.best_epoch}.")
    click.echo(f"Bundle: {result.bundle}")
    click.echo(f"Report: {result.report / 'index.html'}")
    for file in list_held_out_files(evaluation, result.report, result.bundle):
        click.echo(f"Rows:   {file.path}: {file.words}, {file.mean:.3f} nats.")
        click.echo(f"Check:  {file.command}")
    click.echo(f"Next:   {serve_command(recipe)}")

"""`pushforward train`: fit a flow to a table or to images, and export it as a bundle.

Every option of a recipe is a flag here; flags win over the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from tqdm import tqdm

from models.recipe import Recipe
from pushforward.cli.recipe_flags import flow_option_flag, read_flags, recipe_flags

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
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="A TOML file with options. Options on the command line override it.",
)
@recipe_flags(Recipe)
@flow_option_flag
@click.option("--resume", is_flag=True, help="Continue an unfinished fit, if there is one.")
@click.option("--restart", is_flag=True, help="Discard an unfinished fit, and start again.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="The folder for checkpoints. Other files in it are left alone. [default: OUT/.training/NAME]",
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="The report's folder. [default: OUT/NAME/report-VERSION]"
)
@click.option("--checkpoint-seconds", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Least time between two checkpoints, in seconds.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print errors only.")
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
    values = read_flags(Recipe, flags, flow_option)
    if data is not None:
        values.setdefault("data", {})["source"] = data
    recipe = (Recipe() if recipe_file is None else Recipe.read(recipe_file)).override(values)
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


class _Progress:
    """A bar of epochs with the nats as they stand, and lines above it: one bar of the search, and then one of the fit.

    A line ends the bar, so that none runs on while something else is done.
    """

    def __init__(self, epochs: int, *, quiet: bool) -> None:
        self.epochs, self.quiet = epochs, quiet
        self.bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def observe(self, record: EpochRecord) -> None:
        """Show an epoch of the fit."""
        self._advance(
            f"train {record.train:.3f}, validation {record.validation:.3f}, best {record.best:.3f} nats",
            total=self.epochs,
            before=record.epoch - 1,
        )

    def watch(self, trial: Trial) -> None:
        """Show an epoch of the search."""
        self._advance(
            f"choosing: {trial.words}: {trial.validation:.3f} nats", total=trial.planned, before=trial.done - 1
        )

    def say(self, line: str) -> None:
        """Print a line."""
        self._end()
        if not self.quiet:
            tqdm.write(line)

    def _advance(self, words: str, *, total: int, before: int) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, initial=before, unit="epoch", disable=self.quiet, dynamic_ncols=True)
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update()

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


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

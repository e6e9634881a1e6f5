"""`pushforward train`: fit a flow to a table or to images, and export it as a bundle.

Every option of a recipe is a flag here, made from the recipe's own declaration; flags win over the file.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from tqdm import tqdm

from models.recipe import Option, Recipe, options
from service.errors import DataError

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


def _from_recipe(function: Callable[..., None]) -> Callable[..., None]:
    """Put a flag on `function` for each option of a recipe."""
    for option in reversed(list(options())):
        function = _flag(option)(function)
    return function


def _flag(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    parameter = ".".join(option.keys).replace(".", "__")
    kinds = _kinds(option.kind)
    settings: dict[str, Any] = {"help": option.help, "default": None}
    flag = option.flag
    if bool in kinds:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    elif list in kinds:
        settings |= {"multiple": True, "metavar": "COLUMN,...", "default": ()}
        if option.keys[-1] == "where":
            settings["metavar"] = "CONDITION"
    elif dict in kinds:
        settings |= {"multiple": True, "metavar": "NAME=VALUE", "default": ()}
    elif typing.Literal in kinds:
        settings["type"] = click.Choice([str(value) for value in typing.get_args(option.kind)])
    else:
        settings["type"] = int if int in kinds else float if float in kinds else str
    return click.option(parameter, *[flag], **settings)


def _kinds(annotation: Any) -> set[Any]:  # noqa: ANN401  an annotation may be any object
    """The plain types in an annotation, without None and without what pydantic adds."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(annotation) for kind in _kinds(part)} - {type(None)}
    return {origin or annotation}


@click.command(help=_HELP)
@click.argument("data", required=False)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="A TOML file with options. Options on the command line override it.",
)
@_from_recipe
@click.option(
    "--flow-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the architecture or of its base, such as transforms=8, hidden=[64,64] or base=mixture.",
)
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
    recipe = (Recipe() if recipe_file is None else Recipe.read(recipe_file)).override(
        _overrides(data, flow_option, flags)
    )
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


def _overrides(data: str | None, flow_options: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, nested as in a recipe."""
    values: dict[str, Any] = {}
    for option in options():
        value = flags["__".join(option.keys)]
        if value is None or value == ():
            continue
        kinds = _kinds(option.kind)
        if dict in kinds:
            value = dict(_pair(option.flag, text) for text in value)
        elif list in kinds:
            # a condition may hold a comma of its own
            value = list(value) if option.keys[-1] == "where" else [v.strip() for t in value for v in t.split(",")]
        section = values
        for key in option.keys[:-1]:
            section = section.setdefault(key, {})
        section[option.keys[-1]] = value
    if data is not None:
        values.setdefault("data", {})["source"] = data
    for text in flow_options:
        name, value = _pair("--flow-option", text)
        values.setdefault("flow", {})[name] = _toml(value)
    return values


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise DataError(f"{flag}: expected NAME=VALUE, and found {text!r}")
    return name.strip(), value.strip()


def _toml(text: str) -> Any:  # noqa: ANN401  any value of TOML
    """A value as a recipe would hold it; what is no TOML is a plain string."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
    from models.training.train import serve_command

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

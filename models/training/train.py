"""A training: from a recipe to a bundle and a report, by way of data, split, flow, fit, evaluation and export."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from models.architectures import build_flow
from models.data.load import Table, load_data
from models.data.split import Split, derived_seed, split
from models.export.export import export_flow
from models.flows.flow import Flow
from models.flows.preprocess import quantized_support
from models.recipe import Recipe
from models.training.checkpoint import Checkpoint, EpochRecord, Origin
from models.training.evaluate import Evaluation, evaluate
from models.training.fit import FitResult, Perturbation, Run, finish, mostly_repeated, noise_choices, reproducible
from models.training.output_folders import check_writable, remove_empty
from models.training.report import Findings, write_report
from models.training.search import Choice, Trial, search
from service.bundle.manifest import ContextFeature, Feature, Support
from service.bundle.store import Repository, read_bundle
from service.errors import BundleError, DataError, Reason

__all__ = ["TrainingResult", "serve_command", "train"]

WORK_FOLDER = ".training"
"""Where unfinished fits lie in a repository; no flow can be called so, and it is passed over."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a training left behind.

    Args:
        bundle: the bundle's folder.
        report: the report's folder.
        version: of the bundle.
        evaluation: on held-out rows.
        history: an entry for each epoch.
        best_epoch: the epoch whose weights were kept.
        notes: what the user should know.
        seconds: how long the fit took in this run.
    """

    bundle: Path
    report: Path
    version: int
    evaluation: Evaluation
    history: list[EpochRecord]
    best_epoch: int
    notes: tuple[str, ...]
    seconds: float


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    restart: bool = False,
    work: Path | None = None,
    report: Path | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    watch: Callable[[Trial], None] | None = None,
    say: Callable[[str], None] | None = None,
    seconds_between: float = 5.0,
) -> TrainingResult:
    """Fit the flow of a recipe, export it as the next version, and write its report.

    Args:
        recipe: with data, name and out.
        resume: go on with an unfinished fit, where there is one; it ends in the weights of an unbroken one.
        restart: throw an unfinished fit away.
        work: the folder for checkpoints; None for ``<out>/.training/<name>``. The checkpoint is removed at the end,
            and of the folder nothing else; the default folder goes too, where that leaves it empty.
        report: the report's folder; None for ``<out>/<name>/report-<version>``.
        observe: called after each epoch of the fit.
        watch: called after each epoch of the search that comes before the fit.
        say: called with each note, and with each stage.
        seconds_between: at least so many seconds between two checkpoints.

    Returns:
        What it left behind.

    Raises:
        DataError: where the recipe, the data or the fit is not well, where `out`, `work` or `report` cannot be
            written into, where an unfinished fit is in the way, or where it began with another recipe or other data.
        ParityFailed: where the exported graphs do not give the flow's answers; no bundle is written then, and the
            checkpoint stays.
    """
    tell = say or _ignore
    places = _Places.of(recipe, work=work, report=report)
    places.check()
    with reproducible(recipe.fit.threads):
        table = load_data(recipe)
        for note in table.notes:
            tell(f"Note: {note}.")
        origin = Origin(recipe=recipe.fitted_by(), data=table.digest)
        resumed = _unfinished(places.work, resume=resume, restart=restart)
        if resumed is not None:
            _check_resumed(resumed, origin, tell)
        began = time.monotonic()
        start = _begin(recipe, table, resumed, tell=tell, watch=watch)
        recipe = recipe.override(start.choice.overrides)
        if observe is not None and resumed is None:
            for record in start.run.history:  # of the search
                observe(record)
        fitted = finish(
            start.run,
            origin=origin,
            chosen=start.choice.overrides,
            work=places.work,
            observe=observe,
            seconds_between=seconds_between,
        )
        outcome = _score(recipe, start, fitted, seconds=time.monotonic() - began)
        bundle = None if resumed is None else _installed(places.repository, recipe, table, resumed.exporting)
        if bundle is None:
            bundle = _export(recipe, start, outcome, places, tell)
        else:
            tell(f"Version {bundle.name} holds this fit already: what is left is its report.")
        version = int(bundle.name)
        folder = report or places.repository.root / places.name / f"report-{version}"
        write_report(_findings(recipe, start, outcome, bundle), folder)
    places.clear(version)
    return TrainingResult(
        bundle=bundle,
        report=folder,
        version=version,
        evaluation=outcome.evaluation,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        notes=table.notes,
        seconds=outcome.seconds,
    )


@dataclass(frozen=True, slots=True)
class _Places:
    """The folders that a training writes into.

    Args:
        name: the flow's.
        repository: where the bundle goes.
        work: the folder for checkpoints.
        own: whether `work` is the default folder, which goes when it is empty.
        report: the report's folder, where it was asked for.
    """

    name: str
    repository: Repository
    work: Path
    own: bool
    report: Path | None

    @classmethod
    def of(cls, recipe: Recipe, *, work: Path | None, report: Path | None) -> _Places:
        """The folders that a recipe and the options name.

        Args:
            recipe: with name and out.
            work: the folder for checkpoints; None for the default one.
            report: the report's folder; None for the default one.

        Returns:
            The folders; none is made.

        Raises:
            DataError: the recipe has no name or no repository.
        """
        missing = [key for key in ("name", "out") if getattr(recipe, key) is None]
        if recipe.name is None or recipe.out is None:
            raise DataError(
                f"a flow needs {' and '.join(missing)}: what it is called, and the repository it goes into",
                tuple(Reason(("recipe", key), f"give --{key}, or {key} in the recipe") for key in missing),
            )
        out = Path(recipe.out)
        return cls(
            name=recipe.name,
            repository=Repository(out),
            work=work or out / WORK_FOLDER / recipe.name,
            own=work is None,
            report=report,
        )

    def check(self) -> None:
        """Try to write into each, before hours are spent.

        Raises:
            DataError: naming the option whose folder cannot be written into.
        """
        check_writable(self.repository.root / self.name, "out")
        check_writable(self.work, "work")
        if self.report is not None:
            check_writable(self.report, "report")

    def clear(self, version: int) -> None:
        """Remove the checkpoint, and the default folder where that leaves it empty.

        Raises:
            DataError: a file cannot be removed; the bundle and its report are there all the same.
        """
        try:
            Checkpoint.remove(self.work)
            for empty in (self.work, self.work.parent) if self.own else ():
                remove_empty(empty)
        except DataError as error:
            raise DataError(
                f"{self.name} is installed as version {version}, with its report; {error.detail}"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """What a fit begins with.

    Args:
        table: all rows.
        seen: the training rows, dequantized once.
        run: the fit, before its first epoch or at the epoch where it goes on.
        choice: what the search chose; nothing where there was none.
    """

    table: Table
    seen: Tensor
    run: Run
    choice: Choice = field(default_factory=Choice)

    @property
    def parts(self) -> Split:
        """The rows of the table, split."""
        return self.run.split

    @property
    def flow(self) -> Flow:
        """The flow that is fitted."""
        return self.run.flow

    @property
    def perturbation(self) -> Perturbation:
        """What is added to rows."""
        return self.run.perturbation


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """What a fit came to.

    Args:
        fitted: how it went.
        seconds: how long it took in this run.
        scored: the held-out rows, dequantized once.
        evaluation: on those rows.
    """

    fitted: FitResult
    seconds: float
    scored: Tensor
    evaluation: Evaluation


def _ignore(_: str) -> None:
    pass


def _unfinished(work: Path, *, resume: bool, restart: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if any."""
    if resume and restart:
        raise DataError("resume goes on with an unfinished fit and restart throws it away: give one of them")
    if restart:
        Checkpoint.remove(work)
        return None
    found = Checkpoint.load(work)
    if found is not None and not resume:
        raise DataError(
            f"an unfinished fit of this name is there, after epoch {found.epoch}: --resume goes on with it, and "
            "--restart throws it away"
        )
    return found


def _check_resumed(resumed: Checkpoint, origin: Origin, tell: Callable[[str], None]) -> None:
    """Refuse a checkpoint of another fit, and say where this one goes on.

    Args:
        resumed: the checkpoint.
        origin: what the fit belongs to.
        tell: called with each line.

    Raises:
        DataError: it began with another recipe or other data.
    """
    origin.check(resumed.origin)
    tell(f"Going on after epoch {resumed.epoch}.")
    if resumed.library != str(torch.__version__):
        tell(f"Note: the fit began with torch {resumed.library}; the last digits may differ.")


def _installed(repository: Repository, recipe: Recipe, table: Table, created: str | None) -> Path | None:
    """The bundle that an export begun at `created` left behind, where the run was killed after it."""
    if created is None or recipe.name is None:
        return None
    for version in reversed(repository.versions(recipe.name)):
        folder = repository.path(recipe.name, version)
        try:
            provenance = read_bundle(folder).manifest.provenance
        except BundleError:
            continue  # none of this fit's: a bundle is checked before it is installed
        if (provenance.created, provenance.recipe, provenance.data) == (created, recipe.published(), table.words):
            return folder
    return None


def _begin(
    recipe: Recipe,
    table: Table,
    resumed: Checkpoint | None,
    *,
    tell: Callable[[str], None],
    watch: Callable[[Trial], None] | None,
) -> _Start:
    """Begin a fit: as a checkpoint left it, or by a search for what the recipe leaves open, or plainly.

    Args:
        recipe: as it was given.
        table: all rows.
        resumed: the checkpoint, if any.
        tell: called with a line before each stage.
        watch: called after each epoch of the search.
    """
    parts = split(table, recipe.data, recipe.seed)
    if resumed is not None:
        start = _start(recipe.override(resumed.chosen), table, parts)
        start.run.restore(resumed)
        if not resumed.finished:
            tell(f"Fitting {recipe.flow.architecture} to {len(parts.train)} rows.")
        return replace(start, choice=Choice.of(resumed.chosen))
    start = _start(recipe, table, parts)
    tell(f"Fitting {recipe.flow.architecture} to {len(parts.train)} rows.")
    step = start.perturbation.step
    if not recipe.fit.search or parts.train.ndim > 2:
        return start
    if table.low is None and mostly_repeated(parts.train if step is None else parts.train[:, step == 0]):
        tell("Most values repeat, so that no density is there to choose options by: the fit is a plain one.")
        return start
    found = search(
        recipe,
        lambda candidate: _start(candidate, table, parts).run,
        rows=len(parts.train),
        noises=noise_choices(parts.train, step=step, bounded=table.low is not None),
        watch=watch,
    )
    if found is None:
        return start
    choice, run = found
    tell(f"Chosen by validation rows: {choice.words}.")
    return replace(start, run=run, choice=choice)


def _start(recipe: Recipe, table: Table, parts: Split) -> _Start:
    """Build the flow of a recipe and its fit, before the first epoch."""
    step = None if table.step is None else torch.from_numpy(table.step).to(torch.float32)
    perturbation = Perturbation.of(
        parts.train, step=step, noise=recipe.fit.noise, bounded=table.low is not None, context=parts.train_context
    )
    support = None
    if table.low is not None and table.high is not None:
        support = Support(low=table.low, high=table.high)
        if table.step is not None:
            support = quantized_support(table.low, table.high, float(table.step.max()))
    seen = perturbation.dequantized(parts.train, _generator(recipe.seed, "statistics"))
    whiten = seen.ndim == 2 if recipe.flow.whiten is None else recipe.flow.whiten
    flow = build_flow(
        recipe.flow.architecture,
        {**recipe.flow.options, "whiten": whiten},
        rows=seen,
        context=parts.train_context,
        support=support,
        seed=derived_seed(recipe.seed, "weights"),
    )
    run = Run(flow, parts, recipe.fit, seed=recipe.seed, perturbation=perturbation)
    return _Start(table=table, seen=seen, run=run)


def _score(recipe: Recipe, start: _Start, fitted: FitResult, *, seconds: float) -> _Outcome:
    """Score the fitted flow on the held-out rows.

    Args:
        recipe: for its seed.
        start: with the flow, now fitted.
        fitted: how the fit went.
        seconds: how long it took.
    """
    parts = start.parts
    scored = start.perturbation.dequantized(parts.test, _generator(recipe.seed, "held out"))
    evaluation = evaluate(
        start.flow,
        start.seen,
        scored,
        step=start.perturbation.step,
        centres=None if start.perturbation.step is None else parts.test,
        train_context=parts.train_context,
        context=parts.test_context,
    )
    return _Outcome(fitted=fitted, seconds=seconds, scored=scored, evaluation=evaluation)


def _export(recipe: Recipe, start: _Start, outcome: _Outcome, places: _Places, tell: Callable[[str], None]) -> Path:
    """Export the fitted flow as the next version, noted in the checkpoint before it begins.

    Args:
        recipe: what it was fitted by.
        start: with the flow, now fitted.
        outcome: of the fit.
        places: where the bundle goes, and where the checkpoint lies.
        tell: called before each stage.

    Returns:
        The bundle's folder.
    """
    created = datetime.now(UTC).replace(microsecond=0)
    Checkpoint.note_export(places.work, created.isoformat())
    table = start.table
    return export_flow(
        start.flow,
        repository=places.repository,
        name=places.name,
        held_out=start.parts.test,
        context=start.parts.test_context,
        description=_description(recipe, table),
        features=table.features,
        context_features=table.context_features,
        quantization=table.quantization,
        gaussian_mean=outcome.evaluation.served_gaussian.mean,
        data=table.words,
        recipe=recipe.published(),
        seed=recipe.seed,
        created=created,
        progress=tell,
    )


def _generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


def _description(recipe: Recipe, table: Table) -> str:
    """The recipe's, and how integers are read where the manifest's `quantization` cannot say it."""
    if table.step is None or table.quantization is not None:
        return recipe.description
    grids = ", ".join(f"{name} ({step:g})" for name, step in zip(table.names, table.step.tolist(), strict=True) if step)
    return (
        f"{recipe.description} Columns with values on a grid, with its step: {grids}; such a value is the centre of "
        "its bin."
    ).strip()


def _findings(recipe: Recipe, start: _Start, outcome: _Outcome, bundle: Path) -> Findings:
    table, parts, fitted = start.table, start.parts, outcome.fitted
    return Findings(
        name=recipe.name or "",
        version=int(bundle.name),
        description=_description(recipe, table),
        data=table.words,
        columns=_titles(table.features) or [f"column {name}" for name in table.names],
        flow=start.flow,
        held_out=parts.test,
        scored=outcome.scored,
        evaluation=outcome.evaluation,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        stopped=fitted.stopped,
        chosen=start.choice.words,
        seconds=outcome.seconds,
        rows=(len(parts.train), len(parts.validation), len(parts.test)),
        seed=recipe.seed,
        recipe=recipe.published(),
        notes=table.notes,
        bundle=bundle,
        serve=serve_command(recipe),
        published=recipe.data.published,
        context=parts.test_context,
        context_columns=_titles(table.context_features)
        or [label.removeprefix("context ") for label in table.context_labels],
    )


def _titles(features: Sequence[Feature | ContextFeature]) -> list[str]:
    """The columns' names with their units."""
    return [f"{feature.name}, {feature.unit}" if feature.unit else feature.name for feature in features]


def serve_command(recipe: Recipe) -> str:
    """What to type next."""
    return shlex.join(["pushforward", "serve", "--repository", recipe.out or "", "--default-flow", recipe.name or ""])

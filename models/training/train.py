"""A training: from a recipe to a bundle and a report, by way of data, split, flow, fit, evaluation and export."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from models.data.load import Table, load_data
from models.data.split import derived_generator, derived_seed, describe_split
from models.evaluation.evaluate import Diagnosis, HeldOutRows, diagnose
from models.evaluation.likelihood import Evaluation
from models.evaluation.verdict import Verdict
from models.export.export import export_flow
from models.recipe import Recipe
from models.training.checkpoint import Checkpoint, EpochRecord, Origin
from models.training.evaluate import TorchDensity, evaluate, gather_rows
from models.training.fit import FitResult, finish, reproducible
from models.training.fit_start import FitStart, begin_fit
from models.training.kept_fit import REPORT_FOLDER, KeptFit
from models.training.places import WORK_FOLDER, Places, export_command, require_one, serve_command
from models.training.report import Findings, write_report
from models.training.search import Trial
from service.bundle.manifest import ContextFeature, Feature, Manifest, shorten_texts
from service.bundle.store import MANIFEST_FILE
from service.errors import DataError, PushforwardError

__all__ = ["ExportOptions", "TrainingResult", "export_kept", "train"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a training left behind.

    Args:
        recipe: what was fitted, with the name and the repository of the bundle.
        bundle: the bundle's folder.
        report: the report's folder.
        version: of the bundle.
        evaluation: on held-out rows.
        verdict: on the flow, in words.
        history: an entry for each epoch.
        best_epoch: the epoch whose weights were kept.
        notes: what the user should know.
        warnings: what the user must know: that the flow is no better than a Gaussian, or float32 too coarse for it.
        seconds: how long the fit took in this run.
    """

    recipe: Recipe
    bundle: Path
    report: Path
    version: int
    evaluation: Evaluation
    verdict: Verdict
    history: list[EpochRecord]
    best_epoch: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What decides how a fit is exported, beside its recipe.

    Args:
        version: None for one more than the newest.
        far_rows: which rows far outside the data the gate tries; see `models.export.export.export_flow`.
    """

    version: int | None = None
    far_rows: Literal["all", "resolvable"] = "all"


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
        ParityFailed: where the exported graphs do not give the flow's answers. No bundle is written then. The report,
            the checkpoint and the rows stay, for `export_kept`, as after any other failure behind the fit.
        ForbiddenGraph: where the flow needs an operator that a bundle may not hold; the same stays.
    """
    tell = say or _ignore
    places = Places.of(recipe, work=work, report=report)
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
        start = begin_fit(recipe, table, resumed, tell=tell, watch=watch)
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
        seconds = time.monotonic() - began
        return _finish(recipe, start, fitted, places, tell=tell, seconds=seconds, resumed=resumed)


def export_kept(
    folder: Path,
    *,
    changes: dict[str, Any] | None = None,
    options: ExportOptions | None = None,
    report: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Export a fit that `train` has kept, since its export failed.

    Args:
        folder: the one that the failure names: of the checkpoint.
        changes: what to change of the recipe, as `Recipe.override` has it: name, out, description.
        options: how to export it.
        report: the report's folder; None for ``<out>/<name>/report-<version>``.
        say: called with each stage.

    Returns:
        What it left behind, as `train`.

    Raises:
        DataError: there is no such fit, or the version is there already.
        ParityFailed: as `train`; the fit stays.
        ForbiddenGraph: as `train`; the fit stays.
    """
    tell, options = say or _ignore, options or ExportOptions()
    kept, checkpoint = KeptFit.load(folder), Checkpoint.load(folder)
    if checkpoint is None:
        raise DataError(
            f"{folder} holds no fit: expected the folder that a training names when its export fails, "
            f"OUT/{WORK_FOLDER}/NAME or that of --work"
        )
    if kept is None:
        raise DataError(
            f"{folder} holds a fit that was cut off after epoch {checkpoint.epoch}, before its export: give the "
            "options of its training again, with --resume"
        )
    recipe = kept.recipe.override(changes or {})
    default = Places.of(kept.recipe, work=None, report=None).work
    places = Places.of(recipe, work=folder, report=report, own=folder.resolve() == default.resolve())
    places.check()
    if options.version is not None and options.version in places.repository.versions(places.name):
        raise DataError(f"{places.name} has a version {options.version} already")
    with reproducible(recipe.fit.threads):
        start = begin_fit(kept.recipe, kept.table, checkpoint, tell=tell, watch=None)
        fitted = finish(start.run)
        return _finish(recipe, start, fitted, places, tell=tell, seconds=0.0, resumed=checkpoint, options=options)


def _finish(
    recipe: Recipe,
    start: FitStart,
    fitted: FitResult,
    places: Places,
    *,
    tell: Callable[[str], None],
    seconds: float,
    resumed: Checkpoint | None,
    options: ExportOptions | None = None,
) -> TrainingResult:
    """Score, export and report a fit; where that fails, keep it.

    Args:
        recipe: of the fit.
        start: with the flow, now fitted.
        fitted: how the fit went.
        places: where all goes.
        tell: called with each stage.
        seconds: how long the fit took in this run.
        resumed: the checkpoint that it went on from.
        options: of the export.

    Returns:
        What is left behind.
    """
    outcome, bundle = None, None
    try:
        outcome = _score(recipe, start, fitted, seconds=seconds)
        bundle = None if resumed is None else places.installed(recipe, resumed.exporting, start.table.words)
        if bundle is None:
            bundle = _export(recipe, start, outcome, places, tell, options or ExportOptions())
        else:
            tell(f"Version {bundle.name} holds this fit already: what is left is its report.")
        version = int(bundle.name)
        folder = places.report or places.repository.root / places.name / f"report-{version}"
        tell("Testing samples, densities and latents on held-out rows.")
        findings = _findings(recipe, start, outcome, bundle)
        write_report(findings, folder)
    except Exception as error:  # whatever it is, what was fitted for hours is not to be lost by it
        said = _keep(recipe, start, places, outcome=None if bundle is not None else outcome, error=error)
        if isinstance(error, PushforwardError):
            raise error.extended(said) from error
        tell(said.strip())
        raise
    places.clear(version)
    return TrainingResult(
        recipe=recipe,
        bundle=bundle,
        report=folder,
        version=version,
        evaluation=outcome.evaluation,
        verdict=findings.verdict,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        notes=start.table.notes,
        warnings=tuple(findings.warnings),
        seconds=outcome.seconds,
    )


def _keep(recipe: Recipe, start: FitStart, places: Places, *, outcome: _Outcome | None, error: Exception) -> str:
    """Keep a fit whose export failed, and write its report.

    Args:
        recipe: of the fit.
        start: with the flow, now fitted, and the rows.
        places: where the checkpoint is.
        outcome: of the fit, for the report; None for no report.
        error: what failed.

    Returns:
        What to tell behind the error: where all is, and the command that goes on.
    """
    work = places.work
    resume = "Give the options of the training again, with --resume, to go on from there."
    try:
        KeptFit(recipe.override({"out": str(places.repository.root.absolute())}), start.table).save(work)
    except OSError as failed:
        return f"\nThe fit is not lost: {work} has its checkpoint, but not the rows: {failed}. {resume}"
    command = export_command(work)
    said = f"\nThe fit is not lost: the checkpoint and the rows are in {work}."
    if outcome is not None:
        folder = places.report or work / REPORT_FOLDER
        reason = error.detail if isinstance(error, PushforwardError) else str(error) or type(error).__name__
        try:
            write_report(_findings(recipe, start, outcome, None, failure=reason, next_command=command), folder)
            said += f"\nReport: {folder / 'index.html'}, with the held-out rows beside it."
        except OSError as failed:
            said += f"\nThe report could not be written: {failed}."
    return f"{said}\nNext:   {command}\n        goes on from there; its --help lists what can be changed."


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """What a fit came to.

    Args:
        fitted: how it went.
        seconds: how long it took in this run.
        scored: the held-out rows, dequantized once.
        rows: the same, with all that they are evaluated by.
        evaluation: on those rows.
    """

    fitted: FitResult
    seconds: float
    scored: Tensor
    rows: HeldOutRows
    evaluation: Evaluation


def _ignore(_: str) -> None:
    pass


def _pass_over(_: int) -> None:
    pass


def _unfinished(work: Path, *, resume: bool, restart: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if any."""
    require_one(resume=resume, restart=restart)
    if restart:
        KeptFit.remove(work)
        Checkpoint.remove(work)
        return None
    found = Checkpoint.load(work)
    if found is not None and not resume and KeptFit.load(work) is not None:
        raise DataError(
            f"a fit of this name is there whose export failed: {export_command(work)} goes on with it, and --restart "
            "throws it away"
        )
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


def _score(recipe: Recipe, start: FitStart, fitted: FitResult, *, seconds: float) -> _Outcome:
    """Score the fitted flow on the held-out rows.

    Args:
        recipe: for its seed.
        start: with the flow, now fitted.
        fitted: how the fit went.
        seconds: how long it took.
    """
    parts = start.parts
    scored = start.perturbation.dequantized(parts.test, derived_generator(recipe.seed, "held out"))
    rows = gather_rows(
        start.seen,
        scored,
        step=start.perturbation.step,
        centres=None if start.perturbation.step is None else parts.test,
        train_context=parts.train_context,
        context=parts.test_context,
    )
    evaluation = evaluate(start.flow, rows, derived_seed(recipe.seed, "mixture"))
    return _Outcome(fitted=fitted, seconds=seconds, scored=scored, rows=rows, evaluation=evaluation)


def _diagnose(recipe: Recipe, start: FitStart, outcome: _Outcome) -> Diagnosis:
    """Test the fitted flow's samples, densities and latents against the held-out rows.

    Args:
        recipe: for its seed.
        start: with the flow, now fitted.
        outcome: of the fit.
    """
    return diagnose(
        TorchDensity(start.flow),
        outcome.rows,
        outcome.evaluation.flow.log_prob,
        derived_seed(recipe.seed, "diagnosis"),
        _pass_over,
    )


def _export(
    recipe: Recipe,
    start: FitStart,
    outcome: _Outcome,
    places: Places,
    tell: Callable[[str], None],
    options: ExportOptions,
) -> Path:
    """Export the fitted flow as the next version, noted in the checkpoint before it begins.

    Args:
        recipe: what it was fitted by.
        start: with the flow, now fitted.
        outcome: of the fit.
        places: where the bundle goes, and where the checkpoint lies.
        tell: called before each stage.
        options: how.

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
        prior=table.prior,
        recipe=recipe.published(),
        seed=recipe.seed,
        created=created,
        version=options.version,
        far_rows=options.far_rows,
        progress=tell,
    )


def _description(recipe: Recipe, table: Table) -> str:
    """The recipe's, and how integers are read where the manifest's `quantization` cannot say it."""
    if table.step is None or table.quantization is not None:
        return recipe.description
    grids = ", ".join(f"{name} ({step:g})" for name, step in zip(table.names, table.step.tolist(), strict=True) if step)
    described: str = shorten_texts(
        f"{recipe.description} Columns with values on a grid, with its step: {grids}; such a value is the centre of "
        "its bin.".strip()
    )
    return described


def _findings(
    recipe: Recipe,
    start: FitStart,
    outcome: _Outcome,
    bundle: Path | None,
    *,
    failure: str = "",
    next_command: str = "",
) -> Findings:
    """All that the report says.

    Args:
        recipe: of the fit.
        start: with the flow, now fitted.
        outcome: of the fit.
        bundle: the bundle's folder; None where there is none.
        failure: why there is none.
        next_command: what goes on then.
    """
    table, parts, fitted = start.table, start.parts, outcome.fitted
    gate = f"There is no bundle of this fit: {failure}" if bundle is None else _manifest(bundle).parity.warning
    return Findings(
        name=recipe.name or "",
        version=None if bundle is None else int(bundle.name),
        description=_description(recipe, table),
        data=table.words,
        columns=_titles(table.features) or [f"column {name}" for name in table.names],
        flow=start.flow,
        held_out=parts.test,
        scored=outcome.scored,
        evaluation=outcome.evaluation,
        diagnosis=_diagnose(recipe, start, outcome),
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        stopped=fitted.stopped,
        chosen=start.choice.words,
        seconds=outcome.seconds,
        rows=(len(parts.train), len(parts.validation), len(parts.test)),
        seed=recipe.seed,
        recipe=recipe.published(),
        notes=table.notes,
        warnings=tuple(said for said in (outcome.evaluation.warning, gate) if said is not None),
        bundle=bundle,
        serve=next_command or serve_command(recipe),
        published=recipe.data.published,
        split=describe_split(table, recipe.data),
        context=parts.test_context,
        context_columns=_titles(table.context_features)
        or [label.removeprefix("context ") for label in table.context_labels],
    )


def _manifest(bundle: Path) -> Manifest:
    return Manifest.from_json((bundle / MANIFEST_FILE).read_bytes())


def _titles(features: Sequence[Feature | ContextFeature]) -> list[str]:
    """The columns' names with their units."""
    return [f"{feature.name}, {feature.unit}" if feature.unit else feature.name for feature in features]

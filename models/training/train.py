"""From a recipe to a bundle and a report: data, split, flow, fit, evaluation, export. Each part lives elsewhere."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from models.training.fit import FitResult, Perturbation, fit, reproducible
from models.training.output_folders import check_writable, remove_empty
from models.training.report import Findings, write_report
from service.bundle.manifest import Support
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
        observe: called after each epoch.
        say: called with each note, and with each stage.
        seconds_between: at least so many seconds between two checkpoints.

    Raises:
        DataError: where the recipe, the data or the fit is not well, where `out`, `work` or `report` cannot be
            written into, where an unfinished fit is in the way, or where it began with another recipe or other data.
        ParityFailed: where the exported graphs do not give the flow's answers; no bundle is written then, and the
            checkpoint stays.
    """
    with reproducible(recipe.fit.threads):
        return _train(recipe, resume, restart, work, report, observe, say or _ignore, seconds_between)


def _train(
    recipe: Recipe,
    resume: bool,
    restart: bool,
    work: Path | None,
    report: Path | None,
    observe: Callable[[EpochRecord], None] | None,
    tell: Callable[[str], None],
    seconds_between: float,
) -> TrainingResult:
    name, out = _target(recipe)
    check_writable(out / name, "out")
    own = work is None
    work = work or out / WORK_FOLDER / name
    check_writable(work, "work")
    if report is not None:
        check_writable(report, "report")
    table = load_data(recipe)
    for note in table.notes:
        tell(f"Note: {note}.")
    resumed = _unfinished(work, resume=resume, restart=restart)
    origin = Origin(recipe.fitted_by(), table.digest)
    if resumed is not None:
        origin.check(resumed.origin)
        tell(f"Going on after epoch {resumed.epoch}.")
        if resumed.library != str(torch.__version__):
            tell(f"Note: the fit began with torch {resumed.library}; the last digits may differ.")
    parts = split(table, recipe.data, recipe.seed)
    flow, perturbation, seen = _build(recipe, table, parts)
    if resumed is None or not resumed.finished:
        tell(f"Fitting {recipe.flow.architecture} to {len(parts.train)} rows.")
    began = time.monotonic()
    fitted = fit(
        flow, parts, recipe.fit, seed=recipe.seed, perturbation=perturbation, origin=origin, work=work,
        resumed=resumed, observe=observe, seconds_between=seconds_between,
    )  # fmt: skip
    seconds = time.monotonic() - began
    scored = perturbation.dequantized(parts.test, _generator(recipe.seed, "held out"))
    evaluation = evaluate(
        flow,
        seen,
        scored,
        step=perturbation.step,
        centres=None if perturbation.step is None else parts.test,
        train_context=parts.train_context,
        context=parts.test_context,
    )
    repository = Repository(out)
    bundle = None if resumed is None else _installed(repository, recipe, table, resumed.exporting)
    if bundle is not None:
        tell(f"Version {bundle.name} holds this fit already: what is left is its report.")
    else:
        created = datetime.now(UTC).replace(microsecond=0)
        Checkpoint.note_export(work, created.isoformat())
        bundle = export_flow(
            flow,
            repository=repository,
            name=name,
            held_out=parts.test,
            context=parts.test_context,
            description=_description(recipe, table),
            features=table.features,
            context_features=table.context_features,
            quantization=table.quantization,
            gaussian_mean=evaluation.served_gaussian.mean,
            data=table.words,
            recipe=recipe.published(),
            seed=recipe.seed,
            created=created,
            progress=tell,
        )
    version = int(bundle.name)
    folder = report or out / name / f"report-{version}"
    write_report(_findings(recipe, table, parts, flow, fitted, evaluation, scored, bundle, seconds), folder)
    try:
        Checkpoint.remove(work)
        for empty in (work, work.parent) if own else ():
            remove_empty(empty)
    except DataError as error:
        raise DataError(f"{name} is installed as version {version}, with its report; {error.detail}") from error
    return TrainingResult(bundle, folder, version, evaluation, fitted.history, fitted.best_epoch, table.notes, seconds)


def _ignore(_: str) -> None:
    pass


def _target(recipe: Recipe) -> tuple[str, Path]:
    missing = [key for key in ("name", "out") if getattr(recipe, key) is None]
    if recipe.name is None or recipe.out is None:
        raise DataError(
            f"a flow needs {' and '.join(missing)}: what it is called, and the repository it goes into",
            tuple(Reason(("recipe", key), f"give --{key}, or {key} in the recipe") for key in missing),
        )
    return recipe.name, Path(recipe.out)


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


def _build(recipe: Recipe, table: Table, parts: Split) -> tuple[Flow, Perturbation, Tensor]:
    """The flow before the fit, what is added to rows, and the training rows dequantized once."""
    step = None if table.step is None else torch.from_numpy(table.step).to(torch.float32)
    bounded = table.low is not None
    perturbation = Perturbation.of(parts.train, step, recipe.fit.noise, bounded=bounded)
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
    return flow, perturbation, seen


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


def _findings(
    recipe: Recipe,
    table: Table,
    parts: Split,
    flow: Flow,
    fitted: FitResult,
    evaluation: Evaluation,
    scored: Tensor,
    bundle: Path,
    seconds: float,
) -> Findings:
    columns = [f"{f.name}, {f.unit}" if f.unit else f.name for f in table.features]
    return Findings(
        name=recipe.name or "",
        version=int(bundle.name),
        description=_description(recipe, table),
        data=table.words,
        columns=columns or [f"column {name}" for name in table.names],
        flow=flow,
        held_out=parts.test,
        scored=scored,
        evaluation=evaluation,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        stopped=fitted.stopped,
        seconds=seconds,
        rows=(len(parts.train), len(parts.validation), len(parts.test)),
        seed=recipe.seed,
        recipe=recipe.published(),
        notes=table.notes,
        bundle=bundle,
        serve=serve_command(recipe),
        published=recipe.data.published,
        context=parts.test_context,
        context_columns=_context_names(table),
    )


def _context_names(table: Table) -> list[str]:
    named = [f"{f.name}, {f.unit}" if f.unit else f.name for f in table.context_features]
    return named or [label.removeprefix("context ") for label in table.context_labels]


def serve_command(recipe: Recipe) -> str:
    """What to type next."""
    return shlex.join(["pushforward", "serve", "--repository", recipe.out or "", "--default-flow", recipe.name or ""])

"""An inference: from a recipe and a target to a bundle and a report, by way of restarts, evidence and a verdict."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from models.data.split import derived_generator, derived_seed
from models.export.export import export_flow
from models.flows.bases import sample_base
from models.flows.flow import Flow
from models.inference.constraints import constrain, support_of
from models.inference.density import UnconstrainedDensity
from models.inference.evidence import Evidence, annealed_evidence, find_missed, measure
from models.inference.joint import JointRows, load_rows, mean_evidence, measure_rows
from models.inference.recipe import InferenceRecipe
from models.inference.report import InferenceFindings, write_inference_report
from models.inference.run import FitRun, RoundRecord, better
from models.inference.target import Target, load_target
from models.inference.verdict import InferenceVerdict, judge_fit, judge_joint
from models.training.checkpoint import Origin, read_state, reading_state, remove_state, write_state
from models.training.fit import reproducible
from models.training.places import Places, require_one, serve_command
from service.bundle.manifest import Feature, Support
from service.bundle.variational import Variational
from service.errors import DataError, PushforwardError

__all__ = ["InferenceResult", "infer"]

_FORMAT: Final = "inference 1"
_LEARNT_FILE: Final = "target.pt"
_HELD_OUT: Final = 2000  # draws that calibrate a bundle, which has no data
_MAX_DRAWN: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """What an inference left behind.

    Args:
        recipe: what was fitted, with the name and the repository of the bundle.
        bundle: the bundle's folder.
        report: the report's folder.
        version: of the bundle.
        variational: the evidence, as the manifest has it.
        verdict: on the fit, in words.
        restarts: the evidence of each, in order.
        flow: as it was exported, in the user's coordinates.
        seconds: how long the fit took in this run.
    """

    recipe: InferenceRecipe
    bundle: Path
    report: Path
    version: int
    variational: Variational
    verdict: InferenceVerdict
    restarts: tuple[Evidence, ...]
    flow: Flow
    seconds: float


def infer(
    recipe: InferenceRecipe,
    *,
    target: Target | None = None,
    resume: bool = False,
    restart: bool = False,
    work: Path | None = None,
    report: Path | None = None,
    far_rows: Literal["all", "resolvable"] = "all",
    observe: Callable[[int, RoundRecord], None] | None = None,
    say: Callable[[str], None] | None = None,
    seconds_between: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> InferenceResult:
    """Fit the flow of a recipe to its target, export it as the next version, and write its report.

    Args:
        recipe: with name and out, and a target unless one is given.
        target: the density; None for that of the recipe.
        resume: go on with an unfinished fit, where there is one; it ends in the weights of an unbroken one.
        restart: throw an unfinished fit away.
        work: the folder for checkpoints; None for ``<out>/.training/<name>``.
        report: the report's folder; None for ``<out>/<name>/report-<version>``.
        far_rows: which rows far outside the draws the gate tries; see `models.export.export.export_flow`.
        observe: called after each round, with the number of the restart from 1.
        say: called with each note, and with each stage.
        seconds_between: at least so many seconds between two checkpoints.
        clock: seconds, ascending.

    Returns:
        What it left behind.

    Raises:
        DataError: the recipe, the target or the fit is not well, a folder cannot be written into, or an unfinished fit
            is in the way or began otherwise. Nothing is half-written.
        ParityFailed: the exported graphs do not give the flow's answers. No bundle is written; the checkpoint stays.
        ForbiddenGraph: the flow needs an operator that a bundle may not hold; the same stays.
    """
    tell = say or _ignore
    places = Places.of(recipe, work=work, report=report)
    places.check()
    with reproducible(recipe.fit.threads):
        joint = None if recipe.target.rows is None else load_rows(recipe)
        target = target or _load(recipe, joint)
        step = constrain(target.constraints, target.dim, target.title, recipe.fit.precision)
        density = UnconstrainedDensity(target, step, target.dim if step is None else step.reals)
        origin = Origin(recipe=recipe.fitted_by(), data=target.digest + ("" if joint is None else joint.digest))
        learnt = _Learnt(target)
        state = _unfinished(places.work, origin, resume=resume, restart=restart)
        runs = _make_runs(recipe, density, joint)
        if state is not None:
            tell(f"Going on after {sum(len(run['history']) for run in state['runs'])} rounds.")
            with reading_state():
                learnt.restore(state["learnt"])
                for run, kept in zip(runs, state["runs"], strict=False):
                    run.restore(kept)
        else:
            tell(_announce(recipe, target, runs[0]))
        began = written = clock()
        for number, run in enumerate(runs, start=1):
            learnt.begin(number - 1)
            while not run.finished:
                record = run.round()
                if observe is not None:
                    observe(number, record)
                last = number == len(runs) and record.step >= record.steps
                if last or clock() - written >= seconds_between:
                    _save(places.work, origin, runs[:number], learnt, exporting=None)
                    written = clock()
        seconds = clock() - began
        tell("Measuring the evidence.")
        outcome = _judge(recipe, density, runs) if joint is None else _judge_joint(recipe, density, runs, joint, learnt)
        learnt.begin(outcome.number - 1)
        flow = _in_user_coordinates(outcome.run.fitted(), density, support_of(step))
        try:
            bundle = None if state is None else places.installed(recipe, state["exporting"], _described(target, joint))
            if bundle is None:
                created = datetime.now(UTC).replace(microsecond=0)
                _save(places.work, origin, runs, learnt, exporting=created.isoformat())
                bundle = _export(recipe, target, flow, outcome, places, created, joint, far_rows=far_rows, tell=tell)
            version = int(bundle.name)
            folder = places.report or places.repository.root / places.name / f"report-{version}"
            write_inference_report(_findings(recipe, target, density, flow, outcome, joint, version, seconds), folder)
            learnt.write(folder)
        except PushforwardError as error:
            said = (
                f"\nThe fit is not lost: its checkpoint is in {places.work}. Give the options of the fit again, with "
                "--resume, to go on from there"
            )
            hint = "; --far-rows resolvable leaves out rows that torch itself cannot answer" * (far_rows == "all")
            raise error.extended(f"{said}{hint}.") from error
    places.clear(version)
    return InferenceResult(
        recipe=recipe,
        bundle=bundle,
        report=folder,
        version=version,
        variational=outcome.variational,
        verdict=outcome.verdict,
        restarts=outcome.restarts,
        flow=flow,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """What the restarts came to: the run that is kept, and its evidence."""

    run: FitRun
    number: int
    evidence: Evidence
    annealed: tuple[float, float]
    restarts: tuple[Evidence, ...]
    verdict: InferenceVerdict
    variational: Variational


def _ignore(_: str) -> None:
    pass


class _Learnt:
    """The parameters of a joint density that are learnt with the flow: each restart has values of its own.

    Args:
        target: whose they are; one without parameters is let alone.
    """

    def __init__(self, target: Target) -> None:
        self._module = target.owner if target.parameters and isinstance(target.owner, nn.Module) else None
        self._first = self._now()
        self._values: dict[int, dict[str, Tensor]] = {}
        self._number = -1

    def _now(self) -> dict[str, Tensor]:
        return {} if self._module is None else copy.deepcopy(self._module.state_dict())

    def begin(self, number: int) -> None:
        """Put the values of a restart into the module, and keep those of the one before."""
        if self._module is None or number == self._number:
            return
        self.keep()
        self._number = number
        self._module.load_state_dict(self._values.get(number, self._first))

    def keep(self) -> None:
        """Keep the values of the restart that is on."""
        if self._module is not None and self._number >= 0:
            self._values[self._number] = self._now()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the values that every restart begins with, and those of each so far."""
        self.keep()
        return {"first": self._first, "values": self._values, "number": self._number}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self._first, self._values, number = state["first"], state["values"], state["number"]
        self._number = -1
        if number >= 0:
            self.begin(number)

    def write(self, folder: Path) -> None:
        """Write the values that are in the module beside a report, to be read by ``torch.load``."""
        if self._module is not None:
            torch.save(self._now(), folder / _LEARNT_FILE)


def _load(recipe: InferenceRecipe, joint: JointRows | None) -> Target:
    if recipe.target.source is None:
        raise DataError("a fit to a density needs a target: MODULE:TARGET or FILE.py:TARGET")
    rows = None if joint is None else joint.train
    return load_target(recipe.target.source, dim=recipe.target.dim, rows=rows)


def _make_runs(recipe: InferenceRecipe, density: UnconstrainedDensity, joint: JointRows | None) -> list[FitRun]:
    seeds = [derived_seed(recipe.seed, f"restart {number}") for number in range(recipe.fit.restarts)]
    rows = None if joint is None else joint.train
    return [FitRun(density, recipe.flow, recipe.fit, seed=seed, rows=rows) for seed in seeds]


def _announce(recipe: InferenceRecipe, target: Target, run: FitRun) -> str:
    kind = "torch" if target.arrays == "torch" else "NumPy"
    gradient = "with a gradient" if target.differentiable else "without a gradient"
    stages = ", ".join(stage.name.replace("_", " ") for stage in run.stages)
    many = f", from {recipe.fit.restarts} seeds" if recipe.fit.restarts > 1 else ""
    return (
        f"Fitting {recipe.flow.architecture} to {target.title} of {target.dim} coordinates ({kind}, {gradient}): "
        f"{stages}{many}."
    )


def _unfinished(work: Path, origin: Origin, *, resume: bool, restart: bool) -> dict[str, Any] | None:
    """The state to go on from, if any."""
    require_one(resume=resume, restart=restart)
    if restart:
        remove_state(work)
        return None
    state = read_state(work, _FORMAT)
    if state is None:
        return None
    if not resume:
        raise DataError(
            "an unfinished fit of this name is there: --resume goes on with it, and --restart throws it away"
        )
    with reading_state():
        began = Origin(**state["origin"])
    origin.check(began)
    return state


def _save(work: Path, origin: Origin, runs: list[FitRun], learnt: _Learnt, *, exporting: str | None) -> None:
    content = {
        "origin": {"recipe": dict(origin.recipe), "data": origin.data},
        "runs": [run.state() for run in runs],
        "learnt": learnt.state(),
        "exporting": exporting,
    }
    write_state(work, content, _FORMAT)


def _judge(recipe: InferenceRecipe, density: UnconstrainedDensity, runs: list[FitRun]) -> _Outcome:
    """Measure every restart, and choose the flow that is kept."""
    found = [
        measure(run.fitted().eval(), density, recipe.fit.draws, derived_generator(run.seed, "evidence")) for run in runs
    ]
    kept = 0
    for number in range(1, len(runs)):
        kept = number if better(found[number], found[kept]) else kept
    annealing = [run.annealed for run in runs if run.annealed is not None]
    annealed = annealed_evidence(annealing)
    missed = find_missed(runs[kept].fitted(), density, annealing, found[kept].log_evidence)
    verdict = judge_fit(found[kept], annealed, missed, found, runs[kept].rise(), density.target.names)
    evidence = found[kept]
    variational = _stated(evidence, annealed, runs, verdict)
    return _Outcome(runs[kept], kept + 1, evidence, annealed, tuple(found), verdict, variational)


def _judge_joint(
    recipe: InferenceRecipe, density: UnconstrainedDensity, runs: list[FitRun], joint: JointRows, learnt: _Learnt
) -> _Outcome:
    """Measure every restart on held-out rows of x, and choose the flow with the greatest ELBO there."""
    measured = []
    for number, run in enumerate(runs):
        learnt.begin(number)
        measured.append(measure_rows(run, joint, recipe.fit.draws, density))
    found = [mean_evidence(each.rows) for each in measured]
    kept = max(range(len(runs)), key=lambda number: found[number].elbo)
    own = measured[kept]
    verdict = judge_joint(own.rows, own.annealed, own.missed, runs[kept].rise())
    annealed = own.annealed_mean(found[kept])
    return _Outcome(
        runs[kept],
        kept + 1,
        found[kept],
        annealed,
        tuple(found),
        verdict,
        _stated(found[kept], annealed, runs, verdict),
    )


def _stated(
    evidence: Evidence, annealed: tuple[float, float], runs: list[FitRun], verdict: InferenceVerdict
) -> Variational:
    """The evidence as the manifest has it."""
    return Variational(
        elbo=_finite(evidence.elbo),
        log_evidence=_finite(evidence.log_evidence),
        log_evidence_se=_finite(evidence.log_evidence_se),
        log_evidence_ais=_finite(annealed[0]),
        log_evidence_ais_se=_finite(annealed[1]),
        ess_share=evidence.ess_share,
        pareto_k=evidence.pareto_k,
        restarts=len(runs),
        verdict=verdict.word,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _in_user_coordinates(inner: Flow, density: UnconstrainedDensity, support: Support | None) -> Flow:
    """The fitted flow with the constraints in front: from the user's coordinates."""
    if density.step is None:
        return inner
    steps: list[Any] = [density.step, *inner.bijections]
    flow = Flow(
        (density.target.dim,),
        steps,
        inner.latent,
        support,
        inner.context_width,
        inner.context_scaling,
        inner.precision,
    )
    return flow.to(inner.dtype).eval()


def _export(
    recipe: InferenceRecipe,
    target: Target,
    flow: Flow,
    outcome: _Outcome,
    places: Places,
    created: datetime,
    joint: JointRows | None,
    *,
    far_rows: Literal["all", "resolvable"],
    tell: Callable[[str], None],
) -> Path:
    """Export the flow, calibrated on draws of its own: nothing else is there that was not fitted to."""
    context = None if joint is None else _repeated(joint.held_out, _HELD_OUT)
    return export_flow(
        flow,
        repository=places.repository,
        name=places.name,
        held_out=_draws(flow, _HELD_OUT, derived_generator(recipe.seed, "held out"), context),
        context=context,
        description=recipe.description,
        features=[Feature(name=name) for name in target.names],
        context_features=() if joint is None else joint.features,
        data=_described(target, joint),
        recipe=recipe.published(),
        seed=recipe.seed,
        created=created,
        far_rows=far_rows,
        variational=outcome.variational,
        progress=tell,
    )


def _described(target: Target, joint: JointRows | None) -> str:
    """What was fitted and how it was calibrated, for the manifest."""
    calibrated = f"calibrated on {_HELD_OUT} draws of the flow"
    if joint is None:
        return f"the density {_public(target.title)}; {calibrated}"
    return f"the joint density {_public(target.title)} and {joint.words}; {calibrated}, at held-out rows of x"


def _public(title: str) -> str:
    """A target's title without a path of this machine."""
    source, _, name = title.rpartition(":")
    return f"{Path(source).name}:{name}" if source else title


def _repeated(rows: Tensor, count: int) -> Tensor:
    """Rows ``[count, C]``: those that are given, again and again."""
    return rows[torch.arange(count) % len(rows)]


def _draws(flow: Flow, rows: int, generator: torch.Generator, context: Tensor | None = None) -> Tensor:
    """Draw x ``[rows, D]`` that is finite and inside the support, in the user's coordinates.

    Args:
        flow: in the user's coordinates.
        rows: how many.
        generator: of the draws.
        context: ``[rows, C]``; None for a flow without.

    Raises:
        DataError: some row has no such draw after many.
    """
    found = torch.full((rows, *flow.event_shape), math.nan, dtype=flow.dtype)
    for _ in range(_MAX_DRAWN):
        z = sample_base(flow.base, rows, flow.width, generator, flow.dtype)
        with torch.no_grad():
            x, _, log_prob = flow.inverse_log_prob(z, context)
        good = torch.isfinite(x).all(dim=1) & torch.isfinite(log_prob)
        inside = flow.in_support(x)
        found = torch.where((good if inside is None else good & inside)[:, None], x, found)
        if bool(torch.isfinite(found).all()):
            return found
    raise DataError("draws of the fitted flow are not finite: the fit has gone astray; try a smaller --learning-rate")


def _findings(
    recipe: InferenceRecipe,
    target: Target,
    density: UnconstrainedDensity,
    flow: Flow,
    outcome: _Outcome,
    joint: JointRows | None,
    version: int,
    seconds: float,
) -> InferenceFindings:
    """All that the report says."""
    run = outcome.run
    annealed = None
    if run.annealed is not None:
        weights = torch.softmax(run.annealed.log_weights, dim=0)
        places = torch.multinomial(
            weights, min(2000, len(weights)), replacement=True, generator=derived_generator(recipe.seed, "report")
        )
        annealed = density.to_user(run.annealed.u[places])[0].numpy()
    return InferenceFindings(
        name=recipe.name or "",
        version=version,
        description=recipe.description,
        target=_public(target.title),
        columns=list(target.names) or [f"z{number}" for number in range(target.dim)],
        samples=_draws(
            flow,
            _HELD_OUT,
            derived_generator(recipe.seed, "report draws"),
            None if joint is None else joint.held_out[:1].expand(_HELD_OUT, -1),
        ).numpy(),
        annealed=annealed,
        history=run.history,
        evidence=outcome.evidence,
        log_evidence_ais=outcome.annealed,
        restarts=outcome.restarts,
        kept=outcome.number,
        verdict=outcome.verdict,
        seconds=seconds,
        recipe=recipe.published(),
        serve=serve_command(recipe),
    )

"""One fit to a density, round by round: annealing from a wide start, then the stages of its objective."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from models.architectures import build_flow
from models.data.split import derived_generator, derived_seed
from models.flows.flow import Flow
from models.flows.precision import TORCH_DTYPES
from models.inference.annealing import Annealed, WideStart, anneal, plan_schedule
from models.inference.buffer import ReplayBuffer
from models.inference.density import UnconstrainedDensity
from models.inference.evidence import Evidence, measure
from models.inference.objectives import annealed_rows, likelihood, replayed, reverse_kl
from models.inference.recipe import InferenceFit
from models.recipe import FlowRecipe
from service.errors import DataError

__all__ = ["Candidate", "FitRun", "RoundRecord", "Stage", "better", "plan_stages"]

MAX_SKIPPED: Final = 20
"""More steps than this in a row without a finite loss or gradient end a fit."""

_ROUND: Final = 25  # steps in a round
_EFFICIENCY: Final = 0.998  # of the weights of one temperature
_PILOT_CHAINS: Final = 1000
_START_ROWS: Final = 512
_EFFECTIVE_ROWS: Final = 400  # annealed rows that a flow starts from have at least so much weight in effect
_BUFFER_TEMPERATURES, _BUFFER_STEPS, _BUFFER_ROWS = 5, 2, 2  # the rows: in batches
_STEPS_PER_ANNEALING: Final = 5
_ACCEPTED: Final = 0.3
_CANDIDATE_DRAWS: Final = 8192
_ROWS_AT_ONCE: Final = 4096
_MARGIN: Final = 0.05  # nats of log Z that a flow must have over another to be preferred, beside its error


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a fit.

    Args:
        name: "annealing", "likelihood", "replay", "tempered" or "reverse_kl".
        steps: how many.
    """

    name: str
    steps: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round, as the curve of the ELBO shows it.

    Args:
        stage: its name.
        step: how many steps of the whole fit are done.
        steps: how many there are.
        elbo: log p - log q in nats: over the rows of a gradient step, or over draws; NaN where it was not measured.
        skipped: steps left out, since their loss or gradient was not finite.
    """

    stage: str
    step: int
    steps: int
    elbo: float
    skipped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A flow that a fit may end with: its weights after a stage.

    Args:
        stage: after which.
        weights: the flow's state.
        evidence: by some thousand draws.
    """

    stage: str
    weights: Mapping[str, Tensor]
    evidence: Evidence


def plan_stages(fit: InferenceFit, *, differentiable: bool, joint: bool) -> list[Stage]:
    """The stages of an objective.

    Args:
        fit: with the objective and its steps.
        differentiable: whether the target has a gradient.
        joint: whether it is a joint density.

    Raises:
        DataError: the objective needs a gradient, and the target has none.
    """
    objective = fit.objective
    if joint:
        objective = "reverse_kl" if objective == "auto" else objective
    if not differentiable and (objective in ("reverse_kl", "tempered") or joint):
        raise DataError(
            f"the objective {objective} follows the gradient of the target, and the target has none: it is of NumPy, "
            "or detached from torch's graph. "
            + ("A joint density must be written in torch" if joint else "Give --objective ais, or auto")
        )
    finder = [Stage("likelihood", max(1, fit.mode_steps // 2)), Stage("replay", max(1, fit.mode_steps // 2))]
    annealing = [] if joint else [Stage("annealing", 1)]
    match objective:
        case "reverse_kl":
            return [*annealing, Stage("reverse_kl", fit.steps)]
        case "tempered":
            return [*annealing, Stage("tempered", fit.steps)]
        case "ais":
            return [*annealing, finder[0], Stage("replay", finder[1].steps + (fit.steps if not differentiable else 0))]
        case _ if differentiable:
            return [*annealing, *finder, Stage("reverse_kl", fit.steps)]
        case _:
            return [*annealing, finder[0], Stage("replay", finder[1].steps + fit.steps)]


class FitRun:
    """One fit, from one seed.

    Args:
        density: p over unconstrained coordinates.
        flow: which flow.
        fit: how.
        seed: of everything random in it.
        rows: ``[K, C]``, the rows of x of a joint density; None for any other.
    """

    def __init__(
        self,
        density: UnconstrainedDensity,
        flow: FlowRecipe,
        fit: InferenceFit,
        *,
        seed: int,
        rows: Tensor | None = None,
    ) -> None:
        self.density, self.recipe, self.fit, self.seed, self.rows = density, flow, fit, seed, rows
        self.dtype = TORCH_DTYPES[fit.precision]
        self.stages = plan_stages(fit, differentiable=density.differentiable, joint=rows is not None)
        self.generator = derived_generator(seed, "inference")
        self.wide = WideStart(density.width, fit.start_scale)
        self.annealed: Annealed | None = None
        self.factor: Tensor | None = None
        self.flow: Flow | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.buffer = ReplayBuffer(fit.buffer_batches * fit.batch_size, density.width, self.dtype)
        self.stage, self.done, self.skipped_in_a_row = 0, 0, 0
        self.history: list[RoundRecord] = []
        self.candidates: list[Candidate] = []

    @property
    def finished(self) -> bool:
        """Whether no round is left."""
        return self.stage >= len(self.stages)

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def fitted(self) -> Flow:
        """The flow of a run that has one.

        Raises:
            ValueError: no round of its stages was made.
        """
        if self.flow is None:
            raise ValueError("the run has no flow yet")
        return self.flow

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the run goes on from it as if nothing had happened."""
        return {
            "stage": self.stage,
            "done": self.done,
            "skipped_in_a_row": self.skipped_in_a_row,
            "history": [asdict(record) for record in self.history],
            "annealed": None if self.annealed is None else [self.annealed.u, self.annealed.log_weights],
            "factor": self.factor,
            "flow": None if self.flow is None else self.flow.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "buffer": self.buffer.state(),
            "generator": self.generator.get_state(),
            "candidates": [
                {"stage": each.stage, "weights": dict(each.weights), "evidence": _pack_evidence(each.evidence)}
                for each in self.candidates
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same fit."""
        self.stage, self.done, self.skipped_in_a_row = state["stage"], state["done"], state["skipped_in_a_row"]
        self.history = [RoundRecord(**record) for record in state["history"]]
        self.annealed = None if state["annealed"] is None else Annealed(*state["annealed"])
        self.factor = state["factor"]
        if state["flow"] is not None:
            self._build()
            self.fitted().load_state_dict(state["flow"])
        self.buffer.restore(state["buffer"])
        if state["optimizer"] is not None:
            self._begin(self.stages[self.stage])
            cast("torch.optim.Optimizer", self.optimizer).load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.candidates = [
            Candidate(each["stage"], each["weights"], _unpack_evidence(each["evidence"]))
            for each in state["candidates"]
        ]

    def rise(self) -> float:
        """How much the ELBO rose from the last tenth but one of the last stage to the last; NaN where it is unknown."""
        last = self.history[-1].stage if self.history else ""
        found = [record.elbo for record in self.history if record.stage == last and math.isfinite(record.elbo)]
        tenth = len(found) // 10
        if tenth < 2:
            return math.nan
        return (sum(found[-tenth:]) - sum(found[-2 * tenth : -tenth])) / tenth

    def round(self) -> RoundRecord:
        """Make the next steps, some of one stage.

        Raises:
            DataError: the fit diverges, or the target fails.
        """
        stage = self.stages[self.stage]
        if stage.name == "annealing":
            self._anneal()
            elbo, skipped, made = math.nan, 0, 1
        else:
            if self.flow is None:
                self._build()
                if self.rows is not None:
                    start = WideStart(self.density.width, 1.0)
                    u = start.sample(_START_ROWS, derived_generator(self.seed, "start"), self.dtype)
                    places = torch.randint(len(self.rows), (len(u),), generator=derived_generator(self.seed, "start x"))
                    self.density.check_start(u, self.rows[places])
            if self.optimizer is None:
                self._begin(stage)
            with torch.random.fork_rng(devices=[]):  # dropout and the user's target draw from the global generator
                torch.manual_seed(derived_seed(self.seed, f"round {len(self.history) + 1}"))
                made = min(_ROUND, stage.steps - self.done)
                elbo, skipped = self._make(stage, made)
        self.done += made
        before = sum(each.steps for each in self.stages[: self.stage])
        self.history.append(RoundRecord(stage.name, before + self.done, self.steps, elbo, skipped))
        if self.done >= stage.steps:
            self._end(stage)
        return self.history[-1]

    def _anneal(self) -> None:
        """Anneal from the wide start to the target, by a schedule of other chains."""
        pilot = derived_generator(self.seed, "pilot")
        start = self.wide.sample(_START_ROWS, derived_generator(self.seed, "start"), self.dtype)
        self.density.check_start(start)
        density = self.density.evaluate
        schedule = plan_schedule(
            self.wide,
            density,
            chains=min(_PILOT_CHAINS, self.fit.chains),
            steps=self.fit.chain_steps,
            efficiency=_EFFICIENCY,
            generator=pilot,
            dtype=self.dtype,
        )
        self.annealed = anneal(
            self.wide,
            density,
            schedule,
            chains=self.fit.chains,
            steps=self.fit.chain_steps,
            generator=self.generator,
            dtype=self.dtype,
        )
        self.factor = schedule.factors[-1]

    def _build(self) -> None:
        """Build the flow: around annealed rows where modes are sought there, else around a standard normal."""
        width = self.density.width
        options = dict(self.recipe.options)
        architecture = self.recipe.architecture
        if width == 1 and "architecture" not in self.recipe.model_fields_set:
            architecture = "neural_spline_autoregressive"  # a coupling needs two columns
        rows = torch.stack([torch.ones(width), -torch.ones(width)])
        whiten = bool(self.recipe.whiten)
        if self.annealed is not None and self.stages[1].name == "likelihood":
            rows = self.annealed.u[self._weighted(self.annealed, _EFFECTIVE_ROWS)]
            whiten = self.recipe.whiten is not False and width > 1
        context = self.rows
        if context is not None:
            rows = rows.repeat(math.ceil(len(context) / 2), 1)[: len(context)]
        self.flow = build_flow(
            architecture,
            {**options, "whiten": whiten},
            rows=rows.to(self.dtype),
            context=context,
            seed=derived_seed(self.seed, "weights"),
            precision=self.fit.precision,
        )

    def _weighted(self, annealed: Annealed, effective: int) -> Tensor:
        """Places of annealed rows, drawn by their weights; these are flattened where few rows hold nearly all."""
        power = 1.0
        weights = torch.softmax(annealed.log_weights, dim=0)
        while power > 1e-3 and float(1.0 / (weights * weights).sum()) < min(effective, 0.5 * len(weights)):
            power *= 0.9
            weights = torch.softmax(power * annealed.log_weights, dim=0)
        generator = derived_generator(self.seed, "annealed rows")
        return torch.multinomial(weights, len(weights), replacement=True, generator=generator)

    def _begin(self, stage: Stage) -> None:
        flow = self.fitted()
        flow.train()
        if stage.name == "replay" and self.annealed is not None and len(self.buffer) == 0:
            with torch.no_grad():
                parts = torch.split(self.annealed.u, _ROWS_AT_ONCE)
                log_q = torch.cat([flow.log_prob(part) for part in parts]).to(torch.float64)
                log_p = torch.cat([self.density.log_prob(part) for part in parts]).to(torch.float64)
            whole = torch.logsumexp(self.annealed.log_weights, dim=0)
            self.buffer.add(self.annealed.u, self.annealed.log_weights - whole + log_p - log_q, log_q)
        parameters = [*flow.parameters(), *self.density.target.parameters]
        self.optimizer = torch.optim.Adam(parameters, lr=self.fit.learning_rate)

    def _make(self, stage: Stage, count: int) -> tuple[float, int]:
        """Make steps of a stage: the mean ELBO over them, and how many were left out."""
        optimizer = self.optimizer
        if optimizer is None:
            raise ValueError("a stage has begun without an optimizer")
        elbos, skipped = [], 0
        for number in range(count):
            at = self.done + number
            for group in optimizer.param_groups:
                group["lr"] = self.fit.learning_rate * 0.5 * (1.0 + math.cos(math.pi * at / stage.steps))
            loss, elbo = self._loss(stage, at)
            elbos.append(elbo)
            optimizer.zero_grad(set_to_none=True)
            value = loss.item()
            norm = math.nan
            if math.isfinite(value):
                loss.backward()  # type: ignore[no-untyped-call]  # torch's Tensor.backward carries no types
                held = [p for group in optimizer.param_groups for p in group["params"]]
                norm = float(nn.utils.clip_grad_norm_(held, self.fit.clip))
            if math.isfinite(norm):
                optimizer.step()
                self.skipped_in_a_row = 0
                continue
            skipped, self.skipped_in_a_row = skipped + 1, self.skipped_in_a_row + 1
            if self.skipped_in_a_row > MAX_SKIPPED:
                raise DataError(
                    f"the fit diverged: at step {at + 1} of the stage {stage.name}, {self.skipped_in_a_row} steps in a "
                    "row had no finite loss or gradient. Try a smaller --learning-rate, or --objective ais, which "
                    "follows no gradient of the target"
                )
        measured = [elbo for elbo in elbos if not math.isnan(elbo)]
        return (sum(measured) / len(measured) if measured else math.nan), skipped

    def _loss(self, stage: Stage, at: int) -> tuple[Tensor, float]:
        flow, rows = self.fitted(), self.fit.batch_size
        match stage.name:
            case "likelihood":
                annealed = self._annealed()
                drawn = self._weighted(annealed, _EFFECTIVE_ROWS)
                places = torch.randint(len(drawn), (rows,), generator=self.generator)
                return likelihood(flow, annealed.u[drawn[places]]), math.nan
            case "replay":
                elbo = self._refill() if at % _STEPS_PER_ANNEALING == 0 else math.nan
                return replayed(flow, self.buffer, rows, self.generator), elbo
            case _:
                given = None
                if self.rows is not None:
                    given = self.rows[torch.randint(len(self.rows), (rows,), generator=self.generator)]
                share = 1.0 if stage.name == "reverse_kl" else _tempered_share(at / stage.steps)
                bound = reverse_kl(
                    flow,
                    self.density,
                    rows,
                    self.generator,
                    given=given,
                    start=self.wide if given is None else WideStart(self.density.width, 1.0),
                    share=share,
                )
                return bound.loss, bound.elbo if share >= 1.0 else math.nan

    def _annealed(self) -> Annealed:
        if self.annealed is None:
            raise ValueError("the stage follows annealing, and there was none")
        return self.annealed

    def _refill(self) -> float:
        """Put new annealed rows into the buffer, and give the ELBO of the flow that they came from."""
        if self.factor is None:
            raise ValueError("the stage follows annealing, and there was none")
        flow = self.fitted()
        flow.eval()
        u, log_weights, log_q, accepted, elbo = annealed_rows(
            flow,
            self.density,
            _BUFFER_ROWS * self.fit.batch_size,
            self.generator,
            temperatures=_BUFFER_TEMPERATURES,
            steps=_BUFFER_STEPS,
            factor=self.factor,
        )
        flow.train()
        self.factor = self.factor * math.exp(0.3 * (accepted - _ACCEPTED))
        self.buffer.add(u, log_weights, log_q)
        return elbo

    def _end(self, stage: Stage) -> None:
        """End a stage, and keep its flow as one that the fit may end with."""
        self.stage, self.done, self.optimizer = self.stage + 1, 0, None
        if self.rows is not None or stage.name not in ("replay", "reverse_kl", "tempered"):
            return
        flow = self.fitted().eval()
        found = measure(flow, self.density, _CANDIDATE_DRAWS, derived_generator(self.seed, f"after {stage.name}"))
        self.candidates.append(Candidate(stage.name, copy.deepcopy(flow.state_dict()), found))
        if self.finished:
            best = self.candidates[0]
            for other in self.candidates[1:]:
                best = other if better(other.evidence, best.evidence) else best
            self.candidates = [best]
            flow.load_state_dict(dict(best.weights))


def _pack_evidence(evidence: Evidence) -> dict[str, Any]:
    """What a checkpoint keeps of a measurement."""
    return {
        **{f.name: getattr(evidence, f.name) for f in fields(Evidence)},
        "log_weights": torch.from_numpy(evidence.log_weights),
    }


def _unpack_evidence(content: Mapping[str, Any]) -> Evidence:
    return Evidence(**{**content, "log_weights": content["log_weights"].numpy()})


def better(one: Evidence, other: Evidence) -> bool:
    """Whether a fit is better than another: it has found more of the evidence, or else covers it more evenly."""
    gain = one.log_evidence - other.log_evidence
    error = math.hypot(one.log_evidence_se, other.log_evidence_se)
    if not abs(gain) <= _MARGIN + 3.0 * error:  # infinite errors and values too
        return gain > 0
    return one.ess_share > other.ess_share


def _tempered_share(progress: float) -> float:
    """B of a tempered target: from 0.05 to 1 in the first half of the steps."""
    return min(1.0, 0.05 + 1.9 * progress)

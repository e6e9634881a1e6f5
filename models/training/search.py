"""The search for options that a recipe leaves open: whitening, noise, width and dropout, chosen by validation rows.

A candidate is the ordinary fit of its options, broken off after a few epochs. The one that is left goes on from there:
its weights are those of a fit that was given these options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from models.architectures import ARCHITECTURES, COMMON_OPTIONS, default_options
from models.recipe import Recipe
from models.training.fit import Run, reproducible
from service.errors import DataError

__all__ = ["LEAST_EPOCHS", "Choice", "Trial", "search"]

LEAST_EPOCHS: Final = 60
"""A fit of fewer epochs is over before a search pays."""
FEW_ROWS: Final = 2000
"""Of fewer rows than this small networks learn as much, and overfit less."""
_RUNG_EPOCHS, _RUNG_STEPS, _LEAST_RUNG = 12, 1500, 2  # candidates are compared after so many epochs, or steps
COUPLED: Final = "neural_spline_coupling"
"""What a table is fitted with where nothing is said."""
AUTOREGRESSIVE: Final = "neural_spline_autoregressive"
"""What is tried beside it where rows are few."""
_WIDEST_AUTOREGRESSIVE: Final = 32  # columns; a sample takes one pass for each
_LEAD: Final = 0.5
"""So far ahead an autoregressive flow must be, in nats: its samples cost one pass for each column."""
_LOST_SHARE: Final = 0.5
"""The epochs of the candidates that lose, at most, as a share of the epochs of a fit."""
# What is tried against overfitting: whether with the most of the noises, and options of the flow.
_FEW: Final[Sequence[tuple[bool, Mapping[str, Any]]]] = (
    (True, {"dropout": 0.2}),
    (True, {"dropout": 0.1, "hidden": [32, 32]}),
)
_AUTOREGRESSIVE_DROPOUT: Final = 0.1
_MANY: Final[Sequence[tuple[bool, Mapping[str, Any]]]] = ((True, {"dropout": 0.1}), (False, {"hidden": [64, 64]}))

Start = Callable[[Recipe], Run]


@dataclass(frozen=True, slots=True)
class Choice:
    """Values for some of the options that a recipe leaves open.

    Args:
        flow: keys of the recipe's flow -> values.
        noise: the noise, in standard deviations; None where it is not chosen.
    """

    flow: Mapping[str, Any] = field(default_factory=dict)
    noise: float | None = None

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> Choice:
        """The choice that has these `overrides`."""
        return cls(overrides.get("flow", {}), overrides.get("fit", {}).get("noise"))

    @property
    def overrides(self) -> dict[str, Any]:
        """The values, nested as in a recipe."""
        sections = {"flow": dict(self.flow), "fit": {} if self.noise is None else {"noise": self.noise}}
        return {section: values for section, values in sections.items() if values}

    @property
    def words(self) -> str:
        """The values in words, such as "no whitening, noise 0.02, hidden 128 x 128, dropout 0"."""
        numbers = dict(self.flow)
        said = [numbers.pop("architecture")] if "architecture" in numbers else []
        if "whiten" in numbers:
            said.append("whitening" if numbers.pop("whiten") else "no whitening")
        if self.noise is not None:
            said.append(f"noise {self.noise:.2g}")
        for key, value in numbers.items():
            said.append(f"{key} " + (" x ".join(map(str, value)) if isinstance(value, list) else f"{value:g}"))
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Trial:
    """An epoch of a search, for who watches it.

    Args:
        done: how many epochs are done, of all candidates.
        planned: how many there will be.
        words: the values that are tried.
        validation: their best mean log-likelihood of the validation rows so far, in nats.
    """

    done: int
    planned: int
    words: str
    validation: float


def search(
    recipe: Recipe,
    start: Start,
    *,
    rows: int,
    width: int,
    noises: Sequence[float],
    watch: Callable[[Trial], None] | None = None,
) -> tuple[Choice, Run] | None:
    """Choose what a recipe leaves open, by short fits of which one goes on.

    First whether the flow whitens; then how much noise and dropout there is, and how wide its networks are, or, of few
    rows, whether it is autoregressive.

    Args:
        recipe: what it states is left as it is.
        start: gives the fit of a recipe before its first epoch.
        rows: the number of training rows.
        width: the number of their columns.
        noises: the noises to choose from, the likeliest first; empty where no column takes any.
        watch: called after each epoch.

    Returns:
        The choice, and its fit after a few epochs; None where nothing is open, or the recipe's epochs are too
        few for a search.

    Raises:
        DataError: where every candidate of a step diverges.
    """
    table = _Search(recipe, start, rows=rows, width=width, noises=noises, watch=watch)
    if not table.worthwhile or recipe.fit.epochs < LEAST_EPOCHS:
        return None
    with reproducible(recipe.fit.threads):
        found = table.choose()
    return found.choice, found.run


@dataclass(slots=True, eq=False)
class _Candidate:
    """A choice, and its fit as far as it has come."""

    choice: Choice
    run: Run
    failure: DataError | None = None

    @property
    def score(self) -> float:
        """The best validation so far, less what slow samples must make up for; minus infinity where it has diverged."""
        if self.failure:
            return -math.inf
        return self.run.best_validation - (_LEAD if self.choice.flow.get("architecture") == AUTOREGRESSIVE else 0.0)


class _Search:
    """The state of a search: what is open, and how many epochs are done."""

    def __init__(
        self,
        recipe: Recipe,
        start: Start,
        *,
        rows: int,
        width: int,
        noises: Sequence[float],
        watch: Callable[[Trial], None] | None,
    ) -> None:
        self.recipe, self.start, self.watch = recipe, start, watch
        self.few = rows < FEW_ROWS
        self.whitenings = (True, False) if recipe.flow.whiten is None else ()
        self.noises = noises if recipe.fit.noise is None else ()
        self.autoregressive = self.autoregressive_is_open(width)
        self.base = self.plainest(recipe.flow.architecture)
        whitened = [replace(self.base, flow={**self.base.flow, "whiten": whiten}) for whiten in self.whitenings]
        self.firsts = whitened or [self.base]
        steps = math.ceil(rows / recipe.fit.rows_in_a_step(rows))
        enough = max(_LEAST_RUNG, min(_RUNG_EPOCHS, math.ceil(_RUNG_STEPS / steps)))
        # Whitening shows sooner than what keeps a fit from overfitting: it is given half as many epochs.
        halves = len(self.firsts) - 1 + 2 * len(self.regularized(self.base))
        half = int(_LOST_SHARE * recipe.fit.least_epochs / halves) if halves else enough
        self.rungs = min(half, enough), min(2 * half, enough)
        lost = self.rungs[0] * (len(self.firsts) - 1) + self.rungs[1] * len(self.regularized(self.base))
        self.done, self.planned = 0, self.rungs[1] + lost

    def autoregressive_is_open(self, width: int) -> bool:
        """Whether the recipe leaves the family open, and the rows are few and narrow enough for another."""
        stated = self.recipe.flow
        return (
            self.few
            and 1 < width <= _WIDEST_AUTOREGRESSIVE
            and "architecture" not in stated.model_fields_set
            and stated.architecture == COUPLED
            and stated.options.keys() - set(COMMON_OPTIONS) <= default_options(ARCHITECTURES[AUTOREGRESSIVE]).keys()
        )

    def plainest(self, architecture: str) -> Choice:
        """The choice that the others differ from: the usual values of what is open."""
        known, stated = default_options(ARCHITECTURES[architecture]), self.recipe.flow.options
        flow: dict[str, Any] = {"architecture": architecture} if self.autoregressive else {}
        flow |= {key: _plain(known[key]) for key in self.open(architecture)}
        if self.few and "hidden" in flow:
            flow["hidden"] = [64, 64]
            if "transforms" in known and "transforms" not in stated:
                flow["transforms"] = min(4, known["transforms"])
        return Choice(flow, self.noises[0] if self.noises else None)

    def open(self, architecture: str) -> list[str]:
        """What the recipe leaves open of an architecture's options, of those that the search sets."""
        known, stated = default_options(ARCHITECTURES[architecture]), self.recipe.flow.options
        return [key for key in ("hidden", "dropout") if key in known and key not in stated]

    @property
    def worthwhile(self) -> bool:
        """Whether there is anything to choose from, and a fit long enough to choose by."""
        return self.rungs[0] > 0 and (self.planned > self.rungs[1] or self.base != Choice())

    def choose(self) -> _Candidate:
        """Choose the whitening, and then what is done against overfitting."""
        found = self.best([self.begin(choice) for choice in self.firsts], self.rungs[0])
        return self.best([found, *map(self.begin, self.regularized(found.choice))], self.rungs[1])

    def regularized(self, choice: Choice) -> list[Choice]:
        """The same choice with more noise, more dropout, narrower networks or autoregressive, as far as it is open."""
        stronger: list[Choice] = []
        tried = _FEW if self.few else _MANY
        for noise, values in tried[:1] if self.autoregressive else tried:
            flow = {**choice.flow, **{key: value for key, value in values.items() if key in choice.flow}}
            other = Choice(flow, self.noises[-1] if self.noises and noise else choice.noise)
            if other not in (choice, *stronger):
                stronger.append(other)
        if self.autoregressive:
            flow = {**choice.flow, **self.plainest(AUTOREGRESSIVE).flow}
            if "dropout" in flow:
                flow["dropout"] = _AUTOREGRESSIVE_DROPOUT
            stronger.append(replace(choice, flow=flow))
        return stronger

    def begin(self, choice: Choice) -> _Candidate:
        return _Candidate(choice, self.start(self.recipe.override(choice.overrides)))

    def best(self, candidates: Sequence[_Candidate], epochs: int) -> _Candidate:
        """Fit each candidate for so many epochs in all, and give the one of the best validation.

        Raises:
            DataError: where all diverge.
        """
        for candidate in candidates:
            while not candidate.failure and len(candidate.run.history) < epochs:
                self.step(candidate)
        winner = max(candidates, key=lambda candidate: candidate.score)  # the first of equals
        if winner.failure:
            raise winner.failure
        return winner

    def step(self, candidate: _Candidate) -> None:
        """Make one epoch of a candidate's fit."""
        try:
            candidate.run.epoch()
        except DataError as failure:  # it diverged, which another choice may not
            candidate.failure = failure
        self.done += 1
        if self.watch is not None:
            self.watch(Trial(self.done, self.planned, candidate.choice.words, candidate.run.best_validation))


def _plain(value: Any) -> Any:  # noqa: ANN401  any value of TOML
    """A default as a recipe would hold it: a list in place of a tuple."""
    return list(value) if isinstance(value, tuple) else value

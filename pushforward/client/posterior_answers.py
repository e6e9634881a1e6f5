"""The answers of the client about targets and posteriors: importance weights, and summaries of draws.

They are records as those of `pushforward.client.answers`. Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import FloatArray, read_numbers, to_float64
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.payload import (
    ArrayAnswer,
    Payload,
    read_identity,
    read_integer,
    read_member,
    read_optional_member,
)

__all__ = ["Importance", "Posterior", "Weights"]

Float64Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weights(ArrayAnswer):
    """Self-normalized importance weights of rows, and the measures of their quality.

    Args:
        model: the flow that answered.
        version: its version.
        weights: float64 ``[N]``; their sum is 1.
        log_weights: float64 ``[N]``; -inf for a weight of zero.
        ess: the effective sample size, from 1 to N.
        ess_share: ess / N.
        pareto_k: the shape of the weights' upper tail; None where it cannot be told.
        pareto_k_threshold: what it should stay below, with so many rows.
        log_evidence: log of the mean of exp(log_target - log_prob), in nats: the target's normalizing constant.
        log_evidence_se: its standard error.
        verdict: a sentence on their use, which begins with good, more draws, bad, useless or unknown.
    """

    _main: ClassVar[str] = "weights"

    weights: Float64Array
    log_weights: Float64Array
    ess: float
    ess_share: float
    pareto_k: float | None
    pareto_k_threshold: float
    log_evidence: float
    log_evidence_se: float
    verdict: str

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /weights``."""
        return cls(**read_identity(payload), **_read_weights(payload))


@dataclass(frozen=True, slots=True, eq=False)
class Importance(Weights):
    """Draws of a flow with their weights for a target.

    Args:
        x: ``[N, *event]``, the draws.
        log_prob: ``[N]``, the flow's density at each, in nats.
        log_target: float64 ``[N]``, the target's log-density at each.
        seed: of the draws.
    """

    x: FloatArray
    log_prob: FloatArray
    log_target: Float64Array
    seed: int

    def mean(self, values: npt.ArrayLike) -> Float64Array:
        """The weighted mean over the draws: the estimate of the target's mean of these values.

        Args:
            values: ``[N, ...]``, one for each draw; ``self.x`` for the mean of x itself.

        Raises:
            InvalidInput: a value is masked, null or no number.
        """
        found: Float64Array = np.tensordot(self.weights, to_float64(values, "values"), axes=1)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Posterior(ArrayAnswer):
    """Summaries of n draws of each of K contexts, without the draws.

    Args:
        model: the flow that answered.
        version: its version.
        mean: ``[K, *event]``; K is 1 for one context and for none.
        std: ``[K, *event]``, the standard deviations.
        quantiles: ``[K, Q, *event]``; None where no level was asked for.
        hpd: ``[K, H, 2, *event]``, the ends of the shortest interval that holds each share of the draws; None where
            none was asked for.
        correlation: ``[K, D, D]``; None where it was not asked for.
        acceptance: ``[K]``, of a flow with a prior: the share of each context's draws that lay inside it; else None.
        seed: of the draws.
        offset: the number of the first draw in the seed's sequence.
        n: how many draws of each context.
    """

    _main: ClassVar[str] = "mean"

    mean: FloatArray
    std: FloatArray
    quantiles: FloatArray | None
    hpd: FloatArray | None
    correlation: FloatArray | None
    seed: int
    offset: int
    n: int
    acceptance: FloatArray | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /posterior``."""
        return cls(
            **read_identity(payload),
            mean=read_member(payload, "mean"),
            std=read_member(payload, "std"),
            quantiles=read_optional_member(payload, "quantiles"),
            hpd=read_optional_member(payload, "hpd"),
            correlation=read_optional_member(payload, "correlation"),
            seed=read_integer(payload, "seed"),
            offset=read_integer(payload, "offset"),
            n=read_integer(payload, "n"),
            acceptance=read_optional_member(payload, "acceptance"),
        )


def _read_weights(payload: Payload) -> dict[str, Any]:
    """The members of `Weights` beside model and version.

    Raises:
        UnexpectedAnswer: one is missing or of another type.
    """
    known = ("ess", "ess_share", "log_evidence", "log_evidence_se")
    numbers: dict[str, Any] = {name: payload.get(name) for name in (*known, "pareto_k")}
    threshold = payload.get("pareto_k_threshold")
    verdict = payload.get("verdict")
    if (
        not all(isinstance(numbers[name], (int, float)) for name in known)
        or not isinstance(verdict, str)
        or not isinstance(numbers["pareto_k"], (int, float, type(None)))
    ):
        raise UnexpectedAnswer("the answer does not say what the weights are worth")
    return {
        **numbers,
        "weights": read_numbers(payload.get("weights"), "weights"),
        "log_weights": read_numbers(payload.get("log_weights"), "log_weights", null=-math.inf),
        "pareto_k_threshold": float(threshold) if isinstance(threshold, (int, float)) else -math.inf,
        "verdict": verdict,
    }

"""What the client gives back of a look into a flow: edits, traces and importance weights.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, read_numbers
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.payload import Payload, Record, array_of, in_support_of, log_prob_of, who_of

__all__ = ["Edited", "Importance", "Trace", "TracedStep", "Weights"]

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Edited(Record):
    """Rows moved along a direction of latent space, strength by strength.

    Args:
        model: the flow that answered.
        version: its version.
        x: float32 ``[S, N, *event]``.
        z: float32 ``[S, N, D]``, where each was moved to.
        log_prob: float32 ``[S, N]``, the density at x in nats; -inf outside the support.
        in_support: bool ``[S, N]``, false where the density is zero.
    """

    _main: ClassVar[str] = "x"

    x: Float32Array
    z: Float32Array
    log_prob: Float32Array
    in_support: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /edit``."""
        log_prob = log_prob_of(payload)
        return cls(
            **who_of(payload),
            x=array_of(payload, "x"),
            z=array_of(payload, "z"),
            log_prob=log_prob,
            in_support=in_support_of(payload, log_prob),
        )


class TracedStep(NamedTuple):
    """One step of a chain.

    Args:
        name: of the step; ``"x"`` for what goes in.
        value: float32 ``[N, ...]``, the event after it.
        log_abs_det_jacobian: float32 ``[N]``, its own, in nats.
    """

    name: str
    value: Float32Array
    log_abs_det_jacobian: Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class Trace(Record):
    """The chain made visible, from x to z.

    Args:
        model: the flow that answered.
        version: its version.
        steps: x itself, then the event after each step, z last; their log-determinants sum to the whole.
        log_prob: float32 ``[N]``, the density at x in nats; -inf outside the support.
    """

    _main: ClassVar[str] = "log_prob"

    steps: tuple[TracedStep, ...]
    log_prob: Float32Array

    @property
    def log_abs_det_jacobian(self) -> Float32Array:
        """log|det df/dx| ``[N]`` in nats: the sum over the steps."""
        total: Float32Array = np.sum([step.log_abs_det_jacobian for step in self.steps], axis=0, dtype=np.float32)
        return total

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /trace``."""
        steps = payload.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) and "name" in step for step in steps):
            raise UnexpectedAnswer("the answer has no list of steps")
        return cls(
            **who_of(payload),
            steps=tuple(
                TracedStep(str(step["name"]), array_of(step, "value"), array_of(step, "log_abs_det_jacobian"))
                for step in steps
            ),
            log_prob=log_prob_of(payload),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Weights(Record):
    """Self-normalized importance weights of rows, and what they are worth.

    Args:
        model: the flow that answered.
        version: its version.
        weights: float64 ``[N]``; their sum is 1.
        log_weights: float64 ``[N]``; -inf for a weight of zero.
        ess: the effective sample size, from 1 to N.
        ess_share: ess / N.
        pareto_k: the shape of the weights' upper tail; None where it cannot be told.
        pareto_k_threshold: what it should stay below, with so many rows.
        verdict: what to make of it, a sentence that begins with good, more draws, bad, useless or unknown.
    """

    _main: ClassVar[str] = "weights"

    weights: Float64Array
    log_weights: Float64Array
    ess: float
    ess_share: float
    pareto_k: float | None
    pareto_k_threshold: float
    verdict: str

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /weights``."""
        return cls(**who_of(payload), **_weights(payload))


@dataclass(frozen=True, slots=True, eq=False)
class Importance(Weights):
    """Draws of a flow with their weights for a target.

    Args:
        x: float32 ``[N, *event]``, the draws.
        log_prob: float32 ``[N]``, the flow's density at each, in nats.
        log_target: float64 ``[N]``, what the target said of each.
        seed: of the draws.
    """

    x: Float32Array
    log_prob: Float32Array
    log_target: Float64Array
    seed: int

    def mean(self, values: npt.ArrayLike) -> Float64Array:
        """The weighted mean over the draws: what the target's mean of these values is estimated to be.

        Args:
            values: ``[N, ...]``, one for each draw; ``self.x`` for the mean of x itself.
        """
        found: Float64Array = np.tensordot(self.weights, np.asarray(values, np.float64), axes=1)
        return found


def _weights(payload: Payload) -> dict[str, Any]:
    numbers: dict[str, Any] = {name: payload.get(name) for name in ("ess", "ess_share", "pareto_k")}
    threshold = payload.get("pareto_k_threshold")
    verdict = payload.get("verdict")
    known = all(isinstance(numbers[name], (int, float)) for name in ("ess", "ess_share"))
    if not known or not isinstance(verdict, str) or not isinstance(numbers["pareto_k"], (int, float, type(None))):
        raise UnexpectedAnswer("the answer does not say what the weights are worth")
    return {
        **numbers,
        "weights": read_numbers(payload.get("weights"), "weights"),
        "log_weights": read_numbers(payload.get("log_weights"), "log_weights", null=-math.inf),
        "pareto_k_threshold": float(threshold) if isinstance(threshold, (int, float)) else -math.inf,
        "verdict": verdict,
    }

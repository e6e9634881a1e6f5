"""What the client gives back: frozen records of NumPy arrays, read from the server's JSON.

``np.asarray(answer)`` is the answer's main array: x of a sample, log_prob of scores, z of an encoding. Imports
neither httpx nor the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, read_numbers
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.latent_answers import Edited, Importance, Trace, TracedStep, Weights
from pushforward.client.payload import (
    Payload,
    Record,
    array_of,
    in_support_of,
    integer_of,
    log_prob_of,
    optional_of,
    who_of,
)

__all__ = [
    "Decoded",
    "Edited",
    "Encoded",
    "Importance",
    "ModelInfo",
    "Path",
    "Samples",
    "Scores",
    "Trace",
    "TracedStep",
    "Weights",
]


@dataclass(frozen=True, slots=True, eq=False)
class Scores(Record):
    """Log-densities of rows, with what else was asked for.

    Args:
        model: the flow that answered.
        version: its version.
        log_prob: float32 ``[N]``, in nats; -inf for a row outside the support.
        in_support: bool ``[N]``, false where the density is zero.
        z: float32 ``[N, D]``, the latent of each row; None where it was not asked for, as each below.
        log_abs_det_jacobian: float32 ``[N]``, log|det df/dx| in nats.
        base_log_prob: float32 ``[N]``, log p_Z(z) in nats.
        quantile: float32 ``[N]``, the share of held-out rows with a lower log_prob, in [0, 1].
        typicality: float32 ``[N]``, the distance of log_prob from its held-out mean, in held-out standard deviations;
            inf outside the support.
        bits_per_dim: float32 ``[N]``, -(log_prob / D + log(step)) / log 2, where step is the width of a bin of
            quantized data in the units of x, so that the bits are those of the bin's probability, step^D times the
            density; 1 for data that is not quantized. Inf outside the support.
        round_trip_error: float32 ``[N]``, the greatest abs(g(f(x)) - x) over the coordinates.
        anomaly: bool ``[N]``, true where at most the alarm rate that was given, a share, of the held-out rows have a
            log_prob as low.
    """

    _main: ClassVar[str] = "log_prob"

    log_prob: Float32Array
    in_support: npt.NDArray[np.bool_]
    z: Float32Array | None = None
    log_abs_det_jacobian: Float32Array | None = None
    base_log_prob: Float32Array | None = None
    quantile: Float32Array | None = None
    typicality: Float32Array | None = None
    bits_per_dim: Float32Array | None = None
    round_trip_error: Float32Array | None = None
    anomaly: npt.NDArray[np.bool_] | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /logprob``."""
        log_prob = log_prob_of(payload)
        return cls(
            **who_of(payload),
            log_prob=log_prob,
            in_support=in_support_of(payload, log_prob),
            z=optional_of(payload, "z"),
            log_abs_det_jacobian=optional_of(payload, "log_abs_det_jacobian"),
            base_log_prob=optional_of(payload, "base_log_prob", null=-math.inf),
            quantile=optional_of(payload, "quantile"),
            typicality=optional_of(payload, "typicality", null=math.inf),
            bits_per_dim=optional_of(payload, "bits_per_dim", null=math.inf),
            round_trip_error=optional_of(payload, "round_trip_error"),
            anomaly=np.asarray(payload["anomaly"], np.bool_) if "anomaly" in payload else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Samples(Record):
    """Rows drawn from a flow, and their log-densities.

    Args:
        model: the flow that answered.
        version: its version.
        x: float32 ``[n, *event]``; ``[K, n, *event]`` for K contexts.
        log_prob: float32 ``[n]`` or ``[K, n]``, the flow's own density at x, in nats.
        seed: the seed; where none was given, the one that the server drew. It gives the same rows again.
        offset: the number of the first row in the seed's sequence.
        round_trip_error: float32 like log_prob, the greatest abs(f(g(z)) - z) over the coordinates; None where it was
            not asked for.
    """

    _main: ClassVar[str] = "x"

    x: Float32Array
    log_prob: Float32Array
    seed: int
    offset: int
    round_trip_error: Float32Array | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``GET /sample`` or ``POST /sample``."""
        return cls(
            **who_of(payload),
            x=array_of(payload, "x"),
            log_prob=log_prob_of(payload),
            seed=integer_of(payload, "seed"),
            offset=integer_of(payload, "offset"),
            round_trip_error=optional_of(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Path(Record):
    """A walk through latent space that passes through every point given; or B of them, with one axis more before T.

    Args:
        model: the flow that answered.
        version: its version.
        t: float64 ``[T]``, how far along the walk each row is: point k lies at t = k. ``[B, T]`` for several walks that
            are spaced by arc length.
        z: float32 ``[T, D]``, the latent of each row.
        x: float32 ``[T, *event]``, its data.
        log_prob: float32 ``[T]``, in nats.
        round_trip_error: float32 ``[T]``, the greatest abs(f(g(z)) - z) over the coordinates.
    """

    _main: ClassVar[str] = "x"

    t: npt.NDArray[np.float64]
    z: Float32Array
    x: Float32Array
    log_prob: Float32Array
    round_trip_error: Float32Array

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /interpolate``."""
        return cls(
            **who_of(payload),
            t=read_numbers(payload.get("t"), "t"),
            z=array_of(payload, "z"),
            x=array_of(payload, "x"),
            log_prob=log_prob_of(payload),
            round_trip_error=array_of(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Encoded(Record):
    """Latents of rows: z = f(x).

    Args:
        model: the flow that answered.
        version: its version.
        z: float32 ``[N, D]``.
        log_abs_det_jacobian: float32 ``[N]``, log|det df/dx| in nats.
        log_prob: float32 ``[N]``, the density at x in nats; -inf outside the support.
        round_trip_error: float32 ``[N]``, the greatest abs(g(z) - x) over the coordinates; None where not asked for.
    """

    _main: ClassVar[str] = "z"

    z: Float32Array
    log_abs_det_jacobian: Float32Array
    log_prob: Float32Array
    round_trip_error: Float32Array | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /encode``."""
        return cls(
            **who_of(payload),
            z=array_of(payload, "z"),
            log_abs_det_jacobian=array_of(payload, "log_abs_det_jacobian"),
            log_prob=log_prob_of(payload),
            round_trip_error=optional_of(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decoded(Record):
    """Data of latents: x = g(z).

    Args:
        model: the flow that answered.
        version: its version.
        x: float32 ``[N, *event]``.
        log_abs_det_jacobian: float32 ``[N]``, log|det dg/dz| in nats.
        log_prob: float32 ``[N]``, the density at x in nats.
        round_trip_error: float32 ``[N]``, the greatest abs(f(x) - z) over the coordinates; None where not asked for.
    """

    _main: ClassVar[str] = "x"

    x: Float32Array
    log_abs_det_jacobian: Float32Array
    log_prob: Float32Array
    round_trip_error: Float32Array | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /decode``."""
        return cls(
            **who_of(payload),
            x=array_of(payload, "x"),
            log_abs_det_jacobian=array_of(payload, "log_abs_det_jacobian"),
            log_prob=log_prob_of(payload),
            round_trip_error=optional_of(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ModelInfo:
    """One version of a flow, as the server describes it.

    Args:
        name: the flow's name.
        version: the version described.
        versions: every version that the server has, ascending.
        state: ``"loading"``, ``"ready"`` or ``"failed"``.
        default: whether this flow answers where none is named.
        manifest: the bundle's flow.json as JSON gave it, from `Client.model`; None from `Client.models`, which does
            without, and where the server could not read it.
        payload: all that the server says.

    Raises:
        UnexpectedAnswer: from `event_shape`, `features`, `context_width` and `context_features`, where the server could
            not read the bundle, or has not yet.
    """

    name: str
    version: int
    versions: tuple[int, ...]
    state: str
    default: bool
    manifest: Payload | None
    payload: Payload

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one row of x."""
        return tuple(self._said("event_shape"))

    @property
    def context_width(self) -> int:
        """The number of columns of context; 0 for a flow without."""
        return int(self._said("context_width"))

    @property
    def features(self) -> tuple[str, ...]:
        """The columns' names; empty where they have none."""
        return tuple(feature["name"] for feature in self._said("features"))

    @property
    def context_features(self) -> tuple[str, ...]:
        """The names of the context's columns; empty where they have none."""
        return tuple(feature["name"] for feature in self._said("context_features"))

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of its directions, for `Client.edit`."""
        return tuple(self._said("directions"))

    @property
    def trace(self) -> tuple[str, ...]:
        """The steps of its chain; empty where the server cannot show them, and `Client.trace` is refused."""
        return tuple(self._said("trace"))

    def _said(self, name: str) -> Any:  # noqa: ANN401  a value of JSON
        if name not in self.payload:
            raise UnexpectedAnswer(
                f"the server does not say the {name} of {self.name!r}, whose state is {self.state!r}"
            )
        return self.payload[name]

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read an entry of ``GET /models``, or the answer of ``GET /models/{name}``."""
        try:
            return cls(
                payload["name"],
                payload["version"],
                tuple(payload["versions"]),
                payload["state"],
                payload["default"],
                payload.get("manifest"),
                payload,
            )
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer("the answer does not describe a flow") from error

"""The answers of the client: frozen records of NumPy arrays, read from the server's JSON.

``np.asarray(answer)`` is the answer's main array: x of a sample, log_prob of scores, z of an encoding. Arrays are
float32 where nothing else is said, and float64 where the flow is one of float64. Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import FloatArray, read_numbers
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.payload import (
    ArrayAnswer,
    Payload,
    read_dtype,
    read_identity,
    read_in_support,
    read_integer,
    read_log_prob,
    read_member,
    read_optional_member,
)

__all__ = [
    "Decoded",
    "Edited",
    "Encoded",
    "ModelInfo",
    "Path",
    "RepositoryVersion",
    "Samples",
    "Scores",
    "Trace",
    "TracedStep",
]

Float64Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RepositoryVersion:
    """One version in a server's repository.

    Args:
        name: of the flow.
        version: of it.
        state: ``"loading"``, ``"ready"``, ``"failed"``, ``"quarantined"``, ``"unloaded"`` or
            ``"draining"``.
        aliases: the names of this version.
        digest: SHA-256 of its flow.json; empty where the server does not know it.
        error: why it is not served; None where it is.
    """

    name: str
    version: int
    state: str
    aliases: tuple[str, ...]
    digest: str
    error: str | None

    @classmethod
    def read_all(cls, payload: Payload) -> list[Self]:
        """Read the answer to ``GET /repository``.

        Raises:
            UnexpectedAnswer: it is another server's.
        """
        try:
            return [
                cls(
                    flow["name"],
                    each["version"],
                    each["state"],
                    tuple(each["aliases"]),
                    each["digest"],
                    None if each["error"] is None else f"{each['error']['code']}: {each['error']['detail']}",
                )
                for flow in payload["flows"]
                for each in flow["versions"]
            ]
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer("the answer is no list of a repository's versions") from error


@dataclass(frozen=True, slots=True, eq=False)
class Scores(ArrayAnswer):
    """Log-densities of rows, with what else was asked for.

    Args:
        model: the flow that answered.
        version: its version.
        log_prob: ``[N]``, in nats; -inf for a row outside the support.
        in_support: bool ``[N]``, false where the density is zero.
        z: ``[N, D]``, the latent of each row; None where it was not asked for, as each below.
        log_abs_det_jacobian: ``[N]``, log|det df/dx| in nats.
        base_log_prob: ``[N]``, log p_Z(z) in nats.
        quantile: ``[N]``, the share of held-out rows with a lower log_prob, in [0, 1].
        typicality: ``[N]``, the distance of log_prob from its held-out mean, in held-out standard deviations;
            inf outside the support.
        bits_per_dim: ``[N]``, -(log_prob / D + log(step)) / log 2, where step is the width of a bin of
            quantized data in the units of x, so that the bits are those of the bin's probability, step^D times the
            density; 1 for data that is not quantized. Inf outside the support.
        context_quantile: ``[N]``, the share of held-out contexts that lie at least as far out as the row's; 0 for one
            unlike any of them.
        round_trip_error: ``[N]``, the greatest abs(g(f(x)) - x) over the coordinates.
        acceptance: ``[N]``, of a corrected log_prob: the mass inside the prior under each row's context.
        acceptance_se: ``[N]``, its standard error.
        anomaly: bool ``[N]``, true where at most the alarm rate that was given, a share, of the held-out rows have a
            log_prob as low.
    """

    _main: ClassVar[str] = "log_prob"

    log_prob: FloatArray
    in_support: npt.NDArray[np.bool_]
    z: FloatArray | None = None
    log_abs_det_jacobian: FloatArray | None = None
    base_log_prob: FloatArray | None = None
    quantile: FloatArray | None = None
    typicality: FloatArray | None = None
    bits_per_dim: FloatArray | None = None
    context_quantile: FloatArray | None = None
    round_trip_error: FloatArray | None = None
    anomaly: npt.NDArray[np.bool_] | None = None
    acceptance: FloatArray | None = None
    acceptance_se: FloatArray | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /logprob``."""
        log_prob = read_log_prob(payload)
        return cls(
            **read_identity(payload),
            log_prob=log_prob,
            in_support=read_in_support(payload, log_prob),
            z=read_optional_member(payload, "z"),
            log_abs_det_jacobian=read_optional_member(payload, "log_abs_det_jacobian"),
            base_log_prob=read_optional_member(payload, "base_log_prob", null=-math.inf),
            quantile=read_optional_member(payload, "quantile"),
            typicality=read_optional_member(payload, "typicality", null=math.inf),
            bits_per_dim=read_optional_member(payload, "bits_per_dim", null=math.inf),
            context_quantile=read_optional_member(payload, "context_quantile"),
            round_trip_error=read_optional_member(payload, "round_trip_error"),
            anomaly=np.asarray(payload["anomaly"], np.bool_) if "anomaly" in payload else None,
            acceptance=read_optional_member(payload, "acceptance"),
            acceptance_se=read_optional_member(payload, "acceptance_se"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Samples(ArrayAnswer):
    """Rows drawn from a flow, and their log-densities.

    Args:
        model: the flow that answered.
        version: its version.
        x: ``[n, *event]``; ``[K, n, *event]`` for K contexts.
        log_prob: ``[n]`` or ``[K, n]``, the flow's own density at x, in nats.
        seed: the seed; where none was given, the one that the server drew. It gives the same rows again.
        offset: the number of the first row in the seed's sequence.
        round_trip_error: float32 like log_prob, the greatest abs(f(g(z)) - z) over the coordinates; None where it was
            not asked for.
        acceptance: of a flow with a prior, the share of the draws that lay inside it, in the first of the requests that
            the sample took; else None.
    """

    _main: ClassVar[str] = "x"

    x: FloatArray
    log_prob: FloatArray
    seed: int
    offset: int
    round_trip_error: FloatArray | None = None
    acceptance: float | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``GET /sample`` or ``POST /sample``."""
        return cls(
            **read_identity(payload),
            x=read_member(payload, "x"),
            log_prob=read_log_prob(payload),
            seed=read_integer(payload, "seed"),
            offset=read_integer(payload, "offset"),
            round_trip_error=read_optional_member(payload, "round_trip_error"),
            acceptance=payload.get("acceptance"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Path(ArrayAnswer):
    """A walk through latent space that passes through every point given. B walks have one axis more, before T.

    Args:
        model: the flow that answered.
        version: its version.
        t: float64 ``[T]``, the place of each row along the walk: point k lies at t = k. ``[B, T]`` for several walks
            that are spaced by arc length.
        z: ``[T, D]``, the latent of each row.
        x: ``[T, *event]``, its data.
        log_prob: ``[T]``, in nats.
        round_trip_error: ``[T]``, the greatest abs(f(g(z)) - z) over the coordinates.
    """

    _main: ClassVar[str] = "x"

    t: Float64Array
    z: FloatArray
    x: FloatArray
    log_prob: FloatArray
    round_trip_error: FloatArray

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /interpolate``."""
        return cls(
            **read_identity(payload),
            t=read_numbers(payload.get("t"), "t"),
            z=read_member(payload, "z"),
            x=read_member(payload, "x"),
            log_prob=read_log_prob(payload),
            round_trip_error=read_member(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Encoded(ArrayAnswer):
    """Latents of rows: z = f(x).

    Args:
        model: the flow that answered.
        version: its version.
        z: ``[N, D]``.
        log_abs_det_jacobian: ``[N]``, log|det df/dx| in nats.
        log_prob: ``[N]``, the density at x in nats; -inf outside the support.
        round_trip_error: ``[N]``, the greatest abs(g(z) - x) over the coordinates; None where not asked for.
    """

    _main: ClassVar[str] = "z"

    z: FloatArray
    log_abs_det_jacobian: FloatArray
    log_prob: FloatArray
    round_trip_error: FloatArray | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /encode``."""
        return cls(
            **read_identity(payload),
            z=read_member(payload, "z"),
            log_abs_det_jacobian=read_member(payload, "log_abs_det_jacobian"),
            log_prob=read_log_prob(payload),
            round_trip_error=read_optional_member(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Edited(ArrayAnswer):
    """Rows moved along a direction of latent space, strength by strength.

    Args:
        model: the flow that answered.
        version: its version.
        x: ``[S, N, *event]``.
        z: ``[S, N, D]``, where each was moved to.
        log_prob: ``[S, N]``, the density at x in nats; -inf outside the support.
        in_support: bool ``[S, N]``, false where the density is zero.
    """

    _main: ClassVar[str] = "x"

    x: FloatArray
    z: FloatArray
    log_prob: FloatArray
    in_support: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /edit``."""
        log_prob = read_log_prob(payload)
        return cls(
            **read_identity(payload),
            x=read_member(payload, "x"),
            z=read_member(payload, "z"),
            log_prob=log_prob,
            in_support=read_in_support(payload, log_prob),
        )


class TracedStep(NamedTuple):
    """One step of a chain.

    Args:
        name: of the step; ``"x"`` for what goes in.
        value: ``[N, ...]``, the event after it.
        log_abs_det_jacobian: ``[N]``, its own, in nats.
    """

    name: str
    value: FloatArray
    log_abs_det_jacobian: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Trace(ArrayAnswer):
    """The event after each step of a flow's chain, from x to z.

    Args:
        model: the flow that answered.
        version: its version.
        steps: x itself, then the event after each step, z last; their log-determinants sum to the whole.
        log_prob: ``[N]``, the density at x in nats; -inf outside the support.
    """

    _main: ClassVar[str] = "log_prob"

    steps: tuple[TracedStep, ...]
    log_prob: FloatArray

    @property
    def log_abs_det_jacobian(self) -> FloatArray:
        """log|det df/dx| ``[N]`` in nats: the sum over the steps."""
        total: FloatArray = np.sum(
            [step.log_abs_det_jacobian for step in self.steps], axis=0, dtype=self.log_prob.dtype
        )
        return total

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /trace``."""
        dtype = read_dtype(payload)
        steps = payload.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) and "name" in step for step in steps):
            raise UnexpectedAnswer("the answer has no list of steps")
        return cls(
            **read_identity(payload),
            steps=tuple(
                TracedStep(
                    str(step["name"]),
                    read_member(step, "value", dtype),
                    read_member(step, "log_abs_det_jacobian", dtype),
                )
                for step in steps
            ),
            log_prob=read_log_prob(payload),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decoded(ArrayAnswer):
    """Data of latents: x = g(z).

    Args:
        model: the flow that answered.
        version: its version.
        x: ``[N, *event]``.
        log_abs_det_jacobian: ``[N]``, log|det dg/dz| in nats.
        log_prob: ``[N]``, the density at x in nats.
        round_trip_error: ``[N]``, the greatest abs(f(x) - z) over the coordinates; None where not asked for.
    """

    _main: ClassVar[str] = "x"

    x: FloatArray
    log_abs_det_jacobian: FloatArray
    log_prob: FloatArray
    round_trip_error: FloatArray | None = None

    @classmethod
    def read(cls, payload: Payload) -> Self:
        """Read the answer of ``POST /decode``."""
        return cls(
            **read_identity(payload),
            x=read_member(payload, "x"),
            log_abs_det_jacobian=read_member(payload, "log_abs_det_jacobian"),
            log_prob=read_log_prob(payload),
            round_trip_error=read_optional_member(payload, "round_trip_error"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ModelInfo:
    """One version of a flow, as the server describes it.

    Args:
        name: the flow's name.
        version: the version described.
        versions: every version that the server has, ascending.
        state: ``"loading"``, ``"ready"``, ``"failed"`` or ``"quarantined"``.
        default: whether this flow answers where none is named.
        manifest: the bundle's flow.json as JSON gave it, from `Client.model`; None from `Client.models`, which does
            without, and where the server could not read it.
        payload: the server's whole description.

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
        return tuple(self._require("event_shape"))

    @property
    def context_width(self) -> int:
        """The number of columns of context; 0 for a flow without."""
        return int(self._require("context_width"))

    @property
    def precision(self) -> Literal["float32", "float64"]:
        """The precision of the flow's rows and answers; a server that does not say it has flows of float32 only."""
        return "float64" if self.payload.get("precision") == "float64" else "float32"

    @property
    def features(self) -> tuple[str, ...]:
        """The columns' names; empty where they have none."""
        return tuple(feature["name"] for feature in self._require("features"))

    @property
    def context_features(self) -> tuple[str, ...]:
        """The names of the context's columns; empty where they have none."""
        return tuple(feature["name"] for feature in self._require("context_features"))

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of its directions, for `Client.edit`."""
        return tuple(self._require("directions"))

    @property
    def trace(self) -> tuple[str, ...]:
        """The steps of its chain; empty where the server cannot show them, and `Client.trace` is refused."""
        return tuple(self._require("trace"))

    def _require(self, name: str) -> Any:  # noqa: ANN401  a value of JSON
        if name not in self.payload:
            raise UnexpectedAnswer(
                f"the server does not say the {name} of {self.name!r}, whose state is {self.state!r}"
            )
        return self.payload[name]

    @classmethod
    def read_all(cls, payload: Payload) -> list[Self]:
        """Read the answer of ``GET /models``.

        Raises:
            UnexpectedAnswer: there is no list in it.
        """
        flows = payload.get("models")
        if not isinstance(flows, list):
            raise UnexpectedAnswer("the answer has no list of models")
        return [cls.read(flow) for flow in flows]

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

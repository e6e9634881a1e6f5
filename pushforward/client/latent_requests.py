"""The verbs that look into a flow, without I/O: as `pushforward.client.requests`, of which this is the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pushforward.client.answers import Edited, Importance, Trace, Weights
from pushforward.client.arrays import Float32Array, to_float32
from pushforward.client.delivery import Steps
from pushforward.client.errors import InvalidInput
from pushforward.client.requests import Noise, Requests, post

__all__ = ["Direction", "LatentRequests", "LogTarget", "said_direction"]

Direction = str | npt.ArrayLike
"""A direction by name, one in latent space ``[D]``, or two rows of data ``[2, *event]``, from one to the other."""

LogTarget = Callable[[Float32Array], npt.ArrayLike]
"""Rows x ``[N, *event]`` -> the log-density of a target at each, ``[N]``, up to a constant; -inf where it is zero."""


@dataclass(frozen=True, slots=True)
class LatentRequests(Requests):
    """The verbs of the native API, with those that look into a flow."""

    def trace(
        self,
        x: npt.ArrayLike | None,
        z: npt.ArrayLike | None,
        n: int | None,
        seed: int | None,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
    ) -> Steps[Trace]:
        """``POST /trace``, in one request."""
        body = _given(n, seed, x=x, z=z, context=context)
        name, version = self._flow(model, version)
        return Trace.read((yield from self.ask(post(name, version, "trace", body))))

    def edit(
        self,
        x: npt.ArrayLike,
        direction: Direction,
        strength: Sequence[float],
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
    ) -> Steps[Edited]:
        """``POST /edit``, in as many requests as the edited rows need."""
        try:
            strengths = np.atleast_1d(np.asarray(strength, np.float64))
        except (ValueError, TypeError) as error:
            raise InvalidInput("strength must be numbers") from error
        if strengths.ndim != 1 or not np.isfinite(strengths).all():
            raise InvalidInput("strength must be finite numbers in a row")
        more = {"direction": said_direction(direction), "strength": strengths.tolist()}
        return (
            yield from self._by_rows(
                "edit", Edited.read, "x", x, context, model, version, more, times=len(strengths), axis=1
            )
        )

    def weights(
        self,
        log_target: npt.ArrayLike,
        x: npt.ArrayLike | None,
        n: int | None,
        seed: int | None,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
    ) -> Steps[Weights]:
        """``POST /weights``, in one request: the weights are normalized together."""
        body = {"log_target": _log_target(log_target).tolist(), **_given(n, seed, x=x, context=context)}
        name, version = self._flow(model, version)
        return Weights.read((yield from self.ask(post(name, version, "weights", body))))

    def importance(
        self,
        log_target: LogTarget,
        n: int,
        seed: int | None,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
    ) -> Steps[Importance]:
        """``GET /sample``, the target at what came, then ``POST /weights``."""
        drawn = yield from self.sample(n, seed, 0, Noise(), context, model, version)
        found = _log_target(log_target(drawn.x))
        if found.shape != (len(drawn.x),):
            shape, rows = list(found.shape), len(drawn.x)
            raise InvalidInput(f"log_target must give a number for each of the {rows} rows, and gave the shape {shape}")
        weighed = yield from self.weights(found, None, n, drawn.seed, context, drawn.model, drawn.version)
        said: Mapping[str, Any] = {field.name: getattr(weighed, field.name) for field in fields(weighed)}
        return Importance(**said, x=drawn.x, log_prob=drawn.log_prob, log_target=found, seed=drawn.seed)


def _given(n: int | None, seed: int | None, **arrays: npt.ArrayLike | None) -> dict[str, Any]:
    """The arguments of a body that are given: numbers as they are, arrays as float32.

    Raises:
        InvalidInput: an array holds NaN, text or nothing.
    """
    body: dict[str, Any] = {name: value for name, value in (("n", n), ("seed", seed)) if value is not None}
    return body | {name: to_float32(rows, name) for name, rows in arrays.items() if rows is not None}


def said_direction(direction: Direction) -> Any:  # noqa: ANN401  as JSON has it
    """A direction as ``POST /edit`` takes it.

    Raises:
        InvalidInput: it is of another shape, or a number is not finite.
    """
    if isinstance(direction, str):
        return direction
    values = to_float32(direction, "direction")
    if values.ndim == 1:
        return values.tolist()
    if values.ndim == 0 or len(values) != 2:
        raise InvalidInput(f"direction must be one vector or two rows, and has the shape {list(values.shape)}")
    return {"from": values[0].tolist(), "to": values[1].tolist()}


def _log_target(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Hold a target against what can be sent: -inf goes as null.

    Raises:
        InvalidInput: a number is NaN or plus infinity; its row is named.
    """
    try:
        numbers = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidInput("log_target must be numbers") from error
    bad = np.flatnonzero(~(numbers < np.inf))
    if bad.size:
        raise InvalidInput(f"log_target, row {bad[0]}: {numbers.ravel()[bad[0]]} is neither finite nor minus infinity")
    return numbers

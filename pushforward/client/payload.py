"""What every answer is read with: a record that stands for one array, and the readers of the server's JSON.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, read_array
from pushforward.client.errors import UnexpectedAnswer

__all__ = [
    "AnswerT",
    "Payload",
    "Record",
    "array_of",
    "in_support_of",
    "integer_of",
    "join",
    "log_prob_of",
    "optional_of",
    "who_of",
]

Payload = Mapping[str, Any]
"""An answer's JSON object."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An answer that stands for one array where NumPy wants one."""

    _main: ClassVar[str]

    model: str
    version: int

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        main: Float32Array = getattr(self, self._main)
        return np.array(main, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        main: Float32Array = getattr(self, self._main)
        return len(main)


AnswerT = TypeVar("AnswerT", bound=Record)


def join(parts: Sequence[AnswerT], axis: int = 0) -> AnswerT:
    """Put the answers to consecutive pieces of one input together.

    Args:
        parts: at least one, in order.
        axis: where the rows are.

    Returns:
        One answer: arrays joined along `axis`, everything else from the first part.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts], axis=axis)
        for field in dataclasses.fields(first)
        if isinstance(getattr(first, field.name), np.ndarray)
    }
    return dataclasses.replace(first, **arrays)


def who_of(payload: Payload) -> dict[str, Any]:
    """Which flow gave an answer: model and version."""
    model = payload.get("model")
    if not isinstance(model, str):
        raise UnexpectedAnswer("the answer does not say which model gave it")
    return {"model": model, "version": integer_of(payload, "version")}


def integer_of(payload: Payload, name: str) -> int:
    """A whole number of an answer."""
    value = payload.get(name)
    if not isinstance(value, int):
        raise UnexpectedAnswer(f"the answer has no integer {name!r}")
    return value


def array_of(payload: Payload, name: str) -> Float32Array:
    """An array of an answer."""
    return read_array(payload.get(name), name)


def optional_of(payload: Payload, name: str, null: float | None = None) -> Float32Array | None:
    """An array of an answer that may be without; None where it is. `null` as in `read_array`."""
    return read_array(payload[name], name, null=null) if name in payload else None


def log_prob_of(payload: Payload) -> Float32Array:
    """An answer's log_prob, -inf where the density is zero."""
    return read_array(payload.get("log_prob"), "log_prob", null=-math.inf)


def in_support_of(payload: Payload, log_prob: Float32Array) -> npt.NDArray[np.bool_]:
    """The server's own word where it gives one: it does whenever one row is outside."""
    said = payload.get("in_support")
    return ~np.isneginf(log_prob) if said is None else np.asarray(said, np.bool_)

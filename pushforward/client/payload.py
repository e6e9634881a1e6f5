"""The JSON object of an answer: the readers of its members, and the record that stands for one array.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, read_array
from pushforward.client.errors import UnexpectedAnswer

__all__ = [
    "ArrayAnswer",
    "ArrayAnswerT",
    "FlowAnswerT",
    "Payload",
    "join_answers",
    "read_identity",
    "read_in_support",
    "read_integer",
    "read_log_prob",
    "read_member",
    "read_optional_member",
]

Payload = Mapping[str, Any]
"""An answer's JSON object."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayAnswer:
    """An answer that stands for one array where NumPy wants one.

    Args:
        model: the flow that answered.
        version: its version.
    """

    _main: ClassVar[str]

    model: str
    version: int

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        main: Float32Array = getattr(self, self._main)
        return np.array(main, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        main: Float32Array = getattr(self, self._main)
        return len(main)


class FlowAnswer(Protocol):
    """An answer that says which version of which flow gave it."""

    @property
    def model(self) -> str:
        """The flow's name."""
        ...

    @property
    def version(self) -> int:
        """Its version."""
        ...


FlowAnswerT = TypeVar("FlowAnswerT", bound=FlowAnswer)
ArrayAnswerT = TypeVar("ArrayAnswerT", bound=ArrayAnswer)


def join_answers(parts: Sequence[ArrayAnswerT], axis: int = 0) -> ArrayAnswerT:
    """Join the answers to consecutive pieces of one input.

    Args:
        parts: at least one, in order.
        axis: of the rows.

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


def read_identity(payload: Payload) -> dict[str, Any]:
    """The flow that gave an answer: model and version.

    Raises:
        UnexpectedAnswer: the answer does not say.
    """
    model = payload.get("model")
    if not isinstance(model, str):
        raise UnexpectedAnswer("the answer does not say which model gave it")
    return {"model": model, "version": read_integer(payload, "version")}


def read_integer(payload: Payload, name: str) -> int:
    """An integer of an answer.

    Raises:
        UnexpectedAnswer: the answer has none of this name.
    """
    value = payload.get(name)
    if not isinstance(value, int):
        raise UnexpectedAnswer(f"the answer has no integer {name!r}")
    return value


def read_member(payload: Payload, name: str) -> Float32Array:
    """An array of an answer.

    Raises:
        UnexpectedAnswer: the answer has no array of this name.
    """
    return read_array(payload.get(name), name)


def read_optional_member(payload: Payload, name: str, null: float | None = None) -> Float32Array | None:
    """An array that an answer may be without.

    Args:
        payload: of the answer.
        name: of the array.
        null: what a JSON null stands for; None where there may be none.

    Returns:
        None where the answer is without.

    Raises:
        UnexpectedAnswer: what has this name is no array.
    """
    return read_array(payload[name], name, null=null) if name in payload else None


def read_log_prob(payload: Payload) -> Float32Array:
    """An answer's log_prob, -inf where the density is zero.

    Raises:
        UnexpectedAnswer: the answer has none.
    """
    return read_array(payload.get("log_prob"), "log_prob", null=-math.inf)


def read_in_support(payload: Payload, log_prob: Float32Array) -> npt.NDArray[np.bool_]:
    """Whether each row is inside the support; the answer says so itself where one row is outside."""
    member = payload.get("in_support")
    return ~np.isneginf(log_prob) if member is None else np.asarray(member, np.bool_)

"""The JSON object of an answer: the readers of its members, and the record that stands for one array.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import FLOAT32, FLOAT64, FloatArray, FloatType, read_array
from pushforward.client.errors import UnexpectedAnswer

__all__ = [
    "ArrayAnswer",
    "ArrayAnswerT",
    "FlowAnswerT",
    "Payload",
    "join_answers",
    "read_dtype",
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
        precision: ``"float32"`` or ``"float64"``: of the flow, and so of the answer's numbers.
    """

    _main: ClassVar[str]

    model: str
    version: int
    precision: str = field(default="float32", kw_only=True)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        main: FloatArray = getattr(self, self._main)
        return np.array(main, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        main: FloatArray = getattr(self, self._main)
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
        member.name: np.concatenate([getattr(part, member.name) for part in parts], axis=axis)
        for member in dataclasses.fields(first)
        if isinstance(getattr(first, member.name), np.ndarray)
    }
    return dataclasses.replace(first, **arrays)


def read_dtype(payload: Payload) -> FloatType:
    """The dtype of an answer's numbers: an answer in float64 says so."""
    return FLOAT64 if payload.get("precision") == "float64" else FLOAT32


def read_identity(payload: Payload) -> dict[str, Any]:
    """The flow that gave an answer: model, version and precision.

    Raises:
        UnexpectedAnswer: the answer does not say.
    """
    model = payload.get("model")
    if not isinstance(model, str):
        raise UnexpectedAnswer("the answer does not say which model gave it")
    return {"model": model, "version": read_integer(payload, "version"), "precision": read_dtype(payload).name}


def read_integer(payload: Payload, name: str) -> int:
    """An integer of an answer.

    Raises:
        UnexpectedAnswer: the answer has none of this name.
    """
    value = payload.get(name)
    if not isinstance(value, int):
        raise UnexpectedAnswer(f"the answer has no integer {name!r}")
    return value


def read_member(payload: Payload, name: str, dtype: FloatType | None = None) -> FloatArray:
    """An array of an answer.

    Args:
        payload: of the answer, or of a part of it.
        name: of the array.
        dtype: of the answer; None where the payload says it.

    Raises:
        UnexpectedAnswer: the answer has no array of this name.
    """
    return read_array(payload.get(name), name, dtype=dtype or read_dtype(payload))


def read_optional_member(payload: Payload, name: str, null: float | None = None) -> FloatArray | None:
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
    return read_array(payload[name], name, null=null, dtype=read_dtype(payload)) if name in payload else None


def read_log_prob(payload: Payload) -> FloatArray:
    """An answer's log_prob, -inf where the density is zero.

    Raises:
        UnexpectedAnswer: the answer has none.
    """
    return read_array(payload.get("log_prob"), "log_prob", null=-math.inf, dtype=read_dtype(payload))


def read_in_support(payload: Payload, log_prob: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether each row is inside the support; the answer says so itself where one row is outside."""
    member = payload.get("in_support")
    return ~np.isneginf(log_prob) if member is None else np.asarray(member, np.bool_)

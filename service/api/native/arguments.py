"""What all native verbs share: the flow that is meant, its rows within the work budget, the place of an error."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

import numpy as np

from service.api.codecs import wire
from service.api.codecs.codec import Codec, Columns
from service.api.native.arrays import context_rows, event_rows
from service.api.native.fields import Request
from service.engine.registry import Registry
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, PushforwardError, Reason, VersionNotFound
from service.exchange import Exchange, Reply
from service.guard import check_work
from service.plan import Float32, Plan

__all__ = [
    "Asking",
    "Place",
    "Verb",
    "context_names",
    "located",
    "named",
    "optional_context",
    "path_version",
    "relocated",
    "require_room",
]

T = TypeVar("T")
Place = Literal["body", "query"]
Verb = Callable[[Exchange], Plan[Reply]]

_WORTH_A_LOOK: Final = 1 << 12
"""A body of fewer bytes is read as soon as it is refused."""


class Asking:
    """What a set of verbs needs of its server.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values: rows * width * steps.
    """

    def __init__(self, registry: Registry, max_work: int) -> None:
        self._registry = registry
        self._max_work = max_work

    def _rows(
        self,
        flow: ServedFlow,
        argument: str,
        value: Any,  # noqa: ANN401  as a codec gave it
        context: Any,  # noqa: ANN401
        place: Place,
        steps: tuple[str, int] = ("steps", 1),
        space: Literal["x", "z"] | None = None,
        besides: Sequence[str] = (),
    ) -> tuple[Float32, Float32 | None]:
        """The rows of the main argument and their context, within the work budget.

        Args:
            flow: whose.
            argument: the name of the main argument.
            value: of it.
            context: theirs.
            place: where the other arguments stand.
            steps: how often each row is run, and the argument that says so.
            space: of the rows, where the argument does not tell.
            besides: columns of a table that belong to another argument.
        """
        loc = ("body", argument)
        of_data = (space or argument) == "x"
        if isinstance(value, Columns):
            conditions = context_names(flow, value)
            if context is None and value.has(conditions):
                context = value.rows(conditions, ("body", "context"))
                place = "body"
            value = value.rows(flow.features if of_data else _latents(flow), loc, besides=(*conditions, *besides))
        blamed = loc if steps[1] == 1 or steps[0] == argument else (place, steps[0])
        if isinstance(value, np.ndarray):  # as large as it may become, before it does
            check_work(value.size // flow.width, flow.width, steps[1], self._max_work, blamed)
        rows = event_rows(value, flow.event_shape if of_data else (flow.width,), loc)
        check_work(len(rows), flow.width, steps[1], self._max_work, blamed)
        return rows, _context(flow, context, place)

    def _admit(self, exchange: Exchange, direction: Literal["forward", "inverse"]) -> None:
        """Refuse what would not be answered in time before its body is read, which is most of the work of a refusal.

        Raises:
            QueueFull: from the lane of the flow that the path names, or of the default one, unless the arguments may
                name another.
        """
        body = exchange.body
        if len(body) <= _WORTH_A_LOOK or any(name == "model" for name, _ in exchange.query):
            return
        # Numbers have no m, and a single byte is found a dozen times sooner than a word: 3 ms of the loop for 7 MB.
        if wire.holds_all(exchange) and b"m" in body and b'"model"' in body:
            return
        flow = self._registry.find(exchange.name, path_version(exchange.version))
        lane = flow.forward if direction == "forward" else flow.inverse
        lane.admit(exchange.deadline)

    def _find(self, exchange: Exchange, asked: Request, place: Place) -> ServedFlow:
        """The flow that the path names, or else the arguments; where both do, they must agree."""
        name = _agreed("model", exchange.name, asked.model, place)
        version = _agreed("version", path_version(exchange.version), asked.version, place)
        return self._registry.find(name, version)


def path_version(text: str | None) -> int | None:
    """The version that a path names.

    Raises:
        VersionNotFound: it is no positive integer, so that there is none such.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and text[0] != "0"):
        raise VersionNotFound(f"a version is a positive integer, and {text[:64]!r} is none")
    return int(text)


def _agreed(argument: str, in_path: T | None, given: T | None, place: Place) -> T | None:
    if in_path is not None and given is not None and in_path != given:
        detail = f"{argument} is {given!r} in the {place}, and {in_path!r} in the path"
        raise InvalidArgument(detail, (Reason((place, argument), detail),))
    return given if in_path is None else in_path


def optional_context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401  as JSON gave it
    """Rows of context as a codec gave them, ``[C]`` or ``[N, C]``; None where there are none."""
    if value is None:
        return None
    return context_rows(value, flow.manifest.context_width, (place, "context"))


def _context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401
    context = optional_context(flow, value, place)
    return None if context is None else np.atleast_2d(context)


def named(flow: ServedFlow) -> dict[str, Any]:
    """How an answer begins: which flow gave it."""
    return {"model": flow.manifest.name, "version": flow.manifest.version}


def _latents(flow: ServedFlow) -> Sequence[str]:
    return _numbered("z", flow.width)


def context_names(flow: ServedFlow, table: Columns) -> Sequence[str]:
    """What a table calls the context's columns: their own names, or else context0, context1 and so on."""
    return flow.conditions if table.has(flow.conditions) else _numbered("context", flow.manifest.context_width)


@functools.lru_cache(maxsize=64)
def _numbered(name: str, count: int) -> Sequence[str]:
    return tuple(f"{name}{at}" for at in range(count))


def located(plan: Plan[T], argument: str, place: Place) -> Plan[T]:
    """A flow's verb, whose errors name an argument, with the place of that argument put before it.

    The main argument always stands in the body, `place` is that of the others.
    """
    try:
        return (yield from plan)
    except PushforwardError as error:
        if not error.errors:
            raise
        raise relocated(error, argument, place) from error


def relocated(error: PushforwardError, argument: str, place: Place) -> PushforwardError:
    """An error whose reasons name arguments, with the place of each put before it, as `located` has it."""
    reasons = tuple(
        dataclasses.replace(reason, loc=("body" if reason.loc[:1] == (argument,) else place, *reason.loc))
        for reason in error.errors
    )
    return type(error)(error.detail, reasons)


def require_room(codec: Codec, main: str, place: Place, more: str | None) -> None:
    """Refuse what an answer of one array has no room for.

    Args:
        codec: of the answer.
        main: the array.
        place: where the arguments stood.
        more: the argument that asks for more than that; None where none does.

    Raises:
        InvalidArgument: the codec's type carries one array, and more is asked for.
    """
    if codec.single and more is not None:
        detail = f"{codec.media_type} has room for {main} alone; accept another type"
        raise InvalidArgument(detail, (Reason((place, more), detail),))

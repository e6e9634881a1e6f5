"""The server as its verbs see it: the flows that it serves, and the work that it takes on for one request."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np

from service.api.codecs import wire
from service.api.codecs.codec import Columns
from service.api.native.arrays import context_rows, event_rows
from service.api.native.fields import VerbRequest
from service.api.native.places import Place
from service.engine.registry import Registry
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, Reason, VersionNotFound
from service.exchange import Exchange
from service.guard import check_work
from service.plan import Float32

__all__ = ["Backend", "context_columns", "path_version", "read_context"]

T = TypeVar("T")

_WORTH_A_LOOK: Final = 1 << 12
"""A body of fewer bytes is read as soon as it is refused."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The flows and the budgets of a server: the first argument of every verb.

    Args:
        registry: the flows that are served.
        max_work: the work budget of a request, in values: rows * width * steps.
        max_stream_work: the same for a sample that is streamed, and never in memory whole.
    """

    registry: Registry
    max_work: int
    max_stream_work: int

    def find_flow(self, exchange: Exchange, asked: VerbRequest, place: Place) -> ServedFlow:
        """The flow that the path names, or else the arguments; where both do, they must agree.

        Args:
            exchange: with its path.
            asked: the arguments.
            place: where they stand.

        Raises:
            InvalidArgument: path and arguments name different flows or versions.
            FlowNotFound, VersionNotFound, NotReady: from `service.engine.registry.Registry.find`.
        """
        name = _agreed("model", exchange.name, asked.model, place)
        version = _agreed("version", path_version(exchange.version), asked.version, place)
        return self.registry.find(name, version)

    def admit(self, exchange: Exchange, direction: Literal["forward", "inverse"]) -> None:
        """Refuse what would not be answered in time before its body is read, which is most of the work of a refusal.

        Args:
            exchange: with its body, and with the path that names the flow.
            direction: the lane that the verb runs in first.

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
        flow = self.registry.find(exchange.name, path_version(exchange.version))
        lane = flow.forward if direction == "forward" else flow.inverse
        lane.admit(exchange.deadline)

    def read_rows(
        self,
        flow: ServedFlow,
        argument: str,
        value: Any,  # noqa: ANN401  as a codec gave it
        context: Any,  # noqa: ANN401
        place: Place,
        *,
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

        Returns:
            float32 ``[N, *event]`` or ``[N, D]``, and ``[N, C]``, ``[1, C]`` or None.

        Raises:
            OverWorkBudget: they are too many.
            MalformedBody, InvalidArgument, WrongShape, NotFinite: from `service.api.native.arrays`.
        """
        loc = ("body", argument)
        of_data = (space or argument) == "x"
        if isinstance(value, Columns):
            conditions = context_columns(flow, value)
            if context is None and value.has(conditions):
                context = value.rows(conditions, ("body", "context"))
                place = "body"
            value = value.rows(flow.features if of_data else _latents(flow), loc, besides=(*conditions, *besides))
        blamed = loc if steps[1] == 1 or steps[0] == argument else (place, steps[0])
        if isinstance(value, np.ndarray):  # as large as it may become, before it does
            check_work(value.size // flow.width, flow.width, steps[1], self.max_work, blamed)
        rows = event_rows(value, flow.event_shape if of_data else (flow.width,), loc)
        check_work(len(rows), flow.width, steps[1], self.max_work, blamed)
        found = read_context(flow, context, place)
        return rows, None if found is None else np.atleast_2d(found)


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


def read_context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401  as a codec gave it
    """The context of a call.

    Args:
        flow: whose.
        value: ``[C]`` or ``[N, C]``; None where there is none.
        place: where it stands.

    Returns:
        float32 of the same number of axes.

    Raises:
        WrongShape, MalformedBody, InvalidArgument, NotFinite: from `service.api.native.arrays.context_rows`.
    """
    if value is None:
        return None
    return context_rows(value, flow.manifest.context_width, (place, "context"))


def context_columns(flow: ServedFlow, table: Columns) -> Sequence[str]:
    """The names of the context's columns in a table: their own, or else context0, context1 and so on."""
    return flow.conditions if table.has(flow.conditions) else _numbered("context", flow.manifest.context_width)


def _latents(flow: ServedFlow) -> Sequence[str]:
    return _numbered("z", flow.width)


@functools.lru_cache(maxsize=64)
def _numbered(name: str, count: int) -> Sequence[str]:
    return tuple(f"{name}{at}" for at in range(count))

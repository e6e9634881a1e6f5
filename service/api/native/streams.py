"""Samples too large to lie in memory whole: drawn, run and written some thousands of rows at a time.

Row i of a seed and a context is one value whatever is drawn with it. The pieces are, bit for bit, the rows
of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from service.api.codecs.codec import Form, StreamCodec, answer_fields
from service.engine.sampling.noise import ContextNoise, Method
from service.engine.verbs.flow import Samples, ServedFlow
from service.exchange import Reply
from service.plan import Finished, Floats, Plan, advance

__all__ = ["STREAM_VALUES", "Draw", "stream_sample"]

T = TypeVar("T")

STREAM_VALUES: Final = 1 << 16
"""A sample of more values is streamed, in pieces of about so many."""


class Piece(NamedTuple):
    """Rows of a sample that are written together.

    Args:
        context: ``[C]``; None for a flow without.
        start: the first of them, counted from the sample's first.
        rows: how many.
    """

    context: Floats | None
    start: int
    rows: int


class Draw(NamedTuple):
    """The rows of a call: the arguments of `service.engine.verbs.flow.ServedFlow.sample`."""

    flow: ServedFlow
    n: int
    seed: int
    offset: int
    temperature: float
    context: Floats | None
    truncation: float | None = None
    method: Method = "random"
    noise: ContextNoise = "independent"
    round_trip: bool = False

    def check(self) -> None:
        """Refuse what a later piece would refuse.

        Raises:
            InvalidArgument: as `service.engine.verbs.flow.ServedFlow.sample` of the whole.
        """
        self.flow.check_noise(self.offset + self.n, self.temperature, self.truncation, self.method)

    def whole(self) -> Plan[Samples]:
        """All rows, for all contexts."""
        return self.sample(Piece(self.context, 0, self.n))

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the whole: one context after the other."""
        rows = max(1, STREAM_VALUES // self.flow.event_width)
        several = self.context is not None and self.context.ndim > 1
        for context in self.context if several and self.context is not None else [self.context]:
            for start in range(0, self.n, rows):
                yield Piece(context, start, min(rows, self.n - start))

    def sample(self, piece: Piece) -> Plan[Samples]:
        """The rows of a piece."""
        return self.flow.sample(
            piece.rows,
            seed=self.seed,
            offset=self.offset + piece.start,
            temperature=self.temperature,
            context=piece.context,
            truncation=self.truncation,
            method=self.method,
            noise=self.noise,
            round_trip=self.round_trip,
        )


def stream_sample(
    stream: StreamCodec, form: Form, draw: Draw, lead: tuple[int, ...], headers: Mapping[str, str]
) -> Plan[Reply]:
    """The reply that begins with the first piece; what can be refused is refused before it.

    Args:
        stream: how rows are written.
        form: of the answer.
        draw: the rows.
        lead: the axes of the whole before an event's.
        headers: of the reply.

    Raises:
        InvalidArgument, WrongShape, NotFinite, EngineFailed: from `service.engine.verbs.flow.ServedFlow.sample`.
    """
    draw.check()
    pieces = draw.pieces()
    found = yield from draw.sample(next(pieces))
    return Reply(
        stream.start(_rows(found), form, lead),
        media_type=stream.media_type,
        headers=headers,
        rest=_rest(stream, form, draw, pieces),
    )


def _rows(found: Samples) -> dict[str, Any]:
    """The rows of a piece: how many of its draws were accepted says nothing of the others."""
    return answer_fields(found._replace(acceptance=None))


def _rest(stream: StreamCodec, form: Form, draw: Draw, pieces: Iterator[Piece]) -> Iterator[Plan[bytes]]:
    def written(piece: Piece) -> Plan[bytes]:
        found = yield from _admitted(draw.sample(piece))
        return stream.more(_rows(found), form)

    def ended() -> Plan[bytes]:
        yield from ()
        return stream.end

    for piece in pieces:
        yield written(piece)
    if stream.end:
        yield ended()


def _admitted(plan: Plan[T]) -> Plan[T]:
    """A plan whose runs pass the bound on waiting rows by: an answer that has begun goes on, however busy it gets."""
    step = advance(plan)
    while not isinstance(step, Finished):
        try:
            outputs = yield step._replace(bounded=False)
        except Exception as error:  # the plan itself decides what an error means
            step = advance(plan, error)
        else:
            step = advance(plan, outputs)
    value: T = step.value
    return value

"""The limits that are held before any work: a cap on bodies, a budget of work, deadlines, waits of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.errors import BodyTooLarge, InvalidArgument, MalformedBody, OverWorkBudget, QueueFull, Reason

__all__ = [
    "TIMEOUT_HEADER",
    "BodyBudget",
    "HeldBody",
    "Waits",
    "WorkLimit",
    "check_length",
    "check_work",
    "deadline",
    "read_body",
]

TIMEOUT_HEADER: Final = "Pushforward-Timeout-Ms"
"""How long the client waits for its answer, in milliseconds."""

_LONGEST_MILLISECONDS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a connection may keep the server waiting, each in seconds.

    Args:
        header_seconds: from a request's first byte to the end of its header.
        body_seconds: from there to the end of its body; and for an answer's bytes to be taken.
        keep_alive_seconds: from an answer to the next request.
        linger_seconds: from an answer that ends the connection, while the request's body still comes, to its end.
    """

    header_seconds: float = 10.0
    body_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    linger_seconds: float = 30.0


class BodyBudget:
    """The bytes of large bodies that a process holds: from when they come until their requests are answered.

    What is read of a body takes some times its bytes. Without a bound on all of them together, some dozens of bodies
    that each are below the cap would end the process. A body that is alone is always taken.

    Args:
        most: in bytes.
    """

    LARGE: Final = 1 << 16
    """In bytes; a smaller body does not count."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @property
    def held(self) -> int:
        """The bytes that are held."""
        return self._held

    def take(self, size: int, own: int) -> None:
        """Take more bytes of a body.

        Args:
            size: how many.
            own: those of the same body that have been taken.

        Raises:
            QueueFull: with those of other bodies they are too many. None has been taken.
        """
        if self._held > own and self._held + size > self._most:
            raise QueueFull(
                f"the bodies of other requests take {self._held - own} bytes, and {self._most} may be held at once"
            )
        self._held += size

    def give_back(self, size: int) -> None:
        """Give back bytes that were taken."""
        self._held -= size


def deadline(field: str | None, usual_seconds: float, now: float) -> float:
    """The time after which an answer comes too late, in seconds.

    Args:
        field: `TIMEOUT_HEADER` of the request, if there is one.
        usual_seconds: for requests without.
        now: in seconds.

    Raises:
        InvalidArgument: it is not a whole number of milliseconds from 1 to an hour.
    """
    if field is None:
        return now + usual_seconds
    text = field.strip(" \t")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 7 and 1 <= int(text) <= _LONGEST_MILLISECONDS):
        reason = f"expected a whole number of milliseconds from 1 to {_LONGEST_MILLISECONDS}, and found {text[:32]!r}"
        raise InvalidArgument(f"{TIMEOUT_HEADER}: {reason}", (Reason(("header", TIMEOUT_HEADER), reason),))
    return now + int(text) / 1000


def check_length(field: str | None, cap: int) -> None:
    """Hold Content-Length against the cap on a body.

    Raises:
        BodyTooLarge: it is over.
        MalformedBody: it is no number.
    """
    if field is None:
        return
    if not (field.isascii() and field.isdigit()):
        raise MalformedBody("Content-Length is not a number")
    if len(field) > 18 or int(field) > cap:
        raise BodyTooLarge(f"the body has {field[:32]} bytes; the cap is {cap}")


class HeldBody:
    """A body as it comes, counted against a budget while it is large. A large one grows in place.

    Args:
        budget: of all bodies.
    """

    __slots__ = ("_budget", "_taken", "body")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._taken = 0
        self.body = bytearray()

    def add(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            QueueFull: from the budget.
        """
        size = len(self.body) + len(piece)
        if size > BodyBudget.LARGE:
            self._budget.take(size - self._taken, self._taken)
            self._taken = size
        self.body += piece

    def release(self) -> None:
        """Let the body go."""
        self._budget.give_back(self._taken)
        self._taken = 0
        self.body = bytearray()


async def read_body(headers: Mapping[str, str], stream: AsyncIterator[bytes], cap: int, held: HeldBody) -> None:
    """Read a body whole, and stop as soon as it passes the cap.

    Args:
        headers: Content-Length is believed where it says too much, and never where it says little.
        stream: the body's pieces.
        cap: in bytes.
        held: gets them.

    Raises:
        BodyTooLarge: it has more bytes than `cap`.
        QueueFull: there is no room for it.
    """
    check_length(headers.get("content-length"), cap)
    async for piece in stream:
        if len(held.body) + len(piece) > cap:
            raise BodyTooLarge(f"the body has more than {cap} bytes, which is the cap")
        held.add(piece)


class WorkLimit(NamedTuple):
    """The work budget for rows whose number shows while they are read.

    Args:
        width: as for `check_work`.
        steps: as for `check_work`.
        budget: as for `check_work`.
        loc: as for `check_work`.
    """

    width: int
    steps: int
    budget: int
    loc: tuple[str, ...]

    def check(self, rows: int) -> None:
        """Hold what has been read so far against the budget.

        Args:
            rows: how many these are.

        Raises:
            OverWorkBudget: they are too many.
        """
        if rows * self.width * self.steps > self.budget:
            times = f", {self.steps} steps each," if self.steps > 1 else ""
            more = f"{rows} rows of {self.width} values and more{times} make more than {self.budget} values"
            detail = f"{more}, which is the server's budget for one request"
            raise OverWorkBudget(detail, (Reason(self.loc, detail),))


def check_work(rows: int, width: int, steps: int, budget: int, loc: tuple[str, ...]) -> None:
    """Hold rows * width * steps against the budget, before anything is allocated.

    Args:
        rows: how many.
        width: values in a row.
        steps: of an interpolation, for each row; 1 for other verbs.
        budget: in values.
        loc: the argument that asks for so much.

    Raises:
        OverWorkBudget: naming each factor.
    """
    work = rows * width * steps
    if work > budget:
        factors = f"{rows} rows of {width} values" + (f", {steps} steps each," if steps > 1 else "")
        detail = f"{factors} make {work} values; the server's budget for one request is {budget}"
        raise OverWorkBudget(detail, (Reason(loc, detail),))

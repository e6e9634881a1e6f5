"""Who may ask: every way around the keys that anyone has thought of, through both doors, at both lengths of a head."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.faults.raw import Result, send
from tests.faults.scenario import Effort, Outcome, Scenario, Start, Without
from tests.service.key_cases import ALICE, EYE, OPS, PATHS, WRONG, bearer

__all__ = ["SCENARIOS"]

BODY: Final = b'{"x":[[' + b",".join([b"0.5"] * 13) + b"]]}"
DOORS: Final = {"hot": b"", "cold": b"Content-Encoding: identity\r\n"}
LENGTHS: Final = {"short": b"", "long": b"X-Padding: " + b"p" * 4000 + b"\r\n"}
METHODS: Final = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS")


def request(fields: bytes, method: bytes = b"POST", target: bytes = b"/logprob") -> bytes:
    """The bytes of a request for the density of a row."""
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%bConnection: close\r\nContent-Type: application/json\r\n"
    return head % (method, target, fields) + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def attempts() -> list[tuple[str, bytes]]:
    """Each way to try, with its name."""
    more = [(door, length) for door in DOORS for length in LENGTHS]
    found = [
        (f"{name}, {door}, {length}", request(LENGTHS[length] + DOORS[door] + fields))
        for name, fields in WRONG.items()
        for door, length in more
    ]
    found += [
        (f"{method.decode()} {name}, {door}", request(DOORS[door], method, target))
        for name, target in PATHS.items()
        for method in METHODS
        for door in DOORS
    ]
    return found


def keys(start: Start, effort: Effort) -> Outcome:
    """Try each way, with a good request before it so that the server knows its head."""
    tried = attempts()[:: max(1, round(1 / effort.share))]
    statuses: Counter[Result] = Counter()
    through: list[str] = []
    with start() as server:
        good = [send(server.port, request(door + bearer(ALICE.key)))[0] for door in DOORS.values()]
        for name, data in tried:
            status, answer = send(server.port, data)
            statuses[status] += 1
            if b"log_prob" in answer or b"pushforward_requests_total" in answer:
                through.append(name)
    held = not through and good == [200, 200]
    seen = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items(), key=str))
    return Outcome(held, f"{len(tried)} ways: {seen}; {len(through)} through" + "".join(f" ({n})" for n in through[:2]))


SCENARIOS: Final = (
    Scenario(
        "keys",
        f"{len(attempts())} ways to ask without the key: prefixes, case, unicode, two fields, other schemes, paths "
        "with dots and percents, other methods, through both doors, at both lengths",
        "none gets an answer, and the key does",
        keys,
        options=("--keys", ";".join(each.stored.line() for each in (ALICE, OPS, EYE))),
        without=Without("keys (`--insecure`)", options=("--insecure",)),
    ),
)

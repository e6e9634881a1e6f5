"""The keys of a server: made once, kept as hashes, and found again by what a client sends.

A key is 256 random bits. Its SHA-256 is what a server keeps. A slow hash such as scrypt is for passwords, which can be
guessed: nobody guesses 256 bits, and a slow hash for each request would be a gift to whoever wants to keep the server
busy. Hashes are compared in constant time, and each with all keys, so that the time of an answer tells nothing.

The file of keys has one key on each line: its name, its scopes, its hash, and its budgets::

    alice   infer          sha256:9f86d081884c7d65...  requests_per_minute=600 rows_per_minute=100000
    grafana metrics        sha256:60303ae22b998861...
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from service.access.budgets import Bucket
from service.access.scopes import SCOPES, Scope
from service.errors import BudgetSpent, InvalidArgument, Reason

__all__ = ["Caller", "KeyRing", "NewKey", "StoredKey", "make_key", "parse_keys"]

KEY_PREFIX: Final = "pf_"
"""The beginning of every key, by which scanners of source code know one."""

_KEY_BYTES: Final = 32
_LONGEST: Final = 512
"""In bytes; nothing longer is hashed."""

_MOST: Final = 1000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")
_BUDGET: Final = re.compile(r"(requests|rows)_per_minute=([1-9][0-9]{0,14})")
_FORM: Final = "NAME SCOPES sha256:HASH [requests_per_minute=N] [rows_per_minute=N], as `pushforward key` prints it"


class StoredKey(NamedTuple):
    """A key as a server keeps it.

    Args:
        name: whose it is, for logs.
        scopes: what it may do.
        digest: the SHA-256 of the key.
        requests_per_minute: its budget of requests; None for no bound.
        rows_per_minute: its budget of rows; None for no bound.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes
    requests_per_minute: int | None = None
    rows_per_minute: int | None = None

    def line(self) -> str:
        """The line of a file of keys."""
        scopes = ",".join(scope for scope in SCOPES if scope in self.scopes)
        budgets = {"requests_per_minute": self.requests_per_minute, "rows_per_minute": self.rows_per_minute}
        more = [f"{name}={count}" for name, count in budgets.items() if count is not None]
        return " ".join([self.name, scopes, f"sha256:{self.digest.hex()}", *more])


class NewKey(NamedTuple):
    """A key that was just made.

    Args:
        key: the secret, which is kept nowhere.
        stored: what a server keeps.
    """

    key: str
    stored: StoredKey


def make_key(
    name: str,
    scopes: Iterable[Scope],
    requests_per_minute: int | None = None,
    rows_per_minute: int | None = None,
) -> NewKey:
    """Make a key of 256 random bits.

    Args:
        name: whose it is: lower-case letters, digits, dots, dashes and underscores.
        scopes: what it may do, at least one.
        requests_per_minute: its budget of requests; None for no bound.
        rows_per_minute: its budget of rows; None for no bound.

    Raises:
        InvalidArgument: the name has other characters.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"the name of a key has lower-case letters, digits, dots, dashes and underscores, at most 64, and starts "
            f"with a letter or digit; {name[:80]!r} does not"
        )
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    stored = StoredKey(name, frozenset(scopes), _digest(key.encode()), requests_per_minute, rows_per_minute)
    return NewKey(key, stored)


def parse_keys(text: str, place: str, *, semicolons: bool = False) -> tuple[StoredKey, ...]:
    """Read the lines of a file of keys, or of the environment.

    Args:
        text: lines; what follows a # is a comment, to the end of its line.
        place: the file or the variable, for errors.
        semicolons: whether a semicolon ends a line too, as in the environment. In a file it does not: a key that was
            put into a comment stays out, whatever else the comment holds.

    Raises:
        InvalidArgument: a line is not in the form, or a name or a key stands there twice. The error names the line and
            repeats none of it, which may hold a key by mistake.
    """
    found: dict[str, StoredKey] = {}
    known: dict[bytes, str] = {}
    for number, line in enumerate(re.split(r"[\n;]" if semicolons else r"\n", text), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        stored = _read_line(words, f"{place}, line {number}")
        if stored.name in found or stored.digest in known:
            what = f"the name {stored.name}" if stored.name in found else f"the key of {known[stored.digest]}"
            raise InvalidArgument(f"{place}, line {number}: {what} stands there twice")
        found[stored.name] = stored
        known[stored.digest] = stored.name
        if len(found) > _MOST:
            raise InvalidArgument(f"{place} holds more than {_MOST} keys")
    return tuple(found.values())


def _read_line(words: list[str], place: str) -> StoredKey:
    def refuse(why: str) -> InvalidArgument:
        return InvalidArgument(f"{place}: {why}", (Reason((place,), f"expected {_FORM}"),))

    if any(word.startswith(KEY_PREFIX) for word in words):
        raise refuse("there is a key itself, and only its hash may stand there. Take this key out of use")
    if len(words) < 3:
        raise refuse(f"there are {len(words)} words, and a key has a name, scopes and a hash")
    name, scopes, digest, *more = words
    if not _NAME.fullmatch(name):
        raise refuse("the first word is not the name of a key")
    named = scopes.split(",")
    if not set(named) <= set(SCOPES):
        raise refuse(f"the second word is not a list of scopes, which are {', '.join(SCOPES)}")
    hashed = _HASH.fullmatch(digest)
    if hashed is None:
        raise refuse("the third word is not sha256: and 64 digits of a hash in lower case")
    budgets: dict[str, int] = {}
    for word in more:
        budget = _BUDGET.fullmatch(word)
        if budget is None or budget[1] in budgets:
            raise refuse("a word behind the hash is not a budget, or there twice")
        budgets[budget[1]] = int(budget[2])
    return StoredKey(
        name,
        frozenset(cast("list[Scope]", named)),
        bytes.fromhex(hashed[1]),
        budgets.get("requests"),
        budgets.get("rows"),
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


@dataclass(eq=False, slots=True)
class Caller:
    """Who asks: a key, and what is left of its budgets. Two callers are equal where they are the same.

    Args:
        stored: the key.
        requests: the budget of requests.
        rows: the budget of rows.
        clock: gives seconds.
    """

    stored: StoredKey
    requests: Bucket
    rows: Bucket
    clock: Callable[[], float]

    @property
    def counts_rows(self) -> bool:
        """Whether it has a budget of rows."""
        return self.rows.per_minute is not None

    def take_request(self) -> None:
        """Take a request off the budget.

        Raises:
            BudgetSpent: nothing is left.
        """
        wait = self.requests.take(1, self.clock())
        if wait:
            limit = self.stored.requests_per_minute
            detail = f"the key {self.stored.name} may make {limit} requests a minute, and has made them"
            raise BudgetSpent(detail, retry_seconds=wait)

    def take_rows(self, count: int) -> None:
        """Take rows off the budget, before any is computed.

        Raises:
            BudgetSpent: too few are left.
        """
        wait = self.rows.take(count, self.clock())
        if wait:
            limit = self.stored.rows_per_minute or 0
            why = "a whole minute's budget is less: send fewer rows at once" if count > limit else "too few are left"
            detail = f"the request takes {count} rows of the {limit} a minute of the key {self.stored.name}; {why}"
            raise BudgetSpent(detail, retry_seconds=wait)


class KeyRing:
    """The keys that a server knows.

    Args:
        keys: the keys. With none of them nobody may ask.
        clock: gives seconds, for budgets.
    """

    def __init__(self, keys: Iterable[StoredKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._callers: tuple[Caller, ...] = ()
        self.replace(keys)

    @property
    def callers(self) -> tuple[Caller, ...]:
        """Who may ask."""
        return self._callers

    def replace(self, keys: Iterable[StoredKey]) -> None:
        """Take other keys. One that stays as it was keeps what is left of its budgets."""
        before = {caller.stored: caller for caller in self._callers}
        self._callers = tuple(before.get(stored) or self._caller(stored) for stored in keys)

    def find(self, key: bytes) -> Caller | None:
        """The caller that a key belongs to; None where it is none of these."""
        digest = _digest(key[: _LONGEST + 1])
        found = None
        for caller in self._callers:  # to the end, whichever it is
            if hmac.compare_digest(digest, caller.stored.digest):
                found = caller
        return found

    def _caller(self, stored: StoredKey) -> Caller:
        now = self._clock()
        requests, rows = Bucket(stored.requests_per_minute, now), Bucket(stored.rows_per_minute, now)
        return Caller(stored, requests, rows, self._clock)

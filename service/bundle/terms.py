"""Terms c N^p, N the number of rows: what the sizes of a graph fold to, and their arithmetic.

A result that is no single term, or too large to follow, is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = [
    "ONE",
    "Size",
    "Term",
    "equal",
    "larger",
    "minus",
    "over",
    "plus",
    "product",
    "rest",
    "smaller",
    "times",
]

_MAX_BITS: Final = 62
"""The bits of the greatest number that is followed: beyond, the integers of a graph wrap round to other numbers."""

_ROW_BITS: Final = 24
"""The bits of the greatest number of rows of a batch."""


class Term(NamedTuple):
    """c N^p, N the number of rows.

    Args:
        factor: c.
        power: p.
    """

    factor: int
    power: int = 0


Size = Term | None
"""A size or a number; None where it is not known."""

ONE: Final = Term(1)


def times(a: Size, b: Size) -> Size:
    """The product."""
    return None if a is None or b is None else _bounded(Term(a.factor * b.factor, a.power + b.power))


def _bounded(term: Term) -> Size:
    if term.factor == 0:
        return Term(0)
    return term if abs(term.factor).bit_length() + _ROW_BITS * term.power <= _MAX_BITS else None


def plus(a: Size, b: Size) -> Size:
    """The sum; None where it is no single term."""
    if a is None or b is None:
        return None
    if a.factor == 0 or b.factor == 0:
        return a if b.factor == 0 else b
    return _bounded(Term(a.factor + b.factor, a.power)) if a.power == b.power else None


def minus(a: Size, b: Size) -> Size:
    """The difference; None where it is no single term."""
    return plus(a, None if b is None else Term(-b.factor, b.power))


def over(a: Size, b: Size) -> Size:
    """The quotient, towards zero for constants; None where it is no single term."""
    if a is None or b is None or b.factor == 0 or a.power < b.power:
        return None
    if a.power == b.power == 0:
        return Term(abs(a.factor) // abs(b.factor) * (1 if (a.factor < 0) == (b.factor < 0) else -1))
    return Term(a.factor // b.factor, a.power - b.power) if a.factor % b.factor == 0 else None


def rest(a: Size, b: Size) -> Size:
    """The remainder of constants."""
    constant = a is not None and b is not None and a.power == b.power == 0 and b.factor != 0
    return Term(a.factor % b.factor) if constant and a is not None and b is not None else None


def equal(a: Size, b: Size) -> Size:
    """1 where both are equal for any number of rows, 0 where they are for none."""
    if a is None or b is None:
        return None
    if a == b:
        return Term(1)
    if a.power == b.power or (a.factor > 0) != (b.factor > 0):  # there is at least one row
        return Term(0)
    return None


def larger(a: Size, b: Size) -> Size:
    """The greater of two terms of one power."""
    if a is None or b is None or a.power != b.power:
        return None
    return max(a, b)


def smaller(a: Size, b: Size) -> Size:
    """The less of two terms of one power."""
    if a is None or b is None or a.power != b.power:
        return None
    return min(a, b)


def product(sizes: Sequence[Size]) -> Size:
    """The product of sizes, however large."""
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    return Term(math.prod(size.factor for size in known), sum(size.power for size in known))

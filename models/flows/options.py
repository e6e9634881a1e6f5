"""Checks of the options that families of flows take: each names the option, the value it has, and what it must be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from service.errors import DataError

__all__ = ["check", "check_bound", "check_slope", "check_transforms", "one_of"]

_MAX_TRANSFORMS: Final = 256


def check(name: str, fits: bool, value: object, expected: str) -> None:
    """Hold the value of an option against what it must be.

    Args:
        name: of the option.
        fits: whether the value is as it must be.
        value: the value.
        expected: what it must be, in words.

    Raises:
        DataError: where it does not fit.
    """
    if not fits:
        raise DataError(f"{name} must be {expected}, not {value!r}")


def one_of(what: str, name: str, known: Iterable[str]) -> None:
    """Hold a name against the known ones.

    Args:
        what: the kind of thing that is named.
        name: the name.
        known: all that there are.

    Raises:
        DataError: where it is not one of them; the nearest is given, and all of them.
    """
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"there is no {what} {name!r}; {hint}known: {', '.join(names)}")


def check_transforms(transforms: int) -> None:
    """Hold the number of steps against its range; a DataError where it is outside."""
    check("transforms", 1 <= transforms <= _MAX_TRANSFORMS, transforms, f"a number from 1 to {_MAX_TRANSFORMS}")


def check_slope(slope: float) -> None:
    """Hold the least slope of a step against its range; a DataError where it is outside."""
    check("slope", 0 < slope < 1, slope, "a number between 0 and 1")


def check_bound(name: str, bound: float) -> None:
    """Hold the option that says where a function ends against its range; a DataError where it is outside."""
    check(name, 0 < bound < float("inf"), bound, "a number above zero")

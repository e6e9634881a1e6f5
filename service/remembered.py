"""Bounded memory: results of parsing that strangers choose the keys of."""

from __future__ import annotations

from typing import Final, TypeVar

__all__ = ["REMEMBERED", "remember"]

REMEMBERED: Final = 4096
"""The most entries of a memory; a full one begins anew."""

K = TypeVar("K")
V = TypeVar("V")


def remember(memory: dict[K, V], key: K, value: V) -> None:
    """Keep a value under a key; a memory that is full is emptied first.

    Args:
        memory: from key to value.
        key: of the value.
        value: to keep.
    """
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = value

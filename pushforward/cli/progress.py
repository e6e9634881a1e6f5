"""The progress bar of a command that works on rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tqdm import tqdm

__all__ = ["show_progress"]

_SHOWN_AFTER: Final = 1.0  # seconds


@contextmanager
def show_progress(total: int | None, unit: str = "rows") -> Iterator[Callable[[int], object]]:
    """Show a bar on the standard error, where that is a terminal and the work takes more than a second.

    Args:
        total: how many there will be; None where nobody knows.
        unit: what is counted.

    Yields:
        A function to call with each number done.
    """
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, delay=_SHOWN_AFTER, disable=None, leave=False) as bar:
        yield bar.update

"""Resident memory of a server's processes, as Linux tells it, and its peak while something runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import children

__all__ = ["Peak", "descriptors", "peak_of", "resident", "threads"]


def resident(process: int) -> int:
    """Resident bytes of a process and of all that it has started."""
    return sum(_status(one).get("VmRSS", 0) * 1024 for one in _tree(process))


def threads(process: int) -> int:
    """Threads of a process and of all that it has started."""
    return sum(_status(one).get("Threads", 0) for one in _tree(process))


def descriptors(process: int) -> int:
    """Open descriptors of a process and of all that it has started."""
    return sum(len(list((Path("/proc") / str(one) / "fd").iterdir())) for one in _tree(process))


def _tree(process: int) -> list[int]:
    return [process, *(below for child in children(process) for below in _tree(child))]


def _status(process: int) -> dict[str, int]:
    try:
        lines = (Path("/proc") / str(process) / "status").read_text().splitlines()
    except OSError:  # it has ended since it was listed
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) for name, _, value in pairs if name in {"VmRSS", "Threads"}}


class Peak:
    """The greatest resident memory of a process that was seen, in bytes."""

    def __init__(self, process: int) -> None:
        self.start = self.bytes = resident(process)
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def growth(self) -> int:
        """By how much it grew."""
        return self.bytes - self.start

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self.bytes = max(self.bytes, resident(self._process))


@contextmanager
def peak_of(process: int) -> Iterator[Peak]:
    """Watch the memory of a process, every hundredth of a second."""
    peak = Peak(process)
    peak._thread.start()
    try:
        yield peak
    finally:
        peak._ended.set()
        peak._thread.join()

"""Counters in memory that all workers of a server share, and that outlive the process that counts.

Each worker counts in a region of its own, so that no two processes write to the same cell and none needs a lock. Any
worker can read all regions and answer for all. A worker that replaces a dead one claims the same region: the counts
stay, and no counter runs backwards. A gauge describes a living process: it is set to zero when its region is claimed,
and is not read while no process holds the region.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Final, Literal, NamedTuple, TypeAlias

from service.children import memory_file

__all__ = ["REGION_BYTES", "Cells", "Key", "Kind", "Region", "SharedCounters", "Totals", "shared_file"]

_log = logging.getLogger(__name__)

Key = tuple[str, ...]
"""A metric's name, then the values of its labels."""

Cells: TypeAlias = "memoryview[float]"
"""Shared float64 numbers."""

Kind = Literal["counter", "gauge"]

REGION_BYTES: Final = 4 << 20
"""The size of one region, enough for thousands of flows. Only the pages that hold cells use memory."""

_HEADER: Final = struct.Struct("=qqdd")
"""Bytes in use; the process that holds the region, or 0; when the server started; the last beat of that process."""
_RECORD: Final = struct.Struct("=iiq")  # bytes of the key, number of cells, is it a gauge; key and cells follow
_WORD: Final = 8


class Totals(NamedTuple):
    """The sums over all regions.

    Args:
        cells: the sums of each key.
        live: the numbers of the regions that a process holds.
        started: the time of the server's start, in seconds since the epoch.
    """

    cells: dict[Key, list[float]]
    live: list[int]
    started: float


class Region:
    """The cells of one process. Made by `SharedCounters.claim_region`.

    A cell has one writer at a time. Threads that count in the same cell share a lock of their own.

    Args:
        memory: of the region.
        started: when the server started, in seconds since the epoch.
        process: that holds it; 0 for none.
    """

    def __init__(self, memory: memoryview, started: float, process: int) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known: dict[Key, Cells] = {}
        self._gauges: set[Key] = set()
        used = _HEADER.unpack_from(memory)[0]
        self._used = max(used, _HEADER.size)
        self._full = False
        for key, at, count, gauge in _records(memory[: self._used]):
            cells = self._known[key] = memory[at : at + _WORD * count].cast("d")
            if gauge:
                self._gauges.add(key)
                cells[:] = memoryview(bytes(_WORD * count)).cast("d")
        _HEADER.pack_into(memory, 0, self._used, process, started, 0.0)

    def beat(self, now: float) -> None:
        """Say that the event loop of this process turns.

        Args:
            now: on `time.monotonic`, which all processes of a machine share.
        """
        struct.pack_into("=d", self._memory, 24, now)

    def cells(self, kind: Kind, key: Key, count: int = 1) -> Cells:
        """The cells of a key. Callers keep them, as this call is slow.

        Args:
            kind: a gauge is zero again when another process claims the region.
            key: one of a bounded number.
            count: the number of cells, always the same for one key.

        Returns:
            float64 ``[count]``, zero where the key is new.
        """
        with self._lock:
            cells = self._known.get(key)
            if cells is None:
                cells = self._known[key] = self._append(kind, key, count)
                if kind == "gauge":
                    self._gauges.add(key)
            return cells

    def clear_gauges(self, matches: Callable[[Key], bool]) -> None:
        """Set the gauges of some keys to zero.

        Args:
            matches: says whether a key is one of them.
        """
        with self._lock:
            for key in self._gauges:
                if matches(key):
                    cells = self._known[key]
                    cells[:] = memoryview(bytes(_WORD * len(cells))).cast("d")

    def _append(self, kind: Kind, key: Key, count: int) -> Cells:
        name = json.dumps(key).encode()
        name += b" " * (-len(name) % _WORD)
        at = self._used + _RECORD.size + len(name)
        end = at + _WORD * count
        if end > len(self._memory):
            if not self._full:
                _log.error("there is no room for more metrics: %s and others are not counted", key)
                self._full = True
            return memoryview(bytearray(_WORD * count)).cast("d")
        _RECORD.pack_into(self._memory, self._used, len(name), count, kind == "gauge")
        self._memory[at - len(name) : at] = name
        self._used = end  # after the record is whole, so that no process reads half of it
        struct.pack_into("=q", self._memory, 0, end)
        return self._memory[at:end].cast("d")


class SharedCounters:
    """The regions of one server's workers.

    Args:
        regions: the number of workers.
        file: the descriptor of a `shared_file` for as many; None for memory of this process alone.

    Example::

        counters = SharedCounters()
        requests = counters.claim_region(0).cells("counter", ("requests", "/logprob"))
        requests[0] += 1
        counters.read().cells[("requests", "/logprob")]  # [1.0]
    """

    def __init__(self, regions: int = 1, file: int | None = None) -> None:
        self.regions = regions
        self._memory = mmap.mmap(-1 if file is None else file, regions * REGION_BYTES)
        if not self._started():
            struct.pack_into("=d", self._memory, 16, time.time())

    def claim_region(self, number: int) -> Region:
        """Claim a region for this process."""
        return Region(self._region(number), self._started(), os.getpid())

    def last_beat(self, number: int) -> float:
        """The last beat of the process that holds a region, on `time.monotonic`; 0 where there was none."""
        found: float = _HEADER.unpack_from(self._memory, number * REGION_BYTES)[3]
        return found

    def count_ended(self, number: int, key: Key) -> None:
        """Add 1 to a counter in the region of a process that has ended.

        Args:
            number: of the region, which no process holds.
            key: of the counter.
        """
        Region(self._region(number), self._started(), 0).cells("counter", key)[0] += 1

    def _region(self, number: int) -> memoryview:
        return memoryview(self._memory)[number * REGION_BYTES : (number + 1) * REGION_BYTES]

    def release(self, number: int) -> None:
        """Release the region of a process that has ended: its gauges are dropped, its counts stay."""
        struct.pack_into("=q", self._memory, number * REGION_BYTES + 8, 0)
        struct.pack_into("=d", self._memory, number * REGION_BYTES + 24, 0.0)

    def read(self) -> Totals:
        """The sums of what all workers have counted."""
        total: dict[Key, list[float]] = {}
        live = []
        for number in range(self.regions):
            at = number * REGION_BYTES
            used, process, _, _ = _HEADER.unpack_from(self._memory, at)
            if process:
                live.append(number)
            # A copy, so that records which are added meanwhile do not matter.
            memory = memoryview(self._memory[at : at + max(used, _HEADER.size)])
            for key, start, count, gauge in _records(memory):
                if gauge and not process:
                    continue
                cells = memory[start : start + _WORD * count].cast("d")
                known = total.get(key)
                total[key] = list(cells) if known is None else [a + b for a, b in zip(known, cells, strict=True)]
        return Totals(total, live, self._started())

    def _started(self) -> float:
        found: float = _HEADER.unpack_from(self._memory, 0)[2]
        return found


def shared_file(regions: int) -> IO[bytes]:
    """A file with room for `regions` regions, which exists only as long as some process has it open."""
    return memory_file("metrics", regions * REGION_BYTES)


def _records(memory: memoryview) -> Iterator[tuple[Key, int, int, bool]]:
    """For each record: its key, the position of its cells, their number, and whether it is a gauge."""
    at = _HEADER.size
    while at < len(memory):
        size, count, gauge = _RECORD.unpack_from(memory, at)
        at += _RECORD.size + size
        yield tuple(json.loads(bytes(memory[at - size : at]))), at, count, bool(gauge)
        at += _WORD * count

"""Numbers that outlive the process that counts them: named cells in memory that all of a server's workers share.

Each worker counts in a region of its own, so that no two processes write to the same cell and none needs a lock. Any
worker reads all regions, and so can answer for all. A worker that takes the place of a dead one counts on in the same
region: what was counted stays, and no counter runs backwards. What holds of a living process only (a gauge) is set
to zero when its region is taken, and is not read while no process holds it.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Final, Literal, NamedTuple, TypeAlias

__all__ = ["REGION_BYTES", "Cells", "Key", "Kind", "Reading", "Region", "Tallies", "shared_file"]

_log = logging.getLogger(__name__)

Key = tuple[str, ...]
"""A metric's name, then the values of its labels."""

Cells: TypeAlias = "memoryview[float]"
"""Numbers that are shared: read, add, write back."""

Kind = Literal["counter", "gauge"]

REGION_BYTES: Final = 4 << 20
"""The most that one worker's cells take: those of thousands of flows. Only what is counted in uses memory."""

_HEAD: Final = struct.Struct("=qqd")  # bytes in use, the process that holds the region or 0, when the server started
_RECORD: Final = struct.Struct(
    "=iiq"
)  # bytes of the key, number of cells, whether a gauge; the key and the cells follow
_WORD: Final = 8


class Reading(NamedTuple):
    """What all regions hold, added up.

    Args:
        cells: what each name has come to.
        held: the numbers of the regions that a process holds.
        started: when the server started, in seconds since the epoch.
    """

    cells: dict[Key, list[float]]
    held: list[int]
    started: float


class Region:
    """The cells of one process. Made by `Tallies.region`.

    A cell has one writer at a time: whoever counts in it from several threads holds a lock of its own.
    """

    def __init__(self, memory: memoryview, started: float) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._known: dict[Key, Cells] = {}
        used, _, _ = _HEAD.unpack_from(memory)
        self._used = max(used, _HEAD.size)
        self._full = False
        for key, at, count, gauge in _records(memory[: self._used]):
            cells = self._known[key] = memory[at : at + _WORD * count].cast("d")
            if gauge:
                cells[:] = memoryview(bytes(_WORD * count)).cast("d")
        _HEAD.pack_into(memory, 0, self._used, os.getpid(), started)

    def cells(self, kind: Kind, key: Key, count: int = 1) -> Cells:
        """The cells of a name, ``[count]`` float64, zero where they are new. Keep them: this call is slow.

        Args:
            kind: a gauge is zero again when another process takes the region.
            key: the name. There must be a bound on how many there are.
            count: how many; always the same for one name.
        """
        with self._lock:
            cells = self._known.get(key)
            if cells is None:
                cells = self._known[key] = self._new(kind, key, count)
            return cells

    def _new(self, kind: Kind, key: Key, count: int) -> Cells:
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
        self._used = end  # only now, so that nobody reads half a record
        struct.pack_into("=q", self._memory, 0, end)
        return self._memory[at:end].cast("d")


class Tallies:
    """The regions of one server's workers.

    Args:
        regions: how many workers there are.
        file: the descriptor of a `shared_file` for as many; None for memory of this process alone.

    Example::

        tallies = Tallies()
        requests = tallies.region(0).cells("counter", ("requests", "/logprob"))
        requests[0] += 1
        tallies.read().cells[("requests", "/logprob")]  # [1.0]
    """

    def __init__(self, regions: int = 1, file: int | None = None) -> None:
        self.regions = regions
        self._memory = mmap.mmap(-1 if file is None else file, regions * REGION_BYTES)
        if not self._started():
            struct.pack_into("=d", self._memory, 16, time.time())

    def region(self, number: int) -> Region:
        """Take a region for this process."""
        return Region(memoryview(self._memory)[number * REGION_BYTES : (number + 1) * REGION_BYTES], self._started())

    def leave(self, number: int) -> None:
        """Say that the process which held a region has ended: its gauges are gone, its counts stay."""
        struct.pack_into("=q", self._memory, number * REGION_BYTES + 8, 0)

    def read(self) -> Reading:
        """Add up what every worker has counted."""
        total: dict[Key, list[float]] = {}
        held = []
        for number in range(self.regions):
            at = number * REGION_BYTES
            used, process, _ = _HEAD.unpack_from(self._memory, at)
            if process:
                held.append(number)
            # A copy, so that what is added while this reads cannot matter.
            memory = memoryview(self._memory[at : at + max(used, _HEAD.size)])
            for key, start, count, gauge in _records(memory):
                if gauge and not process:
                    continue
                cells = memory[start : start + _WORD * count].cast("d")
                known = total.get(key)
                total[key] = list(cells) if known is None else [a + b for a, b in zip(known, cells, strict=True)]
        return Reading(total, held, self._started())

    def _started(self) -> float:
        found: float = _HEAD.unpack_from(self._memory, 0)[2]
        return found


def shared_file(regions: int) -> IO[bytes]:
    """A file that exists only as long as some process has it open, with room for so many regions."""
    if hasattr(os, "memfd_create"):  # in memory: also where no folder can be written to
        file: IO[bytes] = os.fdopen(os.memfd_create("pushforward-metrics"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    file.truncate(regions * REGION_BYTES)
    return file


def _records(memory: memoryview) -> Iterator[tuple[Key, int, int, bool]]:
    """Of each record: its name, where its cells begin, how many there are, whether they are a gauge."""
    at = _HEAD.size
    while at < len(memory):
        size, count, gauge = _RECORD.unpack_from(memory, at)
        at += _RECORD.size + size
        yield tuple(json.loads(bytes(memory[at - size : at]))), at, count, bool(gauge)
        at += _WORD * count

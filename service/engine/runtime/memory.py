"""The memory that the machine or the container grants to all processes of a server."""

from __future__ import annotations

import os
from pathlib import Path

from service.engine.runtime.cgroups import group_folders, read_text

__all__ = ["usable_memory"]


def usable_memory(root: Path = Path("/")) -> int:
    """The bytes of memory that there are at most.

    The least of the machine's memory and the limit of every control group (v2 and v1) above this process.

    Args:
        root: the folder of /proc and /sys, for tests.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, version in group_folders(root, "memory"):
        text = read_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).strip()
        if text.isdigit() and int(text) > 0:
            limits.append(int(text))
    return min(limits)

"""The number of threads that may run: the processors that the container or the affinity mask grants.

ONNX Runtime and os.cpu_count() count the host's cores. On a quota of one core of 32 this costs a p99 of 164 ms, where
one thread has 4 ms: the kernel stops the whole process when the quota of a period is spent.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from service.engine.runtime.cgroups import group_folders, read_text

__all__ = ["usable_cpus"]


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of threads that can compute at the same time: at least 1.

    The least of the affinity mask and the quota of every control group (v2 and v1) above this process. A quota of
    1.5 counts as 1: a second thread would spend it in two thirds of the period, and wait for the rest of it.

    Args:
        root: the folder of /proc and /sys, for tests.
    """
    quota = min(_read_quotas(root), default=math.inf)
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted if math.isinf(quota) else min(granted, math.floor(quota)))


def _read_quotas(root: Path) -> list[float]:
    quotas = (_read_v2(folder) if version == 2 else _read_v1(folder) for folder, version in group_folders(root, "cpu"))
    return [quota for quota in quotas if quota > 0]


def _read_v2(folder: Path) -> float:
    return _parse_quota(read_text(folder / "cpu.max").split())


def _read_v1(folder: Path) -> float:
    return _parse_quota(
        [read_text(folder / "cpu.cfs_quota_us").strip(), read_text(folder / "cpu.cfs_period_us").strip()]
    )


def _parse_quota(parts: list[str]) -> float:
    """Quota over period, both in microseconds; infinite where there is no quota."""
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return math.inf
    return int(parts[0]) / int(parts[1])

"""The control groups above this process, where a container's limits are written (v2 and v1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["group_folders", "read_text"]


def group_folders(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of the groups that this process is in, and of those above them, each with the version: 1 or 2.

    Args:
        root: the folder of /proc and /sys.
        controller: such as ``cpu``. In a container's namespace some of its folders may not exist.
    """
    mount = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, group, *_ = [*line.split(":", 2), "", ""]
        if not controllers:
            for folder in _upwards(mount, group):
                yield folder, 2
        elif controller in controllers.split(","):
            for name in dict.fromkeys((controller, controllers)):
                for folder in _upwards(mount / name, group):
                    yield folder, 1


def _upwards(mount: Path, group: str) -> list[Path]:
    """The folder of a control group and those above it."""
    folder = mount / group.strip("/")
    return [folder, *(parent for parent in folder.parents if parent == mount or mount in parent.parents)]


def read_text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""

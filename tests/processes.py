"""What the system says of processes and their connections; Linux, as /proc tells it."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["children", "lives", "owner"]


def children(process: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        state = _state(folder)
        if state and int(state[1]) == process and state[0] != "Z":
            found.append(int(folder.name))
    return sorted(found)


def lives(process: int) -> bool:
    """Whether a process has not ended."""
    state = _state(Path("/proc") / str(process))
    return bool(state) and state[0] != "Z"


def owner(port: int, processes: list[int]) -> int:
    """Which of these processes holds the server's end of a connection.

    Args:
        port: the client's own.
        processes: to look among.
    """
    ends = re.findall(rf"^ *\d+: \S+ \S+:{port:04X} 01 (?:\S+ +){{5}}(\d+)", _tcp(), re.MULTILINE)
    wanted = {f"socket:[{inode}]" for inode in ends}
    for process in processes:
        for file in (Path("/proc") / str(process) / "fd").iterdir():
            try:
                if str(file.readlink()) in wanted:
                    return process
            except FileNotFoundError:  # closed since it was listed
                continue
    raise LookupError(f"none of {processes} holds the connection from port {port}")


def _tcp() -> str:
    return Path("/proc/net/tcp").read_text()


def _state(folder: Path) -> list[str]:
    """State and parent of a process; nothing where there is none."""
    if not folder.name.isdigit():
        return []
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []

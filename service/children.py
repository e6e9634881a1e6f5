"""The start of child processes: the command of a new interpreter, memory to share, and an end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO, Final

__all__ = ["end_with_parent", "memory_file", "module_command"]

_PR_SET_PDEATHSIG: Final = 1
"""Of linux/prctl.h."""


def module_command(module: str, *arguments: object) -> list[str]:
    """The command that runs a module in a new interpreter.

    The child finds modules where this process does: -P leaves out the working directory unless it counts here too.

    Args:
        module: its full name.
        arguments: of the module, each as text.
    """
    safe_path = [] if str(Path.cwd()) in sys.path or "" in sys.path else ["-P"]
    return [sys.executable, *safe_path, "-m", module, *map(str, arguments)]


def memory_file(name: str, size: int) -> IO[bytes]:
    """A file that exists only as long as some process has it open, for processes that map it. Zeros take no memory.

    Args:
        name: shown in /proc.
        size: in bytes.
    """
    if hasattr(os, "memfd_create"):  # in memory, and so also where no folder is writable
        file: IO[bytes] = os.fdopen(os.memfd_create(f"pushforward-{name}"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    file.truncate(size)
    return file


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, whatever this process does by then.

    Only Linux can. Elsewhere a child has to notice that a pipe to its parent is closed.

    Args:
        parent: the process that started this one. Where it has ended already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

"""The trials of bundles: each is read, loaded and checked in a child process, before this process loads it.

A bundle is data from a stranger. Its graphs may take any time and memory, at load and at the first run, and ONNX
Runtime cannot be interrupted. The child has limits on both, and is ended where it passes one. One child tries one
bundle after the other, so that a server pays for the start of one interpreter.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from service.bundle.store import Bundle
from service.children import module_command
from service.engine.batching.chunk_size import Timing
from service.engine.canary import ParityRow
from service.errors import (
    BundleError,
    DigestMismatch,
    Draining,
    EngineFailed,
    ForbiddenGraph,
    ManifestInvalid,
    ParityFailed,
    Reason,
    UnexpectedFile,
)

__all__ = ["Trial", "TrialFailure", "TrialLimits", "Trials", "measure_in_child", "try_in_child"]

_ERRORS: Final[Mapping[str, type[BundleError]]] = MappingProxyType(
    {
        kind.code: kind
        for kind in (BundleError, DigestMismatch, ForbiddenGraph, ManifestInvalid, ParityFailed, UnexpectedFile)
    }
)

_START_SECONDS: Final = 120.0
"""The time that a child may take to import what it needs, on a machine that is busy with other starts."""

_REPLY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """The limits of a trial.

    Args:
        seconds: for everything that is done with one bundle.
        bytes: of memory beside what the child has from its start; held on Linux only.
    """

    seconds: float = 60.0
    bytes: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Trial:
    """The findings of a trial that was passed.

    Args:
        timings: direction -> the times of its batches; empty after `parity`.
        worst: direction -> seconds of the smallest batch with every pass of its Loops, of those that have Loops.
        parity: the parity table, where it was asked for.
        sha256: of the bundle that was tried, as `Bundle.sha256`.
    """

    timings: Mapping[str, list[Timing]] = field(default_factory=dict)
    worst: Mapping[str, float] = field(default_factory=dict)
    parity: tuple[ParityRow, ...] = ()
    sha256: str = ""

    def require(self, bundle: Bundle) -> None:
        """Require that a bundle is the one that was tried: its folder may have been changed meanwhile.

        Raises:
            BundleError: it is another.
        """
        if bundle.sha256() != self.sha256:
            raise BundleError("the bundle was changed while it was being checked; nothing was taken from it")


class TrialFailure(Exception):
    """A bundle that did not pass its trial.

    Args:
        error: why it may not be served.
        read: whether its files were right, so that its manifest says what it is.
        cause: what the engine said, for the log; it may hold names of nodes.
    """

    def __init__(self, error: BundleError, *, read: bool = False, cause: str | None = None) -> None:
        super().__init__(error.detail)
        self.error = error
        self.read = read
        self.cause = cause


class Trials:
    """Children that try bundles, each one bundle at a time. Several threads may call at once.

    Args:
        limits: of each trial.
    """

    def __init__(self, limits: TrialLimits | None = None) -> None:
        self._limits = limits or TrialLimits()
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._closed = False

    def run(
        self, folder: Path, *, chunk_rows: int = 0, parity: bool = False, older: bool = False, edited: bool = False
    ) -> Trial:
        """Try a bundle: everything that a server does with it, up to its first request.

        Args:
            folder: of the bundle.
            chunk_rows: the most rows of a batch; 0 where that is to be measured.
            parity: whether to measure its parity table instead of the times of its batches.
            older: whether it may be of an older format.
            edited: see `service.bundle.store.read_older_bundle`.

        Returns:
            What was found.

        Raises:
            TrialFailure: the bundle may not be served.
            EngineFailed: no child could be started.
            Draining: `close` was called meanwhile.
        """
        request = {
            "folder": str(folder.absolute()),
            "chunk_rows": chunk_rows,
            "parity": parity,
            "older": older,
            "edited": edited,
            "seconds": self._limits.seconds,
            "bytes": self._limits.bytes,
        }
        child = self._take()
        try:
            started = child.is_ready()
            reply = child.ask(request, self._limits.seconds) if started else None
        except BaseException:
            self._end(child)
            raise
        if reply is None:
            slow = child.overrun
            status = self._end(child)
            raise self._lost(status, slow=slow, started=started)
        if "error" in reply:
            raise self._failure(child, reply)
        self._give_back(child)
        timings = {name: [Timing(int(n), float(s)) for n, s in rows] for name, rows in reply.get("timings", {}).items()}
        table = tuple(ParityRow(str(q), int(b), float(e), float(t)) for q, b, e, t in reply.get("parity", ()))
        worst = {name: float(seconds) for name, seconds in reply.get("worst", {}).items()}
        return Trial(timings, worst, table, str(reply["sha256"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every child. A trial that is under way raises `Draining`."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._children.difference(idle)
        for child in busy:
            child.kill()
        for child in idle:
            self._end(child)

    def rest(self) -> None:
        """End the children that have nothing to do; another is started where one is needed again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            self._end(child)

    def _take(self) -> _Child:
        with self._lock:
            if self._closed:
                raise Draining("the server is shutting down")
            if self._idle:
                return self._idle.pop()
            try:
                child = _Child()
            except OSError as error:
                raise EngineFailed(f"no process can be started to try a bundle in: {error.strerror}") from error
            self._children.add(child)
            return child

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        self._end(child)

    def _end(self, child: _Child) -> int:
        status = child.end()
        with self._lock:
            self._children.discard(child)
        return status

    def _failure(self, child: _Child, reply: dict[str, Any]) -> TrialFailure:
        told, read = reply["error"], bool(reply.get("read"))
        if told.get("memory"):
            self._end(child)  # what it could not allocate may have left it in any state
            return TrialFailure(self._too_large(), read=read)
        self._give_back(child)
        kind = _ERRORS.get(told["code"], BundleError)
        reasons = tuple(Reason(tuple(loc), str(reason)) for loc, reason in told["reasons"])
        cause = told.get("cause")
        if cause is not None and _is_of_memory(str(cause)):
            return TrialFailure(self._too_large(), read=read, cause=cause)
        return TrialFailure(kind(str(told["detail"]), reasons), read=read, cause=cause)

    def _lost(self, status: int, *, slow: bool, started: bool) -> Exception:
        """The error of a child that has given no reply.

        Args:
            status: the exit status.
            slow: whether it was given up because it took too long.
            started: whether it had begun with the bundle.
        """
        with self._lock:
            if self._closed:
                return Draining("the server is shutting down")
        if not started:
            return EngineFailed(f"the process to try bundles in did not start: it ended with status {status}")
        if slow:
            return TrialFailure(
                BundleError(
                    f"the bundle could not be loaded and run on its golden rows within {self._limits.seconds:g} s "
                    "(--load-seconds)"
                )
            )
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return TrialFailure(
            BundleError(f"the process that loaded the bundle ended by {how}: out of memory, or a fault of the engine")
        )

    def _too_large(self) -> BundleError:
        size = f"{self._limits.bytes} bytes"
        return BundleError(f"the bundle needs more memory than {size} to be loaded and run (--load-bytes)")


def measure_in_child(folder: Path, trials: Trials, *, older: bool = False, edited: bool = False) -> Trial:
    """Measure the parity table of a bundle in a child.

    Args:
        folder: of the bundle.
        trials: have the child.
        older: whether it may be of an older format.
        edited: see `service.bundle.store.read_older_bundle`.

    Returns:
        The trial, with its table.

    Raises:
        BundleError: the bundle may not be served.
        EngineFailed: no child could be started.
    """
    with _said_in_one():
        return trials.run(folder, parity=True, older=older, edited=edited)


def try_in_child(folder: Path, trials: Trials) -> Trial:
    """Try a bundle in a child, as a server does before it loads it.

    Returns:
        The trial, with the times of the bundle's batches.

    Raises:
        BundleError: the bundle may not be served.
        EngineFailed: no child could be started.
    """
    with _said_in_one():
        return trials.run(folder)


@contextmanager
def _said_in_one() -> Iterator[None]:
    """Raise the error of a trial with what the engine said: whoever tries a bundle by a command has no log.

    Raises:
        BundleError: in the place of a `TrialFailure`.
    """
    try:
        yield
    except TrialFailure as failure:
        error, cause = failure.error, failure.cause
        raise (error if cause is None else error.extended(f" ({cause})")) from failure


def _is_of_memory(cause: str) -> bool:
    """Whether ONNX Runtime says that memory was refused to it. It has no class of its own for that."""
    return any(words in cause for words in ("bad_alloc", "Failed to allocate memory", "MemoryError"))


class _Child:
    """A process that tries bundles, and the pipes to it.

    Raises:
        OSError: the system cannot start a process.
    """

    def __init__(self) -> None:
        ours, theirs = os.pipe()
        try:
            # In a session of its own, so that Ctrl-C reaches this process alone.
            self._process = subprocess.Popen(
                module_command("service.engine.trial_child", theirs),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs,),
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._replies = ours
        self._ready = False
        self.overrun = False
        """Whether it was given up because it took too long."""

    def is_ready(self) -> bool:
        """Wait until it has imported what it needs, and say whether it has."""
        if not self._ready:
            self._ready = self._receive(_START_SECONDS) is not None
        return self._ready

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Send a request, and wait for the reply.

        Returns:
            The reply; None where the process has ended, or was given up.
        """
        stdin = self._process.stdin
        if stdin is None:
            return None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            return None
        return self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None where none comes in time, or it is no reply."""
        end = time.monotonic() + seconds
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.overrun = True
                    return None
                more = os.read(self._replies, 1 << 16)
                line += more
                if not more or len(line) > _REPLY_BYTES:
                    return None
        try:
            content = json.loads(line)
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def kill(self) -> None:
        """End the process at once. A thread that waits for its reply then gets none."""
        self._process.kill()

    def end(self) -> int:
        """End the process and close the pipes.

        Returns:
            Its exit status; the negative number of a signal that ended it.
        """
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._replies >= 0:
            os.close(self._replies)
            self._replies = -1
        return status

"""The isolated engine: the processes that run the graphs of one flow. One that crashes or hangs is replaced.

A crash or a hang costs the batch in that process, and nothing else. Where it happens too often, the engine is
quarantined: it starts no further process and refuses every batch, until the flow is loaded anew.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Literal, Protocol

from service.bundle.store import Bundle
from service.engine.isolation.options import Isolation
from service.engine.isolation.process import (
    CHILD_MODULE,
    EngineFiles,
    EngineProcess,
    ProcessLost,
    RunFailed,
    describe_end,
)
from service.engine.isolation.quarantine import MAX_ENDS, QuarantineRule
from service.engine.runtime.graph import CPU_BATCH_SIZES
from service.errors import BundleError, EngineLost
from service.onnx.signature import Direction
from service.plan import Floats, Outputs

__all__ = ["QUARANTINED", "Cause", "EngineCounts", "IsolatedEngine", "IsolatedGraph"]

_log = logging.getLogger(__name__)

Cause = Literal["crash", "hang"]

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
"""The delays until the next try, in seconds, where the machine cannot start a process."""

_FOLLOW_SECONDS: Final = 0.5
"""The time between two looks at the counts of other workers."""

QUARANTINED: Final = (
    f"the engine of this flow crashed or hung {MAX_ENDS} times within a minute, and is not started again; "
    "load the flow anew once its bundle is mended"
)
"""Why a flow is not served."""


class EngineCounts(Protocol):
    """The counts of an engine: `service.engine.metrics.metrics.EngineMetrics`."""

    def count_restart(self, cause: Cause) -> None:
        """Count a process that crashed or hung."""
        ...

    def count_quarantine(self) -> None:
        """Count that the flow is quarantined."""
        ...

    def read_others(self) -> int | None:
        """The crashes and hangs in other workers, a quarantine there as `MAX_ENDS` of them; None without others."""
        ...

    def set_processes(self, count: int) -> None:
        """Set the number of processes that are ready."""
        ...


class IsolatedEngine:
    """The processes of one flow. It is open once the first of them is warm; the others follow.

    Args:
        bundle: of the flow.
        options: of its processes.
        rows: the most rows of a batch.
        counts: counts its processes.
        quarantined: is called once if the engine is quarantined, on a thread of the engine.
        clock: in seconds, for the quarantine rule.
        module: the main module of a process; tests have their own.

    Raises:
        BundleError: ONNX Runtime refuses a graph, or the first process crashes or hangs while it loads them.
        EngineLost: the machine cannot start a process.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: Isolation,
        rows: int,
        counts: EngineCounts,
        quarantined: Callable[[EngineLost], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        module: str = CHILD_MODULE,
    ) -> None:
        self.manifest = bundle.manifest
        self._flow = f"{bundle.manifest.name} version {bundle.manifest.version}"
        self._options = options
        self._counts = counts
        self._quarantined = quarantined
        self._clock = clock
        self._rule = QuarantineRule()
        self._files = EngineFiles(bundle, rows, options, module)
        self._changed = threading.Condition()
        self._idle: list[EngineProcess] = []
        self._ready: list[EngineProcess] = []
        """The processes that are idle or run a batch."""
        self._starting: EngineProcess | None = None
        self._delay = 0.0
        self._retry_at = 0.0
        others = counts.read_others()
        self._shared = others is not None
        self._others = others or 0
        self._refusal: str | None = None
        self._closed = False
        self._released = False
        self._wakeup, self._waker = socket.socketpair()
        opened: Future[None] = Future()
        self._keeper = threading.Thread(target=self._keep, args=(opened,), name=f"engine {self._flow}", daemon=True)
        self._keeper.start()
        opened.result()

    def graph(self, direction: Direction) -> IsolatedGraph:
        """One direction of the flow, as a runner."""
        return IsolatedGraph(self, direction)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that are ready."""
        with self._changed:
            return [process.pid for process in self._ready]

    def run(self, direction: Direction, rows: Floats, context: Floats | None) -> Outputs:
        """Run a batch on the next process that is idle.

        A process that was lost before it began with the batch costs nothing: the batch goes to another one.

        Args:
            direction: of the graph.
            rows: ``[N, ...]``.
            context: ``[N, C]``, or None for a flow without.

        Raises:
            EngineLost: the process crashed or hung with this batch, or none could be started in time, or the engine is
                quarantined or closed.
            RunFailed: ONNX Runtime raised an error.
        """
        inputs = [rows] if context is None else [rows, context]
        while True:
            process = self._take()
            try:
                outputs = process.run(direction, inputs)
            except ProcessLost as lost:  # the thread of the engine replaces it
                if lost.began:
                    how = "did not come back from" if lost.hung else "crashed in"
                    detail = f"the engine {how} a batch with these rows; another engine takes its place"
                    raise EngineLost(detail) from None
            except RunFailed:
                self._give_back(process)
                raise
            except BaseException:  # an answer may still come, which must not pass for that of the next batch
                process.kill()
                raise
            else:
                self._give_back(process)
                return outputs

    def close(self) -> None:
        """End all processes, and wait for their ends. A batch that still runs gets `EngineLost`."""
        self._refuse("the engine of this flow is closed", closed=True)
        self._keeper.join()

    def _take(self) -> EngineProcess:
        with self._changed:
            if not self._idle and not self._changed.wait_for(
                lambda: self._idle or self._refusal, self._options.start_seconds
            ):
                raise EngineLost("no engine of this flow could be started in time")
            if self._refusal is not None:
                raise EngineLost(self._refusal)
            return self._idle.pop()

    def _give_back(self, process: EngineProcess) -> None:
        with self._changed:
            if self._refusal is None:
                self._idle.append(process)
                self._changed.notify()
            else:
                process.kill()

    def _refuse(self, detail: str, *, closed: bool) -> None:
        """Refuse every further batch. Processes that are idle end now; the others once their batch is over, or closed.

        Args:
            detail: the answer to further batches.
            closed: whether the engine is closed, and not only quarantined.
        """
        with self._changed:
            self._refusal = detail
            self._closed = self._closed or closed
            starting = [] if self._starting is None else [self._starting]
            for process in [*(self._ready if closed else self._idle), *starting]:
                process.kill()
            self._idle.clear()
            self._changed.notify_all()
            if not self._released:
                self._waker.send(b"\0")

    def _keep(self, opened: Future[None]) -> None:
        """Start the processes, and replace those that end, until the engine is closed.

        Args:
            opened: is told when the first one is ready, or why there is none.
        """
        try:
            self._open()
        except BaseException as error:
            self._release()
            opened.set_exception(error.with_traceback(None))
            return
        opened.set_result(None)
        while not (self._closed or (self._refusal is not None and not self._ready)):
            self._follow_others()
            self._fill()
            for process in self._wait():
                self._handle_end(process)
        self._release()

    def _open(self) -> None:
        try:
            self._start()
        except RunFailed as error:
            _log.error("%s fails on its golden rows: %s", self._flow, error)
            raise BundleError("the flow could not be run on its golden rows") from None
        except ProcessLost as lost:
            how = "hangs" if lost.hung else "crashes"
            raise BundleError(f"the engine {how} while it loads the graphs of this flow") from None
        except OSError as error:
            raise EngineLost(f"no process can be started for the engine of this flow: {error.strerror}") from error

    def _start(self) -> None:
        """Start one process, and wait until it is ready.

        Raises:
            OSError: the machine cannot start it.
            BundleError: as `EngineProcess.load`.
            ProcessLost: as `EngineProcess.load`.
        """
        process = EngineProcess(self._files)
        with self._changed:
            self._starting = process
            if self._refusal is not None:
                process.kill()
        try:
            process.load()
        except BaseException:
            with self._changed:
                self._starting = None
            process.close()
            raise
        with self._changed:
            self._starting = None
            self._ready.append(process)
            self._rule.record_start()
            self._counts.set_processes(len(self._ready))
        self._give_back(process)

    def _follow_others(self) -> None:
        """Count what the engines of this flow in other workers have met, so that all are quarantined together."""
        ends = self._counts.read_others() if self._shared else None
        if ends is not None and self._refusal is None:
            new, self._others = ends - self._others, ends
            now = self._clock()
            recorded = [self._rule.record_end(now) for _ in range(min(new, MAX_ENDS))]
            self._quarantine_if(any(recorded))

    def _fill(self) -> None:
        """Start the processes that are missing, if it is time to try."""
        while (
            self._refusal is None and len(self._ready) < self._options.processes and self._retry_at <= time.monotonic()
        ):
            try:
                self._start()
            except OSError as error:
                self._delay = min(_LONGEST_DELAY, max(_FIRST_DELAY, 2 * self._delay))
                self._retry_at = time.monotonic() + self._delay
                _log.error("no engine of %s can be started: %s; again in %g s", self._flow, error.strerror, self._delay)
            except (BundleError, ProcessLost, RunFailed) as error:
                if self._refusal is None:
                    self._counts.count_restart("hang" if isinstance(error, ProcessLost) and error.hung else "crash")
                    _log.error("an engine of %s could not be started: %s", self._flow, error)
                    self._quarantine_if(self._rule.record_failed_start(self._clock()))
            else:
                self._delay = 0.0

    def _wait(self) -> list[EngineProcess]:
        """Wait until a process ends or there is something to do. The processes that ended are returned."""
        seconds = _FOLLOW_SECONDS if self._shared else None
        if self._refusal is None and len(self._ready) < self._options.processes:
            left = max(0.0, self._retry_at - time.monotonic())
            seconds = left if seconds is None else min(seconds, left)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            for process in self._ready:
                selector.register(process.lifeline, selectors.EVENT_READ, process)
            ready = [key for key, _ in selector.select(seconds)]
        if any(key.fileobj is self._wakeup for key in ready):
            self._wakeup.recv(64)
        return [key.data for key in ready if key.data is not None]

    def _handle_end(self, process: EngineProcess) -> None:
        with self._changed:
            self._ready.remove(process)
            if process in self._idle:
                self._idle.remove(process)
            self._counts.set_processes(len(self._ready))
        how = describe_end(process.close())
        if self._refusal is not None:
            return
        if process.hung:
            how = f"did not end its batch within {self._options.hang_seconds:g} s, and was killed"
        _log.error("an engine of %s %s; another is started", self._flow, how)
        self._counts.count_restart("hang" if process.hung else "crash")
        self._quarantine_if(self._rule.record_end(self._clock()))

    def _quarantine_if(self, faulty: bool) -> None:
        if faulty:
            _log.error("%s is quarantined: %s", self._flow, QUARANTINED)
            self._counts.count_quarantine()
            self._refuse(QUARANTINED, closed=False)
            if self._quarantined is not None:
                self._quarantined(EngineLost(QUARANTINED))

    def _release(self) -> None:
        with self._changed:
            ended, self._ready = self._ready, []
            self._released = True
        for process in ended:
            process.close()
        self._counts.set_processes(0)
        self._files.close()
        self._wakeup.close()
        self._waker.close()


class IsolatedGraph:
    """One direction of a flow in a process of its own, as `service.engine.runtime.graph.CpuGraph` runs it in this one.

    Args:
        engine: the processes.
        direction: of the graph.
    """

    sizes = CPU_BATCH_SIZES
    clock = staticmethod(time.monotonic)
    """The clock that times its batches: the calling thread only waits."""

    def __init__(self, engine: IsolatedEngine, direction: Direction) -> None:
        self.width = engine.manifest.latent_width
        self._engine = engine
        self._direction: Direction = direction

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch, as `CpuGraph` does."""
        return self._engine.run(self._direction, rows, context)

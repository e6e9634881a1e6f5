"""One process of an engine, as the server sees it: started, given batches, and killed when it crashes or hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Final

from service.bundle.store import Bundle
from service.children import memory_file, module_command
from service.engine.isolation.messages import GraphFile, Job, Request, receive_reply, send
from service.engine.isolation.options import Isolation
from service.engine.isolation.shared_batch import BatchLayout, SharedBatch
from service.errors import BundleError
from service.onnx.signature import Direction, Signature
from service.plan import Floats, Outputs

__all__ = ["CHILD_MODULE", "EngineFiles", "EngineProcess", "ProcessLost", "RunFailed", "describe_end"]

CHILD_MODULE: Final = "service.engine.isolation.child"


class RunFailed(Exception):
    """ONNX Runtime raised an error in the process, which can run further batches. The text is for the log."""


class ProcessLost(Exception):
    """The process crashed or hangs.

    Args:
        hung: whether it hangs.
        began: whether it had begun with the batch that it was given.
    """

    def __init__(self, *, hung: bool, began: bool) -> None:
        super().__init__("the process hangs" if hung else "the process ended")
        self.hung = hung
        self.began = began


class EngineFiles:
    """What all processes of one engine are started with: the graphs of a bundle, in memory that they share.

    A process that is replaced therefore runs the very bytes that were checked, whatever has become of the repository.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        rows: the most rows of a batch.
        options: of the processes.
        module: the main module of a process; tests have their own.
    """

    def __init__(self, bundle: Bundle, rows: int, options: Isolation, module: str = CHILD_MODULE) -> None:
        self.options = options
        self.module = module
        golden = bundle.golden
        context = [] if golden.context is None else [golden.context]
        self.trials: Mapping[Direction, list[Floats]] = {
            "forward": [golden.x, *context],
            "inverse": [golden.latents(), *context],
        }
        """Direction -> inputs that warm a process."""
        self.content: IO[bytes] = memory_file("graphs", sum(map(len, bundle.graphs.values())))
        graphs: dict[Direction, GraphFile] = {}
        directions: list[Direction] = ["forward", "inverse"]
        for direction in (*directions, "trace") if bundle.manifest.trace else directions:
            signature = Signature.of(bundle.manifest, direction)
            start = self.content.tell()
            stop = start + self.content.write(bundle.graphs[signature.file])
            graphs[direction] = GraphFile(signature, start, stop)
        self.content.flush()
        self.job = Job(graphs, options.memory_bytes)
        self.layouts = {direction: BatchLayout(graph.signature) for direction, graph in graphs.items()}
        self.memory_bytes = max(layout.size(max(rows, len(golden.x))) for layout in self.layouts.values())

    def close(self) -> None:
        """Free the memory once no process has it open."""
        self.content.close()


class EngineProcess:
    """One process. `run` is for one thread at a time, `kill` for any.

    The kernel kills the process when the thread that made this object ends.

    Args:
        files: what it is started with.

    Raises:
        OSError: the machine cannot start a process.
    """

    def __init__(self, files: EngineFiles) -> None:
        self._files = files
        self._number = 0
        self._using = threading.Lock()  # a descriptor that is closed under a thread may be another process's by then
        self.hung = False
        with ExitStack() as ours, ExitStack() as theirs:
            control, child_control = socket.socketpair()
            lifeline, child_lifeline = socket.socketpair()
            for end in (control, lifeline):
                ours.enter_context(end)
            for end in (child_control, child_lifeline):
                theirs.enter_context(end)
            memory = theirs.enter_context(memory_file("batch", files.memory_bytes))
            self._batch = SharedBatch(memory.fileno())
            inherited = [child_control.fileno(), files.content.fileno(), memory.fileno()]
            self._process = subprocess.Popen(
                module_command(files.module, *inherited, os.getpid()),
                pass_fds=[*inherited, child_lifeline.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the server alone, which drains first
            )
            ours.pop_all()
        self._control = control
        self.lifeline: Final = lifeline
        """Is readable once the process has ended."""

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def load(self) -> None:
        """Wait until the process has loaded and warmed its graphs.

        Raises:
            BundleError: ONNX Runtime refuses a graph.
            RunFailed: ONNX Runtime raised an error on the golden rows.
            ProcessLost: it crashed, or did not get there in time.
        """
        self._control.settimeout(self._files.options.start_seconds)
        try:
            send(self._control, self._files.job)
            reply = receive_reply(self._control)
        except (EOFError, OSError) as error:
            raise self._lost(error, began=True) from None
        if reply.error is not None:
            raise BundleError(reply.error)
        self._control.settimeout(self._files.options.hang_seconds)
        for direction, inputs in self._files.trials.items():
            for count in (len(inputs[0]), 1):
                self.run(direction, [array[:count] for array in inputs])

    def run(self, direction: Direction, inputs: Sequence[Floats]) -> Outputs:
        """Run one batch.

        Args:
            direction: of the graph.
            inputs: the rows, and their context where the flow has one.

        Raises:
            RunFailed: ONNX Runtime raised an error.
            ProcessLost: the process crashed or hangs.
            ValueError: the batch is larger than any that was announced.
        """
        layout = self._files.layouts[direction]
        count = len(inputs[0])
        with self._using:
            self._batch.write_inputs(layout, inputs)
            self._number += 1
            try:
                send(self._control, Request(self._number, direction, count))
                reply = receive_reply(self._control)
            except (EOFError, OSError) as error:
                raise self._lost(error, began=self._batch.begun == self._number) from None
            if reply.error is not None:
                raise RunFailed(reply.error)
            return self._batch.read_outputs(layout, count, finite=reply.finite)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def close(self) -> int:
        """Kill the process, wait for its end, and free what the server held of it.

        Returns:
            Its exit status; the negative number of a signal that ended it.
        """
        self._process.kill()
        status = self._process.wait()
        with self._using:  # a batch in it has ended with it, or is about to
            self._control.close()
        self.lifeline.close()
        return status

    def _lost(self, error: EOFError | OSError, *, began: bool) -> ProcessLost:
        self.hung = self.hung or isinstance(error, TimeoutError)
        self.kill()
        return ProcessLost(hung=self.hung, began=began)


def describe_end(status: int) -> str:
    """How a process ended, for the log.

    Args:
        status: from `EngineProcess.close`.
    """
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

"""The process of an engine: runs the graphs of one flow for a server, one batch at a time.

It is started by `service.engine.isolation.process` with the descriptors of a socket, of the graphs and of the memory
that it shares with the server. It ends when the socket is closed, and on Linux with the server whatever it does by
then. It starts as fast as its imports allow: pydantic, protobuf and the reading of bundles are left to the server.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from service.children import end_with_parent
from service.engine.isolation.messages import Job, Reply, receive_job, receive_request, send_reply
from service.engine.isolation.shared_batch import BatchLayout, SharedBatch
from service.engine.runtime.ort_graph import OrtGraph
from service.errors import PushforwardError
from service.onnx.signature import Direction

__all__ = ["main"]

_NICE: Final = 5
"""The niceness, as that of a server's own engine threads (`service.engine.batching.workers`)."""

_OOM_SCORE: Final = 500
"""Where memory runs out, the kernel ends this process, which is replaced, sooner than the server."""


def main(control: int, graphs: int, memory: int, parent: int) -> None:
    """Run batches until the server closes the socket.

    Args:
        control: the descriptor of the socket to the server.
        graphs: the descriptor of the file with the graphs.
        memory: the descriptor of the shared memory.
        parent: the process of the server.
    """
    end_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server ends this process when it has drained
    with contextlib.suppress(EOFError, OSError), socket.socket(fileno=control) as server:
        job = receive_job(server)
        _limit(job.memory_bytes)
        try:
            engine = _Engine(job, graphs, memory)
        except PushforwardError as error:
            send_reply(server, Reply(error.detail))
            return
        os.nice(_NICE)
        send_reply(server, Reply())
        while True:
            engine.answer(server)


def _limit(memory_bytes: int) -> None:
    """Bound the memory of this process, and let no dump of it delay the news of its end."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):  # not Linux, or forbidden
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


class _Engine:
    """The graphs of the flow. That of the trace is opened when it is first asked for.

    Args:
        job: of this process.
        graphs: the descriptor of the file with the graphs.
        memory: the descriptor of the shared memory.

    Raises:
        BundleError: a graph cannot be loaded.
    """

    def __init__(self, job: Job, graphs: int, memory: int) -> None:
        self._files = job.graphs
        self._content = mmap.mmap(graphs, 0, access=mmap.ACCESS_READ)
        self._batch = SharedBatch(memory)
        self._layouts = {direction: BatchLayout(file.signature) for direction, file in job.graphs.items()}
        self._graphs: dict[Direction, OrtGraph] = {}
        self._graph("forward")
        self._graph("inverse")

    def answer(self, server: socket.socket) -> None:
        """Run the next batch.

        Raises:
            EOFError: the server has closed the socket.
        """
        request = receive_request(server)
        self._batch.begin(request.number)
        layout = self._layouts[request.direction]
        rows, *context = self._batch.inputs(layout, request.rows)
        try:
            outputs = self._graph(request.direction)(rows, context[0] if context else None)
        except PushforwardError as error:
            send_reply(server, Reply(error.detail))
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            send_reply(server, Reply(f"{type(error).__name__}: {error}"))
        else:
            self._batch.write_outputs(layout, outputs)
            send_reply(server, Reply(finite=outputs.finite))

    def _graph(self, direction: Direction) -> OrtGraph:
        graph = self._graphs.get(direction)
        if graph is None:
            file = self._files[direction]
            graph = self._graphs[direction] = OrtGraph(self._content[file.start : file.stop], file.signature)
        return graph


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

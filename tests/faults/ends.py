"""The end of a server under clients that reconnect: SIGTERM, again and again."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.serving import Server
from tests.faults.raw import post, read_answer
from tests.faults.scenario import Effort, Outcome, Scenario, Start, Without

__all__ = ["SCENARIOS"]

CLIENTS: Final = 64
DRAIN: Final = 2.0
BODY = b'{"x":[[' + b",".join([b"0.5"] * 13) + b"]]}"


def client(port: int, ended: threading.Event) -> tuple[int, int]:
    """Ask and reconnect until the server is gone; the requests that were answered, and those that were not.

    A connection that is refused was never accepted: it asks for nothing.
    """
    answered = lost = 0
    request = post("/logprob", BODY)
    while not ended.is_set():
        try:
            connection = socket.create_connection(("127.0.0.1", port), 10)
        except (ConnectionRefusedError, ConnectionResetError, TimeoutError):
            return answered, lost
        with connection:
            for _ in range(3):
                try:
                    connection.sendall(request)
                    status, data = read_answer(connection)
                except (BrokenPipeError, ConnectionResetError):
                    status, data = "closed", b""
                if status == "closed":
                    lost += 1
                    break
                answered += 1
                if b"connection: close" in data.lower():
                    break
    return answered, lost


def once(server: Server) -> tuple[int, float, int]:
    """End a server under its clients; the requests that were lost, the seconds that it took, and its status."""
    ended = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        runs = [pool.submit(client, server.port, ended) for _ in range(CLIENTS)]
        time.sleep(0.5)  # of load, before the signal: nothing waits for it
        start = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(server.pid, 0)[1])
        took = time.monotonic() - start
        ended.set()
        lost = sum(run.result()[1] for run in runs)
    return lost, took, status


def ends(start: Start, effort: Effort) -> Outcome:
    """SIGTERM to a new server each time."""
    times, lost, slowest = effort.count(20, least=2), 0, 0.0
    statuses = set()
    for number in range(times):
        effort.tell(f"{number} of {times}")
        with start() as server:
            gone, took, status = once(server)
        lost, slowest = lost + gone, max(slowest, took)
        statuses.add(status)
    held = lost == 0 and statuses == {0} and slowest <= DRAIN + 2
    seen = (
        f"{times} times: {lost} accepted requests without an answer, at most {slowest:.1f} s, status {sorted(statuses)}"
    )
    return Outcome(held, seen)


SCENARIOS = (
    Scenario(
        name="ends",
        done=f"SIGTERM 20 times under {CLIENTS} clients that reconnect",
        to_hold="no accepted request without an answer; status 0 within the drain and 2 s",
        measure=ends,
        options=("--drain-seconds", str(DRAIN)),
        without=Without("the second in which it still listens", removal="listener"),
    ),
)

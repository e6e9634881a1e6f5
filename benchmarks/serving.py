"""Servers under test, each a process of its own on a free port, and the requests that they are sent."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["JSON", "NPY", "NotAnswered", "Request", "Server", "free_port", "naive", "process", "pushforward"]

ROOT = Path(__file__).parents[1]
JSON = (("Content-Type", "application/json"),)
NPY = (("Content-Type", "application/x-npy"), ("Accept", "application/x-npy"))


class NotAnswered(RuntimeError):
    """A server has no answer of status 200 to a request: its line says so, and the run goes on."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = JSON

    def raw(self, port: int) -> bytes:
        """The request as it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method != "GET":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    pid: int

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Send requests one after the other, with nothing beside them, and give the bodies of their answers."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            return [self._ask(connection, request) for request in requests]

    def _ask(self, connection: http.client.HTTPConnection, request: Request) -> bytes:
        try:
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            answer = connection.getresponse()
            body = answer.read()
        except OSError as error:  # such as a body refused before it was sent
            raise NotAnswered(f"not answered ({error.strerror or type(error).__name__})") from error
        if answer.status != 200:
            raise NotAnswered(f"not answered ({answer.status})")
        return body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    ready: str,
    quiet: bool = False,
) -> Iterator[Server]:
    """Start a server, wait until `ready` answers 200, and end it afterwards.

    Args:
        name: as it is called in the table.
        command: the process, with the port in it.
        port: where it will listen.
        environment: beside this process's own.
        ready: path that is asked for until it answers.
        quiet: whether what it logs goes nowhere.

    Raises:
        RuntimeError: it ended, or was not ready within 60 seconds.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PUSHFORWARD_")}
    child = subprocess.Popen(
        command,
        env={**inherited, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        cwd=ROOT,
        start_new_session=True,  # so that its workers can be ended with it
    )
    try:
        _wait(name, child, port, ready)
        yield Server(name, port, child.pid)
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with suppress(ProcessLookupError):  # the usual case: it has taken its workers with it
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait(name: str, child: subprocess.Popen[bytes], port: int, path: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
        except (OSError, http.client.HTTPException):
            pass  # it does not listen yet
        if child.poll() is not None:
            raise RuntimeError(f"{name} ended with status {child.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} was not ready within 60 seconds")
        time.sleep(0.05)


@contextmanager
def pushforward(bundle: Path, *options: str) -> Iterator[Server]:
    """`pushforward serve`, as a user starts it, on the repository that a bundle lies in."""
    port = free_port()
    command = [sys.executable, "-m", "pushforward", "serve", "--port", str(port)]
    command += ["--repository", str(bundle.parent.parent), "--default-flow", bundle.parent.name]
    with process("pushforward", [*command, *options], port, ready="/health/ready") as server:
        yield server


@contextmanager
def naive(bundle: Path, module: str = "benchmarks.naive", *, quiet: bool = False) -> Iterator[Server]:
    """An application under uvicorn, one worker.

    Args:
        bundle: that it serves.
        module: that holds the application; `benchmarks/naive.py` if none is named.
        quiet: whether what it logs goes nowhere.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--log-level", "warning"]
    environment = {"BENCHMARK_BUNDLE": str(bundle)}
    with process("naive", command, port, environment=environment, ready="/health/ready", quiet=quiet) as server:
        yield server

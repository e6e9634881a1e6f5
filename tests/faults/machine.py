"""Faults of the machine: a full disk, a read-only disk, a clock that moves by an hour."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from tests.faults.raw import Result, post, read_answer, send
from tests.faults.scenario import ZOO, Effort, NotPossible, Outcome, Scenario, Start, Without
from tests.server import Server, environment

__all__ = ["SCENARIOS"]

CLOCK: Final = Path(__file__).with_name("clock.c")
HOUR: Final = 3600
SIZE: Final = "24m"
"""Of the small disk: the shipped wine flow and some room."""
ASKED: Final = post("/logprob", b'{"x":[[' + b",".join([b"0.5"] * 13) + b"]]}")
SEEDED: Final = b"GET /sample?n=3&seed=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answers(port: int) -> tuple[tuple[Result, ...], tuple[bytes, ...]]:
    """The statuses and bodies of two calls that always have the same answers."""
    found = [send(port, ASKED), send(port, SEEDED)]
    return tuple(status for status, _ in found), tuple(data.partition(b"\r\n\r\n")[2] for _, data in found)


def clock(start: Start, _: Effort) -> Outcome:
    """Move a server's wall clock by an hour, on and back, each time while the body of a request still comes.

    Raises:
        NotPossible: there is no compiler for what moves it.
    """
    with tempfile.TemporaryDirectory() as name:
        library, offset = Path(name) / "clock.so", Path(name) / "offset"
        compiler = shutil.which("cc")
        if compiler is None:
            raise NotPossible("there is no C compiler (cc)")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(CLOCK), "-o", str(library), "-ldl"], check=True)
        offset.write_bytes(struct.pack("q", 0))
        env = {**environment(), "LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
        module = ["pushforward"] if start.removal is None else ["tests.faults.injections", start.removal]
        options = ("--repository", ZOO, "--default-flow", "wine", "--keep-alive-seconds", "20")
        server = Server(*options, command=(sys.executable, "-m", *module), env=env)
        try:
            before, odd = answers(server.port), []
            for seconds in (HOUR, -HOUR, 0):
                with closing(socket.create_connection(("127.0.0.1", server.port), 30)) as connection:
                    connection.sendall(ASKED[:-1])
                    time.sleep(0.2)  # until the server has read that
                    with offset.open("r+b") as file:
                        file.write(struct.pack("q", seconds))
                    time.sleep(1.0)  # for whatever looks at the time
                    try:
                        connection.sendall(ASKED[-1:])
                        status, _ = read_answer(connection)
                    except (BrokenPipeError, ConnectionResetError):
                        status = "reset"
                odd += [seconds] * (status != 200 or answers(server.port) != before)
            status = server.stop()
        finally:
            server.kill()
    return Outcome(not odd and status == 0, f"{3 - len(odd)} of 3 moves change no answer; status {status} at the end")


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of its own, with the shipped wine flow on it.

    Raises:
        NotPossible: this user may not mount one.
    """
    with tempfile.TemporaryDirectory() as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", name], capture_output=True, text=True, check=False
        )
        if mounted.returncode:
            raise NotPossible(f"no disk can be mounted: {mounted.stderr.strip()}")
        try:
            shutil.copytree(ZOO / "wine", Path(name) / "wine")
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def command(*arguments: object) -> tuple[int, list[str]]:
    """The status of a command, and the lines of its error."""
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    return done.returncode, done.stderr.strip().splitlines()


def full_disk(_: Start, __: Effort) -> Outcome:
    """Fill the repository's disk under a server, and write to it."""
    with small_disk() as repository:
        fill(repository / "filler")
        return _hold(repository, "full")


def read_only_disk(_: Start, __: Effort) -> Outcome:
    """Make the repository's disk read-only under a server, and write to it."""
    with small_disk() as repository:
        subprocess.run(["mount", "-o", "remount,ro", str(repository)], check=True)
        return _hold(repository, "read-only")


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(1 << 16))
        except OSError:
            return


def _hold(repository: Path, what: str) -> Outcome:
    server = Server("--repository", repository, "--default-flow", "wine")
    try:
        statuses, _ = answers(server.port)
        bundle, rows = repository / "wine" / "1", repository / "rows.npy"
        held_out = Path("/dev/shm") / f"held-out-{os.getpid()}.npy"
        np.save(held_out, np.random.default_rng(0).normal(size=(500, 13)).astype(np.float32))
        commands = {
            "sample": ("sample", "-n", 200_000, "--seed", 1, "--bundle", bundle, "--out", rows),
            "calibrate": ("calibrate", bundle, held_out),
        }
        try:
            tried = {name: command(*arguments) for name, arguments in commands.items()}
        finally:
            held_out.unlink()
        again, _ = answers(server.port)
        status = server.stop()
    finally:
        server.kill()
    fallen = [
        f"{name} ends with {code}: {' / '.join(error[-3:])}"
        for name, (code, error) in tried.items()
        if code in (0, None) or any("Traceback" in line for line in error)
    ]
    held = statuses == again == (200, 200) and not fallen and status == 0
    text = f"answers before and after: {sorted({*statuses, *again}, key=str)}; status {status}"
    return Outcome(held, "; ".join([text, *(fallen or [f"{len(tried)} commands fail cleanly on a {what} disk"])]))


def logs(_: Start, __: Effort) -> Outcome:
    """Let every line of the log fail to be written."""
    with Path(os.devnull).with_name("full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "pushforward", "serve", "--port", "0", "--access-log", "--repository", str(ZOO)],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            env=environment(),
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"http://[^ ]*:(\d+)", line)
            if found is None:
                return Outcome(held=False, seen=f"the server did not start: {line!r}")
            port = int(found[1])
            statuses = {send(port, SEEDED.replace(b"/sample", b"/models/wine/sample"))[0] for _ in range(20)}
            process.terminate()
            status = process.wait(60)
        finally:
            process.kill()
            process.wait()
    return Outcome(statuses == {200} and status == 0, f"20 answers: {sorted(map(str, statuses))}; status {status}")


SCENARIOS: Final = (
    Scenario(
        name="full-disk",
        done="the repository's disk is full",
        to_hold="inference goes on; commands that write fail with a line and a status",
        measure=full_disk,
        plain=False,
    ),
    Scenario(
        name="read-only-disk",
        done="the repository's disk becomes read-only",
        to_hold="inference goes on; commands that write fail with a line and a status",
        measure=read_only_disk,
        plain=False,
    ),
    Scenario(
        name="full-log",
        done="no line of the log can be written",
        to_hold="inference goes on; status 0 at the end",
        measure=logs,
        plain=False,
    ),
    Scenario(
        name="clock",
        done="the wall clock moves by an hour, on and back, while the body of a request comes",
        to_hold="the same answers, connections and end",
        measure=clock,
        without=Without("the clock that nobody sets, for deadlines and waits", removal="monotonic"),
        plain=False,
    ),
)

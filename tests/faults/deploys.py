"""Versions that come and go under clients: reloads, changes that fail at any step, and servers that are killed."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.serving import Server
from service.bundle.archive import write_archive
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.errors import BundleError
from service.plan import run_now
from tests.faults.injections import STEPS, Steps
from tests.faults.scenario import Effort, Outcome, Scenario, Start, Without
from tests.service.bundles import coupling, install
from tests.service.process.reloads import BODY, Clients

__all__ = ["SCENARIOS"]

RELOADS: Final = 100
CLIENTS: Final = 64
KILLS: Final = 100
FLOW: Final = "flow"
KINDS: Final = 8
"""So many versions in a row have answers of their own; the next has those of the first of them again."""


class Versions:
    """Versions of one flow: what each answers to `BODY`, and its archive.

    Args:
        folder: for what is made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        rows = np.array(json.loads(BODY)["x"], np.float32)
        self._answers: dict[int, list[float]] = {}
        for seed in range(KINDS):
            path = install(folder / "kinds", coupling(FLOW, seed + 1, seed=seed)).path(FLOW, seed + 1)
            densities = run_now(load_flow(read_bundle(path)).log_prob(rows)).log_prob
            self._answers[seed] = [float(str(value)) for value in densities]

    def install(self, root: Path, number: int) -> Path:
        """Install a version in a repository."""
        return install(root, coupling(FLOW, number, seed=number % KINDS)).path(FLOW, number)

    def archive(self, number: int) -> bytes:
        """A version as a tar."""
        made, buffer = self._folder / "made", io.BytesIO()
        known = (made / FLOW / str(number)).exists()
        write_archive(made / FLOW / str(number) if known else self.install(made, number), buffer)
        return buffer.getvalue()

    def answer(self, number: int) -> list[float]:
        """What a version answers."""
        return self._answers[number % KINDS]

    def answers(self, last: int) -> Mapping[int, list[float]]:
        """What each version answers, from 1 to the last."""
        return {number: self.answer(number) for number in range(1, last + 1)}


def call(port: int, method: str, number: int, body: bytes = b"") -> int:
    """Install or remove a version by a call, and give the status; 0 where the connection broke."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            connection.request(method, f"/repository/{FLOW}/versions/{number}", body or None)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0


def ask(port: int, versions: Versions) -> str:
    """What is wrong with the answer to a request; nothing where it is that of its version."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", "/logprob", BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__} instead of an answer"
    if answer.status != 200:
        return f"status {answer.status}"
    version = document["version"]
    return "" if document["log_prob"] == versions.answer(version) else f"version {version} with another's answer"


def torn(root: Path) -> list[str]:
    """The versions of a repository that are there in part."""
    repository, found = Repository(root), []
    for name in repository.names():
        for version in repository.versions(name):
            try:
                read_bundle(repository.path(name, version))
            except BundleError as error:
                found.append(f"{name}/{version} is torn: {error.code}")
    return found


def reloads(start: Start, effort: Effort) -> Outcome:
    """Install a version and remove the one before it, again and again, under clients that keep their connections."""
    count = effort.count(RELOADS, least=3)
    with tempfile.TemporaryDirectory() as name:
        root, versions = Path(name) / "repository", Versions(Path(name))
        versions.install(root, 1)
        with start(root, FLOW) as server:
            clients = Clients(server.port, CLIENTS, dict(versions.answers(count + 1)))
            refused = []
            for number in range(2, count + 2):
                effort.tell(f"{number - 1} of {count}")
                statuses = (
                    call(server.port, "PUT", number, versions.archive(number)),
                    call(server.port, "DELETE", number - 1),
                )
                refused += [status for status in statuses if status not in (200, 201)]
            clients.stop()
    faults = [*clients.faults, *(f"a change was answered {status}" for status in refused if status not in (200, 201))]
    held = not faults and count + 1 in clients.versions
    text = f"{count} reloads, {clients.answers:,} answers of {len(clients.versions)} versions, {len(faults)} faults"
    return Outcome(held, text + (f", such as {faults[0]:.120}" if faults else ""))


@contextmanager
def watched(port: int, versions: Versions) -> Iterator[list[str]]:
    """Ask again and again, and keep what is wrong with the answers."""
    wrong: list[str] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            if fault := ask(port, versions):
                wrong.append(fault)
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield wrong
    finally:
        ended.set()
        thread.join()


def failed_steps(start: Start, effort: Effort) -> Outcome:
    """Let each step of an install with its load fail in turn, beside a client."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root, versions, steps = Path(name) / "repository", Versions(Path(name)), Steps(Path(name) / "steps")
        versions.install(root, 1)
        environment = {STEPS: str(Path(name) / "steps")}
        with start(root, FLOW, injections=("steps",), environment=environment) as server:
            steps.arm(0)
            call(server.port, "PUT", 2, versions.archive(2))
            total = steps.counted
            call(server.port, "DELETE", 2)
            numbers = range(1, total + 1, max(1, round(1 / effort.share)))
            failed = 0
            with watched(server.port, versions) as faults:
                for at, step in enumerate(numbers, 3):
                    effort.tell(f"step {step} of {total}")
                    data = versions.archive(at)
                    steps.arm(step)
                    status = call(server.port, "PUT", at, data)
                    steps.arm(0)
                    failed += status not in (200, 201)
                    wrong += [f"step {step}, answered {status}: {fault}" for fault in (*torn(root), *faults) if fault]
                    faults.clear()
                    if (root / FLOW / str(at)).exists():
                        call(server.port, "DELETE", at)
            last = call(server.port, "PUT", total + 3, versions.archive(total + 3))
            wrong += [fault for fault in (ask(server.port, versions), *torn(root)) if fault]
    held = not wrong and last == 201
    text = f"{len(numbers)} of {total} steps, {failed} changes refused, then one made ({last}); {len(wrong)} faults"
    return Outcome(held, text + (f", such as {wrong[0]:.120}" if wrong else ""))


def kills(start: Start, effort: Effort) -> Outcome:
    """Kill a server while it installs and removes versions: every other time at a step, else at any moment."""
    count, chance = effort.count(KILLS, least=4), random.Random(effort.seed)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root, versions, steps = Path(name) / "repository", Versions(Path(name)), Steps(Path(name) / "steps")
        versions.install(root, 1)
        environment = {STEPS: str(Path(name) / "steps")}
        total = 200
        seconds = 2.0
        for at in range(count):
            effort.tell(f"{at} of {count}")
            with start(root, FLOW, injections=("steps",), environment=environment) as server:
                wrong += [f"after {at} kills: {fault}" for fault in (ask(server.port, versions), *torn(root)) if fault]
                number = Repository(root).next_version(FLOW)
                data = versions.archive(number)
                if not at:  # how long a change takes here, and how many steps
                    steps.arm(0)
                    began = time.monotonic()
                    call(server.port, "PUT", number, data)
                    call(server.port, "DELETE", number)
                    seconds, total = time.monotonic() - began, steps.counted
                steps.arm(chance.randint(1, total) if at % 2 else 0, kill=True)
                _change_until_killed(server, number, data, chance.uniform(0, seconds))
                steps.arm(0)
        with start(root, FLOW, injections=("steps",), environment=environment) as server:
            wrong += [f"after {count} kills: {fault}" for fault in (ask(server.port, versions), *torn(root)) if fault]
    text = f"{count} kills, {len(wrong)} faults"
    return Outcome(not wrong, text + (f", such as {wrong[0]:.120}" if wrong else ""))


def _change_until_killed(server: Server, number: int, data: bytes, seconds: float) -> None:
    """Install a version and remove it, until the server has gone: by itself, or killed after some seconds."""
    timer = threading.Timer(seconds, _kill, [server.pid])
    timer.start()
    try:
        while call(server.port, "PUT", number, data) and call(server.port, "DELETE", number):
            pass
    finally:
        timer.cancel()
        _kill(server.pid)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it has been killed at a step
        os.kill(process, signal.SIGKILL)


SCENARIOS: Final = (
    Scenario(
        name="reloads",
        done=f"{RELOADS} versions installed, each in the place of the one before it, under {CLIENTS} clients",
        to_hold="no request fails, none is answered by two versions, no version goes back on one connection",
        measure=reloads,
        without=Without("the two phases of a change", removal="phases"),
        plain=False,
    ),
    Scenario(
        name="failed-steps",
        done="each step of an install fails in turn: what it asks of the disk, and each function that it calls",
        to_hold="the old version answers meanwhile, no bundle is torn, and the next install is made",
        measure=failed_steps,
        without=Without("the renaming of a whole bundle", removal="renaming"),
        plain=False,
    ),
    Scenario(
        name="kills",
        done=f"SIGKILL at {KILLS} points of an install or a removal: at a step, or at any moment",
        to_hold="no bundle is torn; after a restart each answer is that of its version",
        measure=kills,
        without=Without("the renaming of a whole bundle", removal="renaming"),
        plain=False,
    ),
)

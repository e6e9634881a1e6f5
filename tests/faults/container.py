"""A container as docs/scaling.md prescribes, of 512 MB, under crafted bodies."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.faults.bodies import BODIES, MIB, is_refusal, settle
from tests.faults.raw import post, probe, send
from tests.faults.scenario import Effort, NotPossible, Outcome, Scenario, Start, Without

__all__ = ["SCENARIOS"]

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = "pushforward:faults"
MEMORY: Final = "512m"
ROUNDS: Final = 20
BODIES_AT_ONCE: Final = 50
SIZES: Final = (56 * MIB, 16 * MIB, 4 * MIB, MIB)
_PASSING: Final = ("urllib", "trial_child")
UNBOUNDED: Final = ("--max-decode-bytes", str(1 << 40))


def docker(*arguments: str) -> str:
    """The output of a command of Docker.

    Raises:
        NotPossible: it failed.
    """
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossible(f"docker {arguments[0]}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip()


def build() -> None:
    """Build the image. BASE_IMAGE names another base than the Dockerfile's, where that one cannot be pulled.

    Raises:
        NotPossible: there is no Docker, or the image cannot be built.
    """
    if shutil.which("docker") is None:
        raise NotPossible("there is no Docker")
    base = os.environ.get("BASE_IMAGE")
    chosen = ["--build-arg", f"BASE_IMAGE={base}"] if base else []
    docker("build", "--network", "host", *chosen, "--tag", IMAGE, ".")


@contextmanager
def running(options: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """A container, and the port of this machine that leads to it."""
    limits = ["--memory", MEMORY, "--memory-swap", MEMORY, "--cpus", "2", "--read-only", "--tmpfs", "/tmp"]
    given = ["--env", "PUSHFORWARD_WORKERS=2", "--env", "PUSHFORWARD_DEFAULT_FLOW=wine"]
    name = docker(
        "run", "--detach", *limits, *given, "--publish", "127.0.0.1::8000", IMAGE, "serve", "--insecure", *options
    )
    try:
        port = int(docker("port", name, "8000").splitlines()[0].rpartition(":")[2])
        settle(port)
        yield name, port
    finally:
        docker("rm", "--force", "--volumes", name)


def processes(name: str) -> frozenset[str]:
    """The server's processes in a container that runs; none of one that has ended.

    The probe of its health and the trials of bundles are processes that come and go.
    """
    if docker("inspect", "--format", "{{.State.Running}}", name) != "true":
        return frozenset()
    lines = docker("top", name, "-eo", "pid,args").splitlines()[1:]
    return frozenset(line.split()[0] for line in lines if not any(word in line for word in _PASSING))


def small_container(start: Start, effort: Effort) -> Outcome:
    """Send 50 bodies of every kind and of four sizes at once, again and again, each time to a new container.

    Raises:
        NotPossible: there is no Docker.
    """
    build()
    rounds, names = effort.count(ROUNDS), list(BODIES)
    survived, odd, shed = 0, set[str](), 0
    made: dict[tuple[str, int], bytes] = {}
    for number in range(rounds):
        effort.tell(f"{number} of {rounds}")
        with running(start.options) as (name, port):
            before = processes(name)
            places = range(number, number + BODIES_AT_ONCE)
            keys = [(names[at % len(names)], SIZES[at % len(SIZES)]) for at in places]
            for kind, size in keys:
                if (kind, size) not in made:
                    media_type, make = BODIES[kind]
                    made[kind, size] = post("/logprob", make(size), media_type)
            with ThreadPoolExecutor(BODIES_AT_ONCE) as pool:
                statuses = list(pool.map(lambda key: send(port, made[key], 300)[0], keys))
            settle(port)
            alive = bool(before) and before <= processes(name) and probe(port, "/health/ready")[0] == 200
        shed += sum(status in (429, 503) for status in statuses)
        odd |= {str(status) for status in statuses if not is_refusal(status)}
        survived += alive
    text = f"{survived} of {rounds} survive; {shed} of {rounds * BODIES_AT_ONCE} bodies shed, the others refused"
    return Outcome(survived == rounds and not odd, text + (f"; also {', '.join(sorted(odd))}" if odd else ""))


SCENARIOS: Final = (
    Scenario(
        name="small-container",
        done=f"{ROUNDS} containers of 512 MB with two workers; to each at once {BODIES_AT_ONCE} bodies of the kinds of "
        "`bodies`, of 1 to 56 MiB",
        to_hold="each is refused or shed; no process of the container is killed",
        measure=small_container,
        without=Without("the budget of bodies (`--max-decode-bytes`)", options=UNBOUNDED),
        plain=False,
    ),
)

"""What is injected into a server's process before it starts: `python -m tests.faults.injections NAMES serve ...`.

Some names take a guard out, so that a scenario shows what it is good for. `steps` lets one step of a change fail, or
kills the process at it. Children of the process, such as workers, are as they always are. The service is imported by
whoever changes it: a clock has to be changed before.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from service.bundle.catalogue import Catalogue, Key
    from service.bundle.store import Repository
    from service.engine.registry import Registry
    from service.errors import PushforwardError

__all__ = ["INJECTIONS", "STEPS", "Steps"]

STEPS: Final = "FAULTS_STEPS"
"""The variable that names the file of `Steps`."""

_DISK: Final = frozenset(
    {"open", "os.chmod", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir"}
)
"""The events of Python's audit at which something is asked of the disk."""


class Steps:
    """A number of steps after which one fails, in a file that two processes share.

    Args:
        path: of the file, which is made where there is none.
    """

    _FORM: Final = struct.Struct("qqq")  # steps left, whether the process is killed, steps counted

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            if not path.stat().st_size:
                os.truncate(path, self._FORM.size)
            self._memory = mmap.mmap(file.fileno(), self._FORM.size)

    def arm(self, number: int, *, kill: bool = False) -> None:
        """Let the step of a number, counted from 1 and from now, fail; 0 for none.

        Args:
            number: of the step.
            kill: whether the process is killed at it.
        """
        self._memory[:] = self._FORM.pack(number, kill, 0)

    @property
    def counted(self) -> int:
        """The steps since `arm`."""
        return int(self._FORM.unpack(self._memory[:])[2])

    def take(self, error: Callable[[], Exception]) -> None:
        """Take a step, which may be the one.

        Args:
            error: what it raises then.
        """
        left, kill, counted = self._FORM.unpack(self._memory[:])
        self._memory[:] = self._FORM.pack(left - 1, kill, counted + 1)
        if left == 1 and kill:
            os.kill(os.getpid(), signal.SIGKILL)
        elif left == 1:
            raise error()


def put(owner: object, name: str, value: object) -> None:
    """Put something in the place of a name that there must be: else a scenario would show nothing.

    Args:
        owner: a module or a class.
        name: in it.
        value: in its place.

    Raises:
        AttributeError: there is no such name.
    """
    getattr(owner, name)
    setattr(owner, name, value)


def fail_at_steps() -> None:
    """Count the steps of a change: what is asked of the disk, and the functions that it calls one after the other."""
    import service.bundle.store
    import service.engine.loading
    import service.engine.local_changes
    import service.engine.registry
    from service.engine.registry import Registry
    from service.engine.trials import Trials

    steps = Steps(Path(os.environ[STEPS]))

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        path = arguments[0] if arguments and event in _DISK else None
        if isinstance(path, (str, Path)) and not str(path).endswith((".py", ".pyc", ".so")):
            steps.take(lambda: OSError(5, "the disk fails", str(path)))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> object:
            steps.take(lambda: RuntimeError(f"{function.__name__} fails"))
            return function(*arguments, **named)

        return call

    for owner, name in (
        (os, "fsync"),
        (service.bundle.store, "read_bundle"),
        (service.engine.registry, "read_bundle"),
        (service.engine.registry, "load_flow"),
        (service.engine.loading, "open_graphs"),
        (service.engine.loading, "check_golden"),
        (service.engine.local_changes, "next_catalogue"),
        (service.engine.local_changes, "settle"),
        (service.engine.local_changes, "keep_aliases"),
        (Trials, "run"),
        (Registry, "prepare"),
        (Registry, "commit"),
    ):
        put(owner, name, counted(getattr(owner, name)))
    sys.addaudithook(on_event)


def publish_in_place() -> None:
    """A bundle is copied to its place file by file, and checked there."""
    from service.bundle.store import Repository, check_identity, read_bundle

    def publish(self: Repository, folder: Path, name: str, version: int) -> Path:
        target = self.root / name / str(version)
        target.mkdir()
        for file in sorted(folder.iterdir()):
            shutil.copyfile(file, target / file.name)
        check_identity(read_bundle(target).manifest, name, version)
        return target

    put(Repository, "publish", publish)


def replace_before_loading() -> None:
    """A change has one phase: what was served goes before what is new is loaded."""
    from service.bundle.catalogue import Catalogue
    from service.engine.registry import Registry

    prepare = Registry.prepare

    def unprepared(self: Registry, catalogue: Catalogue) -> dict[Key, PushforwardError]:
        if catalogue.digests.keys() - self.catalogue.digests.keys():
            self.commit(Catalogue())
        return prepare(self, catalogue)

    put(Registry, "prepare", unprepared)


def read_in_one_piece() -> None:
    """A body is read in one piece, however long it is, and large ones do not count together."""
    import service.api.codecs.csv
    import service.api.codecs.json
    import service.api.codecs.large_json
    import service.api.codecs.ndjson

    codecs = service.api.codecs
    for module in (codecs.csv, codecs.large_json, codecs.ndjson):
        for name in ("BLOCK_BYTES", "LONGEST_BYTES"):
            put(module, name, 1 << 40)
    for codec in (codecs.json.Json, codecs.ndjson.Ndjson):
        put(codec, "_LARGE", 1 << 40)


def close_at_once() -> None:
    """The server stops to listen as soon as it is told to end, without a look at what waits there."""
    import service.process.server

    async def accept_nothing(*_: object, **__: object) -> None:
        await asyncio.sleep(0)

    put(service.process.server, "accept_the_last", accept_nothing)
    put(service.process.server, "_LAME_DUCK_SECONDS", 0.0)


def count_age_from_reading() -> None:
    """The age of a request counts from when it is read, as if it had not waited for the event loop."""
    from service.api.turns import Turns

    turn = Turns.since

    def since(self: Turns) -> float:
        turn(self)
        return self._clock()

    put(Turns, "since", since)


def wall_clock() -> None:
    """Deadlines and waits are measured on the wall clock."""
    put(time, "monotonic", time.time)


def main(names: Sequence[str]) -> None:
    """Inject, and run `pushforward` with the other arguments."""
    from pushforward.cli.group import main as pushforward

    for name in names:
        INJECTIONS[name]()
    pushforward()


INJECTIONS: Final[Mapping[str, Callable[[], None]]] = {
    "blocks": read_in_one_piece,
    "listener": close_at_once,
    "monotonic": wall_clock,
    "phases": replace_before_loading,
    "renaming": publish_in_place,
    "steps": fail_at_steps,
    "turns": count_age_from_reading,
}
"""Name -> what changes the process."""

if __name__ == "__main__":
    chosen = sys.argv.pop(1).split(",")
    main(chosen)

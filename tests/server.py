"""A real server process for tests: `pushforward serve` on a port that the system chose."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def environment() -> dict[str, str]:
    """This process's environment without settings of Pushforward."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PUSHFORWARD_")}


class Server:
    """`pushforward serve` with these options, nothing of the environment's settings, once it answers.

    Args:
        options: of the command line, beside the port.
        command: what runs Pushforward's command line; None for this Python.
        cwd: the folder it is run in.
        env: its environment; None for this one's.
    """

    def __init__(
        self,
        *options: object,
        command: Sequence[str] | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "pushforward")), "serve", "--port", "0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment() if env is None else env,
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 180)
        self.announced = self.process.stdout.readline() if ready and self.process.stdout else ""
        found = re.search(r"https?://[^ ]*:(\d+)", self.announced)
        if found is None:
            self.process.kill()
            raise AssertionError(f"the server did not start: {self.process.communicate()[1]}")
        self.url, self.port = found[0], int(found[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and give the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; a traceback on the way fails the test."""
        _, errors = self.process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        return self.process.returncode

    def kill(self) -> None:
        """End it whatever it does; nothing if it has ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

"""Clients that ask a server over connections of their own while what it serves changes."""

from __future__ import annotations

import http.client
import json
import threading

__all__ = ["Clients"]

BODY = json.dumps({"x": [[0.5, -0.25], [1.5, 2.0]]})


class Clients:
    """Threads, each with a connection that it keeps, or with one for each request.

    Args:
        port: of the server.
        count: of threads.
        expected: version -> the answer of that version to `BODY`; others are none that the server may give.
        path: that is asked.
        reconnecting: whether each request has a connection of its own.
    """

    def __init__(
        self, port: int, count: int, expected: dict[int, list[float]], path: str = "/logprob", *, reconnecting=False
    ):
        self._port, self._expected, self._path, self._reconnecting = port, expected, path, reconnecting
        self._stop = threading.Event()
        self.faults: list[str] = []
        self.answers = 0
        self.versions: set[int] = set()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        try:
            while not self._stop.is_set():
                self._converse(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60))
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def _converse(self, connection: http.client.HTTPConnection) -> None:
        last = 0
        while not self._stop.is_set():
            connection.request("POST", self._path, BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            document = json.loads(text)
            version = document.get("version")
            if answer.status != 200:
                self.faults.append(f"{answer.status}: {text[:200]!r}")
            elif document["log_prob"] != self._expected.get(version):
                self.faults.append(f"version {version} answered {document['log_prob']}")
            elif version < last:
                self.faults.append(f"version {version} after {last}")
            else:
                last = version
                self.answers += 1
                self.versions.add(version)
            if answer.will_close or self._reconnecting:
                break
        connection.close()

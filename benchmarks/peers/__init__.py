"""Other model servers, by choice: `--peer NAME=PYTHON`, each in an environment of its own.

A peer is a small program here, run by the interpreter that was named; it may import what is installed there, and
nothing of this project. All of them batch, where they can: up to 64 rows, with a window of 1 ms.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import orjson

from benchmarks.serving import Request, Server, free_port, process

__all__ = ["PEERS", "Peer", "PeerMissing", "RunningPeer", "check", "parse", "running"]

HERE: Final = Path(__file__).parent
Rows = npt.NDArray[np.float32]


class PeerMissing(RuntimeError):
    """A peer is not known, or not installed where it was looked for."""


def _plain(x: Rows) -> bytes:
    return orjson.dumps({"x": x}, option=orjson.OPT_SERIALIZE_NUMPY)


def _v2(x: Rows) -> bytes:
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel()}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def _from_plain(body: bytes) -> Rows:
    return np.asarray(orjson.loads(body)["log_prob"], np.float32).reshape(-1)


def _from_list(body: bytes) -> Rows:
    return np.asarray(orjson.loads(body), np.float32).reshape(-1)


def _from_v2(body: bytes) -> Rows:
    outputs = {output["name"]: output for output in orjson.loads(body)["outputs"]}
    return np.asarray(outputs["log_prob"]["data"], np.float32).reshape(-1)


@dataclass(frozen=True)
class Peer:
    """How one server is started and asked.

    Args:
        name: of the server.
        package: what pip installs.
        module: what is imported then.
        command: (bundle, port, scratch folder) -> arguments of its interpreter.
        path: of the call.
        body: rows -> body.
        read: body -> log_prob.
        ready: path that answers 200 once it serves.
    """

    name: str
    package: str
    module: str
    command: Callable[[Path, int, Path], Sequence[str]]
    path: str
    body: Callable[[Rows], bytes]
    read: Callable[[bytes], Rows]
    ready: str

    def request(self, x: Rows) -> Request:
        return Request("POST", self.path, self.body(x))


def _program(name: str) -> Callable[[Path, int, Path], Sequence[str]]:
    return lambda bundle, port, scratch: (str(HERE / name), str(bundle), str(port), str(scratch))


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(
            "litserve", "litserve", "litserve", _program("litserve_app.py"), "/predict", _plain, _from_plain, "/health"
        ),
        Peer(
            "mlserver",
            "mlserver",
            "mlserver",
            _program("mlserver_app.py"),
            "/v2/models/flow/infer",
            _v2,
            _from_v2,
            "/v2/health/ready",
        ),
        Peer("bentoml", "bentoml", "bentoml", _program("bentoml_app.py"), "/log_prob", _plain, _from_list, "/readyz"),
        Peer(
            "triton",
            "nvidia-pytriton",
            "pytriton",
            _program("triton_app.py"),
            "/v2/models/flow/infer",
            _v2,
            _from_v2,
            "/v2/models/flow/ready",
        ),
    )
}


@dataclass(frozen=True)
class RunningPeer:
    kind: Peer
    server: Server


def parse(text: str) -> tuple[Peer, str]:
    """``NAME`` or ``NAME=PYTHON`` as a peer and its interpreter; this one where none is named.

    Raises:
        PeerMissing: no such peer.
    """
    name, _, python = text.partition("=")
    if name not in PEERS:
        raise PeerMissing(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name], python or sys.executable


def check(peer: Peer, python: str) -> None:
    """See that a peer can be imported.

    Raises:
        PeerMissing: it cannot, with how to install it.
    """
    needed = (peer.module, "onnxruntime", "numpy")
    try:
        done = subprocess.run(
            [python, "-c", "import " + ", ".join(needed)], capture_output=True, text=True, check=False
        )
        reason = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except OSError as error:
        reason = [str(error)]
    if reason is not None:
        raise PeerMissing(
            f"{peer.name} is not installed for {python} ({' '.join(reason)}). In a folder outside of this one: "
            f"python3 -m venv {peer.name} && {peer.name}/bin/pip install {peer.package} "
            f"onnxruntime=={onnxruntime.__version__}; then --peer {peer.name}=that/folder/{peer.name}/bin/python"
        )


@contextmanager
def running(peer: Peer, python: str, bundle: Path) -> Iterator[RunningPeer]:
    """The peer, once it answers."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, *peer.command(bundle, port, Path(scratch))]
        with process(peer.name, command, port, ready=peer.ready) as server:
            yield RunningPeer(peer, server)

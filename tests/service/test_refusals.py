"""What a refusal leaves behind: nothing that only a collection would find."""

from __future__ import annotations

import asyncio
import gc
import io
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.app import create_app
from service.http.connection import Connection
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess
from tests.service.transport import Transport

CAP = 1 << 20

JSON, NPY, ARROW = "application/json", "application/x-npy", "application/vnd.apache.arrow.stream"
NDJSON, CSV = "application/x-ndjson", "text/csv"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def arrow(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def repeated(before: bytes, item: bytes, after: bytes, size: int = 100_000) -> bytes:
    return before + item * (size // len(item)) + after


def bad_bodies(size: int) -> list[tuple[str, bytes]]:
    """Bodies of every type that are refused, each for another reason."""
    rows = size // 8
    return [
        (JSON, repeated(b'{"x":[', b"{},", b"{}]}", size)),
        (JSON, repeated(b'{"x":[', b'"a",', b'"a"]}', size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,null]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,NaN]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2,3],", b"[1,2,3]]}", size)),
        (JSON, repeated(b'{"unknown":[', b"[1,2],", b"[1,2]]}", size)),
        (JSON, b'{"y":1,' + b",".join(b'"a%d":1' % at for at in range(size // 12)) + b"}"),
        (NDJSON, repeated(b"", b"[]\n", b"", size)),
        (NDJSON, repeated(b"", b"\n", b"", size)),
        (NDJSON, repeated(b"", b"[1,2]\n", b"[1\n", size)),
        (NDJSON, repeated(b"", b'{"a":1,"b":2}\n', b'{"a":1}\n', size)),
        (CSV, repeated(b"", b"a,", b"a\n1,2\n", size)),
        (CSV, repeated(b"", b"1,2\n", b"1,b\n", size)),
        (CSV, repeated(b"", b"1,2\n", b'"\n', size)),
        (CSV, repeated(b"", b"1,2\n", b"\xff\n", size)),
        (NPY, npy(np.full((rows, 2), np.nan, np.float32))),
        (NPY, npy(np.zeros((rows, 3), np.float32))),
        (NPY, npy(np.zeros((rows, 2), np.float32))[:-1]),
        (ARROW, arrow(pa.table({"a": np.zeros(rows), "b": ["x"] * rows}))),
        (ARROW, arrow(pa.table({"a": np.zeros(rows), "b": np.zeros(rows)}))[:-9]),
        ("application/x-unknown", bytes(size)),
        ("text/csv; charset=utf-16", "1,2\n".encode("utf-16") * (size // 10)),
    ]


class Doors(InProcess):
    """An application that is asked through its routes, or through a connection."""

    def __enter__(self):
        self._thread.start()
        self.state = self.run(self._lifespan.__aenter__())
        return self

    def by_route(self, path: str, media_type: str, body: bytes) -> int:
        return self.post(path, content=body, headers={"content-type": media_type}).status_code

    def by_connection(self, path: str, media_type: str, body: bytes) -> int:
        return self.run(self._connected(path, media_type, body))

    async def _connected(self, path: str, media_type: str, body: bytes) -> int:
        config = uvicorn.Config(self.app, ws="none", log_config=None, access_log=False)
        config.load()
        transport = Transport()
        connection = Connection(config, ServerState(), dict(self.state))
        connection.connection_made(transport)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.data_received(head.encode())
        connection.data_received(body)
        async with asyncio.timeout(30):
            while not transport.written:
                await asyncio.sleep(0.001)
        connection.connection_lost(None)
        return int(transport.written.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def doors(repository):
    with Doors(create_app(settings_for(repository, max_body_bytes=CAP)), raises=False) as opened:
        yield opened


def left_in_circles(doors, ask):
    """The frames and tracebacks that only a collection finds after some calls."""

    def of_the_service(thing: object) -> bool:
        frame = thing.tb_frame if isinstance(thing, TracebackType) else thing
        return isinstance(frame, FrameType) and "tests" not in Path(frame.f_code.co_filename).parts

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        ask()
        doors.run(asyncio.sleep(0.01))  # what is under way on the loop lets go
        gc.collect()
        return [str(thing) for thing in gc.garbage if of_the_service(thing)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("door", ["by_route", "by_connection"])
@pytest.mark.parametrize("size", [5000, 200_000])
def test_no_refusal_of_a_body_leaves_a_frame_behind(doors, door, size):
    ask = getattr(doors, door)

    def refused():
        for media_type, body in bad_bodies(size):
            assert 400 <= ask("/logprob", media_type, body) < 500, body[:50]

    assert left_in_circles(doors, refused) == []


@pytest.mark.parametrize("door", ["by_route", "by_connection"])
def test_no_refusal_of_a_limit_leaves_a_frame_behind(doors, door):
    ask = getattr(doors, door)
    calls = [
        ("/logprob", bytes(CAP + 1)),
        ("/models/nowhere/logprob", bytes(100_000)),
        ("/models/square/encode", npy(np.full((20_000, 2), -1e30, np.float32))),
        ("/models/square/encode", npy(np.full((2, 2), -1e30, np.float32))),
    ]

    def refused():
        for path, body in calls:
            assert 400 <= ask(path, NPY, body) < 500

    assert left_in_circles(doors, refused) == []

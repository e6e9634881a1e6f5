"""What the fuzzer is given: each codec and the heads, as a function of bytes that raises only what it may."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import uvicorn
from uvicorn.server import ServerState

from service.api.codecs.query import query_arguments
from service.api.codecs.wire import CODECS, decode
from service.errors import PushforwardError
from service.exchange import Exchange
from service.guard import Waits
from service.http.connection import STATE, Connection, Shared
from tests.service.transport import Transport

__all__ = ["SEEDS", "TARGETS", "Target"]

Target = Callable[[bytes], None]

WAITS: Final = Waits(header_seconds=10, body_seconds=60, keep_alive_seconds=75)
ROWS: Final = np.arange(6, dtype=np.float32).reshape(3, 2)


def decodes(media_type: str) -> Target:
    """A body of a media type, as a verb reads it."""

    def target(data: bytes) -> None:
        exchange = Exchange(content_type=media_type, body=data)
        try:
            arguments = decode(exchange, "x")
        except PushforwardError:
            return
        for value in arguments.values.values():
            np.asarray(value, dtype=object)

    return target


def query(data: bytes) -> None:
    """A query string, cut at `&` and `=`."""
    parts = [part.partition("=") for part in data.decode("latin-1").split("&")]
    pairs = tuple((name, value) for name, _, value in parts)
    try:
        query_arguments(pairs)
    except PushforwardError:
        return


class Heads:
    """The bytes of a connection, in pieces; the first byte says how long a piece is."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._config = uvicorn.Config(_answer, ws="none", log_config=None, access_log=False, timeout_keep_alive=0)
        self._config.load()

    def __call__(self, data: bytes) -> None:
        self._loop.run_until_complete(self._send(data))

    async def _send(self, data: bytes) -> None:
        connection = Connection(self._config, ServerState(), {STATE: Shared(None, WAITS)})
        transport: Any = Transport()
        connection.connection_made(transport)
        each = (data[0] if data else 0) + 1
        for start in range(1, len(data), each):
            if transport.is_closing():
                break
            connection.data_received(data[start : start + each])
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        written = bytes(transport.written)
        if written and not written.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            raise AssertionError(f"an answer begins with {written[:40]!r}")


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads a body whole and answers nothing."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, ROWS)
    return file.getvalue()


def _arrow() -> bytes:
    file = io.BytesIO()
    batch = pa.record_batch([pa.array(ROWS[:, 0]), pa.array(ROWS[:, 1])], ["x0", "x1"])
    with pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)
    return file.getvalue()


_NAMES: Final = {media_type.rpartition("/")[2].removeprefix("x-"): media_type for media_type in CODECS}

TARGETS: Final[Mapping[str, Callable[[], Target]]] = {
    **{name: partial(decodes, media_type) for name, media_type in _NAMES.items() if name != "png"},
    "query": lambda: query,
    "heads": Heads,
}
"""Name -> what makes the function; the names of media types are without their first part."""

SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "json": (b'{"x":[[0.5,1],[2,-3e4]],"model":"wine","seed":3}', b'{"x":0.5,"y":null}', b"[[1,2],[3,4]]"),
    "ndjson": (b"[0,1]\n[2,3]\n", b'{"x":0,"y":1}\n\n{"x":[2,3]}\n'),
    "csv": (b"a,b\n0,1\n2,3\n", b"0;1\n2;3\n", b'"a ""b""",c\r\n1e3,-0\r\n'),
    "npy": (_npy(), _npy().replace(b"False", b"True ")),
    "vnd.apache.arrow.stream": (_arrow(),),
    "query": (b"n=3&seed=1&temperature=0.5", b"context=1,2,3&alarm_rate=1e-3"),
    "heads": (
        b"\x10POST /logprob HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\xffPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nA: b\r\n\r\n",
    ),
}
"""What the fuzzer starts from, beside the corpus that was kept."""

"""What a refusal leaves behind: nothing that only a collection would find."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.app import create_app
from service.http.connection import Connection
from tests.service.bad_bodies import NPY, bad_bodies, npy
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess
from tests.service.transport import Transport

CAP = 1 << 20


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

"""Samples through two workers of a real server: the same bits whoever asks beside, and where a connection broke."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import httpx
import numpy as np
import pytest

from tests.server import Server
from tests.service.api.media import ALL

COLUMNS = [f"x{at}" for at in range(5)]
EVERY = pytest.mark.parametrize("media", ALL, ids=lambda media: media.name)


@pytest.fixture(scope="module")
def server(repository):
    process = Server("--repository", repository, "--default-flow", "coupling", "--workers", 2, "--threads", 1)
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def neighbours(server):
    """64 connections that ask for other seeds all the while."""
    done = threading.Event()

    def ask(number):
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not done.is_set():
                query = {"n": 1 + number % 7, "seed": 1000 + number, "offset": number}
                assert client.get("/sample", params=query).status_code == 200
                done.wait(0.05)

    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(ask, number) for number in range(64)]
        yield
        done.set()
        for one in asked:
            one.result()


def drawn(server, media, n, offset, **noise):
    """The rows, on a connection of their own: either worker may answer."""
    query = {"n": n, "seed": 3, "offset": offset, **noise}
    answer = httpx.get(f"{server.url}/sample", params=query, headers={"accept": media.name}, timeout=60)
    assert answer.status_code == 200, answer.text
    return media.read(answer.content, "x", COLUMNS).tobytes()


@EVERY
@pytest.mark.usefixtures("neighbours")
@pytest.mark.parametrize("noise", [{}, {"method": "sobol", "truncation": 2.0}], ids=["random", "sobol"])
def test_ten_rows_are_five_and_the_next_five_beside_others(server, media, noise):
    expected = drawn(server, ALL[0], 10, 0, **noise)
    for _ in range(4):
        assert drawn(server, media, 10, 0, **noise) == expected
        assert drawn(server, media, 5, 0, **noise) + drawn(server, media, 5, 5, **noise) == expected


def whole_rows(media, body):
    """As many rows as a body holds that broke off, in bytes of float32."""
    if media.name.endswith("npy"):
        numbers = body[body.index(b"\n") + 1 :]
        return numbers[: len(numbers) // 20 * 20]
    if media.name.endswith("stream"):
        return arrow_rows(body)
    lines = body[: body.rindex(b"\n") + 1]
    return media.read(lines, "x", COLUMNS).tobytes()


def arrow_rows(body):
    import pyarrow as pa

    whole = b""
    with pa.ipc.open_stream(body) as reader, suppress(pa.ArrowInvalid, OSError):
        for batch in reader:
            whole += np.stack([batch[name].to_numpy() for name in COLUMNS], 1).tobytes()
    return whole


@EVERY
def test_a_stream_that_breaks_off_goes_on_at_any_row(server, media):
    n = 60_000
    random = Random(1)
    headers = {"accept": media.name}
    body = b""
    with httpx.stream("GET", f"{server.url}/sample", params={"n": n, "seed": 3}, headers=headers, timeout=60) as answer:
        most = random.randrange(300_000, 1_000_000)
        for piece in answer.iter_raw():
            body += piece
            if len(body) > most:
                break
    got = whole_rows(media, body[:most])
    rows = len(got) // 20
    assert 0 < rows < n
    rows -= random.randrange(rows)  # from any row on, not only where a piece ended
    rest = drawn(server, media, n - rows, rows)
    assert got[: 20 * rows] + rest == drawn(server, ALL[0], n, 0)

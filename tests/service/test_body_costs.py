"""What a body costs to decode: memory and time by its bytes, whatever it holds."""

from __future__ import annotations

import gc
import io
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from service.api.native.backend import Backend
from service.api.native.log_prob import log_prob
from service.errors import PushforwardError
from service.exchange import Exchange
from service.plan import Run, advance
from tests.service.bad_bodies import ARROW, CSV, JSON, NDJSON, NPY, bad_bodies, npy, repeated

SIZE = 1 << 19
FACTOR = 12
CONSTANT = 8 << 20
"""Bytes that some blocks take, whatever they hold."""


def streams(batches: int, rows: int) -> bytes:
    schema = pa.schema([(f"column {at}", pa.float32()) for at in range(2)])
    batch = pa.record_batch([pa.array(np.zeros(rows, np.float32))] * 2, schema=schema)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, schema) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return out.getvalue()


GOOD = [
    (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,2]]}", SIZE)),
    (JSON, repeated(b'{"x":[', b'{"column 0":1,"column 1":2},', b'{"column 0":1,"column 1":2}]}', SIZE)),
    (NDJSON, repeated(b"", b"[1,2]\n", b"", SIZE)),
    (NDJSON, repeated(b"", b'{"column 0":1,"column 1":2}\n', b"", SIZE)),
    (CSV, repeated(b"", b"1,2\n", b"", SIZE)),
    (CSV, repeated(b"column 0,column 1,t\n", b"1,2,a\n", b"", SIZE)),
    (NPY, npy(np.zeros((SIZE // 2, 2), np.uint8))),
    (ARROW, streams(SIZE // 1000, 100)),
]
MORE = [
    (JSON, b'{"x":[{' + b",".join(b'"%07x":1' % at for at in range(SIZE // 12)) + b"}]}"),
    (JSON, b'{"x":{' + b",".join(b'"%07x":1' % at for at in range(SIZE // 12)) + b"}}"),
    (JSON, repeated(b'{"x":[[', b"1,", b"1]]}", 2 * SIZE)),
    (JSON, repeated(b'{"x":[', b"1,", b"1]}", SIZE)),
    (JSON, repeated(b'{"x":[[', b"{},", b"1]]}", 2 * SIZE)),
    (JSON, b'{"x":' + b"[" * (SIZE // 2) + b"]" * (SIZE // 2) + b"}"),
    (JSON, repeated(b'{"y":[[1]],"x":[', b"[],", b"[]]}", SIZE)),
    (JSON, repeated(b'{"x":[', b"[NaN],", b"[1]]}", SIZE)),
    (JSON, repeated(b"[", b"{},", b"{}]", SIZE)),
    (JSON, repeated(b'{"x":["', b"\\\\", b'"]}', SIZE)),
    (NDJSON, repeated(b"[", b"{},", b"{}]\n", 2 * SIZE)),
    (NDJSON, repeated(b"[1,2]\n", b"\n", b"", SIZE)),
    (CSV, repeated(b"1,2\n", b"\n", b"", SIZE)),
    (CSV, repeated(b"1,2\n", b",\n", b"", SIZE)),
    (CSV, repeated(b"", b'"a\n",', b"", SIZE)),
    (ARROW, streams(SIZE // 300, 0)),
    (ARROW, streams(SIZE // 400, 1)),
]


@pytest.fixture(scope="module")
def decoded(flows):
    """Decodes a body of /logprob up to its run, or to its refusal."""

    class OneFlow:
        def find(self, name=None, version=None):
            return flows["two-moons"]

    backend = Backend(OneFlow(), 1 << 24, 1 << 33)

    def decode(media_type, body):
        plan = log_prob(backend, Exchange(content_type=media_type, body=body))
        try:
            found = advance(plan)
            assert isinstance(found, Run)
        except PushforwardError as error:
            return error.code
        finally:
            plan.close()
        return "read"

    decode(JSON, b'{"x":[[1,2]]}')
    for media_type, body in bad_bodies(70_000):  # modules that are loaded by whoever needs them
        decode(media_type, body)
    return decode


def peak_of(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("at", range(len(GOOD)))
def test_a_good_body_takes_a_few_times_its_bytes(decoded, at):
    media_type, body = GOOD[at]
    ends = []
    assert peak_of(lambda: ends.append(decoded(media_type, body))) <= FACTOR * len(body) + CONSTANT
    assert ends == ["read"]


DEAR = [
    (JSON, repeated(b'{"x":[', b"{},", b"{}]}", SIZE)),
    (JSON, repeated(b'{"x":[[', b"{},", b"1]]}", SIZE)),
    (NDJSON, repeated(b"", b"[]\n", b"", SIZE)),
    (CSV, repeated(b"", b"a,", b"a\n1,2\n", SIZE)),
]


@pytest.mark.parametrize(
    "bodies", [DEAR, pytest.param([*bad_bodies(SIZE), *MORE], marks=pytest.mark.slow)], ids=["dear", "all"]
)
def test_no_refused_body_takes_more_than_a_multiple_of_its_bytes(decoded, bodies):
    over = {}
    for media_type, body in bodies:
        peak = peak_of(lambda media_type=media_type, body=body: decoded(media_type, body))
        if peak > FACTOR * len(body) + CONSTANT:
            over[media_type, body[:30]] = peak / len(body)
    assert over == {}


NAMES = b"column 0,column 1,t\n"


def odd_bodies(size: int) -> list[tuple[str, bytes]]:
    """Bodies that mostly are right, and dear for what stands beside the numbers or how these are written."""
    names, rows = b",".join(b"n%d" % at for at in range(900)), size // 1804
    return [
        (CSV, repeated(b"", b'"1","2"\n', b"", size)),
        (CSV, repeated(b'"1","2"\n', b"1,2\n", b"", size)),
        (CSV, repeated(b"", b"1,2\n", b"inf,1\n", size)),
        (CSV, repeated(NAMES, b"1,2,inf\n", b"", size)),
        (CSV, repeated(NAMES, b"1,2,\n", b"", size)),
        (CSV, repeated(NAMES, b'1,2,"\n"\n', b"", size)),
        (CSV, repeated(NAMES, b'1,2,""""\n', b"", size)),
        (CSV, repeated(NAMES, "1,2,\u00e9\n".encode(), b"", size)),
        (CSV, repeated(b"", b".5,1.\n", b"", size)),
        (CSV, repeated(b"", b"+1,02\n", b"", size)),
        (CSV, repeated(b"", b"\v1,2\n", b"", size)),
        (CSV, repeated(b"", b"1,2\n\n\n\n\n", b"", size)),
        (CSV, repeated(b"", b"1,2\n,\n", b"", size)),
        (CSV, b"#\n" * (1 << 16) + repeated(b"", b"1,2\n", b"", size)),
        (CSV, b"column 0,column 1,%b\n" % names + (b"1,2" + b",a" * 900 + b"\n") * rows),
        (JSON, repeated(b"{", b'"x":[[1,2]],', b'"x":[[1,2]]}', size)),
        (JSON, repeated(b'{"x":[', b"[1, 2] ,\n ", b"[1,2]]}", size)),
        (JSON, repeated(b'{"x":[', b'{"column 1":1,"column 0":2},', b'{"column 0":1,"column 1":2}]}', size)),
        (JSON, repeated(b'{"x":[', b'{"column\\u00200":1,"column 1":2},', b'{"column 0":1,"column 1":2}]}', size)),
        (JSON, repeated(b'{"x":[[1,2]],"a":[', b"[],", b"[]]}", size)),
        (NDJSON, repeated(b"", b"[ 1 , 2 ] \n", b"", size)),
        (NDJSON, repeated(b"", b'{"x":[1,2]}\n', b"", size)),
        (NDJSON, repeated(b"", b'{"column 0":1,"column 1":2,"a":NaN}\n', b"", size)),
        (NDJSON, repeated(b"", b'{"column 0":1,"column 1":2,"a":1e400}\n', b"", size)),
        (NPY, npy(np.asfortranarray(np.zeros((size // 8, 2), np.float32)))),
        (NPY, npy(np.full((size // 16, 2), 1e-310))),
        (ARROW, streams(size // 500, 10)),
    ]


TIMES = 5
"""A byte of any body costs at most so many times one of the dearest good body of its type."""
SECONDS = 0.08
"""Beside that: a body may have 32,768 names, each of which takes some microseconds, however short it is."""


def seconds_of(call) -> float:
    """The least processor time of some calls, without the collector, which looks at all that other tests have left."""
    found = []
    gc.disable()
    try:
        for _ in range(2):
            began = time.thread_time()
            call()
            found.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(found)


@pytest.mark.parametrize(
    ("media_type", "size"),
    [(CSV, SIZE // 2), (JSON, 4 * SIZE), (NDJSON, SIZE // 2), (NPY, SIZE), (ARROW, SIZE)],  # JSON may hold 32,768 names
)
def test_a_byte_of_any_body_costs_a_few_times_that_of_a_good_one(decoded, media_type, size):
    dearest = max(
        seconds_of(lambda body=body: decoded(media_type, body)) / len(body) for each, body in GOOD if each == media_type
    )
    over = {}
    for each, body in [*bad_bodies(size), *MORE, *odd_bodies(size)]:
        if each == media_type:
            seconds = seconds_of(lambda body=body: decoded(media_type, body))
            if seconds > TIMES * dearest * len(body) + SECONDS:
                over[body[:40]] = seconds / len(body) / dearest
    assert over == {}

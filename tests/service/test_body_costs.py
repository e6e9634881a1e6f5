"""What a body costs to decode: memory by its bytes, whatever it holds."""

from __future__ import annotations

import io
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

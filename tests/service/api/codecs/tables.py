"""What the codecs are tried with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs.codec import Codec, Columns, Form
from service.api.codecs.items import Items, block_items
from service.errors import PushforwardError

LOC = ("body", "x")
FORM = Form("x", ["a", 'b,"c', "d"])

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows_of_three = arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=finite)
densities = st.floats(width=32, allow_nan=False, max_value=100)


def rows_of(value: Any, wanted: list[str]) -> Any:
    """The rows of x in what a codec gave, as a flow without names takes them."""
    if not isinstance(value, Columns):
        return value
    whole = None if value.has(wanted) else value.argument("x")
    return value.rows(wanted, LOC) if whole is None else whole


def taken(codec: Codec, body: bytes, wanted: list[str]) -> np.ndarray:
    """The rows of x in a body, as float32."""
    value = codec.decode(body, "x")["x"]
    rows = listed(rows_of(value, wanted))
    return np.asarray(rows, np.float64).astype(np.float32)


def listed(value: Any) -> Any:
    """What a codec gave, with items as one list."""
    return [item for block in value.blocks() for item in block_items(block)] if isinstance(value, Items) else value


def mutated(seeds: list[bytes], count: int, first: int = 1 << 30) -> Iterator[bytes]:
    """Broken copies of bodies: bits and words changed, bytes lost, ends cut off."""
    draw = random.Random(7)
    for _ in range(count):
        body = bytearray(draw.choice(seeds))
        for _ in range(draw.choice([1, 1, 2, 4, 8])):
            if not body:
                break
            at = draw.randrange(min(len(body), first))
            match draw.randrange(6):
                case 0 | 1:
                    body[at] = draw.randrange(256)
                case 2:
                    body[at] ^= 1 << draw.randrange(8)
                case 3:
                    at &= ~3
                    body[at : at + 4] = draw.choice(
                        [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"]
                    )
                case 4:
                    del body[at : at + draw.randrange(1, 9)]
                case _:
                    del body[at:]
        yield bytes(body)


def read_or_refused(codec: Codec, body: bytes, wanted: list[str]) -> str:
    """How it ended; any error that is not the project's own comes out."""
    try:
        value = codec.decode(body, "x")["x"]
        rows = listed(rows_of(value, wanted))
    except PushforwardError as error:
        return error.code
    assert isinstance(rows, (list, np.ndarray))
    return "read"

from __future__ import annotations

import asyncio
import io

import httpx
import numpy as np
import pytest
from PIL import Image

import pushforward
from pushforward.client.errors import ApiError, InvalidInput, UnexpectedAnswer


def test_a_picture_through_the_client(server):
    with pushforward.Client(server, model="image") as flow:
        drawn = flow.picture("sample", n=4, seed=7, columns=4, size=3)
        assert np.asarray(Image.open(io.BytesIO(drawn))).shape == (6, 22, 3)
        assert flow.picture("logprob", x=[[0.5, 0.2]], model="affine", size=300) != drawn
        with pytest.raises(ApiError, match="smaller size"):
            flow.picture("sample", n=4000, size=200)
        with pytest.raises(InvalidInput):
            flow.picture("decode", z=[[np.nan] * 6])


def test_a_picture_through_the_asynchronous_client(server):
    async def asked() -> list[bytes]:
        async with pushforward.AsyncClient(server, model="image") as flow:
            return [await flow.picture("sample", n=4, seed=7) for _ in range(2)]

    first, second = asyncio.run(asked())
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_an_answer_that_is_no_picture_is_told():
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
    with pushforward.Client("http://test", transport=transport) as flow, pytest.raises(UnexpectedAnswer):
        flow.picture("sample")

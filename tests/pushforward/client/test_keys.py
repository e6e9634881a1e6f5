"""The key of a client: sent to its server, and shown nowhere."""

from __future__ import annotations

import asyncio
import traceback

import httpx
import pytest

import pushforward
from pushforward.client.keys import BearerKey, find_key
from pushforward.errors import InvalidInput, NotAuthorized, Overloaded

KEY = "pf_abcDEF0123456789_-secret"


class Seen:
    """A server that keeps what it is asked with."""

    def __init__(self, status=200, code=""):
        self.fields = []
        self.status = status
        self.problem = {"code": code, "detail": "why", "errors": []}

    def __call__(self, request):
        self.fields.append(request.headers.get("authorization"))
        return httpx.Response(self.status, json=self.problem if self.status >= 400 else {"default": None, "models": []})

    def client(self, **given):
        return pushforward.Client("http://host", transport=httpx.MockTransport(self), retries=0, **given)


def sent(**given):
    seen = Seen()
    with seen.client(**given) as client:
        client.models()
    return seen.fields


def test_a_key_is_sent_with_each_request(monkeypatch):
    monkeypatch.delenv("PUSHFORWARD_KEY", raising=False)
    assert sent() == [None]
    assert sent(key=KEY) == [f"Bearer {KEY}"]


def test_a_key_of_the_environment_is_sent_where_none_is_given(monkeypatch):
    monkeypatch.setenv("PUSHFORWARD_KEY", f" {KEY}\n")
    assert sent() == [f"Bearer {KEY}"]
    assert sent(key="other") == ["Bearer other"]
    assert sent(key="") == [None]
    assert sent(headers={"AUTHORIZATION": "Basic YTpi"}) == ["Basic YTpi"]


def test_an_asynchronous_client_sends_it_too():
    seen = Seen()

    async def ask():
        async with pushforward.AsyncClient("http://host", transport=httpx.MockTransport(seen), key=KEY) as client:
            await client.models()

    asyncio.run(ask())
    assert seen.fields == [f"Bearer {KEY}"]


def test_a_key_is_shown_nowhere():
    seen = Seen(401, "key_unknown")
    client = seen.client(key=KEY)
    with pytest.raises(NotAuthorized) as caught:
        client.models()
    told = "".join(traceback.format_exception(caught.value))
    for text in (
        told,
        repr(client),
        str(vars(client)),
        repr(client._connection),
        repr(find_key(KEY)),
        repr(caught.value),
    ):
        assert KEY not in text
    assert caught.value.code == "key_unknown"


@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Evil: 1", f"{KEY} x", f"{KEY}\0", f"{KEY}\u00e9"])
def test_a_key_with_other_characters_is_refused_and_not_repeated(key):
    with pytest.raises(InvalidInput, match="characters that no key has") as caught:
        BearerKey(key)
    assert KEY not in str(caught.value)


def test_a_budget_that_is_used_up_is_told():
    with pytest.raises(Overloaded), Seen(429, "budget_spent").client(key=KEY) as client:
        client.models()

"""What the two clients share: their settings, and the way from a step of a delivery to httpx and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import httpx

from pushforward.client.delivery import Answer, Delivery, Send
from pushforward.client.errors import ClientError, ConnectionFailed, InvalidInput, TimedOut
from pushforward.client.latent_requests import LatentRequests

__all__ = ["DEFAULT_TIMEOUT", "DEFAULT_URL", "Connection"]

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT: Final = 60.0


class Connection:
    """What both clients are made of, but for the sending and the waiting.

    Args:
        base_url, model, version, timeout, retries, max_values, clock, random: as for `pushforward.Client`.

    Raises:
        InvalidInput: where `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None,
        version: int | None,
        timeout: float,
        retries: int,
        max_values: int,
        clock: Callable[[], float],
        random: Random | None,
    ) -> None:
        if httpx.URL(base_url).scheme not in ("http", "https"):
            raise InvalidInput(f"base_url must start with http:// or https://, and is {base_url!r}")
        self.base_url = base_url
        self._clock = clock
        self._requests = LatentRequests(
            Delivery(timeout, retries, clock=clock, random=random or Random()),  # noqa: S311  jitter, not a secret
            model,
            version,
            max_values,
        )

    def _built(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        request = send.request
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        if request.accept is not None:
            headers["Accept"] = request.accept
        return http.build_request(
            request.method,
            request.path,
            params=request.query or None,
            content=request.body,
            headers=headers,
            timeout=max(0.001, send.deadline - self._clock()),
        )

    def _in_time(self, send: Send) -> None:
        if self._clock() >= send.deadline:
            raise httpx.ReadTimeout("the answer is still coming")

    def _failed(self, error: httpx.HTTPError) -> ClientError:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(f"{self.base_url} gave no answer in {self._requests.delivery.timeout:g} seconds")
        return ConnectionFailed(f"no answer from {self.base_url}: {error or type(error).__name__}")

    def _answer(self, response: httpx.Response, content: Sequence[bytes]) -> Answer:
        return Answer(response.status_code, b"".join(content), response.headers.get("retry-after"))

"""A page in a real browser that is watched: every error in its console, and every request that went wrong or away."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request, Response

__all__ = ["Watched", "until", "wait_for_address", "wait_for_map"]

_SECONDS = 30.0


def until(page: Page, script: str, given: object = None) -> None:
    """Wait until a script of the page gives something true. Playwright's own wait needs eval, which the policy bars."""
    deadline = time.monotonic() + _SECONDS
    while not page.evaluate(script, given):
        assert time.monotonic() < deadline, f"in vain: {script}"
        page.wait_for_timeout(20)


def wait_for_address(page: Page, part: str) -> str:
    """The state in the address, once it holds this."""
    until(page, "part => location.hash.includes(part)", part)
    return page.evaluate("location.hash")


def wait_for_map(page: Page) -> None:
    """Wait until the heat map is there in its full size."""
    until(page, "() => performance.getEntriesByName('heat map').length > 0")


@dataclass
class Watched:
    """What happened on a page.

    Args:
        page: the page.
        origin: of the server, which no request may leave.
        allowed: the statuses that the test brings about; the browser writes them into the console too.
    """

    page: Page
    origin: str
    allowed: set[int] = field(default_factory=set)
    may_fail: bool = False
    wrong: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"an error of the page: {error}"))
        self.page.on("request", self._see)
        self.page.on("requestfailed", self._fail)
        self.page.on("response", self._answer)

    def check(self) -> None:
        """Hold that nothing went wrong."""
        assert not self.wrong, "\n".join(self.wrong)

    def asked(self, part: str) -> list[Request]:
        """The requests whose address holds this."""
        return [request for request in self.requests if part in request.url]

    def _hear(self, message) -> None:
        told = message.text
        brought = any(f"status of {status}" in told for status in self.allowed)
        if message.type in ("error", "warning") and not brought and not (self.may_fail and "ERR_CONNECTION" in told):
            self.wrong.append(f"the console says: {told}")

    def _see(self, request: Request) -> None:
        self.requests.append(request)
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data") and f"{url.scheme}://{url.netloc}" != self.origin:
            self.wrong.append(f"a request left the server: {request.url}")

    def _fail(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED" and not self.may_fail:  # the page ends what it no longer waits for
            self.wrong.append(f"a request failed: {request.url}: {request.failure}")

    def _answer(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.allowed:
            self.wrong.append(f"an answer of {response.status}: {response.url}")

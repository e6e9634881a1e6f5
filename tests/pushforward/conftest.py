from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

import pushforward
from service.bundle.manifest import ContextFeature
from service.engine.trials import TrialLimits, Trials
from tests.server import Server
from tests.service import bundles


class _OneChild(Trials):
    """Trials that a command does not end."""

    def close(self) -> None:
        """Keep the child for the next test."""


@pytest.fixture(scope="session")
def one_child() -> Iterator[Trials]:
    """A child that tries the bundles of many tests: its start takes longer than most of them."""
    trials = _OneChild()
    yield trials
    Trials.close(trials)


@pytest.fixture(autouse=True)
def tried_in_one_child(monkeypatch: pytest.MonkeyPatch, one_child: Trials) -> None:
    """Let commands that run a bundle under the usual limits try it in one child."""
    usual = TrialLimits()
    monkeypatch.setattr(
        "service.engine.loading.Trials", lambda limits: one_child if limits == usual else Trials(limits)
    )


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Blocking:
    """An AsyncClient with the methods of a Client, so that both are held to the same tests."""

    def __init__(self, client: pushforward.AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def shut(self) -> None:
        self.close()
        self._runner.close()


Handler = Callable[[httpx.Request], httpx.Response]
Connect = Callable[..., Any]


@pytest.fixture(params=["Client", "AsyncClient"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of either kind: of a handler in the place of the network, or of a URL."""
    opened: list[Callable[[], None]] = []

    def make(where: Handler | str, time: Time | None = None, **options: Any) -> Any:
        if isinstance(where, str):
            options["base_url"] = where
        else:
            options["transport"] = httpx.MockTransport(where)
            time = time or Time()
        blocking = request.param == "Client"
        if time is not None:
            options |= {"clock": time.clock, "sleep": time.sleep if blocking else time.asleep, "random": Random(1)}
        if blocking:
            client = pushforward.Client(**options)
            opened.append(client.close)
            return client
        wrapped = Blocking(pushforward.AsyncClient(**options))
        opened.append(wrapped.shut)
        return wrapped

    yield make
    for close in opened:
        close()


CONTEXT = [
    ContextFeature(name="dose", unit="mg"),
    ContextFeature(name="kind=red", column="kind", category="red"),
    ContextFeature(name="kind=7", column="kind", category="7"),
]
"""The context of the flow `classes`: a number, and one of two classes."""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small flows with a closed form: a table with names, two with context, one with a support, an image."""
    root = tmp_path_factory.mktemp("repository")
    bundles.install(
        root,
        bundles.affine(),
        bundles.affine(version=2),
        bundles.affine("conditional", context_width=2),
        bundles.affine("classes", context_width=3, context_features=CONTEXT),
        bundles.traced(bundles.affine("given", context_width=2)),
        bundles.square(),
        bundles.image(),
        bundles.traced(bundles.affine("traced", directions={"right": [1.0, 0.0]})),
    )
    return root


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[str]:
    """The base URL of a server process of its own; its default flow is `affine`."""
    options = ["--default-flow", "affine", "--threads", 1, "--max-body-bytes", 200_000, "--max-work", 1_000_000]
    process = Server("--repository", repository, *options)
    with pushforward.Client(process.url) as client:
        assert client.ready()
    yield process.url
    assert process.stop() == 0

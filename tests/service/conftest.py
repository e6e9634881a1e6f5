from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.bundle.manifest import ContextFeature
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.loading import load_flow
from service.engine.verbs.flow import ServedFlow
from service.settings import Settings
from tests.service.bundles import Parts, affine, bundle, coupling, image, install, square, traced
from tests.service.inprocess import InProcess

EVERY_FLOW: dict[str, Parts] = {
    "two-moons": traced(affine("two-moons")),
    "conditional": traced(
        affine(
            "conditional",
            1,
            (3,),
            2,
            context_features=[ContextFeature(name="dose"), ContextFeature(name="kind=b", column="kind", category="b")],
        )
    ),
    "image": traced(image()),
    "square": square(),
    "coupling": coupling(width=5),
}


@pytest.fixture(scope="session")
def parts() -> dict[str, Parts]:
    """What the flows of `repository` are made of, with their closed forms."""
    return EVERY_FLOW


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small flows; the default is called as the shipped one, so that the examples of OpenAPI run."""
    root = tmp_path_factory.mktemp("repository")
    install(root, *EVERY_FLOW.values(), traced(affine("two-moons", 2)))
    return root


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    threads = Workers(2)
    yield threads
    threads.close(10)


@pytest.fixture(scope="session")
def flows(tmp_path_factory: pytest.TempPathFactory, workers: Workers) -> dict[str, ServedFlow]:
    """Each flow as it is served, with a small chunk, so that a few hundred rows are cut."""
    root = tmp_path_factory.mktemp("flows")
    return {name: load_flow(bundle(root, parts), workers, Limits(chunk_rows=64)) for name, parts in EVERY_FLOW.items()}


def settings_for(repository: Path, **changes: Any) -> Settings:
    """Settings of a test's server: nothing of the environment, the default flow two-moons."""
    return Settings(**{"repository": repository, "default_flow": "two-moons", "threads": 2, **changes})


@pytest.fixture(scope="session")
def client(repository: Path) -> Iterator[InProcess]:
    """A client of the application in this process."""
    with InProcess(create_app(settings_for(repository))) as opened:
        yield opened


@pytest.fixture
def serving(repository: Path) -> Iterator[Callable[..., InProcess]]:
    """Make further applications with other settings; closed at the end."""
    opened: list[InProcess] = []

    def make(root: Path = repository, **changes: Any) -> InProcess:
        made = InProcess(create_app(settings_for(root, **changes)), raises=False)
        made.__enter__()
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.__exit__(None, None, None)

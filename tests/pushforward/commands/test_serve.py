from __future__ import annotations

import pytest

from pushforward.commands.serve import _announce
from service.bundle.store import Repository
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.registry import Registry
from service.process.server import standing
from tests.service import bundles


@pytest.fixture
def registry(tmp_path):
    bundles.install(tmp_path, bundles.affine(), bundles.affine(version=2), bundles.square())
    workers = Workers(1)
    yield Registry(Repository(tmp_path), None, workers, Limits())
    workers.close(10)


def test_a_flow_is_named_once_it_is_ready(registry, capsys):
    _announce("http://host:1", standing(registry))
    begun = "Pushforward serves no flow at http://host:1 (flows are still loading; API: http://host:1/docs; "
    assert capsys.readouterr().out == begun + "stop with Ctrl-C)\n"
    registry.load()
    _announce("http://host:1", standing(registry))
    loaded = "Pushforward serves affine, square at http://host:1 (API: http://host:1/docs; stop with Ctrl-C)\n"
    assert capsys.readouterr().out == loaded

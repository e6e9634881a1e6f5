"""Damaged files: a bundle whose bits have changed is refused, or answers bitwise as it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import bundles
from tests.service.damage import refused_or_the_same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bundles.install(tmp_path, bundles.traced(bundles.affine())).path("affine")


def test_a_damaged_bundle_is_refused_or_answers_as_before(folder: Path) -> None:
    assert refused_or_the_same(folder, 300, seed=0) < 60  # blanks of flow.json count for nothing


@pytest.mark.slow
def test_a_damaged_bundle_is_refused_or_answers_as_before_30_000_times(folder: Path) -> None:
    refused_or_the_same(folder, 30_000, seed=1)

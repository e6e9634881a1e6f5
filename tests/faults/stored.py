"""Bundles on a disk that damages them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tests.faults.scenario import Effort, Outcome, Scenario, Start
from tests.service import bundles
from tests.service.damage import refused_or_the_same

__all__ = ["SCENARIOS"]


def _damage(_: Start, effort: Effort) -> Outcome:
    count = effort.count(30_000)
    with tempfile.TemporaryDirectory() as root:
        folder = bundles.install(Path(root), bundles.traced(bundles.affine())).path("affine")
        try:
            taken = refused_or_the_same(folder, count, effort.seed)
        except AssertionError as error:
            return Outcome(held=False, seen=str(error).splitlines()[0])
    return Outcome(held=True, seen=f"{count - taken:,} refused, {taken:,} the same")


SCENARIOS: Final = (
    Scenario(
        name="damaged-bundles",
        done="30,000 bit flips and truncations, one at a time, over all files of a bundle",
        to_hold="each refused, or bitwise the same answers",
        measure=_damage,
        plain=False,
    ),
)

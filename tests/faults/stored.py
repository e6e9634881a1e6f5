"""Bundles on a disk that damages them."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Final
from unittest import mock

from tests.faults.scenario import Effort, Outcome, Scenario, Start, Without
from tests.service import bundles
from tests.service.damage import refused_or_the_same

__all__ = ["SCENARIOS"]


class _AnyDigest(str):
    """A digest that no other differs from."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


def _unsealed() -> ExitStack:
    """The digests of files and manifests are looked at no more."""
    stack = ExitStack()
    for place in ("service.bundle.store.digest", "service.bundle.manifest.content_digest"):
        stack.enter_context(mock.patch(place, return_value=_AnyDigest()))
    return stack


def _damage(start: Start, effort: Effort) -> Outcome:
    count = effort.count(30_000)
    with tempfile.TemporaryDirectory() as root:
        folder = bundles.install(Path(root), bundles.traced(bundles.affine())).path("affine")
        try:
            with _unsealed() if start.removal else nullcontext():
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
        without=Without("the digests", removal="digests"),
        plain=False,
    ),
)

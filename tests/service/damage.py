"""Damage to the files of a bundle: bits flipped and ends cut off, at random."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from service.bundle.store import Bundle, read_bundle
from service.engine.loading import load_flow
from service.engine.verbs.scores import HeldOut
from service.errors import BundleError
from service.plan import run_now

__all__ = ["refused_or_the_same"]

FILES = ("flow.json", "forward.onnx", "inverse.onnx", "trace.onnx", "golden.npz")


def damage(data: bytes, chance: random.Random) -> bytes:
    """One bit flipped, or the end cut off."""
    if chance.random() < 0.15:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def same_content(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles are the same to whatever serves them: manifest, graphs and golden rows."""
    golden = ("x", "z", "log_abs_det_jacobian", "log_prob")
    return (
        one.manifest.model_dump_json() == other.manifest.model_dump_json()
        and one.graphs == other.graphs
        and all(np.array_equal(getattr(one.golden, name), getattr(other.golden, name)) for name in golden)
    )


def answers(bundle: Bundle) -> list[bytes]:
    """Bits of a density with its scores, and of a sample."""
    flow = load_flow(bundle)
    log_prob = run_now(flow.log_prob(bundle.golden.x)).log_prob
    scale = HeldOut(bundle.manifest.calibration)
    drawn = run_now(flow.sample(9, seed=3)).x
    return [a.tobytes() for a in (log_prob, scale.quantile(log_prob), scale.typicality(log_prob), drawn)]


def refused_or_the_same(folder: Path, count: int, seed: int) -> int:
    """Damage a bundle many times over, and return how often it was still taken."""
    right = read_bundle(folder)
    expected = answers(right)
    whole = {name: (folder / name).read_bytes() for name in FILES}
    chance = random.Random(seed)
    taken = 0
    for at in range(count):
        name = FILES[at % len(FILES)]
        (folder / name).write_bytes(damage(whole[name], chance))
        try:
            found = read_bundle(folder)
        except BundleError:
            pass
        else:
            assert same_content(found, right), f"{name}, damage {at} of seed {seed}"
            assert taken > 3 or answers(found) == expected
            taken += 1
        (folder / name).write_bytes(whole[name])
    return taken

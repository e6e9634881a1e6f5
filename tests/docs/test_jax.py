"""docs/jax.md: the example is a flow that can be imported, with weights in the layout of JAX. No JAX is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.importing.agreement import check_agreement
from models.importing.load import draw_rows, export_imported, find_precision_fault
from models.importing.take import own_precision, take
from service.bundle.store import Repository, read_bundle
from tests.docs.readme import blocks

PAGE = Path(__file__).parents[2] / "docs" / "jax.md"
WIDTH, BINS, BOX = 7, 16, 5.0
Arrays = dict[str, npt.NDArray[Any]]


def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "from_jax"}
    for code in blocks(PAGE.read_text(), "python"):
        exec(code, names)
    return names


def weights(dtype: type[np.floating], hidden: int, size: float, couplings: int = WIDTH) -> Arrays:
    """What a fit in JAX leaves: for each coupling three dense layers, ``[in, out]``."""
    random = np.random.default_rng(0)
    layers = [(WIDTH // 2, hidden), (hidden, hidden), (hidden, (WIDTH - WIDTH // 2) * (3 * BINS - 1))]
    arrays: Arrays = {"low": np.linspace(-1, 2, WIDTH).astype(dtype), "high": np.linspace(3, 25, WIDTH).astype(dtype)}
    for number in range(couplings):
        for layer, shape in enumerate(layers):
            arrays[f"{number}.{layer}.weight"] = (size * random.normal(size=shape) / shape[0] ** 0.5).astype(dtype)
            arrays[f"{number}.{layer}.bias"] = (0.1 * random.normal(size=shape[1])).astype(dtype)
    return arrays


def log_prob(arrays: Arrays, x: npt.NDArray[np.float64]) -> float:
    """The density of one row, in NumPy and step by step as the paper has it."""
    # the module keeps these two in the precision of the weights
    middle, scale = (
        (arrays["low"] + arrays["high"]) / 2,
        ((arrays["high"] - arrays["low"]) / 2 / BOX).astype(np.float64),
    )
    z, total = (x - middle) / scale, -np.log(scale).sum()
    number = 0
    while f"{number}.0.weight" in arrays:
        made = z[: WIDTH // 2]
        for layer in range(3):
            made = made @ arrays[f"{number}.{layer}.weight"].astype(np.float64) + arrays[f"{number}.{layer}.bias"]
            made = made if layer == 2 else np.where(made > 0, made, 0.01 * made)
        for column, numbers in enumerate(made.reshape(-1, 3 * BINS - 1), WIDTH // 2):
            if not -BOX < z[column] < BOX:
                continue
            sizes = np.exp(numbers[: 2 * BINS].reshape(2, BINS))
            w, h = 2 * BOX * sizes / sizes.sum(axis=1, keepdims=True)
            d = np.array([1.0, *np.log1p(np.exp(numbers[2 * BINS :])), 1.0])
            left, lower = (np.cumsum(np.array([-BOX, *size])) for size in (w, h))
            k = min(np.searchsorted(left, z[column], side="right") - 1, BINS - 1)
            t, s = (z[column] - left[k]) / w[k], h[k] / w[k]
            below = s + (d[k] + d[k + 1] - 2 * s) * t * (1 - t)
            total += np.log(s**2 * (d[k + 1] * t**2 + 2 * s * t * (1 - t) + d[k] * (1 - t) ** 2) / below**2)
            z[column] = lower[k] + h[k] * (s * t**2 + d[k] * t * (1 - t)) / below
        z = np.roll(z, 1)
        number += 1
    return float(total - WIDTH * np.log(2 * BOX))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_example_is_the_flow_of_its_weights(dtype: type[np.floating]) -> None:
    arrays = weights(dtype, hidden=16, size=1.0, couplings=3)
    flow = page()["build"](arrays, BINS)
    imported = take(flow, event_shape=(WIDTH,), precision=own_precision(flow))
    assert imported.flow.precision == np.dtype(dtype).name
    rows = draw_rows(imported, 20)
    assert rows.x.dtype == dtype
    assert find_precision_fault(imported, rows) is None
    assert check_agreement(imported, rows.x, rows.context) < 1e-12
    x = rows.x[:5].astype(np.float64)
    found = imported.flow.log_prob(torch.from_numpy(x))
    np.testing.assert_allclose(found, [log_prob(arrays, row.copy()) for row in x], rtol=1e-10)


def test_weights_are_saved_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = weights(np.float32, hidden=8, size=1.0, couplings=2)
    couplings = [[(arrays[f"{n}.{i}.weight"], arrays[f"{n}.{i}.bias"]) for i in range(3)] for n in range(2)]
    names = page()
    names["save_couplings"](couplings, tmp_path / "couplings.npz")
    with np.load(tmp_path / "couplings.npz") as saved:
        np.savez(tmp_path / "photo_z.npz", low=arrays["low"], high=arrays["high"], **saved)
    monkeypatch.chdir(tmp_path)
    made = names["make_flow"]()
    expected = names["build"](arrays).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in made.state_dict().items())


@pytest.mark.slow
def test_the_public_flow_of_seven_couplings_becomes_a_bundle(tmp_path: Path) -> None:
    flow = page()["build"](weights(np.float32, hidden=128, size=0.7), BINS)
    imported = take(flow, event_shape=(WIDTH,), precision="float64")
    rows = draw_rows(imported, 300)
    folder = export_imported(
        imported, rows, repository=Repository(tmp_path), name="photo-z", source="from_jax:make_flow"
    )
    manifest = read_bundle(folder).manifest
    assert manifest.precision == "float64"
    assert manifest.parity.log_prob < 1e-9

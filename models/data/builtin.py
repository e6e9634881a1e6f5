"""The data sets that a recipe may name: drawn by formula, or carried by scikit-learn, so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Feature, Quantization
from service.errors import DataError

__all__ = ["BUILTIN", "Dataset", "load"]

MOON_ROWS: Final = 30_000
MOON_NOISE: Final = 0.07
FACES: Final = 52_000
FACES_SEED: Final = 20260101

_WINE_UNITS: Final = {
    "alcohol": "% vol",
    "malic_acid": "g/l",
    "ash": "g/l",
    "alcalinity_of_ash": "meq/l",
    "magnesium": "mg/l",
    "total_phenols": "g/l",
    "flavanoids": "g/l",
    "nonflavanoid_phenols": "g/l",
    "proanthocyanins": "g/l",
    "proline": "mg/l",
}


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows, and what is known of them.

    Args:
        rows: float64 ``[N, *event]``, in the units of the user.
        features: one for each column of a table; empty for images.
        data: where the rows come from, in words.
        quantization: for integer-valued data; else None.
        beside: name -> values ``[N]`` that are no part of a row, but can select rows and condition a flow.
    """

    rows: npt.NDArray[np.float64]
    features: tuple[Feature, ...]
    data: str
    quantization: Quantization | None = None
    beside: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)


def two_moons() -> Dataset:
    """Two interleaved half circles of radius 1, with normal noise of standard deviation 0.07 on both coordinates."""
    from sklearn.datasets import make_moons

    rows, moon = make_moons(n_samples=MOON_ROWS, noise=MOON_NOISE, random_state=20260101)
    data = f"scikit-learn's make_moons: {MOON_ROWS} points, noise {MOON_NOISE}, random_state 20260101"
    features = (Feature(name="x"), Feature(name="y"))
    beside = {"moon": np.asarray(moon, np.int64)}
    return Dataset(rows=np.asarray(rows, np.float64), features=features, data=data, beside=beside)


def digits() -> Dataset:
    """Handwritten digits, 8 x 8 pixels, each a whole number from 0 (paper) to 16 (ink)."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.asarray(scans.images, np.float64)[..., np.newaxis]
    reading = (
        "A pixel k in 0, 1, ..., 16 stands for the bin [k - 1/2, k + 1/2): the flow was fitted to integers plus noise "
        "U(-1/2, 1/2). An integer row is read as the centre of its bin, so send integers as they are."
    )
    data = "scikit-learn's load_digits: 1797 images of the test part of UCI's optical recognition of handwritten digits"
    quantization = Quantization(low=0.0, high=16.0, step=1.0, reading=reading)
    digit = {"digit": np.asarray(scans.target, np.int64)}
    return Dataset(rows=images, features=(), data=data, quantization=quantization, beside=digit)


def wine() -> Dataset:
    """Chemical analyses of 178 Italian wines, 13 columns."""
    from sklearn.datasets import load_wine

    table = load_wine()
    features = tuple(Feature(name=name, unit=_WINE_UNITS.get(name)) for name in table.feature_names)
    data = "scikit-learn's load_wine: UCI's wine recognition data, 178 wines of three cultivars, the cultivar left out"
    cultivar = {"cultivar": np.asarray(table.target, np.int64)}
    return Dataset(rows=np.asarray(table.data, np.float64), features=features, data=data, beside=cultivar)


def faces() -> Dataset:
    """Drawn portraits, 32 x 32 pixels, each a whole number from 0 (black) to 255 (white); see `models.data.faces`.

    Beside each face stands, for each of its parameters, whether it lies in the upper half of its range: 1, or 0.
    """
    from models.data.faces import GRAIN, PARAMETERS, draw_faces

    pictures, parameters = draw_faces(FACES, FACES_SEED)
    middles = [(parameter.low + parameter.high) / 2 for parameter in PARAMETERS.values()]
    halves = (parameters > middles).astype(np.int64)
    reading = "a pixel k in 0, 1, ..., 255 stands for the bin [k - 1/2, k + 1/2), and is read as the centre of its bin"
    return Dataset(
        rows=pictures,
        features=(),
        data=f"{FACES} faces drawn by models/data/faces.py from {len(PARAMETERS)} parameters, grain {GRAIN}, seed "
        f"{FACES_SEED}",
        quantization=Quantization(low=0.0, high=255.0, step=1.0, reading=reading),
        beside=dict(zip(PARAMETERS, halves.T, strict=True)),
    )


BUILTIN: Final[Mapping[str, Callable[[], Dataset]]] = MappingProxyType(
    {"two-moons": two_moons, "digits": digits, "wine": wine, "faces": faces}
)
"""Name -> the function that loads it. No data set needs a network; the same name gives the same rows."""


def load(name: str) -> Dataset:
    """Load a data set of `BUILTIN`.

    Raises:
        DataError: where there is none of that name, or scikit-learn is not installed.
    """
    if name not in BUILTIN:
        raise DataError(f"there is no built-in data set {name!r}; there are {', '.join(BUILTIN)}")
    try:
        return BUILTIN[name]()
    except ImportError as error:
        raise DataError("built-in data sets need scikit-learn: install the extra `train` of pushforward") from error

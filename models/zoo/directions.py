"""The directions of a shipped flow, from kinds of rows of its data: from all other rows towards each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from models.data.builtin import Dataset
from models.directions import mean_direction
from models.export.exported_graph import ExportedGraph
from service.bundle.manifest import Manifest
from service.bundle.store import Bundle

__all__ = ["KINDS", "Kinds", "with_directions"]

Kinds = Mapping[str, npt.NDArray[np.bool_]]
"""Name of a direction -> which rows it leads to, ``[N]``."""

_BATCH: Final = 1000
_DECIMALS: Final = 6  # what a float32 latent holds of them


def _classes(column: str, data: Dataset) -> Kinds:
    """One kind for each class, called as the class is."""
    labels = data.beside[column]
    return {str(label): labels == label for label in np.unique(labels)}


def _upper_halves(columns: tuple[str, ...], data: Dataset) -> Kinds:
    """One kind for each property: the rows that have more of it than half."""
    return {column: data.beside[column] == 1 for column in columns}


KINDS: Final[Mapping[str, Callable[[Dataset], Kinds]]] = MappingProxyType(
    {
        "digits": partial(_classes, "digit"),
        "faces": partial(_upper_halves, ("smile", "glasses", "turn", "hair", "beard")),
    }
)
"""Flow -> the kinds of rows that its directions lead to, from its data."""


def with_directions(bundle: Bundle, data: Dataset, kinds: Kinds) -> Manifest:
    """The manifest of a bundle with a direction for each kind of rows.

    It is the mean latent of these rows minus that of all others, rounded to 6 decimals, so that an image of a 3
    is walked towards an 8 along the direction "8".

    Args:
        bundle: of a flow without context.
        data: the rows that it was fitted to, and more of their kind.
        kinds: from `KINDS`.

    Returns:
        The manifest, with these directions beside those that it has.
    """
    manifest = bundle.manifest
    graph = ExportedGraph(bundle.graphs["forward.onnx"], "forward", manifest.precision)
    z = np.concatenate(
        [
            graph(np.ascontiguousarray(rows, manifest.dtype), None, _BATCH).value.astype(manifest.dtype)
            for rows in np.array_split(data.rows, -(-len(data.rows) // _BATCH))
        ]
    )
    found = {name: mean_direction(z[chosen], z[~chosen]).round(_DECIMALS).tolist() for name, chosen in kinds.items()}
    return manifest.model_copy(update={"directions": {**manifest.directions, **found}})

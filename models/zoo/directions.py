"""The directions of a shipped flow, from the classes of its data: from everything else towards each class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from models.data.builtin import Dataset
from models.directions import mean_direction
from models.export.exported_graph import ExportedGraph
from service.bundle.manifest import Manifest
from service.bundle.store import Bundle

__all__ = ["CLASSES", "with_directions"]

CLASSES: Final[Mapping[str, str]] = MappingProxyType({"digits": "digit"})
"""Flow -> what stands beside its data and names the class of each row."""

_BATCH: Final = 1000
_DECIMALS: Final = 6  # what a float32 latent holds of them


def with_directions(bundle: Bundle, data: Dataset, classes: str) -> Manifest:
    """The manifest of a bundle with a direction for each class of its data, called as the class is.

    It is the mean latent of the class's rows minus that of all others, rounded to 6 decimals, so that an image of a 3
    is walked towards an 8 along the direction "8".

    Args:
        bundle: of a flow without context.
        data: the rows that it was fitted to, and more of their kind.
        classes: which of `data.beside` names them.

    Returns:
        The manifest, with these directions beside those that it has.
    """
    labels = data.beside[classes]
    manifest = bundle.manifest
    rows = np.ascontiguousarray(data.rows, manifest.dtype)
    z = ExportedGraph(bundle.graphs["forward.onnx"], "forward", manifest.precision)(rows, None, _BATCH).value
    found = {
        str(label): mean_direction(z[labels == label], z[labels != label]).round(_DECIMALS).tolist()
        for label in np.unique(labels)
    }
    return bundle.manifest.model_copy(update={"directions": {**bundle.manifest.directions, **found}})

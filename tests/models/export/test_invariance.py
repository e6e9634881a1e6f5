from __future__ import annotations

import numpy as np
import pytest

from models.export.exported_graph import GraphOutputs
from models.export.invariance import check_invariance
from service.errors import ParityFailed

ROWS = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


class Affine:
    """A graph's place taken by a few lines of NumPy; `spoil` changes an output by the places of a batch."""

    direction, output = "forward", "z"

    def __init__(self, spoiled: str = "", when: int = 4) -> None:
        self.spoiled, self.when = spoiled, when

    def __call__(self, rows: np.ndarray, context: np.ndarray | None, batch: int) -> GraphOutputs:
        value = (2 * rows + (0 if context is None else context)).astype(np.float64)
        outputs = {"value": value, "log_abs_det_jacobian": value[:, 0] * 0, "log_prob": value[:, 1]}
        if self.spoiled:
            places = np.arange(len(rows)) % batch
            outputs[self.spoiled] = outputs[self.spoiled].copy()
            outputs[self.spoiled][places == self.when] += 1e-7
        return GraphOutputs(**outputs)


@pytest.mark.parametrize("context", [None, ROWS[:, :1]])
def test_a_graph_of_single_rows_passes(context):
    check_invariance(Affine(), ROWS, context)


@pytest.mark.parametrize("spoiled", ["value", "log_abs_det_jacobian", "log_prob"])
@pytest.mark.parametrize("when", [1, 4, 50])
def test_a_digit_that_depends_on_the_place_is_found_and_named(spoiled, when):
    name = "z" if spoiled == "value" else spoiled
    with pytest.raises(ParityFailed, match=rf"^{name} of forward.onnx depends on the place of a row: row \d+ gives"):
        check_invariance(Affine(spoiled, when), ROWS)

"""The summary of an import says whether a first step inside scales the rows."""

from __future__ import annotations

import pytest
from nflows import transforms
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow

from models.importing.take import take


@pytest.mark.parametrize(
    ("shift", "scale", "told"),
    [
        (0.0, 1.0, False),
        (0.0, 2.0, True),
        (0.25, 1.0, True),
        (-0.5, 0.5, True),
    ],
)
def test_a_first_step_scales_where_it_moves_anything(shift: float, scale: float, told: bool) -> None:
    affine = transforms.PointwiseAffineTransform(shift=shift, scale=scale)
    chain = transforms.CompositeTransform([affine, transforms.RandomPermutation(3)])
    (line,) = [one for one in take(Flow(chain, StandardNormal([3]))).summary if one.startswith("Scales:")]
    assert ("standardizes the rows, inside" in line) is told

"""The consistency of a manifest with the golden rows: base, support and calibration.

The graphs hold the density of the base, and the server draws from the base of the manifest. A manifest that names
another base than the graphs hold would draw other rows, and nothing else would show it. Golden rows are held-out rows,
of which the calibration is the scale.

Must not import onnxruntime or torch.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Calibration, Manifest
from service.bundle.parity import TOLERANCE, relative_errors
from service.errors import ManifestInvalid, Reason

__all__ = ["check_consistency"]

_EXACT: Final = 1e-6
"""The bound on errors between numbers that were both computed in float64."""

Float64 = npt.NDArray[np.float64]


class GoldenRows(Protocol):
    """Golden rows, as `service.bundle.store.Golden` holds them."""

    @property
    def x(self) -> npt.NDArray[np.floating]:
        """``[G, *event]``."""

    @property
    def z(self) -> Float64:
        """``[G, D]``."""

    @property
    def log_abs_det_jacobian(self) -> Float64:
        """``[G]``."""

    @property
    def log_prob(self) -> Float64:
        """``[G]``."""


def check_consistency(manifest: Manifest, golden: GoldenRows) -> None:
    """Hold the base, the support and the calibration of a manifest against the golden rows.

    Args:
        manifest: of a bundle.
        golden: the rows of the same bundle.

    Raises:
        ManifestInvalid: they do not agree. Each key that does not is named.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite by that is wrong, and named
        reasons = [
            *_check_base(manifest, golden),
            *_check_support(manifest, golden),
            *_check_calibration(manifest, golden),
        ]
    if reasons:
        raise ManifestInvalid("flow.json does not agree with the golden rows", tuple(reasons))


def _check_base(manifest: Manifest, golden: GoldenRows) -> list[Reason]:
    """log_prob(x) = log p_Z(z) + log|det df/dx|, wherever it is finite."""
    inside = np.isfinite(golden.log_prob)
    expected = golden.log_prob[inside]
    found = manifest.base.log_prob(golden.z[inside]) + golden.log_abs_det_jacobian[inside]
    # Terms of opposite signs cancel: the error is held against the size of the terms.
    unit = 1.0 + np.abs(golden.log_abs_det_jacobian[inside])
    wrong = np.flatnonzero(relative_errors(found / unit, expected / unit) > _EXACT)
    return [
        Reason(
            ("flow.json", "base"),
            f"log p_Z(z) of {manifest.base.reading} plus log_abs_det_jacobian is {found[row]:.9g} for golden row "
            f"{np.flatnonzero(inside)[row]}, whose log_prob is {expected[row]:.9g}",
        )
        for row in wrong[:1]
    ]


def _check_support(manifest: Manifest, golden: GoldenRows) -> list[Reason]:
    """A row with a density lies in the support."""
    support = manifest.support
    if support is None:
        return []
    rows = golden.x.reshape(len(golden.x), -1)
    outside = np.zeros(len(rows), bool)
    if support.low is not None:
        outside |= (rows < support.low).any(axis=1)
    if support.high is not None:
        outside |= (rows > support.high).any(axis=1)
    wrong = np.flatnonzero(outside & np.isfinite(golden.log_prob))
    return [Reason(("flow.json", "support"), f"golden row {row} has a density and lies outside") for row in wrong[:1]]


def _check_calibration(manifest: Manifest, golden: GoldenRows) -> list[Reason]:
    """The parts of a calibration agree with each other, and golden rows, which are held-out rows, lie on its scale."""
    calibration = manifest.calibration
    values = np.asarray(calibration.quantiles, np.float64)
    reasons = [
        Reason(("flow.json", "calibration", key), f"it is {given:.9g}, and by the quantiles {words}")
        for key, given, least, greatest, words in _moments(calibration, values)
        if not least - _EXACT * (1 + abs(least)) <= given <= greatest + _EXACT * (1 + abs(greatest))
    ]
    if manifest.provenance.recalibration is not None:  # golden rows are not among the rows of that
        return reasons
    rows = golden.log_prob[np.isfinite(golden.log_prob)]
    slack = 2 * TOLERANCE * (1.0 + np.abs(rows))  # the scale is what the graph gives, golden answers are of float64
    if _is_whole(calibration):
        above = np.clip(np.searchsorted(values, rows), 1, len(values) - 1)
        off = np.minimum(np.abs(values[above - 1] - rows), np.abs(values[above] - rows)) > slack
    else:
        off = (rows < values[0] - slack) | (rows > values[-1] + slack)
    return reasons + [
        Reason(
            ("flow.json", "calibration", "quantiles"),
            f"golden log_prob {rows[row]:.9g} is not among them: they go from {values[0]:.9g} to {values[-1]:.9g}",
        )
        for row in np.flatnonzero(off)[:1]
    ]


def _is_whole(calibration: Calibration) -> bool:
    """Whether every held-out value is kept."""
    return calibration.ranks is None and len(calibration.quantiles) == calibration.rows


def _moments(calibration: Calibration, values: Float64) -> list[tuple[str, float, float, float, str]]:
    """The mean and the standard deviation, each with the bounds that the quantiles leave it."""
    rows = calibration.rows
    if _is_whole(calibration):
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        return [
            ("mean", calibration.mean, mean, mean, f"{mean:.9g}"),
            ("standard_deviation", calibration.standard_deviation, deviation, deviation, f"{deviation:.9g}"),
        ]
    low, high = float(values[0]), float(values[-1])
    if calibration.ranks is not None:  # between two order statistics, each value lies between the two
        between = np.diff(calibration.ranks) - 1
        kept = values.sum()
        low, high = ((kept + between @ ends) / rows for ends in (values[:-1], values[1:]))
    # Popoviciu's inequality: the variance of values in [a, b] is at most (b - a)^2 / 4.
    widest = (float(values[-1]) - float(values[0])) / 2 * math.sqrt(rows / (rows - 1))
    return [
        ("mean", calibration.mean, float(low), float(high), f"between {low:.9g} and {high:.9g}"),
        ("standard_deviation", calibration.standard_deviation, 0.0, widest, f"at most {widest:.9g}"),
    ]

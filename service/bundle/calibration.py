"""The calibration of a flow: log_prob over held-out rows, summarized for the manifest.

The exporter calibrates a new flow, and `pushforward calibrate` calibrates a bundle anew.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import MAX_QUANTILES, Calibration

__all__ = ["calibrate", "thin"]


def calibrate(log_prob: npt.NDArray[np.floating], gaussian_mean: float | None = None) -> Calibration:
    """Summarize log_prob over held-out rows.

    All M values are kept, sorted. Of more than `MAX_QUANTILES` values, as many order statistics are kept, with their
    ranks.

    Args:
        log_prob: ``[M]``, M >= 2, finite, in nats, from the served graph and in its precision. Each is kept as its
            shortest exact text.
        gaussian_mean: see `Calibration`.

    Example:
        >>> calibrate(np.array([-1.0, -3.0, -2.1])).quantiles
        [-3.0, -2.1, -1.0]
    """
    mean = float(log_prob.mean(dtype=np.float64))
    ordered = np.sort(log_prob)
    kept = _spread_indices(ordered.size, MAX_QUANTILES)
    return Calibration(
        rows=int(ordered.size),
        mean=mean,
        standard_deviation=float(log_prob.std(ddof=1, dtype=np.float64)),
        quantiles=[float(str(value)) for value in ordered[kept]],
        ranks=None if len(kept) == ordered.size else kept.tolist(),
        gaussian_mean=gaussian_mean,
        warning=None if gaussian_mean is None else _compare_with_gaussian(mean, gaussian_mean),
    )


def _compare_with_gaussian(mean: float, gaussian: float) -> str | None:
    """A warning where a flow is no better than the Gaussian beside it."""
    if mean > gaussian:
        return None
    return (
        f"the flow is no better than a Gaussian: {mean:.3f} nats a held-out row, and the Gaussian {gaussian:.3f}. Use "
        "the Gaussian, or fit again by other options"
    )


def thin(calibration: Calibration, most: int) -> Calibration:
    """Keep at most `most` of the quantiles, the least and the greatest among them, to show a calibration.

    Args:
        calibration: of a manifest.
        most: at least 2.
    """
    count = len(calibration.quantiles)
    if count <= most:
        return calibration
    kept = _spread_indices(count, most)
    exact = calibration.ranks or (list(range(count)) if count == calibration.rows else None)
    quantiles = np.asarray(calibration.quantiles)[kept].tolist()
    ranks = None if exact is None else [exact[at] for at in kept]
    return calibration.model_copy(update={"quantiles": quantiles, "ranks": ranks})


def _spread_indices(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most `most` evenly spread indices into `count` values, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)

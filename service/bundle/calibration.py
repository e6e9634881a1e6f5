"""log_prob over held-out rows, summed up for a manifest: at export, and when a bundle is calibrated anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import MAX_QUANTILES, Calibration

__all__ = ["calibrate", "thinned"]


def calibrate(log_prob: npt.NDArray[np.floating], gaussian_mean: float | None = None) -> Calibration:
    """Sum up log_prob ``[M]`` over held-out rows, finite and in nats, M >= 2.

    All M values are kept, sorted; of more than `MAX_QUANTILES`, so many order statistics with their ranks.

    Args:
        log_prob: as the served graph gives it, in float32: each is kept as its shortest exact text.
        gaussian_mean: see `Calibration`.

    Example:
        >>> calibrate(np.array([-1.0, -3.0, -2.1])).quantiles
        [-3.0, -2.1, -1.0]
    """
    ordered = np.sort(log_prob.astype(np.float32))
    kept = _spread(ordered.size, MAX_QUANTILES)
    return Calibration(
        rows=int(ordered.size),
        mean=float(log_prob.mean(dtype=np.float64)),
        standard_deviation=float(log_prob.std(ddof=1, dtype=np.float64)),
        quantiles=[float(str(value)) for value in ordered[kept]],
        ranks=None if len(kept) == ordered.size else kept.tolist(),
        gaussian_mean=gaussian_mean,
    )


def thinned(calibration: Calibration, most: int) -> Calibration:
    """The same with at most so many of its quantiles, the least and the greatest among them: for showing it.

    Args:
        calibration: of a manifest.
        most: at least 2.
    """
    count = len(calibration.quantiles)
    if count <= most:
        return calibration
    kept = _spread(count, most)
    exact = calibration.ranks or (list(range(count)) if count == calibration.rows else None)
    quantiles = np.asarray(calibration.quantiles)[kept].tolist()
    ranks = None if exact is None else [exact[at] for at in kept]
    return calibration.model_copy(update={"quantiles": quantiles, "ranks": ranks})


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """Indices into `count` values, the first and the last among them, evenly spread; all where there are few."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)

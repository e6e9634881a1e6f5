"""The live figures of a report, as JSON: each picture of `models.evaluation.pictures`, as numbers.

Must not import torch.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from models.data.readers import FloatArray
from models.evaluation.plotted import coverage_curve, log_prob_edges, relative_density, uniform_band
from models.evaluation.uniformity import Coverage

__all__ = ["density", "image_grid", "log_prob_histogram", "loss_curves", "pair_plot", "quantile_plot", "rank_plot"]

Figure = dict[str, Any]

_POINTS: Final = 800
"""A pair of columns shows so many rows at most."""


def loss_curves(train: Sequence[float], validation: Sequence[float], best_epoch: int) -> Figure:
    """Mean log-likelihood of training and validation rows over the epochs, in nats; 0 is no best epoch."""
    return {"kind": "loss", "train": _numbers(train), "validation": _numbers(validation), "best": best_epoch}


def log_prob_histogram(flow: FloatArray, gaussian: FloatArray) -> Figure:
    """How log_prob is spread over held-out rows ``[N]``, under the flow and under the Gaussian, in nats."""
    edges = log_prob_edges(flow, gaussian)
    ends, bins = (float(edges[0]), float(edges[-1])), len(edges) - 1
    counts = {
        name: np.histogram(np.clip(values, *ends), bins, ends)[0].tolist()
        for name, values in (("flow", flow), ("gaussian", gaussian))
    }
    means = {"flow_mean": float(flow.mean()), "gaussian_mean": float(gaussian.mean())}
    return {"kind": "log_prob", "low": ends[0], "high": ends[1], **counts, **means}


def quantile_plot(quantiles: FloatArray, coverage: Sequence[Coverage]) -> Figure:
    """The quantiles of log_prob among the flow's own samples, and the coverage of regions of greatest density.

    Args:
        quantiles: ``[N]``, uniform if rows were drawn from the flow.
        coverage: of the regions, whose levels have a mark.
    """
    levels, covered, error = coverage_curve(quantiles, 101)
    return {
        "kind": "quantiles",
        **_uniform_bars(quantiles),
        "levels": _numbers(levels),
        "covered": _numbers(covered),
        "error": _numbers(error),
        "marks": [[each.level, each.covered] for each in coverage],
    }


def rank_plot(quantiles: FloatArray, names: Sequence[str]) -> Figure:
    """The ranks of each value among samples at its row's context.

    Args:
        quantiles: ``[N, K]``, uniform if rows were drawn from the flow.
        names: of the columns.
    """
    columns = [{"name": name, **_uniform_bars(quantiles[:, at])} for at, name in enumerate(names)]
    return {"kind": "ranks", "columns": columns}


def pair_plot(data: FloatArray, samples: FloatArray, names: Sequence[str]) -> Figure:
    """Samples of the flow over rows of the data.

    Args:
        data: ``[N, K]``.
        samples: ``[M, K]``.
        names: K of them.
    """
    return {
        "kind": "pairs",
        "names": list(names),
        "data": _numbers(data[:_POINTS].reshape(-1)),
        "samples": _numbers(samples[:_POINTS].reshape(-1)),
    }


def density(
    values: FloatArray, low: Sequence[float], high: Sequence[float], data: FloatArray, names: Sequence[str]
) -> Figure:
    """A flow of two columns as a map of its density, with rows of the data on it.

    Args:
        values: ``[R, R]`` log_prob in nats; the first axis goes along the second column.
        low: where the map begins, in both columns.
        high: where it ends.
        data: ``[N, 2]``.
        names: of the two columns.
    """
    relative, top = relative_density(values)
    return {
        "kind": "density",
        "names": list(names),
        "x": [float(low[0]), float(high[0])],
        "y": [float(low[1]), float(high[1])],
        "side": len(values),
        "top": math.exp(min(top, 700.0)),
        "map": _bytes(relative * 255),
        "data": _numbers(data[:_POINTS].reshape(-1)),
    }


def image_grid(data: FloatArray, samples: FloatArray, low: float, high: float) -> Figure:
    """Images of the data, and samples of the flow.

    Args:
        data: ``[N, H, W, C]``.
        samples: ``[N, H, W, C]``.
        low: the value shown black.
        high: the value shown white.
    """
    scaled = {
        name: _bytes(np.clip((images - low) / ((high - low) or 1.0), 0, 1) * 255)
        for name, images in (("data", data), ("samples", samples))
    }
    return {"kind": "images", "shape": list(data.shape[1:]), **scaled}


def _uniform_bars(quantiles: FloatArray) -> Figure:
    """A histogram of quantiles, with the band that 99 of 100 bars lie in where they are uniform."""
    band = uniform_band(len(quantiles))
    counts, _ = np.histogram(quantiles, band.bars, (0, 1))
    return {"counts": counts.tolist(), "band": [band.low, band.high], "expected": band.expected}


def _numbers(values: Sequence[float] | FloatArray) -> list[float | None]:
    """Numbers of five digits; None where one is not finite."""
    return [
        float(f"{value:.5g}") if math.isfinite(value) else None for value in np.asarray(values, np.float64).tolist()
    ]


def _bytes(values: FloatArray) -> str:
    return base64.b64encode(np.round(values).astype(np.uint8).tobytes()).decode()

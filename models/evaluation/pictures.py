"""The pictures of a report, as PNG bytes. They are handed arrays, and drawn without pyplot and its global state.

Must not import torch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models.data.readers import FloatArray
from models.evaluation.plotted import coverage_curve, log_prob_edges, relative_density, uniform_band
from models.evaluation.uniformity import Coverage

__all__ = [
    "MAX_PAIRED",
    "density",
    "elbo_curve",
    "evidence_bars",
    "image_grid",
    "log_prob_histogram",
    "loss_curves",
    "pair_plot",
    "quantile_plot",
    "rank_plot",
    "weight_histogram",
]

MAX_PAIRED: Final = 8
"""A pair plot shows so many columns at most."""

_DATA, _FLOW, _GAUSSIAN, _INK, _FAINT = "#35618f", "#d1603d", "#7a8391", "#2b2f36", "#d8dce2"
_DPI: Final = 140


def loss_curves(train: Sequence[float], validation: Sequence[float], best_epoch: int) -> bytes:
    """Mean log-likelihood of training and validation rows over the epochs, in nats; 0 is no best epoch."""
    figure, axes = _figure(7.6, 3.4)
    epochs = range(1, len(train) + 1)
    axes.plot(epochs, train, color=_GAUSSIAN, linewidth=1.2, label="training rows, as stepped on")
    axes.plot(epochs, validation, color=_FLOW, linewidth=1.6, label="validation rows")
    if best_epoch:
        best = validation[best_epoch - 1]
        kept = f"kept: epoch {best_epoch}, validation {best:.3f}"
        axes.axvline(best_epoch, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label=kept)
        axes.plot([best_epoch], [best], "o", color=_FLOW, markersize=5, markeredgecolor="white")
    finite = np.array([v for v in (*train, *validation) if math.isfinite(v)])
    if finite.size > 1:
        low, high = float(np.quantile(finite, 0.05)), float(finite.max())  # the first epochs would flatten the rest
        margin = 0.12 * (high - low) or 1.0
        axes.set_ylim(low - 2 * margin, high + margin)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("mean log-likelihood, nats", fontsize=9)
    axes.legend(fontsize=8, loc="lower right", facecolor="white", edgecolor="none", framealpha=1.0)
    return _png(figure)


def elbo_curve(records: Sequence[tuple[int, float, str]], log_evidence: float) -> bytes:
    """The ELBO over the steps of a fit to a density, stage by stage, in nats.

    Args:
        records: step, ELBO and stage of each round; an ELBO that is not finite is left out.
        log_evidence: log Z, which no ELBO exceeds but by chance.
    """
    figure, axes = _figure(7.6, 3.4)
    stages = list(dict.fromkeys(stage for _, _, stage in records))
    shown: list[float] = []
    for stage, color in zip(stages, (_GAUSSIAN, _GAUSSIAN, _DATA, _FLOW, _FLOW), strict=False):
        points = [(step, elbo) for step, elbo, name in records if name == stage and math.isfinite(elbo)]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.4, label=stage.replace("_", " "))
            shown += [elbo for _, elbo in points]
    if math.isfinite(log_evidence):
        axes.axhline(log_evidence, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label="log Z")
        shown.append(log_evidence)
    if shown:
        low, high = float(np.quantile(shown, 0.1)), max(shown)  # the first rounds would flatten the rest
        margin = 0.15 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.legend(fontsize=8, loc="lower right", facecolor="white", edgecolor="none", framealpha=1.0)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("ELBO, nats", fontsize=9)
    return _png(figure)


def weight_histogram(log_weights: FloatArray) -> bytes:
    """How log p - log q is spread over draws of a flow ``[N]``, in nats; rows of weight zero are left out."""
    figure, axes = _figure(7.6, 3.0)
    finite = log_weights[np.isfinite(log_weights)]
    if finite.size:
        low, high = np.quantile(finite, 0.002), finite.max()
        margin = 0.05 * (high - low) or 0.5
        edges = np.linspace(low - margin, high + margin, 61)
        axes.hist(np.clip(finite, edges[0], edges[-1]), bins=edges.tolist(), color=_FLOW, alpha=0.6)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_xlabel("log p - log q of a draw, nats", fontsize=9)
    axes.set_ylabel("draws", fontsize=9)
    return _png(figure)


def evidence_bars(points: Sequence[tuple[str, float, float]]) -> bytes:
    """Estimates of log Z with bars of two standard errors.

    Args:
        points: the label, log Z and its standard error of each; one that is not finite is left out.
    """
    figure, axes = _figure(7.6, 0.9 + 0.32 * len(points))
    for place, (_, value, error) in enumerate(reversed(points)):
        if math.isfinite(value):
            bar = 2 * error if math.isfinite(error) else 0.0
            axes.errorbar(
                value, place, xerr=bar, fmt="o", color=_DATA if place == 0 else _FLOW, capsize=3, markersize=4
            )
    axes.set_yticks(range(len(points)), [label for label, _, _ in reversed(points)], fontsize=8)
    axes.set_ylim(-0.6, len(points) - 0.4)
    axes.set_xlabel("log Z, nats, ± 2 standard errors", fontsize=9)
    axes.ticklabel_format(axis="x", useOffset=False)
    return _png(figure)


def log_prob_histogram(flow: FloatArray, gaussian: FloatArray) -> bytes:
    """How log_prob is spread over held-out rows ``[N]``, under the flow and under the Gaussian, in nats."""
    figure, axes = _figure(7.6, 3.4)
    edges = log_prob_edges(flow, gaussian)
    for values, color, name, filled in ((gaussian, _GAUSSIAN, "Gaussian", False), (flow, _FLOW, "flow", True)):
        clipped = np.clip(values, edges[0], edges[-1])  # the far tail is counted in the outermost bars
        kind: Any = "stepfilled" if filled else "step"
        axes.hist(
            clipped, bins=edges.tolist(), histtype=kind, color=color, alpha=0.55 if filled else 1, linewidth=1.3,
            label=f"{name}, mean {values.mean():.2f}",
        )  # fmt: skip
        axes.axvline(float(np.clip(values.mean(), edges[0], edges[-1])), color=color, linewidth=1.4, linestyle="--")
    axes.set_xlabel("log_prob of a held-out row, nats", fontsize=9)
    axes.set_ylabel("rows", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure)


def pair_plot(data: FloatArray, samples: FloatArray, names: Sequence[str], *, data_label: str = "data") -> bytes:
    """Samples of the flow over rows of the data: each column on the diagonal, each pair of columns below it.

    Args:
        data: ``[N, K]``, K at most `MAX_PAIRED`.
        samples: ``[M, K]``.
        names: K of them.
        data_label: what the rows of the data are called.
    """
    count = data.shape[1]
    side = 1.55 if count > 4 else 2.2
    figure = Figure(figsize=(side * count + 0.6, side * count + 0.3), layout="constrained")
    grid = figure.subplots(count, count, squeeze=False)
    limits = [_limits(data[:, i], samples[:, i]) for i in range(count)]
    size = 2.2 if len(data) > 800 else 5.0
    for row in range(count):
        for column in range(count):
            axes = grid[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            _plain(axes)
            axes.set_xlim(*limits[column])
            if row == column:
                edges = np.linspace(*limits[row], 31).tolist()
                axes.hist(data[:, row], bins=edges, density=True, color=_DATA, alpha=0.45)
                axes.hist(samples[:, row], bins=edges, density=True, histtype="step", color=_FLOW, linewidth=1.3)
                axes.set_yticks([])
                axes.set_title(_short(names[row]), fontsize=8, color=_INK, pad=3)
            else:
                axes.set_ylim(*limits[row])
                for points, color in ((data, _DATA), (samples, _FLOW)):
                    axes.scatter(
                        points[:, column],
                        points[:, row],
                        s=size,
                        color=color,
                        alpha=0.45,
                        linewidths=0,
                        rasterized=True,
                    )
            for axis, outer, name in (
                (axes.xaxis, row == count - 1, names[column]),
                (axes.yaxis, column == 0 and row > 0, names[row]),
            ):
                axis.set_tick_params(labelsize=6)
                if outer:
                    axis.set_label_text(_short(name), fontsize=8)
                else:
                    axis.set_tick_params(labelbottom=False, labelleft=False)
    figure.legend(
        handles=[
            Line2D([], [], marker="o", linestyle="", color=_DATA, markersize=5, label=data_label),
            Line2D([], [], marker="o", linestyle="", color=_FLOW, markersize=5, label="samples of the flow"),
        ],
        loc="upper right",
        frameon=False,
        fontsize=9,
    )
    return _png(figure)


def quantile_plot(quantiles: FloatArray, coverage: Sequence[Coverage]) -> bytes:
    """The quantiles of log_prob among the flow's own samples, and the coverage of regions of greatest density.

    Args:
        quantiles: ``[N]``, uniform if rows were drawn from the flow.
        coverage: of the regions, whose levels have a mark.
    """
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    bars, curve = figure.subplots(1, 2, width_ratios=(1.45, 1))
    for axes in (bars, curve):
        _plain(axes)
    _uniform_bars(bars, quantiles)
    bars.set_xlabel("quantile of log_prob among samples of the flow", fontsize=9)
    bars.set_ylabel("rows", fontsize=9)
    levels, covered, error = coverage_curve(quantiles, 201)
    curve.fill_between(levels, levels - error, levels + error, color=_FAINT, linewidth=0, label="99% of exact flows")
    curve.plot(levels, covered, color=_FLOW, linewidth=1.6)
    curve.plot([each.level for each in coverage], [each.covered for each in coverage], "o", color=_FLOW, markersize=4)
    curve.set_xlabel("probability of the region", fontsize=9)
    curve.set_ylabel("rows inside it", fontsize=9)
    curve.legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure)


def rank_plot(quantiles: FloatArray, names: Sequence[str]) -> bytes:
    """The ranks of each value among samples at its row's context.

    Args:
        quantiles: ``[N, K]``, K at most `MAX_PAIRED`, uniform if rows were drawn from the flow.
        names: of the columns.
    """
    count = quantiles.shape[1]
    across = min(count, 4)
    down = math.ceil(count / across)
    figure = Figure(figsize=(max(3.8, 1.9 * across), 1.7 * down + 0.2), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for at, axes in enumerate(grid):
        if at >= count:
            axes.set_axis_off()
            continue
        _plain(axes)
        _uniform_bars(axes, quantiles[:, at])
        axes.set_yticks([])
        axes.set_title(_short(names[at]), fontsize=8, color=_INK, pad=3)
        axes.tick_params(labelsize=6)
    return _png(figure)


def _uniform_bars(axes: Axes, quantiles: FloatArray) -> None:
    """A histogram of quantiles, with the band that 99 of 100 bars lie in where they are uniform."""
    bars, low, high, expected = uniform_band(len(quantiles))
    axes.axhspan(low, high, color=_FAINT, linewidth=0)
    axes.axhline(expected, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.hist(quantiles, bins=np.linspace(0, 1, bars + 1).tolist(), color=_FLOW, alpha=0.6)
    axes.set_xlim(0, 1)


def density(
    values: FloatArray, low: Sequence[float], high: Sequence[float], data: FloatArray, names: Sequence[str]
) -> bytes:
    """A flow of two columns as a map of its density, with rows of the data on it.

    Args:
        values: ``[R, R]`` log_prob in nats; the first axis goes along the second column.
        low: where the map begins, in both columns.
        high: where it ends.
        data: ``[N, 2]``.
        names: of the two columns.
    """
    figure, axes = _figure(5.6, 4.6)
    relative, _ = relative_density(values)
    picture = axes.imshow(
        relative,
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        aspect="auto",
        cmap="magma",
        interpolation="bilinear",
    )
    axes.scatter(data[:, 0], data[:, 1], s=2.0, color="white", alpha=0.35, linewidths=0)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_xlabel(_short(names[0]), fontsize=9)
    axes.set_ylabel(_short(names[1]), fontsize=9)
    bar = figure.colorbar(picture, ax=axes, pad=0.02)
    bar.set_label("density, relative to its maximum", fontsize=8)
    _ticks(bar.ax)
    return _png(figure)


def image_grid(data: FloatArray, samples: FloatArray, low: float, high: float) -> bytes:
    """Images of the data on the left, samples of the flow on the right.

    Args:
        data: ``[N, H, W, C]``.
        samples: ``[N, H, W, C]``.
        low: the value shown black.
        high: the value shown white.
    """
    figure = Figure(figsize=(9.4, 4.9), layout="constrained")
    for axes, images, title in zip(
        figure.subplots(1, 2), (data, samples), ("held-out images", "samples of the flow"), strict=True
    ):
        axes.imshow(_mosaic(images, low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=10, color=_INK)
        axes.set_axis_off()
    return _png(figure)


def _mosaic(images: FloatArray, low: float, high: float) -> npt.NDArray[np.float64]:
    """Images ``[N, H, W, C]`` side by side in a near square, scaled to [0, 1], with a grey line between."""
    scaled = np.clip((images - low) / ((high - low) or 1.0), 0, 1)
    if scaled.shape[3] not in (1, 3):
        scaled = scaled[..., :1]
    count, height, width, channels = scaled.shape
    across = math.ceil(count**0.5)
    canvas = np.full((across * (height + 1) + 1, across * (width + 1) + 1, channels), 0.35)
    for index, image in enumerate(scaled):
        top, left = index // across * (height + 1) + 1, index % across * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    used = math.ceil(count / across) * (height + 1) + 1
    canvas = canvas[:used]
    return canvas[..., 0] if channels == 1 else canvas


def _limits(data: FloatArray, samples: FloatArray) -> tuple[float, float]:
    """A range that holds nearly all of the data and most of the samples."""
    low = min(np.quantile(data, 0.003), np.quantile(samples, 0.02))
    high = max(np.quantile(data, 0.997), np.quantile(samples, 0.98))
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:20]}…"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    _ticks(axes)


def _ticks(axes: Axes) -> None:
    axes.tick_params(labelsize=8, colors=_INK, length=3, width=0.6)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    return buffer.getvalue()

"""The picture of the results: ratios with their spread and targets, and latency over the offered load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.table import Line, number

__all__ = ["draw"]

Curves = Mapping[str, Sequence[tuple[float, float, float]]]


def draw(path: Path, lines: Sequence[Line], curves: Mapping[int, Curves]) -> None:
    """Write a picture.

    Args:
        path: of the image; its suffix says the format.
        lines: of the table; ratios that have a target are drawn.
        curves: columns of a flow -> server -> (offered requests a second, p50, p99 in seconds).
    """
    ratios = [line for line in lines if line.target is not None and line.values and line.ours and not line.failure]
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 1.5 + 0.42 * max(8, len(ratios))), width_ratios=(3, 2))
    _bars(left, ratios)
    _curves(right, curves)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(axes: Axes, ratios: Sequence[Line]) -> None:
    for at, line in enumerate(ratios):
        middle, low, high = median(line.values), min(line.values), max(line.values)
        axes.barh(at, middle, color="tab:green" if line.met else "tab:red", alpha=0.6)
        axes.plot([low, high], [at, at], color="black", linewidth=1.5)
        if line.target is not None:
            axes.plot([line.target.value] * 2, [at - 0.4, at + 0.4], color="black", linestyle=":")
            axes.annotate(
                f" {number(middle)} ({line.target})",
                (max(middle, high, line.target.value), at),
                va="center",
                fontsize=8,
            )
    axes.set_yticks(range(len(ratios)), [f"D={r.flow}: {r.work}: {r.figure}" for r in ratios], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("ratio: median, least to greatest of the rounds; dotted: target")


def _curves(axes: Axes, curves: Mapping[int, Curves]) -> None:
    for flow, servers in curves.items():
        for name, points in servers.items():
            rate = [point[0] for point in points]
            (drawn,) = axes.plot(rate, [1e3 * p[2] for p in points], marker="o", label=f"{name}, D = {flow}, p99")
            axes.plot(rate, [1e3 * p[1] for p in points], color=drawn.get_color(), linestyle=":", label="p50")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("offered load, 1-row requests a second (Poisson)")
    axes.set_ylabel("latency from the arrival, ms")
    if curves:
        axes.legend(fontsize=8)
    axes.grid(which="both", alpha=0.2)

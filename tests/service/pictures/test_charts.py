"""Charts by their pixels, and what they make of rows that no scale fits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from service.pictures.axes import Axis, spanning
from service.pictures.charts import DensityGrid, WalkLines, curve_chart, pair_plot, plane_chart, walk_chart
from service.pictures.colours import colour_map
from service.pictures.grids import image_grid
from service.pictures.options import PictureOptions

NAMES = ["a", "b", "a column whose name is too long for its place"]


def test_the_map_lies_as_the_axes_say():
    # The density grows with the second column: the map is brighter above.
    up = np.repeat(np.linspace(-9.0, 0.0, 40)[:, None], 40, axis=1)
    around = DensityGrid(np.array([0.0, 0.0]), np.array([1.0, 1.0]), up)
    pixels = plane_chart(np.array([[0.5, 0.5]]), np.array([-4.5]), NAMES[:2], 300, around).astype(int)
    column = pixels[20:250, 80].sum(axis=1)
    assert (np.diff(column) <= 0).all()
    assert column[0] > 2 * column[-1]


def test_cells_of_density_zero_are_the_darkest():
    log_prob = np.full((40, 40), -3.0)
    log_prob[:, :20] = -np.inf
    log_prob[0, 39] = 0.0
    around = DensityGrid(np.array([0.0, 0.0]), np.array([1.0, 1.0]), log_prob)
    pixels = plane_chart(np.array([[0.9, 0.9]]), np.array([-3.0]), NAMES[:2], 300, around).astype(int)
    assert pixels[150, 80].sum() < 60 < pixels[150, 180].sum()


@pytest.mark.parametrize("count", [1, 2, 500])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30, 1e30])
def test_any_finite_rows_can_be_drawn(count, scale):
    x = np.random.default_rng(0).normal(size=(count, 3)) * scale
    for log_prob in (np.full(count, -np.inf), np.full(count, 3.0), np.linspace(-1e30, 80, count)):
        assert pair_plot(x, log_prob, NAMES, 300).shape == (300, 300, 3)
        assert plane_chart(x[:, :2], log_prob, NAMES[:2], 300, None).shape == (300, 300, 3)
        assert curve_chart(x[:, 0], log_prob, "a", 300, None).shape == (300, 300, 3)
    walks = WalkLines(x[None], np.arange(count, dtype=np.float64)[None], "t")
    assert walk_chart(walks._replace(x=x[None, :, :1]), "a", 300).shape == (300, 300, 3)
    assert pair_plot(x, np.zeros(count), NAMES, 300, walks=walks).shape == (300, 300, 3)


def test_a_panel_is_taken_up_once_for_all_its_walks(monkeypatch):
    taken = []
    fromarray = Image.fromarray
    monkeypatch.setattr(Image, "fromarray", lambda pixels: taken.append(pixels.shape) or fromarray(pixels))
    x = np.random.default_rng(0).normal(size=(40, 2, 2))
    walks = WalkLines(x, np.broadcast_to([0.0, 1.0], (40, 2)), "t")
    plane_chart(x.reshape(-1, 2), np.zeros(80), NAMES[:2], 300, None, walks)
    walk_chart(walks._replace(x=x[..., :1]), "a", 300)
    pair_plot(x.reshape(-1, 2), np.zeros(80), NAMES[:2], 300, walks=walks)
    assert len(taken) == 2 * 3  # the panel, and the whole picture at its end


def test_dots_are_coloured_by_their_density():
    x = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    pixels = plane_chart(x, np.array([0.0, -5.0, -np.inf]), NAMES[:2], 300, None)
    for shade in (colour_map(1.0), np.array([230, 57, 70])):
        assert (pixels[:, :215] == shade).all(axis=2).any()


def test_a_constant_image_can_be_drawn():
    assert (image_grid(np.full((2, 2, 2, 1), 3.0, np.float32), PictureOptions(size=2), (3.0, 3.0))[2:4, 2:4] == 0).all()


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [(0.0, 1.0, ["0.0", "0.5", "1.0"]), (-3.0, 4e6, ["0", "2e+06", "4e+06"]), (0.00012, 0.00031, None)],
)
def test_ticks_are_few_and_round(low, high, texts):
    ticks = Axis("a", low, high).ticks(3)
    assert 1 <= len(ticks) <= 4
    assert all(low - 1e-12 <= value <= high + 1e-9 * abs(high) for value, _ in ticks)
    if texts is not None:
        assert [text for _, text in ticks] == texts


def test_an_axis_of_one_value_has_a_width():
    for value in (0.0, 7.0, -1e30, 1e-30):
        axis = spanning("a", [value])
        assert axis.low < value < axis.high

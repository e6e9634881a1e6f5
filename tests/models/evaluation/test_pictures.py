"""What the pictures of a report show: their limits, their bars, their images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from models.evaluation import pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures in the place of their PNG bytes."""
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "_png", lambda figure: figures.append(figure) or b"")
    return figures


def history(*validation: float) -> tuple[list[float], list[float]]:
    """Training and validation likelihoods of epochs."""
    return [value - 1.0 for value in validation], list(validation)


def test_the_curves_have_room_around_all_but_the_first_epochs(drawn):
    pictures.loss_curves(*history(-1000.0, *np.linspace(0.0, 10.0, 100)), best_epoch=101)
    (axes,) = drawn[0].axes
    low, high = axes.get_ylim()
    assert -6.0 < low < -2.0  # the twentieth part of the values is below -0.5 or so
    assert 11.0 < high < 12.0


def test_the_best_epoch_is_marked(drawn):
    pictures.loss_curves(*history(1.0, 3.0, 2.0), best_epoch=2)
    lines = drawn[0].axes[0].lines
    assert lines[2].get_xdata() == [2, 2]
    assert (lines[3].get_xdata(), lines[3].get_ydata()) == ([2], [3.0])


def test_an_epoch_without_a_number_and_a_single_one_leave_the_limits_alone(drawn):
    pictures.loss_curves(*history(-math.inf, 1.0), best_epoch=2)
    pictures.loss_curves(*history(-math.inf, -math.inf), best_epoch=0)
    assert [len(figure.axes[0].lines) for figure in drawn] == [4, 2]
    assert [line.get_label() for line in drawn[1].axes[0].lines] == ["training rows, as stepped on", "validation rows"]


@pytest.mark.parametrize(("rows", "bars"), [(4, 12), (100, 30), (900, 60)])
def test_a_histogram_has_more_bars_for_more_rows_and_loses_none(drawn, rows, bars):
    flow = np.linspace(0.0, 1.0, rows)
    flow[0] = -1000.0
    pictures.log_prob_histogram(flow, flow - 1.0)
    (axes,) = drawn[0].axes
    filled = [patch.get_xy() for patch in axes.patches]
    assert len(np.unique(filled[1][:, 0])) == bars + 1
    for outline in filled:
        x, y = np.unique(outline[:, 0]), outline[:, 1]
        assert y.max() <= rows
        assert x[0] < np.quantile(np.r_[flow, flow - 1.0], 0.01)
        assert x[-1] > 1.0


@pytest.mark.parametrize(("columns", "side"), [(4, 2.2), (5, 1.55)])
def test_a_pair_plot_has_each_pair_once_within_the_limits_of_its_columns(drawn, columns, side):
    rows = np.random.default_rng(0).normal(size=(50, columns)) * 10.0 ** np.arange(columns)
    names = [f"column {i}" for i in range(columns)]
    pictures.pair_plot(rows, rows[:20], names)
    (figure,) = drawn
    assert figure.get_size_inches() == pytest.approx([side * columns + 0.6, side * columns + 0.3])
    grid = np.array(figure.axes).reshape(columns, columns)
    for row in range(columns):
        for column in range(columns):
            axes = grid[row, column]
            assert axes.axison == (column <= row)
            assert len(axes.collections) == (2 if column < row else 0)
            if column < row:
                assert axes.get_xlim() == grid[column, column].get_xlim()
                assert axes.get_ylim() == grid[row, row].get_xlim()
    assert [axes.get_xlabel() for axes in grid[-1]] == names
    assert [axes.get_ylabel() for axes in grid[1:, 0]] == names[1:]
    assert grid[0, 0].get_ylabel() == ""
    assert [grid[i, i].get_title() for i in range(columns)] == names


def test_the_limits_leave_a_margin_and_hold_a_column_that_never_changes():
    column = np.linspace(0.0, 100.0, 1001)
    assert pictures._limits(column, column) == pytest.approx((0.3 - 0.06 * 99.4, 99.7 + 0.06 * 99.4))
    assert pictures._limits(column, column * 2) == pytest.approx((0.3 - 0.06 * 195.7, 196.0 + 0.06 * 195.7))
    assert pictures._limits(np.ones(3), np.ones(3)) == (0.5, 1.5)


def test_a_map_shows_the_density_relative_to_its_maximum(drawn):
    values = np.array([[-math.inf, 700.0], [701.0, math.nan]])
    pictures.density(values, (0.0, 10.0), (1.0, 12.0), np.array([[0.5, 11.0]]), ["a", "b"])
    axes = drawn[0].axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.0, math.exp(-1.0)], [1.0, 0.0]])
    assert image.get_extent() == [0.0, 1.0, 10.0, 12.0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0.0, 1.0), (10.0, 12.0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")


def test_a_map_without_a_density_is_dark(drawn):
    pictures.density(np.full((2, 2), -math.inf), (0.0, 0.0), (1.0, 1.0), np.zeros((1, 2)), ["a", "b"])
    np.testing.assert_array_equal(drawn[0].axes[0].images[0].get_array(), 0.0)


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3)])
def test_images_lie_side_by_side_with_a_line_between(channels, shown):
    images = np.arange(1.0, 6.0)[:, None, None, None] * np.ones((5, 2, 4, channels))
    canvas = pictures._mosaic(images, 0.0, 5.0)
    assert canvas.shape == ((7, 16) if shown == 1 else (7, 16, 3))
    plane = canvas if shown == 1 else canvas[..., 2]
    np.testing.assert_array_equal(plane[[0, 3, 6]], 0.35)
    np.testing.assert_array_equal(plane[:, [0, 5, 10, 15]], 0.35)
    for index, (top, left) in enumerate([(1, 1), (1, 6), (1, 11), (4, 1), (4, 6)]):
        np.testing.assert_allclose(plane[top : top + 2, left : left + 4], (index + 1) / 5.0)
    np.testing.assert_array_equal(plane[4:6, 11:15], 0.35)


def test_an_image_of_one_value_is_black_and_values_outside_are_cut():
    assert pictures._mosaic(np.ones((1, 1, 1, 1)), 1.0, 1.0)[1, 1] == 0.0
    assert pictures._mosaic(np.full((1, 1, 1, 1), 9.0), 0.0, 1.0)[1, 1] == 1.0


def test_a_long_name_is_cut():
    assert pictures._short("x" * 22) == "x" * 22
    assert pictures._short("x" * 23) == "x" * 20 + "…"

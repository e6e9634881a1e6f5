"""Pictures from arrays alone: the kind of picture that events have, and the rows that are in it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.pictures.charts import DensityGrid
from service.pictures.events import EventDescription
from service.pictures.options import GAP, PictureOptions
from service.pictures.rendering import PlottedRows, PlottedWalks

USUAL = PictureOptions()
SMALL = PictureOptions(size=2)
IMAGES = EventDescription((2, 2, 1), (), (0.0, 1.0))


def table(width):
    return EventDescription((width,), [f"x{at}" for at in range(width)])


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("width", "side"), [(1, 480), (2, 480), (3, 540), (6, 1080), (40, 1080)])
def test_a_chart_is_as_large_as_its_columns_need(width, side):
    assert pixels(PlottedRows(rows(5, width), rows(5)).render(table(width), USUAL)).shape == (side, side, 3)
    walks = PlottedWalks(rows(2, 3, width), rows(2, 3), np.arange(3.0), "t", 3)
    assert pixels(walks.render(table(width), USUAL)).shape == (side, side, 3)


def test_a_pair_plot_shows_the_first_columns():
    x, log_prob = rows(9, 5), rows(9)
    three = PlottedRows(x, log_prob).render(table(5), PictureOptions(columns=3, size=400))
    others = np.concatenate([x[:, :3], rows(9, 2, seed=1)], axis=1)
    assert three == PlottedRows(others, log_prob).render(table(5), PictureOptions(columns=3, size=400))
    assert three != PlottedRows(x[:, ::-1], log_prob).render(table(5), PictureOptions(columns=3, size=400))


def test_images_of_several_contexts_have_a_row_of_the_grid_each():
    images = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1, 1) * np.ones((2, 2, 1), np.float32) / 5
    grid = pixels(PlottedRows(images, np.zeros((2, 3), np.float32)).render(IMAGES, SMALL))
    assert grid.shape == (2 * (2 + GAP) + GAP, 3 * (2 + GAP) + GAP, 3)
    assert [grid[GAP, GAP + at * (2 + GAP), 0] for at in range(3)] == [0, 51, 102]
    chosen = PlottedRows(images, np.zeros((2, 3), np.float32)).render(IMAGES, SMALL._replace(columns=2))
    assert pixels(chosen).shape == (3 * (2 + GAP) + GAP, 2 * (2 + GAP) + GAP, 3)


@pytest.mark.parametrize(("value_range", "levels"), [(None, [0, 255]), ((-1.0, 3.0), [96, 159])])
def test_black_and_white_are_the_events_or_those_of_the_images(value_range, levels):
    images = np.float32([0.5, 1.5]).reshape(2, 1, 1, 1) * np.ones((2, 2, 1), np.float32)
    events = IMAGES._replace(value_range=value_range)
    grid = pixels(PlottedRows(images, np.zeros(2, np.float32)).render(events, SMALL))
    assert [grid[GAP, GAP + at * (2 + GAP), 0] for at in range(2)] == levels


def test_walks_of_images_are_cut_into_strips_that_share_their_ends():
    images = (np.arange(5) / 5)[None, :, None, None, None] * np.ones((2, 2, 1))
    walks = PlottedWalks(images.astype(np.float32), np.zeros((1, 5), np.float32), np.arange(5) / 2, "t", 3)
    strips = pixels(walks.render(IMAGES, SMALL))
    shown = [[strips[GAP + down * (2 + GAP), GAP + at * (2 + GAP), 0] for at in range(3)] for down in range(2)]
    assert shown == [[0, 51, 102], [102, 153, 204]]


@pytest.mark.parametrize("width", [1, 2])
def test_rows_lie_on_the_density_that_is_given(width):
    plotted = PlottedRows(rows(3, width), rows(3))
    log_prob = np.linspace(-3.0, 0.0, 16).reshape((16,) if width == 1 else (4, 4))
    grid = DensityGrid(np.full(width, -5.0), np.full(width, 5.0), log_prob)
    assert plotted.render(table(width), USUAL, grid) != plotted.render(table(width), USUAL)

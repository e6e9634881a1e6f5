from __future__ import annotations

import pytest

from service.errors import InvalidArgument, NotAcceptable
from service.pictures.events import is_image
from service.pictures.options import (
    MAX_PIXELS,
    MAX_ROWS,
    MAX_WALKS,
    Extent,
    PictureOptions,
    cell_shape,
    check_picture,
    grid_shape,
)

USUAL = PictureOptions()


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (100, 10)])
def test_a_grid_is_near_square_and_holds_all(count, across):
    down, found = grid_shape(count, None)
    assert found == across
    assert (down - 1) * found < count <= down * found
    assert grid_shape(count, 3) == (-(-count // min(count, 3)), min(count, 3))


@pytest.mark.parametrize(
    ("event", "size", "cell"),
    [((8, 8, 1), None, (64, 64)), ((28, 28, 1), None, (84, 84)), ((2, 3, 1), 6, (4, 6)), ((100, 1, 3), 10, (10, 1))],
)
def test_a_cell_keeps_the_shape_of_its_image(event, size, cell):
    assert cell_shape(event, size) == cell


@pytest.mark.parametrize("event", [(4, 4, 2), (2, 2, 2, 2)])
def test_there_is_no_picture_of_other_shapes(event):
    with pytest.raises(NotAcceptable, match="1 or 3 channels"):
        is_image(event)


def test_the_largest_grid_is_the_limit():
    most = MAX_PIXELS // (66 * 66)
    side = int(most**0.5)
    check_picture((8, 8, 1), USUAL, Extent(side * side - 100, "n"))
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        check_picture((8, 8, 1), USUAL, Extent((side + 1) ** 2, "n"))


def test_the_most_rows_of_a_table_are_the_limit():
    check_picture((2,), USUAL, Extent(MAX_ROWS, "x"))
    with pytest.raises(InvalidArgument, match="at most 100000 rows"):
        check_picture((2,), USUAL, Extent(MAX_ROWS + 1, "x"))


def test_the_most_walks_of_a_table_are_the_limit():
    extent = Extent(MAX_ROWS, "steps", columns=2, strip=True, walks=MAX_WALKS, walks_argument="points")
    check_picture((2,), USUAL, extent)
    with pytest.raises(InvalidArgument, match="at most 4096 walks") as caught:
        check_picture((2,), USUAL, extent._replace(walks=MAX_WALKS + 1))
    assert caught.value.errors[0].loc == ("points",)


def test_columns_of_a_grid_are_the_options_or_else_the_answers():
    image, small = (8, 8, 1), PictureOptions(size=1)
    wide = Extent(300_000, "n", columns=300_000)
    check_picture(image, small, wide._replace(columns=None))
    with pytest.raises(InvalidArgument, match="smaller size"):
        check_picture(image, small, wide)
    check_picture(image, small._replace(columns=512), wide)


def test_a_grid_without_images_has_a_column():
    assert grid_shape(0, None) == grid_shape(0, 5) == (0, 1)

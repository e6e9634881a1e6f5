from __future__ import annotations

import pytest

from service.errors import InvalidArgument, NotAcceptable
from service.pictures.options import MAX_PIXELS, MAX_ROWS, MAX_WALKS, Look, cell_shape, check_look, grid_shape, is_image


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
    check_look((8, 8, 1), Look(), side * side - 100, "n")
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        check_look((8, 8, 1), Look(), (side + 1) ** 2, "n")


def test_the_most_rows_of_a_table_are_the_limit():
    check_look((2,), Look(), MAX_ROWS, "x")
    with pytest.raises(InvalidArgument, match="at most 100000 rows"):
        check_look((2,), Look(), MAX_ROWS + 1, "x")


def test_the_most_walks_of_a_table_are_the_limit():
    check_look((2,), Look(), MAX_ROWS, "x", across=2, walks=("x", MAX_WALKS))
    with pytest.raises(InvalidArgument, match="at most 4096 walks") as caught:
        check_look((2,), Look(), MAX_ROWS, "steps", across=2, walks=("points", MAX_WALKS + 1))
    assert caught.value.errors[0].loc == ("points",)

from __future__ import annotations

import numpy as np
import pytest

from models.data.builtin import faces
from models.data.faces import PARAMETERS, SIZE, draw, draw_faces, draw_parameters

NAMES = list(PARAMETERS)
MIDDLE = np.array([(p.low + p.high) / 2 for p in PARAMETERS.values()])


def changed(**values: float) -> np.ndarray:
    row = MIDDLE.copy()
    for name, value in values.items():
        row[NAMES.index(name)] = value
    return row


def where_changed(name: str) -> np.ndarray:
    """How far each pixel of the middle face moves as one parameter goes from end to end, [32, 32]."""
    ends = draw(np.stack([changed(**{name: end}) for end in (PARAMETERS[name].low, PARAMETERS[name].high)]))
    return np.asarray(np.abs(ends[1] - ends[0])[..., 0])


def test_faces_are_whole_numbers_and_follow_from_the_seed() -> None:
    pictures, parameters = draw_faces(50, 3)
    again, _ = draw_faces(50, 3)
    other, _ = draw_faces(50, 4)
    assert pictures.shape == (50, SIZE, SIZE, 1)
    assert parameters.shape == (50, len(PARAMETERS))
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures, other)
    assert np.array_equal(pictures, np.round(pictures))
    assert 0 <= pictures.min() < 40
    assert 220 < pictures.max() <= 255


def test_a_face_does_not_depend_on_the_faces_beside_it() -> None:
    parameters = draw_parameters(1030, 1)
    np.testing.assert_array_equal(draw(parameters)[1020:1024], draw(parameters[1020:1024]))


def test_the_grain_is_noise_around_the_drawing() -> None:
    parameters = np.repeat(MIDDLE[None], 400, axis=0)
    grained, smooth = draw(parameters, grain_seed=1), draw(MIDDLE)
    assert np.abs(grained.mean(axis=0) - smooth[0]).max() < 2.5
    assert 1.0 < grained.std(axis=0).mean() < 5.0


def test_parameters_are_independent_and_within_their_ranges() -> None:
    parameters = draw_parameters(20_000, 2)
    for column, parameter in zip(parameters.T, PARAMETERS.values(), strict=True):
        assert parameter.low <= column.min()
        assert column.max() <= parameter.high
        assert abs(column.mean() - (parameter.low + parameter.high) / 2) < 0.03
    correlation = np.corrcoef(parameters.T) - np.eye(len(PARAMETERS))
    assert np.abs(correlation).max() < 0.04


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_seen(name: str) -> None:
    assert where_changed(name).max() > 12
    assert PARAMETERS[name].meaning


def test_a_parameter_beyond_its_range_is_clipped() -> None:
    np.testing.assert_array_equal(draw(changed(smile=7.0)), draw(changed(smile=1.0)))


@pytest.mark.parametrize(
    ("name", "rows"), [("smile", slice(18, 32)), ("glasses", slice(8, 24)), ("gaze", slice(10, 22))]
)
def test_a_parameter_changes_its_part_of_the_face_alone(name: str, rows: slice) -> None:
    moved = where_changed(name)
    outside = moved.copy()
    outside[rows] = 0
    assert outside.max() < 2
    assert moved.max() > 60


def test_turning_the_head_mirrors_the_face() -> None:
    left, right = draw(np.stack([changed(turn=-0.8), changed(turn=0.8)]))[..., 0]
    assert np.abs(left - right[:, ::-1]).mean() < 12  # hair and hatching fall to one side
    assert np.abs(left - right).mean() > 12


def test_the_data_set_says_of_each_parameter_which_half_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.builtin.FACES", 300)
    data = faces()
    _, parameters = draw_faces(300, 20260101)
    assert data.rows.shape == (300, SIZE, SIZE, 1)
    assert data.quantization is not None
    assert (data.quantization.low, data.quantization.high, data.quantization.step) == (0, 255, 1)
    assert list(data.beside) == NAMES
    for at, (name, half) in enumerate(data.beside.items()):
        assert np.array_equal(half == 1, parameters[:, at] > MIDDLE[at]), name
        assert 90 < half.sum() < 210

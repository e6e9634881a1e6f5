"""A folder of PNGs becomes one array; each fault names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data.image_files import read_images
from service.errors import DataError


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write(folder: Path, name: str, image: np.ndarray) -> Path:
    Image.fromarray(image).save(folder / name)
    return folder / name


def test_grey_images_come_in_the_order_of_their_names(tmp_path):
    images = pixels(3, 4, 6)
    for name, image in zip(("b.png", "a.PNG", "c.png"), images, strict=True):
        write(tmp_path, name, image)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "more.png").mkdir()
    found, names = read_images(tmp_path)
    assert names == ("a.PNG", "b.png", "c.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images[[1, 0, 2]][..., None])


def test_colour(tmp_path):
    images = pixels(2, 4, 6, 3)
    for number, image in enumerate(images):
        write(tmp_path, f"{number}.png", image)
    np.testing.assert_array_equal(read_images(tmp_path)[0], images)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pixels(5, 4), "b.png is 4 x 5 pixels in grey, where a.png is 6 x 4 pixels in grey"),
        (pixels(4, 6, 3), "b.png is 6 x 4 pixels in colour, where a.png is 6 x 4 pixels in grey"),
    ],
)
def test_another_size_is_named_with_both(tmp_path, other, words):
    write(tmp_path, "a.png", pixels(4, 6))
    write(tmp_path, "b.png", other)
    write(tmp_path, "c.png", pixels(9, 9))
    with pytest.raises(DataError, match=words):
        read_images(tmp_path)


def test_other_pixels_are_refused(tmp_path):
    write(tmp_path, "a.png", pixels(4, 6, 4))
    with pytest.raises(
        DataError, match=r"a.png: expected 8-bit grey \(L\) or RGB pixels, and the image's mode is RGBA"
    ):
        read_images(tmp_path)


def test_a_file_that_is_no_png_is_named(tmp_path):
    write(tmp_path, "a.png", pixels(4, 6))
    (tmp_path / "b.png").write_bytes(b"GIF89a, or so it says")
    with pytest.raises(DataError, match=r"b.png: this is not a PNG image"):
        read_images(tmp_path)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = write(tmp_path, "a.png", pixels(40, 60))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a.png: the image cannot be read"):
        read_images(tmp_path)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match="there is no PNG image in the folder"):
        read_images(tmp_path)

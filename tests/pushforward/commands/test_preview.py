"""--png and --preview: the picture of a server and of a bundle, in a file and in a terminal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pushforward.cli.picture_options import half_blocks

POINTS = "0.5,0.25\n1.0,-0.5\n"


def picture(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image)


def test_a_picture_of_each_command(run, where, tmp_path):
    out = tmp_path / "a.png"
    assert run("sample", "-n", 4, "--seed", 7, "--png", out, "--size", 3, *where("image")).stdout == ""
    assert picture(out).shape == (10, 12, 3)
    for command in ("logprob", "interpolate"):
        result = run(command, "--png", out, "--size", 300, *where("affine"), stdin=POINTS)
        assert (result.exit_code, result.stdout) == (0, "")
        assert picture(out).shape == (300, 300, 3)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["sample", "-n", 30, "--seed", 3, "--temperature", 0.5, "--model", "image", "--columns", 7], None),
        (["sample", "-n", 30, "--seed", 3, "--model", "affine"], None),
        (["logprob", "--model", "affine"], POINTS),
        (["interpolate", "--steps", 5, "--spacing", "arc_length", "--model", "affine"], POINTS),
        (["edit", "--direction", "1,0", "--strength", "0,0.5,1", "--model", "affine"], POINTS),
    ],
)
def test_a_server_and_a_bundle_draw_the_same(run, server, repository, tmp_path, arguments, stdin):
    files = [tmp_path / "served.png", tmp_path / "local.png"]
    for file, place in zip(files, (["--url", server], ["--repository", repository]), strict=True):
        assert run(*arguments, "--png", file, *place, stdin=stdin).exit_code == 0
    np.testing.assert_array_equal(*(picture(file) for file in files))


def test_a_seed_that_was_drawn_is_told(run, where, tmp_path):
    result = run("sample", "--png", tmp_path / "a.png", *where("affine"))
    assert result.stderr.startswith("seed ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", 300], "belong to a picture"),
        (["--columns", 3], "belong to a picture"),
        (["--png", "a.png", "--out", "a.csv"], "leave out --out"),
        (["--png", "a.png", "--format", "npy"], "leave out --out"),
        (["--preview"], "the standard output is none"),
    ],
)
def test_options_that_do_not_go_together(run, repository, arguments, said):
    result = run("sample", "--repository", repository, "--model", "affine", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_preview_in_a_terminal(run, where, monkeypatch):
    monkeypatch.setattr("pushforward.cli.picture_options._on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    result = run("sample", "-n", 2, "--seed", 7, "--preview", "--size", 30, *where("image"))
    lines = result.stdout.rstrip("\n").split("\n")
    assert 1 <= len(lines) <= 18
    assert all(1 <= line.count("▀") <= 40 for line in lines)


def test_half_blocks_show_two_pixels_each():
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert half_blocks(out.getvalue(), 80, 40) == (
        "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;255;0m\x1b[48;2;9;8;7m▀\x1b[0m"
    )
    assert half_blocks(out.getvalue(), 1, 40).count("▀") == 1

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.errors import PushforwardError

ROWS = "column 0,column 1\n0.5,1.5\n-1,2\n"


def table(result):
    return np.loadtxt(io.StringIO(result.stdout), delimiter=",", skiprows=1, ndmin=2)


@pytest.fixture
def ends(tmp_path):
    (tmp_path / "a.csv").write_text("0.5,1.5\n")
    (tmp_path / "b.csv").write_text("3,-2\n")
    return ["--from", tmp_path / "a.csv", "--to", tmp_path / "b.csv"]


def test_strength_0_is_the_round_trip(run, where):
    result = run("edit", "--direction", "right", "--strength", "0,-1.5", *where("traced"), stdin=ROWS)
    assert result.stdout.splitlines()[0] == "strength,row,column 0,column 1,log_prob"
    found = table(result)
    assert found[:, :2].tolist() == [[0, 0], [0, 1], [-1.5, 0], [-1.5, 1]]
    assert np.allclose(found[:2, 2:4], [[0.5, 1.5], [-1, 2]], atol=1e-5)
    assert (np.abs(found[2:, 2] - found[:2, 2]) > 0.1).all()


def test_a_name_and_its_numbers_are_the_same_direction(run, where):
    by_name, by_numbers = (
        run("edit", "--direction", direction, "--strength", "1,2", *where("traced"), stdin=ROWS).stdout
        for direction in ("right", "1,0")
    )
    assert by_name == by_numbers


def test_strength_1_from_a_to_b_lands_on_b(run, where, ends):
    found = table(run("edit", *ends, *where("affine"), stdin="0.5,1.5\n"))
    assert np.allclose(found[:, :4], [[1, 0, 3, -2]], atol=1e-5)


def test_a_server_and_a_bundle_give_the_same(run, server, repository, ends, tmp_path):
    arguments = ["edit", *ends, "--strength", "0,0.1,1", "--model", "affine"]
    served, local = (["--url", server], ["--repository", repository])
    assert run(*arguments, *served, stdin=ROWS).stdout == run(*arguments, *local, stdin=ROWS).stdout
    files = [tmp_path / "served.png", tmp_path / "local.png"]
    for file, place in zip(files, (served, local), strict=True):
        assert run(*arguments, "--png", file, "--size", 300, *place, stdin=ROWS).stdout == ""
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert pictures[0].shape == (300, 300, 3)
    np.testing.assert_array_equal(*pictures)


def test_a_strip_for_each_image(run, where, tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 2, 3, 1), 0.5))
    arguments = ["edit", tmp_path / "x.npy", "--direction", "1,0,0,0,0,0", "--strength", "0,1,2", *where("image")]
    run(*arguments, "--out", tmp_path / "moved.npy")
    assert np.load(tmp_path / "moved.npy").shape == (6, 2, 3, 1)
    run(*arguments, "--size", 3, "--png", tmp_path / "a.png")
    height, width = np.asarray(Image.open(tmp_path / "a.png")).shape[:2]
    assert width > height


def test_context_beside_the_rows_or_in_an_option(run, where):
    how = ["edit", "--direction", "0,1", "--strength", "0,1", *where("conditional")]
    beside = run(*how, stdin="0.5,1.5,1,2\n-1,2,1,2\n")
    assert beside.stdout == run(*how, "--context", "1,2", stdin=ROWS).stdout
    other = run(*how, "--context", "2,0", stdin=ROWS)
    assert other.stdout != beside.stdout
    assert np.allclose(table(other)[:2, 2:4], [[0.5, 1.5], [-1, 2]], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--direction", "rigth"], "did you mean 'right'"),
        (["--direction", "7"], "no direction '7'.* it has right"),
        (["--direction", "0,0"], "every value is zero"),
        (["--direction", "1,2,3"], "3 numbers, and this flow's latent space has 2"),
        (["--direction", "1,nan"], "--direction.*nan"),
        (["--direction", "right", "--strength", "1,inf"], "--strength.*inf"),
        (["--direction", "right", "--strength", "far"], "numbers with commas between them, not 'far'"),
        (["--direction", "right", "--from", "a.csv"], "give one of them"),
        (["--from", "a.csv"], "--from and --to together"),
        ([], "--from and --to together"),
    ],
)
def test_a_direction_that_is_none(run, where, options, said):
    with pytest.raises(PushforwardError, match=said):
        run("edit", *options, *where("traced"), stdin=ROWS)


def test_two_rows_in_one_file_and_no_way_between(run, where, ends, tmp_path):
    with pytest.raises(PushforwardError, match="the same latent"):
        run("edit", *ends[:3], ends[1], *where("affine"), stdin=ROWS)
    (tmp_path / "b.csv").write_text("1,2\n3,4\n")
    with pytest.raises(PushforwardError, match=r"b\.csv: expected one row, and found 2"):
        run("edit", *ends, *where("affine"), stdin=ROWS)


def test_a_row_where_the_density_is_zero_is_named_where_it_stands(run, where, tmp_path):
    (tmp_path / "in.csv").write_text("1\n")
    (tmp_path / "out.csv").write_text("9\n")
    with pytest.raises(PushforwardError, match="standard input, line 2: the density is zero here"):
        run("edit", "--direction", "1", *where("square"), stdin="1\n9\n")
    ends = ["--from", tmp_path / "in.csv", "--to", tmp_path / "out.csv"]
    with pytest.raises(PushforwardError, match=r"out\.csv: the density is zero here"):
        run("edit", *ends, *where("square"), stdin="1\n")

from __future__ import annotations

import io

import numpy as np
import pytest

from service.errors import PushforwardError

POINTS = "column 0,column 1\n0.5,1.5\n-1,2\n"


def table(result):
    return np.genfromtxt(io.StringIO(result.stdout), delimiter=",", names=True)


def test_a_walk(run, where):
    result = run("interpolate", "--steps", 5, *where("affine"), stdin=POINTS)
    assert result.stdout.splitlines()[0] == "t,column 0,column 1,log_prob,round_trip_error"
    walk = table(result)
    assert walk["t"][[0, -1]].tolist() == [0, 1]
    assert np.allclose([walk["column_0"][[0, -1]], walk["column_1"][[0, -1]]], [[0.5, -1], [1.5, 2]], atol=1e-5)
    assert walk["round_trip_error"].max() < 1e-4


def test_from_latents_as_npy(run, where, tmp_path):
    z = np.random.default_rng(0).normal(size=(3, 6))
    np.save(tmp_path / "z.npy", z)
    options = ["--space", "z", "--path", "linear", "--steps", 3, "--out", tmp_path / "x.npy"]
    run("interpolate", tmp_path / "z.npy", *options, *where("image"))
    assert np.load(tmp_path / "x.npy").shape[1:] == (2, 3, 1)


def test_a_server_and_a_bundle_give_the_same(run, server, repository):
    arguments = ["interpolate", "--steps", 7, "--model", "affine"]
    here = run(*arguments, "--repository", repository, stdin=POINTS)
    assert run(*arguments, "--url", server, stdin=POINTS).stdout == here.stdout


def test_context(run, where):
    assert len(table(run("interpolate", "--context", "1,2", *where("conditional"), stdin=POINTS))) == 11
    by_name = run("interpolate", "--context", "dose=1,kind=7", *where("classes"), stdin=POINTS)
    assert by_name.stdout == run("interpolate", "--context", "1,0,1", *where("classes"), stdin=POINTS).stdout


def test_a_point_where_the_density_is_zero_is_named_by_its_line(run, where):
    with pytest.raises(PushforwardError, match="standard input, line 2: the density is zero here"):
        run("interpolate", *where("square"), stdin="1\n9\n")


def test_one_point_is_no_path(run, where):
    with pytest.raises(PushforwardError, match="two points"):
        run("interpolate", *where("affine"), stdin="1,2\n")


def test_equal_steps_from_one_condition_to_another(run, where, tmp_path):
    np.save(tmp_path / "c.npy", [[0.5, -1], [2, 0]])
    arguments = ["interpolate", "-", *where("conditional"), "--steps", 9, "--context", f"@{tmp_path / 'c.npy'}"]
    points = "1,2\n3,4\n9,4\n"
    apart, even = (
        np.loadtxt(run(*arguments, "--spacing", spacing, stdin=points).stdout.splitlines(), delimiter=",", skiprows=1)
        for spacing in ("parameter", "arc_length")
    )
    assert apart.shape == even.shape
    assert np.allclose(apart[[0, -1], 1:3], [[1, 2], [9, 4]], atol=1e-5)
    assert np.allclose(even[[0, -1]], apart[[0, -1]], atol=1e-5)
    assert not np.allclose(even, apart, atol=1e-3)

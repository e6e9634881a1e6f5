"""The command line on a flow of float64: rows are read and written without rounding."""

from __future__ import annotations

import numpy as np
import pytest

import pushforward
from service.bundle.store import read_bundle
from service.engine.loading import load_flow
from service.plan import run_now
from tests.server import Server
from tests.service.bundles import affine, in_float64, install

ROWS = np.random.default_rng(0).normal(size=(6, 2))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    install(root, in_float64(affine("wide", directions={"right": [1.0, 0.0]}), "wide"))
    return root


@pytest.fixture(scope="module")
def server(repository):
    process = Server("--repository", repository, "--threads", 1)
    with pushforward.Client(process.url) as client:
        assert client.ready()
    yield process.url
    assert process.stop() == 0


@pytest.fixture(scope="module")
def flow(repository):
    return load_flow(read_bundle(repository / "wide" / "1"))


def as_csv(rows):
    return "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())


def test_log_prob_of_csv_and_npy(run, where, flow, tmp_path):
    expected = run_now(flow.log_prob(ROWS)).log_prob
    printed = run("logprob", *where("wide"), stdin=as_csv(ROWS)).stdout.splitlines()[1:]
    assert np.array([float(line) for line in printed]).tobytes() == expected.tobytes()
    np.save(tmp_path / "x.npy", ROWS)
    run("logprob", tmp_path / "x.npy", *where("wide"), "--out", tmp_path / "scores.npy")
    assert np.load(tmp_path / "scores.npy").tobytes() == expected.tobytes()


def test_samples(run, where, flow, tmp_path):
    expected = run_now(flow.sample(5, seed=2)).x
    run("sample", *where("wide"), "-n", 5, "--seed", 2, "--out", tmp_path / "samples.npy")
    assert np.load(tmp_path / "samples.npy").tobytes() == expected.tobytes()


def test_edits_and_walks(run, where, flow, tmp_path):
    (tmp_path / "rows.csv").write_text(as_csv(ROWS[:2]))
    moved = run("edit", tmp_path / "rows.csv", *where("wide"), "--direction", "right", "--strength", "0.1").stdout
    found = np.array([[float(cell) for cell in line.split(",")] for line in moved.splitlines()[1:]])[:, 2:4]
    expected = run_now(flow.decode(run_now(flow.encode(ROWS[:2])).z + 0.1 * np.array([1.0, 0.0]))).x
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    walked = run("interpolate", tmp_path / "rows.csv", *where("wide"), "--steps", "3").stdout.splitlines()
    names = walked[0].split(",")
    ends = [[float(line.split(",")[names.index(f"column {i}")]) for i in (0, 1)] for line in (walked[1], walked[-1])]
    np.testing.assert_allclose(ends, ROWS[:2], rtol=1e-13)


def test_a_calibration_keeps_float64(run, repository, tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    run("calibrate", repository / "wide" / "1", tmp_path / "x.npy", "--out", tmp_path / "anew")
    manifest = read_bundle(tmp_path / "anew" / "wide" / "1").manifest
    assert manifest.precision == "float64"
    assert (
        np.array(manifest.calibration.quantiles).tobytes()
        != np.float32(manifest.calibration.quantiles).astype(float).tobytes()
    )

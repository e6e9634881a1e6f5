from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from pushforward.client.errors import InvalidInput
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.errors import ManifestInvalid, PushforwardError
from service.plan import run_now
from tests.service import bundles


@pytest.fixture
def own(tmp_path):
    """A repository that a test may write to."""
    return bundles.install(
        tmp_path / "own", bundles.affine(), bundles.square(), bundles.affine("conditional", context_width=2)
    )


def rows(count=300):
    return np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)


def test_a_new_version_with_the_same_graphs(run, own, tmp_path):
    np.save(tmp_path / "rows.npy", rows())
    said = run("calibrate", own.root / "affine", tmp_path / "rows.npy").stdout
    assert said.startswith("affine version 2: 300 rows, mean log_prob ")
    old, new = (read_bundle(own.path("affine", version)) for version in (1, 2))
    assert new.graphs == old.graphs
    assert new.manifest.files == old.manifest.files
    log_prob = run_now(load_flow(new).log_prob(rows())).log_prob
    assert np.float32(new.manifest.calibration.quantiles).tobytes() == np.sort(log_prob).tobytes()
    source = new.manifest.provenance.recalibration
    assert (source.data, source.version) == ("rows.npy", 1)
    assert source.sha256 == hashlib.sha256(rows().tobytes()).hexdigest()
    changed = {"format", "version", "calibration", "provenance"}
    assert old.manifest.model_dump(exclude=changed) == new.manifest.model_dump(exclude=changed)
    assert "of version 1 measured anew on rows.npy" in run("inspect", own.root / "affine").stdout


def test_the_held_out_rows_alarm_at_the_rate(run, own, tmp_path):
    np.save(tmp_path / "rows.npy", rows())
    run("calibrate", own.root / "affine", tmp_path / "rows.npy")
    flow = load_flow(read_bundle(own.path("affine")))
    assert run_now(flow.log_prob(rows(), alarm_rate=0.05)).anomaly.mean() == 15 / 300


def test_words_and_another_repository(run, own, tmp_path):
    run("calibrate", own.path("square"), "-", "--describe", "four", "--out", tmp_path / "new", stdin="1\n2\n3\n4\n")
    manifest = read_bundle(Repository(tmp_path / "new").path("square", 1)).manifest
    assert manifest.provenance.recalibration.data == "four"
    assert manifest.calibration.rows == 4
    assert own.versions("square") == [1]


def test_a_bundle_of_an_older_format(run, own, tmp_path):
    file = own.path("affine") / "flow.json"
    content = json.loads(file.read_bytes())
    content["format"] = 1
    del content["digest"], content["calibration"]["ranks"], content["provenance"]["recalibration"]
    file.write_text(json.dumps(content))
    with pytest.raises(ManifestInvalid, match="pushforward reseal"):
        run("calibrate", own.root / "affine", "-", stdin="1,2\n3,4\n")
    run("reseal", own.root / "affine")
    run("calibrate", own.root / "affine", "-", stdin="1,2\n3,4\n")
    assert own.versions("affine") == [1, 2]


def test_a_context_for_each_row(run, own, tmp_path):
    np.save(tmp_path / "x.npy", rows(9))
    np.save(tmp_path / "c.npy", rows(9)[::-1])
    run("calibrate", own.root / "conditional", tmp_path / "x.npy", "--context", f"@{tmp_path / 'c.npy'}")
    found = np.float32(read_bundle(own.path("conditional", 2)).manifest.calibration.quantiles)
    expected = np.sort(bundles.affine("conditional", context_width=2).log_prob(rows(9), rows(9)[::-1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    both = np.hstack([rows(9), rows(9)[::-1]])
    text = "column 0,column 1,a,b\n" + "".join(f"{','.join(map(str, row))}\n" for row in both.tolist())
    run("calibrate", own.root / "conditional", "-", "--context-columns", "a,b", stdin=text)
    one, other = (read_bundle(own.path("conditional", version)).manifest for version in (2, 3))
    assert one.calibration == other.calibration
    assert one.provenance.recalibration.sha256 == other.provenance.recalibration.sha256


@pytest.mark.parametrize(
    ("flow", "text", "words"),
    [
        ("square", "1\n5\n-1\n", "standard input, line 2: the density is zero here; 2 rows"),
        ("square", "1\n", "at least two"),
        ("square", "1,2\n", "columns"),
        ("affine", "1,2\n3,nan\n", "not finite"),
        ("conditional", "1,2\n3,4\n", "2, and 2 of context after them or in --context"),
    ],
)
def test_rows_that_give_no_scale_leave_nothing_behind(run, own, flow, text, words):
    with pytest.raises(PushforwardError, match=words):
        run("calibrate", own.root / flow, "-", stdin=text)
    assert own.versions(flow) == [1]


def test_a_bundle_that_lies_nowhere_needs_a_place(run, own, tmp_path):
    own.path("affine").rename(tmp_path / "mine")
    with pytest.raises(InvalidInput, match="say --out REPOSITORY"):
        run("calibrate", tmp_path / "mine", "-", stdin="1,2\n3,4\n")
    run("calibrate", tmp_path / "mine", "-", "--out", tmp_path / "new", stdin="1,2\n3,4\n")
    assert Repository(tmp_path / "new").versions("affine") == [1]


def test_without_torch(own, tmp_path):
    np.save(tmp_path / "rows.npy", rows())
    code = f"""
import sys
sys.argv = ["pushforward", "calibrate", {str(own.root / "affine")!r}, {str(tmp_path / "rows.npy")!r}]
from pushforward.cli.group import cli
cli(standalone_mode=False)
assert not {{"torch", "models", "scipy", "httpx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

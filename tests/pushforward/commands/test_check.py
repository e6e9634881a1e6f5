from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys

import pytest

from service.bundle.store import Golden, Repository
from service.errors import BundleError, DigestMismatch, FlowNotFound, ForbiddenGraph, ParityFailed, UnexpectedFile
from tests.service import bundles


@pytest.fixture
def bundle(repository, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(repository / "affine" / "2", tmp_path / "affine" / "2")


@pytest.fixture
def wrong(tmp_path):
    """A bundle whose graphs do not give its golden answers: all else is right."""
    parts = bundles.affine()
    golden = Golden.from_npz(parts.files["golden.npz"], parts.manifest)
    spoilt = dataclasses.replace(
        golden, log_prob=golden.log_prob + 0.01, log_abs_det_jacobian=golden.log_abs_det_jacobian + 0.01
    )
    right = parts.manifest.calibration
    moved = right.model_copy(
        update={"mean": right.mean + 0.01, "quantiles": [value + 0.01 for value in right.quantiles]}
    )
    manifest = parts.manifest.model_copy(update={"calibration": moved})
    return Repository(tmp_path / "wrong").install(manifest, {**parts.files, "golden.npz": spoilt.to_npz()})


def test_a_bundle_that_may_be_served(run, bundle):
    result = run("check", bundle)
    assert result.exit_code == 0
    assert "affine version 2" in result.stdout
    for quantity in ("forward log_prob", "forward z", "forward log_abs_det_jacobian", "inverse x", "inverse log_prob"):
        assert result.stdout.count(quantity) == 3
    assert "round_trip" in result.stdout
    assert "FAILED" not in result.stdout
    assert result.stdout.endswith("it may be served\n")


def test_what_a_user_must_know_is_said_loudly(run, bundle, tmp_path):
    assert "WARNING" not in run("check", bundle).stdout
    parts = bundles.affine()
    calibration = parts.manifest.calibration.model_copy(update={"warning": "no better than a Gaussian"})
    parity = parts.manifest.parity.model_copy(update={"warning": "3 of 9 rows are off"})
    changed = parts.manifest.model_copy(update={"calibration": calibration, "parity": parity})
    text = run("check", Repository(tmp_path / "told").install(changed, parts.files)).stdout
    assert "WARNING: 3 of 9 rows are off\nWARNING: no better than a Gaussian\n" in text


def test_the_newest_version_of_a_repositorys_flow(run, bundle, monkeypatch):
    assert "affine version 2" in run("check", bundle.parent).stdout
    monkeypatch.chdir(bundle.parent.parent)
    assert "affine version 2" in run("check", "affine").stdout
    monkeypatch.chdir(bundle)
    assert "affine version 2" in run("check", ".").stdout


@pytest.mark.parametrize(("name", "version"), [("affine", "3"), ("other", "2")])
def test_a_bundle_in_anothers_place(run, bundle, tmp_path, monkeypatch, name, version):
    (tmp_path / name).mkdir(exist_ok=True)
    moved = bundle.rename(tmp_path / name / version)
    words = f"flow.json is of affine version 2, and the bundle lies where {name} version {version} should"
    for given in (moved, moved.parent):
        with pytest.raises(BundleError, match=words):
            run("check", given)
    monkeypatch.chdir(moved)
    with pytest.raises(BundleError, match=words):
        run("check", ".")


def test_a_flow_by_a_link(run, bundle):
    link = bundle.parent.with_name("alias")
    link.symlink_to(bundle.parent)
    for given in (link, link / "2"):
        with pytest.raises(UnexpectedFile, match="the flow's folder is a symbolic link"):
            run("check", given)


@pytest.mark.parametrize("folder", ["download", "affine/latest"])
def test_a_bundle_outside_a_repository_is_told_its_place(run, bundle, tmp_path, folder):
    result = run("check", bundle.rename(tmp_path / folder))
    assert result.exit_code == 0
    assert result.stdout.endswith("it may be served, once it lies at REPOSITORY/affine/2\n")


def test_a_flipped_bit(run, bundle):
    file = bundle / "forward.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises((DigestMismatch, ForbiddenGraph), match=r"forward\.onnx"):
        run("check", bundle)


def test_golden_rows_that_are_off(run, wrong):
    with pytest.raises(ParityFailed, match="does not give its golden answers") as caught:
        run("check", wrong)
    assert any("forward log_prob" in fault.loc for fault in caught.value.errors)


def test_the_exit_status_and_the_reason(wrong):
    command = [sys.executable, "-m", "pushforward", "check", str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "forward log_prob                   1" in done.stdout
    assert "FAILED" in done.stdout
    assert done.stderr.startswith("Error: affine version 1 does not give its golden answers\n")
    assert "it may be served" not in done.stdout


def test_a_bundle_that_is_not_there(run, tmp_path):
    with pytest.raises(FlowNotFound):
        run("check", tmp_path / "nothing")

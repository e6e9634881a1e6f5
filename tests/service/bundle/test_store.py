from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.bundle import store
from service.bundle.manifest import Step, seal_older
from service.bundle.store import (
    Golden,
    Repository,
    check_identity,
    digest,
    identity_of_folder,
    is_version,
    read_bundle,
    read_older_bundle,
    replace_manifest,
)
from service.errors import (
    BundleError,
    DataError,
    DigestMismatch,
    FlowNotFound,
    ForbiddenGraph,
    ManifestInvalid,
    UnexpectedFile,
    VersionNotFound,
)
from tests.service.bundle.conftest import make_graph, make_manifest


def rewrite(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file and its digest: what an attacker who can write the manifest can do."""
    (bundle / name).write_bytes(data)
    manifest = json.loads((bundle / "flow.json").read_bytes())
    manifest["files"][name] = digest(data)
    write_sealed(bundle, manifest)


def write_sealed(bundle: Path, manifest: dict[str, object]) -> None:
    """Write a manifest with the digest of its content."""
    (bundle / "flow.json").write_bytes(seal_older(json.dumps(manifest).encode(), edited=True))


def test_an_installed_bundle_is_read_back_whole(bundle: Path, files: dict[str, bytes], golden: Golden):
    read = read_bundle(bundle)
    assert read.graphs == {name: files[name] for name in ("forward.onnx", "inverse.onnx")}
    assert read.manifest.files == {name: digest(data) for name, data in files.items()}
    for name in ("x", "z", "log_abs_det_jacobian", "log_prob"):
        np.testing.assert_array_equal(getattr(read.golden, name), getattr(golden, name))


def test_a_folder_that_may_not_be_read_is_said_without_its_path(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UnexpectedFile, match=r"^the bundle's folder cannot be read: Permission denied$"):
        read_bundle(bundle)


def test_an_installed_bundle_can_be_read_by_another_user(bundle: Path):
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o755


def test_the_same_rows_give_the_same_golden_bytes(golden: Golden):
    assert golden.to_npz() == golden.to_npz()


@pytest.mark.parametrize("name", ["forward.onnx", "inverse.onnx", "golden.npz"])
def test_one_flipped_bit_is_found(bundle: Path, name: str):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(DigestMismatch, match=name):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["forward.onnx", "inverse.onnx", "golden.npz", "flow.json"])
def test_a_missing_file_is_named(bundle: Path, name: str):
    (bundle / name).unlink()
    with pytest.raises(UnexpectedFile, match=name):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["weights.pkl", "weights.bin", "extra.onnx", ".hidden"])
def test_an_extra_file_is_named(bundle: Path, name: str):
    (bundle / name).write_bytes(b"x")
    with pytest.raises(UnexpectedFile, match=name):
        read_bundle(bundle)


def test_a_manifest_may_not_name_other_files(bundle: Path):
    manifest = json.loads((bundle / "flow.json").read_bytes())
    manifest["files"]["../../secret"] = digest(b"")
    write_sealed(bundle, manifest)
    with pytest.raises(ManifestInvalid):
        read_bundle(bundle)


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", ["golden.npz", "flow.json"])
def test_links_are_refused(bundle: Path, tmp_path: Path, name: str, link):
    outside = tmp_path / "outside"
    (bundle / name).rename(outside)
    link(outside, bundle / name)
    with pytest.raises(UnexpectedFile, match=name):
        read_bundle(bundle)


def test_a_bundle_behind_a_link_is_refused(bundle: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(bundle)
    with pytest.raises(UnexpectedFile):
        read_bundle(tmp_path / "link")


def test_a_flow_behind_a_link_is_refused(bundle: Path, repository: Repository, files: dict[str, bytes]):
    (repository.root / "alias").symlink_to(bundle.parent)
    assert repository.versions("alias") == [1]
    with pytest.raises(UnexpectedFile, match="the flow's folder is a symbolic link"):
        read_bundle(repository.path("alias"))
    with pytest.raises(UnexpectedFile, match="symbolic link"):
        repository.install(make_manifest(name="alias", version=2), files)
    assert {path.name for path in bundle.parent.iterdir()} == {"1"}


def test_a_folder_in_the_place_of_a_file_is_refused(bundle: Path):
    (bundle / "golden.npz").unlink()
    (bundle / "golden.npz").mkdir()
    with pytest.raises(UnexpectedFile, match=r"golden\.npz must be a regular file"):
        read_bundle(bundle)


def test_an_older_bundle_is_brought_up_to_date_in_its_place(bundle: Path):
    today = (bundle / "flow.json").read_bytes()
    content = json.loads(today) | {"format": 2}
    del content["digest"]
    (bundle / "flow.json").write_text(json.dumps(content))
    (bundle / "flow.json").chmod(0o640)
    with pytest.raises(ManifestInvalid, match="reseal"):
        read_bundle(bundle)
    read, manifest = read_older_bundle(bundle)
    assert manifest == today
    replace_manifest(bundle, manifest)
    assert (bundle / "flow.json").read_bytes() == today
    assert stat.S_IMODE((bundle / "flow.json").stat().st_mode) == 0o640
    assert read_bundle(bundle).manifest == read.manifest
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"base": {"family": "diagonal_normal", "mean": [3.0, 3.0], "standard_deviation": [9.0, 9.0]}}, "base"),
        ({"base": {"family": "uniform", "low": -9.0, "high": 9.0}}, "base"),
        ({"support": {"low": 0.0}}, "support"),
        ({"support": {"high": 1.0}}, "support"),
        ({"calibration": {"mean": -3.2}}, "calibration.mean"),
        ({"calibration": {"standard_deviation": 1.0}}, "calibration.standard_deviation"),
        (
            {"calibration": {"quantiles": [-3.0, -3.0], "mean": -3.0, "standard_deviation": 0.0}},
            "calibration.quantiles",
        ),
        ({"calibration": {"rows": 9, "mean": -4.0}}, "calibration.mean"),
        ({"calibration": {"rows": 9, "ranks": [0, 8], "mean": -2.5}}, "calibration.mean"),
        ({"calibration": {"rows": 9, "ranks": [0, 8], "standard_deviation": 0.8}}, "calibration.standard_deviation"),
        (
            {"calibration": {"rows": 9, "ranks": [0, 8], "quantiles": [-3.5, -2.0], "mean": -3.0}},
            "calibration.quantiles",
        ),
    ],
)
def test_a_manifest_that_does_not_agree_with_the_golden_rows_is_refused(bundle: Path, change, key):
    content = json.loads((bundle / "flow.json").read_bytes())
    for name, value in change.items():
        content[name] = {**content[name], **value} if name == "calibration" else value
    write_sealed(bundle, content)
    with pytest.raises(ManifestInvalid, match="golden rows") as raised:
        read_bundle(bundle)
    assert ("flow.json", *key.split(".")) in [reason.loc for reason in raised.value.errors]


def test_a_scale_of_other_rows_need_not_hold_the_golden_ones(bundle: Path):
    content = json.loads((bundle / "flow.json").read_bytes())
    content["calibration"] |= {"rows": 3, "quantiles": [-9.0, -8.0, -7.0], "mean": -8.0, "standard_deviation": 1.0}
    write_sealed(bundle, content)
    with pytest.raises(ManifestInvalid, match="golden rows"):
        read_bundle(bundle)
    anew = {"data": "others", "sha256": digest(b""), "version": 1, "created": "2026-01-01T00:00:00Z"}
    content["provenance"]["recalibration"] = anew
    write_sealed(bundle, content)
    assert read_bundle(bundle).manifest.calibration.rows == 3


def test_a_pipe_in_the_place_of_a_file_does_not_hang(bundle: Path):
    (bundle / "golden.npz").unlink()
    os.mkfifo(bundle / "golden.npz")
    with pytest.raises(UnexpectedFile, match="golden"):
        read_bundle(bundle)


def test_a_file_over_the_cap_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "MAX_FILE_BYTES", 10)
    with pytest.raises(UnexpectedFile, match="cap"):
        read_bundle(bundle)


def test_a_file_of_just_the_cap_is_read(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = [path.stat().st_size for path in bundle.iterdir() if path.name != "flow.json"]
    monkeypatch.setattr(store, "MAX_FILE_BYTES", max(sizes))
    assert read_bundle(bundle).manifest.name == "line"
    monkeypatch.setattr(store, "MAX_FILE_BYTES", max(sizes) - 1)
    with pytest.raises(UnexpectedFile, match="cap"):
        read_bundle(bundle)


def test_golden_rows_of_just_the_cap_are_read(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    with zipfile.ZipFile(bundle / "golden.npz") as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    monkeypatch.setattr(store, "MAX_GOLDEN_BYTES", unpacked)
    assert len(read_bundle(bundle).golden.x) == 2
    monkeypatch.setattr(store, "MAX_GOLDEN_BYTES", unpacked - 1)
    with pytest.raises(UnexpectedFile, match="unpacks"):
        read_bundle(bundle)


def test_the_steps_of_a_trace_are_named_where_there_is_one_and_only_there(bundle: Path, repository: Repository, files):
    steps = [Step(name="scale", shape=[2])]
    with pytest.raises(ManifestInvalid, match=r"trace\.onnx"):
        repository.install(make_manifest(version=2, trace=steps), files)
    with pytest.raises(ManifestInvalid, match=r"trace\.onnx"):
        repository.install(make_manifest(version=2), files | {"trace.onnx": make_graph()})
    traced = repository.install(make_manifest(version=2, trace=steps), files | {"trace.onnx": make_graph()})
    assert read_bundle(traced).manifest.trace == steps


def test_a_graph_outside_the_allow_list_is_refused_though_its_digest_fits(bundle: Path):
    from onnx import helper

    rewrite(bundle, "forward.onnx", make_graph(helper.make_node("RandomNormalLike", ["x"], ["z"])))
    with pytest.raises(ForbiddenGraph, match="RandomNormalLike"):
        read_bundle(bundle)


def test_the_opset_is_the_one_the_manifest_says(bundle: Path):
    manifest = json.loads((bundle / "flow.json").read_bytes())
    manifest["opset"] = 9
    write_sealed(bundle, manifest)
    with pytest.raises(ManifestInvalid, match="opset"):
        read_bundle(bundle)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * (store.MAX_GOLDEN_BYTES + 1))
    return buffer.getvalue()


ROW = {"x": np.zeros((1, 2), np.float32), "z": np.zeros((1, 2)), "log_abs_det_jacobian": np.zeros(1)}


@pytest.mark.parametrize(
    "data",
    [
        b"not a zip",
        npz(**ROW),
        npz(**ROW, log_prob=np.zeros(2)),
        npz(**ROW, log_prob=np.zeros(1, np.float32)),
        npz(**(ROW | {"x": np.zeros((0, 2), np.float32)}), log_prob=np.zeros(0)),
        npz(**ROW, log_prob=np.zeros(1), context=np.zeros((1, 1), np.float32)),
        npz(**ROW, log_prob=np.array([None], dtype=object)),
        bomb(),
    ],
    ids=["bytes", "missing", "rows", "dtype", "empty", "context", "pickle", "bomb"],
)
def test_a_golden_file_of_another_form_is_refused(bundle: Path, data: bytes):
    rewrite(bundle, "golden.npz", data)
    with pytest.raises(UnexpectedFile, match=r"golden\.npz"):
        read_bundle(bundle)


def test_a_version_never_changes(repository: Repository, bundle: Path, files: dict[str, bytes]):
    before = (bundle / "flow.json").read_bytes()
    with pytest.raises(FileExistsError):
        repository.install(make_manifest(description="other"), files)
    assert (bundle / "flow.json").read_bytes() == before


def test_a_version_that_was_taken_meanwhile_is_followed_by_the_next(
    repository: Repository, bundle: Path, files: dict[str, bytes]
):
    assert repository.install_next(make_manifest(), files).name == "2"
    (repository.root / "line" / "3").write_text("no bundle, and no version to the repository")
    assert repository.install_next(make_manifest(version=3), files).name == "4"
    assert repository.install_next(make_manifest(version=9), files).name == "9"
    with pytest.raises(DataError, match="line has a version 2 already"):
        repository.install_next(make_manifest(version=2), files, pinned=True)


def test_a_bundle_that_would_not_be_served_is_not_installed(repository: Repository, files: dict[str, bytes]):
    with pytest.raises(BundleError):
        repository.install(make_manifest(), files | {"forward.onnx": b"not a graph"})
    assert repository.names() == []
    assert list(repository.root.rglob("*.onnx")) == []


def test_names_and_versions(repository: Repository, files: dict[str, bytes]):
    for name, version in (("b", 2), ("b", 10), ("a", 1)):
        repository.install(make_manifest(name=name, version=version), files)
    (repository.root / "b" / "recipe.toml").write_text("")
    (repository.root / "b" / "007").mkdir()
    (repository.root / "b" / ".installing-x").mkdir()
    (repository.root / "Not a name").mkdir()
    (repository.root / "empty").mkdir()
    assert repository.names() == ["a", "b"]
    assert repository.versions("b") == [2, 10]
    assert repository.next_version("b") == 11
    assert repository.next_version("new") == 1
    assert repository.path("b") == repository.root / "b" / "10"
    assert repository.path("b", 2) == repository.root / "b" / "2"


@pytest.mark.parametrize("name", ["missing", "..", "../repository/line", ""])
def test_a_name_that_is_not_there(repository: Repository, bundle: Path, name: str):
    with pytest.raises(FlowNotFound):
        repository.path(name)


def test_a_version_that_is_not_there(repository: Repository, bundle: Path):
    with pytest.raises(VersionNotFound, match=r"\[1\]"):
        repository.path("line", 2)


def test_a_repository_that_is_not_there_is_empty(tmp_path: Path):
    assert Repository(tmp_path / "nothing").names() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1", True), ("999999999", True), ("1000000000", False), ("0", False), ("01", False), ("v1", False), ("", False)],
)
def test_a_version_is_a_positive_integer(name, expected):
    assert is_version(name) is expected


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("/flows/two-moons/12", ("two-moons", 12)),
        ("two-moons/1/", ("two-moons", 1)),
        ("/flows/two-moons/../square/1/.", ("square", 1)),
        ("/flows/two-moons", None),
        ("/flows/two-moons/v1", None),
        ("/flows/Two Moons/1", None),
        ("/1", None),
    ],
)
def test_the_path_names_flow_and_version(folder, place):
    assert identity_of_folder(Path(folder)) == place


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "square" / "3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "square" / "3")
    assert identity_of_folder(Path()) == ("square", 3)


def test_a_link_counts_by_its_own_name(tmp_path):
    (tmp_path / "square").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "square")
    assert identity_of_folder(tmp_path / "alias" / "1") == ("alias", 1)


@pytest.mark.parametrize(("name", "version"), [("line", 2), ("other", 1)])
def test_another_name_or_version_is_refused(name, version):
    check_identity(make_manifest(), "line", 1)
    with pytest.raises(BundleError, match=f"is of line version 1, and the bundle lies where {name} version {version}"):
        check_identity(make_manifest(), name, version)

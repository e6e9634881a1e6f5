from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.bundle.store import Repository, read_bundle
from service.errors import ManifestInvalid, PushforwardError
from tests.service import bundles


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    return bundles.install(tmp_path / "flows", bundles.affine(), bundles.affine(version=2), bundles.square())


def make_older(folder: Path, number: int = 2) -> None:
    content = json.loads((folder / "flow.json").read_bytes()) | {"format": number}
    del content["digest"]
    (folder / "flow.json").write_text(json.dumps(content))


@pytest.mark.parametrize("number", [1, 2])
def test_an_older_bundle_is_sealed_and_nothing_else_changes(run, own, number):
    folder = own.path("affine", 1)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    make_older(folder, number)
    with pytest.raises(ManifestInvalid, match=f"of format {number}.*`pushforward reseal BUNDLE`"):
        run("check", folder)
    assert run("reseal", folder).stdout == "affine version 1: flow.json is sealed\n"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert run("reseal", folder).stdout == "affine version 1: was up to date\n"


def test_a_bundle_that_fails_does_not_keep_the_others_from_it(run, own):
    for name, version in (("affine", 1), ("affine", 2), ("square", 1)):
        make_older(own.path(name, version))
    broken = own.path("affine", 2)
    graph = broken / "inverse.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    left = (broken / "flow.json").read_bytes()
    with pytest.raises(PushforwardError, match="1 of 3 bundles were left as they are"):
        run("reseal", own.path("affine", 1), broken, own.root / "square")
    read_bundle(own.path("affine", 1))
    read_bundle(own.path("square", 1))
    assert (broken / "flow.json").read_bytes() == left


def test_a_bundle_of_another_base_is_left_as_it_is(run, own):
    """The golden rows are under a digest, and hold what no digest held in an older format."""
    make_older(own.path("affine", 1))
    file = own.path("affine", 1) / "flow.json"
    content = json.loads(file.read_bytes())
    content["base"] = {"family": "diagonal_normal", "mean": [3.0, 3.0], "standard_deviation": [9.0, 9.0]}
    file.write_text(json.dumps(content))
    with pytest.raises(PushforwardError, match="1 of 1"):
        run("reseal", own.path("affine", 1))
    assert json.loads(file.read_bytes()) == content


def test_an_edited_manifest_is_sealed_only_where_that_is_said(run, own):
    folder = own.path("affine", 1)
    file = folder / "flow.json"
    file.write_text(file.read_text().replace("A normal distribution.", "Mine."))
    with pytest.raises(PushforwardError, match="1 of 1"):
        run("reseal", folder)
    run("reseal", "--edited", folder)
    assert read_bundle(folder).manifest.description == "Mine."


def test_a_bundle_in_anothers_place_is_left_as_it_is(run, own):
    make_older(own.path("affine", 2))
    moved = own.path("affine", 2).rename(own.root / "affine" / "3")
    with pytest.raises(PushforwardError, match="1 of 1"):
        run("reseal", moved)
    assert json.loads((moved / "flow.json").read_bytes())["format"] == 2

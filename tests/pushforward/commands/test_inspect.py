from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

from service.bundle.manifest import Calibration, ContextFeature, Manifest
from service.bundle.operators import check_graph
from service.errors import UnexpectedFile
from tests.service import bundles


@pytest.fixture
def described(tmp_path, run):
    def inspect(parts, *options):
        bundles.install(tmp_path, parts)
        return run("inspect", tmp_path / parts.manifest.name, *options).stdout

    return inspect


def test_a_table(described):
    calibration = Calibration(rows=4, mean=-3.0, standard_deviation=2.0, quantiles=[-5.0, -1.0], gaussian_mean=-3.5)
    parts = bundles.affine(description="Heights and weights.")
    manifest = parts.manifest.model_copy(update={"calibration": calibration})
    text = described(dataclasses.replace(parts, manifest=manifest))
    for words in (
        "affine version 1",
        "Heights and weights.",
        "[2]",
        "column 0 [m], column 1 [m]",
        "N(0, 1)",
        "all of space",
        "-3.0000 nats a row, of 4 rows",
        "1.0000 nats standard error",
        "-1.5000 nats a dimension, 2.1640 bits a dimension",
        "-3.5000 nats a row for a full-covariance Gaussian; the flow is +0.5000",
        "opset 18",
        f"forward.onnx: {check_graph(parts.files['forward.onnx'], 'forward.onnx').nodes} nodes",
        "made for a test",
        "2026-01-01",
    ):
        assert words in text


def test_what_a_user_must_know_is_said_loudly(described):
    parts = bundles.affine()
    assert "WARNING" not in described(parts)
    calibration = parts.manifest.calibration.model_copy(update={"warning": "no better than a Gaussian"})
    parity = parts.manifest.parity.model_copy(update={"warning": "3 of 9 rows are off"})
    changes = {"version": 2, "calibration": calibration, "parity": parity}
    text = described(dataclasses.replace(parts, manifest=parts.manifest.model_copy(update=changes)))
    assert re.findall(r"^WARNING +(.*)$", text, flags=re.MULTILINE) == [calibration.warning, parity.warning]


def test_a_numeric_inverse_is_said(described):
    assert re.search(r"inverse +closed form\n", described(bundles.affine()))
    parts = bundles.affine(version=2)
    manifest = parts.manifest.model_copy(update={"inverse": "numeric"})
    assert re.search(r"inverse +numeric\n", described(dataclasses.replace(parts, manifest=manifest)))


def test_an_image_says_how_integers_are_read(described):
    text = described(bundles.image())
    assert "a level is read as the centre of its bin" in text
    assert "features" not in text
    assert "context" not in text


def test_a_context_is_said_by_name(described):
    features = [ContextFeature(name="dose", unit="mg"), ContextFeature(name="kind=b", column="kind", category="b")]
    parts = bundles.affine(context_width=2, context_features=features)
    calibration = parts.manifest.calibration.model_copy(update={"gaussian_mean": -9.0})
    manifest = parts.manifest.model_copy(update={"calibration": calibration})
    text = described(dataclasses.replace(parts, manifest=manifest))
    assert re.search(r"context +2 columns: dose \[mg\], kind=b\n", text)
    assert "-9.0000 nats a row for a linear Gaussian, given the context" in text
    assert re.search(r"context +1 column\n", described(bundles.affine(version=2, context_width=1)))


def test_a_support_and_a_uniform_base(described):
    text = described(bundles.square())
    assert "(0, 4]" in text
    assert "U(0, 2)" in text


def test_json_is_whole(described):
    parts = bundles.image()
    facts = json.loads(described(parts, "--json"))
    assert Manifest.model_validate(facts["manifest"]).name == "image"
    held_out = facts["held_out"]
    assert held_out["nats_per_dim"] == held_out["nats"] / 6
    # a bin is 0.5 wide, so that its probability is half the density
    assert held_out["bits_per_dim"] == pytest.approx(-(held_out["nats_per_dim"] + math.log(0.5)) / math.log(2))
    assert facts["graphs"]["inverse.onnx"]["nodes"] == sum(facts["graphs"]["inverse.onnx"]["operators"].values())
    sizes = facts["bytes"]
    assert set(sizes) == {"flow.json", "forward.onnx", "inverse.onnx", "golden.npz", "total"}
    assert sizes.pop("total") == sum(sizes.values())


def test_a_bundle_that_holds_something_else(described, tmp_path, run):
    described(bundles.square())
    (tmp_path / "square" / "1" / "extra").write_text("")
    with pytest.raises(UnexpectedFile, match="extra"):
        run("inspect", tmp_path / "square" / "1")

"""docs/evaluation.md names just the figures that there are."""

from __future__ import annotations

import json
import re

import numpy as np
from click.testing import CliRunner

from pushforward.cli.group import cli
from tests.docs.generated import ROOT
from tests.service import bundles


def figures(tmp_path, name: str, *options: str, **parts) -> dict:
    repository = bundles.install(tmp_path / name, bundles.affine(name, **parts))
    generator = np.random.default_rng(0)
    np.save(tmp_path / "rows.npy", generator.normal(size=(60, 2 + parts.get("context_width", 0))).round(1))
    call = ["evaluate", str(repository.path(name)), str(tmp_path / "rows.npy"), "--json", *options]
    result = CliRunner().invoke(cli, call, catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_the_page_names_just_the_figures_that_there_are(tmp_path):
    quantization = {"low": -3.0, "high": 3.0, "step": 0.1, "reading": "tenths"}
    given = [
        figures(tmp_path, "conditional", context_width=1),
        figures(tmp_path, "spread", "--train", str(tmp_path / "rows.npy"), quantization=quantization),
    ]
    found = set()
    for each in given:
        for key, value in each.items():
            found |= {f"{key}.{inner}" for inner in value} if key in ("held_out", "training", "two_sample") else {key}
    page = (ROOT / "docs" / "evaluation.md").read_text()
    table = page.partition("<!-- begin figures -->")[2].partition("<!-- end figures -->")[0]
    named = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", table, flags=re.MULTILINE)
    assert {key for key, _ in named} == found
    lines = dict(named)
    for each in given:  # the keys inside are named in the line of their figure
        for key, inside in each.items():
            if key not in lines or key == "spread" or not isinstance(inside, dict | list):
                continue
            inner = inside[0] if isinstance(inside, list) else inside or {}
            for name in inner:
                assert f"`{name}`" in lines[key], (key, name)
        for name in each["held_out"]["flow"]:
            assert name in lines["held_out.flow"] or name == "bits_per_dim_standard_error", name

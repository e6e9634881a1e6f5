"""The console's components in one file, and what the figures of a report show."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from models.evaluation import live
from models.evaluation.components import data_script, inline_modules, inline_styles
from models.evaluation.uniformity import Coverage

MODULES = {
    name: base64.b64decode(text).decode()
    for name, text in re.findall(r'"([\w/.-]+)": "data:text/javascript;base64,([^"]*)"', inline_modules())
}


def test_every_module_that_is_imported_is_there_by_its_name():
    assert {"pushforward/report.js", "pushforward/figures.js", "pushforward/theme.js"} <= set(MODULES)
    for text in MODULES.values():
        imported = set(re.findall(r'\b(?:from|import)\s+"([^"]+)"', text))
        assert imported <= set(MODULES)
    assert 'from "./' not in inline_modules()


def test_the_styles_are_the_consoles_and_the_reports():
    assert "--latent:" in inline_styles()
    assert ".report" in inline_styles()


def test_data_cannot_end_its_element():
    script = data_script({"a": {"names": ["</script><script>alert(1)"]}})
    assert script.count("</script>") == 1
    content = re.search(">(.*)</script>", script)[1]
    assert json.loads(content)["a"]["names"] == ["</script><script>alert(1)"]
    with pytest.raises(ValueError, match="JSON"):
        data_script({"a": float("nan")})


def test_every_figure_is_json_and_counts_each_row():
    rng = np.random.default_rng(0)
    flow, gaussian = rng.normal(size=500), rng.normal(size=500) - 1
    spread = live.log_prob_histogram(flow, gaussian)
    assert sum(spread["flow"]) == sum(spread["gaussian"]) == 500
    assert spread["low"] < spread["flow_mean"] < spread["high"]
    quantiles = rng.random(400)
    bars = live.quantile_plot(quantiles, [Coverage(0.5, 0.52, 0.02)])
    assert sum(bars["counts"]) == 400
    low, high = bars["band"]
    assert low < bars["expected"] < high
    assert bars["covered"][0] == 0
    assert bars["covered"][-1] == 1
    ranks = live.rank_plot(rng.random((400, 2)), ["a", "b"])
    assert [each["name"] for each in ranks["columns"]] == ["a", "b"]
    lost = live.loss_curves([float("nan"), -1.5], [float("-inf"), -1.0], 2)
    assert lost["train"] == [None, -1.5]
    data_script({"a": spread, "b": bars, "c": ranks, "d": lost})


def test_maps_and_images_are_bytes_between_black_and_white():
    values = np.log(np.array([[1.0, 2.0], [4.0, 0.5]]))
    grid = live.density(values, [0, 0], [1, 2], np.zeros((3, 2)), ["x", "y"])
    assert list(base64.b64decode(grid["map"])) == [64, 128, 255, 32]
    assert grid["top"] == pytest.approx(4)
    nothing = live.density(np.full((2, 2), -np.inf), [0, 0], [1, 2], np.zeros((3, 2)), ["x", "y"])
    assert set(base64.b64decode(nothing["map"])) == {0}
    images = live.image_grid(np.array([[[[0.0], [8.0], [16.0], [99.0]]]]), np.zeros((1, 1, 4, 1)), 0, 16)
    assert list(base64.b64decode(images["data"])) == [0, 128, 255, 255]
    assert images["shape"] == [1, 4, 1]

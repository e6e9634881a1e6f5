"""A report holds its figures, its pictures and its rows, and stands by itself."""

from __future__ import annotations

import copy
import html
import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from models.architectures import build_flow
from models.evaluation import pictures
from models.evaluation.evaluate import HeldOutRows, diagnose
from models.evaluation.likelihood import Evaluation
from models.flows.flow import Flow
from models.flows.preprocess import Flatten, Standardize
from models.training.checkpoint import EpochRecord
from models.training.evaluate import TorchDensity, evaluate, gather_rows
from models.training.report import Findings, draw, write_report
from service.bundle.bases import NormalBase
from service.bundle.manifest import Support

HISTORY = [EpochRecord(i, -3.0 + 0.1 * i, -3.2 + 0.1 * i, -3.2 + 0.1 * i, 1e-3) for i in range(1, 6)]


def findings(*event: int, integers: bool = False, **changes) -> Findings:
    return replace(usual_findings(*event, integers=integers), **changes)


@cache
def usual_findings(*event: int, integers: bool) -> Findings:
    x = torch.randn(300, *event, generator=torch.Generator().manual_seed(0)) * 3 + 5
    step = torch.ones(event) if integers else None
    held_out = x[:100].round() if integers else x[:100]
    scored = held_out + 0.1 if integers else held_out
    chain = [Standardize.of(x.flatten(1))]
    flow = Flow(event, [Flatten(event), *chain] if len(event) > 1 else chain, NormalBase())
    rows = gather_rows(x[100:], scored, step=step, centres=held_out if integers else None)
    evaluation = evaluate(flow, rows)
    columns = [f"column <{i}>" for i in range(event[0])] if len(event) == 1 else []
    values = {
        "name": "rows", "version": 2, "description": "Drawn & <made up>.", "data": "300 rows", "columns": columns,
        "flow": flow, "held_out": held_out, "scored": scored, "evaluation": evaluation, "history": HISTORY,
        "diagnosis": diagnosed(flow, rows, evaluation),
        "best_epoch": 5, "stopped": "all 5 epochs were done", "seconds": 1.25, "rows": (150, 50, 100), "seed": 4,
        "recipe": {"fit": {"epochs": 5}}, "notes": ["column <1> repeats values"], "serve": "pushforward serve flows",
        "bundle": Path("my flows/rows/2"),
    }  # fmt: skip
    return Findings(**values)


def diagnosed(flow: Flow, rows: HeldOutRows, evaluation: Evaluation):
    return diagnose(TorchDensity(flow), rows, evaluation.flow.log_prob, 0, lambda _: None)


def pixels(png: bytes, tmp_path) -> np.ndarray:
    (tmp_path / "p.png").write_bytes(png)
    return matplotlib.image.imread(tmp_path / "p.png")


def test_the_page_holds_the_figures(tmp_path):
    found = findings(3)
    page = write_report(found, tmp_path / "report").read_text()
    for score in (found.evaluation.flow, found.evaluation.gaussian, found.evaluation.gain):
        assert f"{score.mean:.3f} ± {score.standard_error:.3f}" in page
        assert f"{score.mean / 3:.4f}" in page
    assert "bits per dimension" not in page
    assert "150 to train on, 50 to stop by, 100 held out, split at random" in page
    assert "pushforward serve flows" in page
    assert "Full-covariance Gaussian" in page
    assert "Serve it" in page
    without = write_report(findings(3, bundle=None), tmp_path / "no bundle").read_text()
    assert "Go on with it" in without
    assert "Serve it" not in without


def test_the_page_stands_by_itself_and_escapes_what_it_is_given(tmp_path):
    page = write_report(findings(3), tmp_path / "report").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert "Drawn &amp; &lt;made up&gt;." in page
    assert "column &lt;1&gt; repeats values." in page
    assert not re.search(r"\$\{?[a-z_]", re.sub(r"base64,[^\"]*", "", page))


def test_the_json_holds_the_same_figures_and_the_rows_give_them(tmp_path):
    found = findings(3)
    write_report(found, tmp_path)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["held_out"]["flow"]["mean"] == found.evaluation.flow.mean
    assert figures["rows"] == {"train": 150, "validation": 50, "held_out": 100}
    assert [record["epoch"] for record in figures["fit"]["history"]] == [1, 2, 3, 4, 5]
    rows = torch.from_numpy(np.load(tmp_path / "held_out.npy"))
    assert float(found.flow.log_prob(rows).double().mean()) == pytest.approx(figures["held_out"]["flow"]["mean"])
    assert not (tmp_path / "held_out_scored.npy").exists()


def test_integers_are_reported_spread_and_at_their_centres(tmp_path):
    found = findings(3, integers=True, published={"RealNVP <2017>": 1.06})
    page = write_report(found, tmp_path).read_text()
    score = found.evaluation.flow
    bits, error = found.evaluation.bits_per_dim(score), found.evaluation.bits_error(score)
    assert error == pytest.approx(score.standard_error / (3 * math.log(2)))
    assert f"<td>{bits:.4f} ± {error:.4f}</td>" in page
    assert "<td>Published: RealNVP &lt;2017&gt;</td><td></td><td></td><td>1.06</td>" in page
    assert f"{found.evaluation.centres.mean:.3f} ±" in page
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["published_bits_per_dim"] == {"RealNVP <2017>": 1.06}
    assert figures["held_out"]["flow"]["bits_per_dim_standard_error"] == pytest.approx(error)
    for file, key in (("held_out.npy", "held_out_at_bin_centres"), ("held_out_scored.npy", "held_out")):
        rows = torch.from_numpy(np.load(tmp_path / file))
        assert float(found.flow.log_prob(rows).double().mean()) == pytest.approx(figures[key]["flow"]["mean"])


@pytest.mark.parametrize("integers", [False, True])
def test_the_page_names_each_file_of_rows_its_figure_and_the_command_that_gives_it(tmp_path, integers):
    found = findings(3, integers=integers)
    page = html.unescape(write_report(found, tmp_path).read_text())
    files = {path.name for path in tmp_path.glob("*.npy")}
    assert files == ({"held_out.npy", "held_out_scored.npy"} if integers else {"held_out.npy"})
    for name in files:
        mean = float(found.flow.log_prob(torch.from_numpy(np.load(tmp_path / name))).double().mean())
        assert re.search(rf"<code>{name}</code>: [^<]*, {mean:.3f} nats\.", page), name
        assert f"<pre>pushforward logprob {tmp_path / name} --bundle 'my flows/rows/2' | awk" in page
    over_http = re.search(r"<code>held_out.npy</code>: ([^<]*)", page)[1]
    assert f"HTTP answers for them give the figure {'at the centres' if integers else 'of the flow'}" in over_http


@pytest.mark.parametrize(
    ("event", "names"),
    [
        ((1,), {"loss", "log_prob", "quantiles", "samples"}),
        ((2,), {"loss", "log_prob", "quantiles", "samples", "density"}),
        ((3,), {"loss", "log_prob", "quantiles", "samples"}),
        ((4, 4, 1), {"loss", "log_prob", "quantiles", "samples"}),
        ((3, 5, 3), {"loss", "log_prob", "quantiles", "samples"}),
    ],
)
def test_every_picture_shows_something(tmp_path, event, names):
    drawn, shown = draw(findings(*event))
    assert set(drawn) == set(shown) == names
    for name, png in drawn.items():
        picture = pixels(png, tmp_path)
        assert min(picture.shape[:2]) > 300, name
        assert picture[..., :3].std() > 0.01, name


@pytest.mark.parametrize(("low", "high"), [(None, None), (0.0, None), (None, 255.0), (0.0, 255.0)])
def test_images_are_shown_in_the_range_of_the_support(monkeypatch, low, high):
    found = findings(6, 5, 1)
    flow = copy.copy(found.flow)
    flow.support = None if low is high is None else Support(low=low, high=high)
    seen = {}
    monkeypatch.setattr(pictures, "image_grid", lambda rows, samples, low, high: seen.update(at=(low, high)) or b"")
    draw(replace(found, flow=flow))
    data = found.scored.double()
    assert seen["at"] == (float(data.min()) if low is None else low, float(data.max()) if high is None else high)


def test_a_wide_table_says_which_columns_it_shows(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "pair_plot", lambda data, samples, names: shown.extend(names) or b"picture")
    page = write_report(findings(10), tmp_path).read_text()
    assert shown == [f"column <{i}>" for i in range(8)]
    assert "the first 8 of 10 columns" in page


def test_pictures_follow_from_the_seed():
    first, again, other = (draw(findings(1, seed=seed))[0]["samples"] for seed in (4, 4, 5))
    assert first == again != other


def test_an_epoch_that_was_not_finite_does_not_break_the_report(tmp_path):
    broken = [replace(HISTORY[0], train=float("nan"), validation=float("-inf"), skipped=3), *HISTORY[1:]]
    page = write_report(findings(3, history=broken), tmp_path).read_text()
    assert "3, since their likelihood or gradient was not finite" in page
    assert json.loads((tmp_path / "report.json").read_text())["fit"]["history"][0]["train"] is None


@cache
def conditional_findings(width: int = 3) -> Findings:
    """x = c + noise in the first column, where the flow is told c."""
    generator = torch.Generator().manual_seed(0)
    c = 10 * torch.randn(300, 1, generator=generator)
    x = torch.randn(300, width, generator=generator)
    x[:, :1] += c
    flow = build_flow("real_nvp", {"transforms": 1, "hidden": [4]}, rows=x, context=c)
    shift = torch.eye(1, width)

    class Shifted(Flow):
        def inverse(self, z: torch.Tensor, context: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            return z + context @ shift, torch.zeros(len(z))

    flow.__class__ = Shifted
    rows = gather_rows(x[100:], x[:100], train_context=c[100:], context=c[:100])
    evaluation = evaluate(flow, rows)
    return findings(
        width, flow=flow, held_out=x[:100], scored=x[:100], evaluation=evaluation,
        diagnosis=diagnosed(flow, rows, evaluation), context=c[:100],
        context_columns=["age, years"],
    )  # fmt: skip


def test_a_conditional_flow_is_reported_given_its_context(tmp_path):
    found = conditional_findings()
    page = html.unescape(write_report(found, tmp_path).read_text())
    assert "Linear Gaussian, given the context" in page
    assert "Full-covariance Gaussian" not in page
    assert "Each sample is drawn at the context of one held-out row." in page
    assert "<dt>given</dt><dd>age, years</dd>" in page
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["context"] == ["age, years"]
    context = np.load(tmp_path / "held_out_context.npy")
    np.testing.assert_array_equal(context, found.context.numpy())
    assert f"held_out.npy --context @{tmp_path / 'held_out_context.npy'} --bundle" in page
    scores = found.flow.log_prob(torch.from_numpy(np.load(tmp_path / "held_out.npy")), torch.from_numpy(context))
    assert float(scores.detach().double().mean()) == pytest.approx(figures["held_out"]["flow"]["mean"])


def test_each_sample_of_a_report_is_drawn_at_the_context_of_a_row(monkeypatch):
    found = conditional_findings()
    seen = {}
    monkeypatch.setattr(pictures, "pair_plot", lambda data, samples, names: seen.update(samples=samples) or b"")
    draw(found)
    assert np.abs(seen["samples"][:, 0] - found.context[:, 0].numpy()).max() < 5  # standard deviations


def test_a_map_of_a_conditional_flow_is_the_mean_over_contexts(monkeypatch):
    found = conditional_findings(2)
    seen = {}
    monkeypatch.setattr("models.training.report._MAP", 10)
    monkeypatch.setattr(pictures, "density", lambda values, low, high, *_: seen.update(v=values, at=(low, high)) or b"")
    draw(found)
    low, high = found.scored.double().numpy().min(axis=0), found.scored.double().numpy().max(axis=0)
    np.testing.assert_allclose(seen["at"][0], low - 0.15 * (high - low), rtol=1e-6)
    np.testing.assert_allclose(seen["at"][1], high + 0.15 * (high - low), rtol=1e-6)
    corner = torch.tensor([seen["at"][0]])
    with torch.no_grad():
        each = [float(found.flow.log_prob(corner, one[None]).exp()) for one in found.context[:16]]
    assert np.exp(seen["v"][0, 0]) == pytest.approx(np.mean(each), rel=1e-3)

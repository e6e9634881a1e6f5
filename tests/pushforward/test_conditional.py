"""From a table to answers, for a flow that is conditioned: what was fitted is what each door gives."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

import pushforward
from pushforward.cli.group import cli
from service.bundle.store import read_bundle
from tests.server import Server

COUNT = 1500


def run(*arguments: object, stdin: str | None = None) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, catch_exceptions=False)
    return result.stdout


@dataclass
class Trained:
    folder: Path
    table: Path
    url: str

    @property
    def bundle(self) -> Path:
        return self.folder / "flows" / "given" / "1"

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        report = self.folder / "flows" / "given" / "report-1"
        return np.load(report / "held_out.npy"), np.load(report / "held_out_context.npy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """u and v are N(c + 3 [kind is high], 1 + c^2 / 4), for c from -2 to 2: fitted, and served."""
    folder = tmp_path_factory.mktemp("conditional")
    generator = np.random.default_rng(0)
    c, high = generator.uniform(-2, 2, COUNT), generator.integers(0, 2, COUNT)
    x = (c + 3 * high)[:, None] + np.sqrt(1 + c * c / 4)[:, None] * generator.normal(size=(COUNT, 2))
    lines = [f"{a:.6f},{k},{b:.6f},{v:.6f}" for a, k, (b, v) in zip(c, np.array(["low", "high"])[high], x, strict=True)]
    table = folder / "table.csv"
    table.write_text("\n".join(["c,kind,u,v", *lines]) + "\n")
    data = ["--context", "c,kind", "--one-hot", "kind", "--units", "c=m", "--noise", 0]
    flow = ["--flow-option", "transforms=2", "--flow-option", "hidden=[32]"]
    fit = ["--epochs", 20, "--learning-rate", 0.01, "--average", 0.9]
    run("train", table, "--out", folder / "flows", "--name", "given", *data, *flow, *fit, "--quiet")
    process = Server("--repository", folder / "flows", "--default-flow", "given", "--threads", 1)
    with pushforward.Client(process.url) as client:
        assert client.ready()
    yield Trained(folder, table, process.url)
    assert process.stop() == 0


def test_the_context_is_known_by_name(trained):
    manifest = read_bundle(trained.bundle).manifest
    assert [feature.name for feature in manifest.features] == ["u", "v"]
    names = ["c", "kind=high", "kind=low"]
    assert [feature.name for feature in manifest.context_features] == names
    assert "3 columns: c [m], kind=high, kind=low" in run("inspect", trained.bundle)
    with pushforward.Client(trained.url) as client:
        assert list(client.model().context_features) == names


def test_the_density_is_near_the_truth(trained):
    x, context = trained.held_out()
    c, high = context[:, 0].astype(np.float64), context[:, 1]
    variance = 1 + c * c / 4
    exact = (-0.5 * (x - (c + 3 * high)[:, None]) ** 2 / variance[:, None]).sum(1) - np.log(2 * np.pi * variance)
    with pushforward.Client(trained.url) as client:
        found = client.log_prob(x, context=context)
    assert float((exact - found).mean()) < 0.1
    manifest = read_bundle(trained.bundle).manifest
    assert manifest.calibration.mean == pytest.approx(float(found.mean()), abs=1e-4)
    assert manifest.calibration.gaussian_mean < float(exact.mean())


def test_every_door_gives_the_same(trained):
    x, context = trained.held_out()
    x, context = x[:20], context[:20]
    with pushforward.Client(trained.url) as client, httpx.Client(base_url=trained.url) as http:
        expected = client.log_prob(x, context=context)
        answer = http.post("logprob", content=json.dumps({"x": x.tolist(), "context": context.tolist()}))
        assert np.float32(answer.json()["log_prob"]).tolist() == expected.tolist()
        rows = np.hstack([context, x]).tolist()
        text = "\n".join(["c,kind=high,kind=low,u,v", *(",".join(map(repr, row)) for row in rows)])
        headers = {"content-type": "text/csv", "accept": "application/x-npy"}
        answer = http.post("logprob", content=text, headers=headers)
        assert np.load(io.BytesIO(answer.content)).tolist() == expected.tolist()
        body = io.BytesIO()
        np.save(body, x)
        one = ",".join(map(repr, context[0].tolist()))
        headers["content-type"] = "application/x-npy"
        answer = http.post("logprob", params={"context": one}, content=body.getvalue(), headers=headers)
        same = client.log_prob(x, context=context[0])
        assert np.load(io.BytesIO(answer.content)).tolist() == same.tolist()
    lines = [f"{'high' if high else 'low'},{v!r},{c!r},{u!r}" for c, high, _, u, v in rows]
    text = "\n".join(["kind,v,c,u", *lines])
    for place in (["--url", trained.url], ["--bundle", trained.bundle]):
        found = run("logprob", "-", *place, stdin=text).splitlines()[1:]
        assert np.float32(found).tolist() == expected.tolist()


def test_samples_are_drawn_at_their_context(trained):
    for c, kind, mean in ((1.0, "low", 1.0), (-1.0, "high", 2.0)):
        text = run("sample", "-n", 2000, "--seed", 1, "--context", f"kind={kind},c={c}", "--url", trained.url)
        x = np.genfromtxt(io.StringIO(text), delimiter=",", skip_header=1)[:, :2]
        assert np.abs(x.mean(axis=0) - mean).max() < 0.3
        assert np.abs(x.var(axis=0) - 1.25).max() < 0.4


def test_the_training_table_is_scored_as_it_stands(trained):
    text = run("logprob", trained.table, "--bundle", trained.bundle)
    assert len(text.splitlines()) == COUNT + 1


def test_the_reports_command_gives_its_figure(trained):
    report = trained.folder / "flows" / "given" / "report-1"
    command = re.search(r"<pre>pushforward (logprob [^|]*) \|", (report / "index.html").read_text())
    found = run(*shlex.split(html.unescape(command[1]))).splitlines()[1:]
    figure = json.loads((report / "report.json").read_text())["held_out"]["flow"]["mean"]
    assert np.mean([float(line) for line in found]) == pytest.approx(figure, abs=1e-4)

"""`pushforward evaluate`: figures that agree with the flow's own, files of every format, pictures and exit statuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from pushforward.cli.evaluation_rows import EvaluationRows
from pushforward.cli.group import cli
from pushforward.client.errors import InvalidInput
from pushforward.commands.evaluate import _BundleDensity
from service.bundle.manifest import ContextFeature
from service.bundle.store import read_bundle
from service.engine.loading import load_flow
from service.engine.verbs.flow import ServedFlow
from service.errors import DataError, NotFinite, PushforwardError, Reason
from service.plan import run_now
from tests.service import bundles

FEATURES = [
    ContextFeature(name="dose"),
    ContextFeature(name="kind=red", column="kind", category="red"),
    ContextFeature(name="kind=2", column="kind", category="2"),
]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return bundles.install(
        tmp_path_factory.mktemp("evaluated"),
        bundles.affine(),
        bundles.square(),
        bundles.affine("named", context_width=3, context_features=FEATURES),
        bundles.affine("image", event_shape=(2, 2, 1)),
    )


@pytest.fixture(scope="module")
def samples(own):
    """Rows of the flow itself: an evaluation finds nothing wrong with them."""
    flow = load_flow(read_bundle(own.path("affine")))
    return run_now(flow.sample(200, 5)).x


def evaluate(*arguments: object) -> dict:
    result = CliRunner().invoke(cli, ["evaluate", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def usual(own, samples, tmp_path_factory):
    """The figures of rows in .npy."""
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, samples)
    return evaluate(own.path("affine"), file)


def same(one: dict, other: dict) -> bool:
    """Whether two evaluations are equal but for the file's name and the places of rows in it."""
    places = [{k: v for k, v in row.items() if k != "place"} for row in one["worst_rows"]]
    others = [{k: v for k, v in row.items() if k != "place"} for row in other["worst_rows"]]
    passed = ("data", "worst_rows")
    return places == others and all(one[key] == other[key] for key in one if key not in passed)


def test_the_figures_are_the_flows_own(usual, own, samples):
    flow = load_flow(read_bundle(own.path("affine")))
    log_prob = run_now(flow.log_prob(samples)).log_prob.astype(np.float64)
    assert usual["held_out"]["flow"]["mean"] == pytest.approx(log_prob.mean(), rel=1e-6)
    assert usual["held_out"]["flow"]["standard_error"] == pytest.approx(log_prob.std(ddof=1) / 200**0.5)
    assert (usual["rows"], usual["outside_support"]["rows"], usual["fitted_to"]) == (200, 0, "other folds")
    worst = usual["worst_rows"][0]
    assert worst["row"] == int(log_prob.argmin())
    assert worst["values"] == {f"column {i}": float(v) for i, v in enumerate(samples[worst["row"]])}
    assert usual["log_prob_quantiles"]["p_value"] > 0.001
    assert usual["latents"]["p_value"] > 0.001
    assert usual["two_sample"]["p_value"] > 0.001
    assert usual["verdict"]["grade"] != "poor"
    calibration = read_bundle(own.path("affine")).manifest.calibration
    assert usual["calibration"]["mean"] == calibration.mean


def test_every_format_gives_the_same_figures_and_says_where_a_row_is(usual, own, samples, tmp_path):
    bundle, names = own.path("affine"), ["column 1", "note", "column 0"]
    csv = tmp_path / "rows.csv"
    lines = [f"{b!r},{at},{a!r}" for at, (a, b) in enumerate(samples.astype(float).tolist())]
    csv.write_text("\n".join([",".join(names), *lines]) + "\n")
    found = evaluate(bundle, csv)
    assert same(found, usual)
    assert found["worst_rows"][0]["place"] == f"line {usual['worst_rows'][0]['row'] + 2}"
    text = ["x"] * len(samples)
    table = pa.table({"column 1": samples[:, 1], "note": text, "column 0": samples[:, 0]})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    assert same(evaluate(bundle, tmp_path / "rows.parquet"), usual)
    np.savez(tmp_path / "rows.npz", x=samples, other=np.zeros(3))
    assert same(evaluate(bundle, tmp_path / "rows.npz"), usual)
    np.savez(tmp_path / "two.npz", a=np.concatenate([samples, 9 * samples]), y=np.repeat([0, 1], len(samples)))
    assert same(evaluate(bundle, tmp_path / "two.npz", "--key", "a", "--where", "y=0"), usual)


def test_rows_on_standard_input(usual, own, samples):
    text = "".join(f"{a!r},{b!r}\n" for a, b in samples.astype(float).tolist())
    result = CliRunner().invoke(cli, ["evaluate", str(own.path("affine")), "-", "--json"], input=text)
    assert same(json.loads(result.stdout), usual)


def test_a_context_is_taken_by_name_and_by_class(own, tmp_path):
    flow = load_flow(read_bundle(own.path("named")))
    generator = np.random.default_rng(0)
    kinds = generator.choice(["red", "2"], 120)
    context = np.stack([generator.normal(size=120), kinds == "red", kinds == "2"], axis=1).astype(np.float32)
    x = run_now(flow.sample(1, 3, context=context)).x[:, 0]
    table = pa.table({"kind": kinds, "column 1": x[:, 1], "column 0": x[:, 0], "dose": context[:, 0]})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "c.npy", context)
    found = evaluate(own.path("named"), tmp_path / "rows.parquet")
    assert same(evaluate(own.path("named"), tmp_path / "rows.csv"), found)
    assert same(evaluate(own.path("named"), tmp_path / "x.npy", "--context", f"@{tmp_path / 'c.npy'}"), found)
    log_prob = run_now(flow.log_prob(x, context)).log_prob.astype(np.float64)
    assert found["held_out"]["flow"]["mean"] == pytest.approx(log_prob.mean(), rel=1e-6)
    assert found["ranks"]["p_value"] > 1e-3
    assert found["context_width"] == 3
    wrong = table.set_column(0, "kind", pa.array(["blue", *kinds[1:]]))
    pa.parquet.write_table(wrong, tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="row 0, column 'kind': 'blue' is no class of it; there are red, 2"):
        evaluate(own.path("named"), tmp_path / "wrong.parquet")
    pa.parquet.write_table(table.drop_columns("dose"), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="there is no column 'dose' for the context; --context gives it apart"):
        evaluate(own.path("named"), tmp_path / "less.parquet")


def test_what_is_wrong_with_a_file_is_said_by_row_and_column(own, samples, tmp_path):
    bundle = own.path("affine")
    bad = samples.copy()
    bad[7, 1] = np.nan
    pa.parquet.write_table(pa.table({"column 0": bad[:, 0], "column 1": bad[:, 1]}), tmp_path / "nan.parquet")
    with pytest.raises(DataError, match="row 7, column 'column 1' is NaN"):
        evaluate(bundle, tmp_path / "nan.parquet")
    pa.parquet.write_table(pa.table({"Column 0": bad[:, 0], "column 1": bad[:, 0]}), tmp_path / "case.parquet")
    with pytest.raises(DataError, match=r"no column 'column 0' \(in 'Column 0' upper and lower case differ\)"):
        evaluate(bundle, tmp_path / "case.parquet")
    np.savez(tmp_path / "wide.npz", x=np.zeros((30, 3)))
    with pytest.raises(DataError, match="3 columns, and a row of this flow has 2"):
        evaluate(bundle, tmp_path / "wide.npz")
    np.save(tmp_path / "few.npy", samples[:19])
    with pytest.raises(DataError, match="19 rows are too few"):
        evaluate(bundle, tmp_path / "few.npy")
    for arguments in (["-", "--where", "y=0"], [tmp_path / "wide.npz", "--context-columns", "a"]):
        with pytest.raises(InvalidInput):
            evaluate(bundle, *arguments)
    with pytest.raises(PushforwardError, match="there is no file"):
        evaluate(bundle, tmp_path / "none.parquet")


def test_a_row_without_an_answer_is_named_by_its_place(own, samples, monkeypatch):
    monkeypatch.setattr("pushforward.commands.evaluate.rows_of_block", lambda width: 16)
    flow = load_flow(read_bundle(own.path("affine")))

    def answer(x, context, returns):
        if np.array_equal(x[8], samples[40]):
            raise NotFinite("too far", (Reason(("x", 8), "the answer has no float32", row=8),))
        return (yield from ServedFlow.log_prob(flow, x, context, returns))

    monkeypatch.setattr(flow, "log_prob", answer)
    given = EvaluationRows("rows.csv", samples, None, lambda row: f"line {row + 2}")
    with pytest.raises(InvalidInput, match=r"rows\.csv, line 42: the answer has no float32"):
        _BundleDensity(flow).score(given)


@pytest.mark.parametrize("bound", ["nan", "inf", "low"])
def test_a_bound_is_a_finite_number(own, bound):
    result = CliRunner().invoke(cli, ["evaluate", str(own.path("affine")), "rows.csv", f"--fail-below={bound}"])
    assert result.exit_code == 2
    assert "--fail-below" in result.stderr


def test_training_rows_are_what_the_gaussian_is_fitted_to(own, samples, tmp_path):
    np.save(tmp_path / "rows.npy", samples[:25])
    np.save(tmp_path / "train.npy", samples[25:])
    found = evaluate(own.path("affine"), tmp_path / "rows.npy", "--train", tmp_path / "train.npy")
    assert found["fitted_to"] == "training rows"
    assert found["training"]["flow"]["rows"] == 175
    # the flow is a Gaussian: one of 175 rows is close to it
    assert found["held_out"]["gaussian"]["mean"] == pytest.approx(found["held_out"]["flow"]["mean"], abs=0.3)


def test_rows_outside_the_support_are_counted_and_left_out(own, tmp_path):
    rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(60, 1)).astype(np.float32)
    np.save(tmp_path / "inside.npy", rows)
    flow = load_flow(read_bundle(own.path("square")))
    inside = np.isfinite(run_now(flow.log_prob(rows)).log_prob)
    rows[5] = -3.0
    assert np.isneginf(run_now(flow.log_prob(rows)).log_prob[5])
    assert inside.all()
    np.save(tmp_path / "rows.npy", rows)
    found = evaluate(own.path("square"), tmp_path / "rows.npy")
    assert (found["rows"], found["held_out"]["flow"]["rows"]) == (60, 59)
    assert found["outside_support"] == {"rows": 1, "places": ["row 5"]}
    assert "1 row has log_prob -inf, the first of them row 5" in found["verdict"]["sentences"][0]
    assert found["verdict"]["grade"] == "poor"
    assert all(np.isfinite(row["log_prob"]) for row in found["worst_rows"])
    call = ["evaluate", str(own.path("square")), str(tmp_path / "rows.npy"), "--fail-below=-1e30"]
    assert CliRunner().invoke(cli, call).exit_code == 3


def test_the_exit_status_says_whether_the_flow_is_below_the_bound(usual, own, samples, tmp_path):
    np.save(tmp_path / "rows.npy", samples)
    mean = usual["held_out"]["flow"]["mean"]
    for bound, status in ((mean - 0.01, 0), (mean + 0.01, 3)):
        call = ["evaluate", str(own.path("affine")), str(tmp_path / "rows.npy"), f"--fail-below={bound}"]
        result = CliRunner().invoke(cli, call, catch_exceptions=False)
        assert result.exit_code == status
        assert ("is below --fail-below" in result.stderr) == (status == 3)
        assert "Verdict: " in result.stdout


@pytest.mark.parametrize("flow", ["affine", "image"])
def test_a_page_stands_by_itself_beside_its_pictures(own, flow, tmp_path):
    loaded = load_flow(read_bundle(own.path(flow)))
    np.save(tmp_path / "rows.npy", run_now(loaded.sample(80, 5)).x)
    out = tmp_path / "deep" / "page"
    call = ["evaluate", str(own.path(flow)), str(tmp_path / "rows.npy"), "--out", str(out), "--json"]
    result = CliRunner().invoke(cli, call, catch_exceptions=False)
    assert json.loads((out / "evaluation.json").read_text()) == json.loads(result.stdout)
    page = (out / "index.html").read_text()
    assert {path.name for path in out.glob("*.png")} == {"log_prob.png", "quantiles.png", "samples.png"}
    assert page.count("data:image/png;base64,") == 3
    assert "Verdict: " in page
    assert "The flow" in page


def test_a_seed_gives_the_same_figures_and_another_gives_others(usual, own, samples, tmp_path):
    np.save(tmp_path / "rows.npy", samples)
    assert same(evaluate(own.path("affine"), tmp_path / "rows.npy", "--seed", 0), usual)
    other = evaluate(own.path("affine"), tmp_path / "rows.npy", "--seed", 1)
    assert other["two_sample"]["auroc"] != usual["two_sample"]["auroc"]
    assert other["held_out"]["flow"] == usual["held_out"]["flow"]


def test_integers_are_spread_over_their_bins(tmp_path):
    quantization = {"low": -9.0, "high": 9.0, "step": 1.0, "reading": "whole numbers"}
    own = bundles.install(tmp_path / "own", bundles.affine(quantization=quantization))
    rows = np.random.default_rng(0).integers(-3, 4, size=(60, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    found = evaluate(own.path("affine"), tmp_path / "rows.npy")
    assert found["spread"] == {"column 0": 1.0, "column 1": 1.0}
    assert found["two_sample"]["atoms"] == []
    flow = load_flow(read_bundle(own.path("affine")))
    centres = run_now(flow.log_prob(rows)).log_prob.astype(np.float64).mean()
    assert found["held_out_at_bin_centres"]["flow"]["mean"] == pytest.approx(centres)
    spread = found["held_out"]["flow"]
    assert spread["mean"] != pytest.approx(centres)
    assert spread["bits_per_dim"] == pytest.approx(-spread["mean"] / (2 * np.log(2)))


def test_rows_of_the_file_that_was_fitted_are_told(tmp_path):
    parts = bundles.affine()
    provenance = parts.manifest.provenance.model_copy(update={"recipe": {"data": {"source": "rows.npy"}}})
    own = bundles.install(
        tmp_path / "own", replace(parts, manifest=parts.manifest.model_copy(update={"provenance": provenance}))
    )
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(40, 2)))
    said = evaluate(own.path("affine"), tmp_path / "rows.npy")["verdict"]["sentences"]
    assert any("has the name of the file that the flow was fitted to" in sentence for sentence in said)

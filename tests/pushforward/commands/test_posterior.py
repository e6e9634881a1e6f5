from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from service.errors import PushforwardError


def lines(result):
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_a_line_for_each_coordinate(run, where):
    result = run("posterior", "-n", 200, "--seed", 7, "--quantiles", "0.25,0.75", "--hpd", "0.5", *where("affine"))
    found = lines(result)
    assert list(found[0]) == ["column", "mean", "std", "q0.25", "q0.75", "hpd0.5_low", "hpd0.5_high"]
    assert [line["column"] for line in found] == ["column 0", "column 1"]
    drawn = np.genfromtxt(
        io.StringIO(run("sample", "-n", 200, "--seed", 7, *where("affine")).stdout), delimiter=",", skip_header=1
    )
    np.testing.assert_allclose([float(line["mean"]) for line in found], drawn[:, :2].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        [float(line["q0.75"]) for line in found], np.quantile(drawn[:, :2], 0.75, axis=0), rtol=1e-5
    )
    assert result.stderr == ""


def test_each_context_has_its_lines(run, where, tmp_path):
    (tmp_path / "c.csv").write_text("kind,dose\nred,1\n7,2\n")
    arguments = ["posterior", "-n", 50, "--seed", 1, "--quantiles", "", "--hpd", "", *where("classes")]
    found = lines(run(*arguments, "--context", f"@{tmp_path / 'c.csv'}"))
    assert list(found[0]) == ["dose", "kind=red", "kind=7", "column", "mean", "std"]
    assert [line["kind=7"] for line in found] == ["0.0", "0.0", "1.0", "1.0"]
    one = lines(run(*arguments, "--context", "dose=2,kind=7"))
    assert [line["mean"] for line in one] == [line["mean"] for line in found[2:]]


def test_an_object_with_everything(run, where, tmp_path):
    run("posterior", "-n", 50, "--seed", 1, "--json", "--out", tmp_path / "p.json", *where("affine"))
    document = json.loads((tmp_path / "p.json").read_text())
    assert list(document) == [
        "seed", "offset", "n", "quantile_levels", "hpd_shares", "mean", "std", "quantiles", "hpd", "correlation",
    ]  # fmt: skip
    assert np.shape(document["correlation"]) == (1, 2, 2)


def test_a_server_and_a_bundle_give_the_same(run, server, repository):
    arguments = ["posterior", "-n", 30, "--seed", 1, "--model", "conditional", "--context", "1,2", "--json"]
    assert run(*arguments, "--url", server).stdout == run(*arguments, "--repository", repository).stdout


def test_a_drawn_seed_is_told_and_gives_the_same(run, where):
    result = run("posterior", "-n", 5, *where("affine"))
    word, seed = result.stderr.split()
    assert word == "seed"
    assert run("posterior", "-n", 5, "--seed", seed, *where("affine")).stdout == result.stdout


@pytest.mark.parametrize(
    ("option", "text", "match"),
    [("--quantiles", "0.5,2", "from 0 to 1, and is"), ("--quantiles", "a", "with commas"), ("--hpd", "0", "above 0")],
)
def test_levels_out_of_range(run, where, option, text, match):
    with pytest.raises(PushforwardError, match=match):
        run("posterior", option, text, *where("affine"))

"""Columns that are called as those of an answer are: what the command line writes it reads again."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from pushforward.client.errors import InvalidInput
from service.bundle.manifest import ContextFeature, Feature
from service.errors import PushforwardError
from tests.service.bundles import affine, install

NAMES = [("x", "y"), ("log_prob", "t"), ("strength", "row"), ("round_trip_error", "log_prob"), ("context0", "x1")]
CONTEXT = "conditions"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("named")
    conditions = [ContextFeature(name=name) for name in ("log_prob", "strength")]
    install(
        root,
        *(affine("-".join(n).replace("_", "-"), features=[Feature(name=name) for name in n]) for n in NAMES),
        affine(CONTEXT, context_width=2, features=[Feature(name="x"), Feature(name="y")], context_features=conditions),
        affine("made-up", context_width=1, features=[Feature(name="context0"), Feature(name="y")]),
        affine("nameless", features=[]),
        affine("twice", features=[Feature(name="a"), Feature(name="a")]),
    )
    return root


@pytest.fixture
def ask(run, repository):
    def call(command, name, *options, stdin=None):
        return run(command, *options, "--repository", repository, "--model", name, stdin=stdin).stdout

    return call


def read(text, names):
    rows = list(csv.DictReader(io.StringIO(text)))
    return np.float32([[row[name] for name in names] for row in rows])


@pytest.mark.parametrize("names", NAMES, ids="-".join)
@pytest.mark.parametrize("command", ["sample", "edit", "interpolate"])
def test_what_is_written_has_each_name_once_and_is_read_back(ask, names, command, tmp_path):
    name = "-".join(names).replace("_", "-")
    options = {"sample": ["-n", 3, "--seed", 1], "edit": ["--direction", "1,0"], "interpolate": ["--steps", 3]}[command]
    text = ask(command, name, *options, stdin=None if command == "sample" else "0.5,0.25\n1,-0.5\n")
    header = text.splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    np.save(tmp_path / "rows.npy", read(text, names))
    assert ask("logprob", name, stdin=text) == ask("logprob", name, tmp_path / "rows.npy")


@pytest.mark.parametrize("command", ["sample", "edit"])
def test_what_is_written_is_not_taken_for_the_context(ask, command):
    options = ["-n", 3, "--seed", 1] if command == "sample" else ["--direction", "1,0"]
    text = ask(command, CONTEXT, "--context", "1,2", *options, stdin=None if command == "sample" else "x,y\n0.5,0.25\n")
    with pytest.raises(PushforwardError, match="no column 'log_prob'"):
        ask("logprob", CONTEXT, stdin=text)
    assert len(ask("logprob", CONTEXT, "--context", "1,2", stdin=text).splitlines()) == len(text.splitlines())


def test_contexts_that_are_written_are_read_back(ask, tmp_path):
    (tmp_path / "c.csv").write_text("strength,log_prob\n1,2\n0,-1\n")
    text = ask("sample", CONTEXT, "-n", 2, "--seed", 1, "--context", f"@{tmp_path / 'c.csv'}")
    assert text.splitlines()[0] == "log_prob,strength,x,y,answer_log_prob"
    found = read(ask("logprob", CONTEXT, stdin=text), ["log_prob"])
    np.testing.assert_allclose(found, read(text, ["answer_log_prob"]), rtol=1e-5)


def test_a_column_is_not_one_of_the_row_and_one_of_its_context(ask, tmp_path):
    text = "context0,y\n0.5,1\n"
    with pytest.raises(InvalidInput, match="'context0' is one of the row, and cannot be one of its context"):
        ask("logprob", "made-up", stdin=text)
    with pytest.raises(InvalidInput, match="'y' is one of the row"):
        ask("logprob", "made-up", "--context-columns", "y", stdin=text)
    expected = ask("logprob", "made-up", "--context", "2", stdin=text)
    assert ask("logprob", "made-up", "--context-columns", "c", stdin="context0,c,y\n0.5,2,1\n") == expected
    (tmp_path / "c.csv").write_text("context0\n1\n2\n")
    written = ask("sample", "made-up", "--context", f"@{tmp_path / 'c.csv'}")
    assert written.splitlines()[0] == "answer_context0,context0,y,log_prob"
    ask("logprob", "made-up", "--context-columns", "answer_context0", stdin=written)


@pytest.mark.parametrize(
    ("name", "heading", "words"),
    [
        ("x-y", "Y,X", r"no column 'x', 'y' \(in 'Y', 'X' upper and lower case differ\)$"),
        ("x-y", "x,Y", r"no column 'y' \(in 'Y' upper"),
        ("x-y", "u,v", "no column 'x', 'y'$"),
        ("x-y", "x0,x1", "no column 'x', 'y'$"),
        ("nameless", "X1,X0", r"no column 'x0', 'x1' \(in 'X1', 'X0' upper"),
    ],
)
def test_columns_are_not_taken_by_their_place(ask, name, heading, words):
    with pytest.raises(InvalidInput, match=words):
        ask("logprob", name, stdin=f"{heading}\n1,2\n")
    in_order = {"x-y": "x,y", "nameless": "u,v"}[name]
    assert ask("logprob", name, stdin=f"{in_order}\n1,2\n") == ask("logprob", name, stdin="1,2\n")


def test_a_name_that_two_columns_have_is_no_name(ask):
    with pytest.raises(InvalidInput, match="the flow calls two columns 'a'; give rows without a header"):
        ask("logprob", "twice", stdin="a,b\n1,2\n")

from __future__ import annotations

import io

import numpy as np
import pytest

from pushforward.client.errors import ClientError, InvalidInput
from service.errors import PushforwardError
from tests.service import bundles


def numbers(result):
    header, *lines = result.stdout.splitlines()
    assert header == "log_prob"
    return np.array([float(line) for line in lines])


def test_rows_from_a_pipe(run, where):
    result = run("logprob", *where("square"), stdin="0.25\n5\n4\n")
    assert result.stdout == "log_prob\n-0.6931472\n-inf\n-2.0794415\n"


def test_columns_by_name(run, where, tmp_path):
    (tmp_path / "rows.csv").write_text("column 1,column 0\n0.5,1.5\n-1,2\n")
    result = run("logprob", tmp_path / "rows.csv", *where("affine"))
    assert np.allclose(numbers(result), bundles.affine().log_prob([[1.5, 0.5], [2, -1]]), rtol=1e-5)


def test_npy_to_npy(run, where, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2, 3, 1))
    np.save(tmp_path / "x.npy", x)
    run("logprob", tmp_path / "x.npy", *where("image"), "--out", tmp_path / "scores.npy")
    scores = np.load(tmp_path / "scores.npy")
    assert scores.dtype == np.float32
    assert np.allclose(scores, bundles.image().log_prob(x.astype(np.float32)), rtol=1e-4)


def test_an_older_version(run, where):
    assert run("logprob", *where("affine", "--version", "1"), stdin="1,2\n").stdout.startswith("log_prob\n-")
    with pytest.raises(PushforwardError, match="no version 9"):
        run("logprob", *where("affine", "--version", "9"), stdin="1,2\n")


def test_context_for_all_rows_and_for_each(run, where, tmp_path):
    x, context = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, -1.0], [1.0, 0.0]])
    flow = bundles.affine("conditional", context_width=2)
    np.save(tmp_path / "c.npy", context)
    rows = "1,2\n3,4\n"
    one = run("logprob", *where("conditional"), "--context", "0.5,-1", stdin=rows)
    assert np.allclose(numbers(one), flow.log_prob(x, context[[0, 0]]), rtol=1e-5)
    each = run("logprob", *where("conditional"), "--context", f"@{tmp_path / 'c.npy'}", stdin=rows)
    assert np.allclose(numbers(each), flow.log_prob(x, context), rtol=1e-5)
    np.save(tmp_path / "c.npy", np.ones((3, 2)))
    with pytest.raises(InvalidInput, match="context has 3 rows, and standard input has 2"):
        run("logprob", *where("conditional"), "--context", f"@{tmp_path / 'c.npy'}", stdin=rows)
    np.save(tmp_path / "c.npy", np.ones((1, 2)))
    with pytest.raises(InvalidInput, match="context has 1 rows"):
        run("logprob", *where("conditional"), "--context", f"@{tmp_path / 'c.npy'}", stdin=rows)


def classes():
    return bundles.affine("classes", context_width=3)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("kind,column 1,dose,column 0\nred,2,0.5,1\n7.0,4,-1,3\n", []),
        ("column 0,column 1,dose,kind=red,kind=7\n1,2,0.5,1,0\n3,4,-1,0,1\n", []),
        ("k,column 1,d,column 0\nred,2,0.5,1\n7,4,-1,3\n", ["--context-columns", "d,k"]),
        ("1,2,0.5,1,0\n3,4,-1,0,1\n", []),
    ],
)
def test_a_context_in_the_columns_of_the_input(run, where, monkeypatch, text, options):
    x, context = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 1, 0], [-1, 0, 1]])
    expected = classes().log_prob(x, context)
    assert np.allclose(numbers(run("logprob", *where("classes"), *options, stdin=text)), expected, rtol=1e-5)
    monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", 1)
    assert np.allclose(numbers(run("logprob", *where("classes"), *options, stdin=text)), expected, rtol=1e-5)


def test_a_context_by_name_for_all_rows(run, where):
    found = numbers(run("logprob", *where("classes"), "--context", "kind=7,dose=2", stdin="1,2\n"))
    assert np.allclose(found, classes().log_prob([[1, 2]], [[2, 0, 1]]), rtol=1e-5)


def test_rows_of_a_conditional_flow_need_a_context(run, where):
    with pytest.raises(InvalidInput, match="the header has no column 'dose', 'kind' for the context"):
        run("logprob", *where("classes"), stdin="column 0,column 1\n1,2\n")
    with pytest.raises(InvalidInput, match="line 3, column 2: 'blue' is no class of kind; there are red, 7"):
        run("logprob", *where("classes"), stdin="dose,kind,column 0,column 1\n1,red,1,2\n1,blue,1,2\n")


@pytest.mark.parametrize(
    ("flow", "context", "words"),
    [
        ("conditional", "a,b", "must be numbers"),
        ("conditional", "1_0,2", "must be numbers"),
        ("conditional", "1", "has 1 numbers, and this flow takes 2"),
        ("conditional", "1,nan", "not finite"),
        ("affine", "1", "takes 0"),
        ("affine", "@file", "takes none"),
        ("conditional", "@nothing.csv", "cannot be read"),
    ],
)
def test_a_context_that_cannot_be_used(run, where, flow, context, words):
    with pytest.raises(InvalidInput, match=words):
        run("logprob", *where(flow), "--context", context, stdin="1,2\n")


def test_many_blocks_are_one_answer(run, where, tmp_path, monkeypatch):
    monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", 10)
    text = "".join(f"{i},{-i}\n" for i in range(23))
    x = np.array([[i, -i] for i in range(23)])
    assert np.allclose(numbers(run("logprob", *where("affine"), stdin=text)), bundles.affine().log_prob(x), rtol=1e-5)


def test_a_row_that_the_flow_cannot_take_is_named_by_its_line(run, where, monkeypatch):
    monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", 4)
    with pytest.raises(InvalidInput, match="standard input, line 5: the flow's answer for this row is beyond"):
        run("logprob", *where("affine"), stdin="column 0,column 1\n1,2\n1,2\n1,2\n3e38,3e38\n")


@pytest.mark.parametrize("text", ["1,x\n1,2\n", "1,2_0\n1,2\n"])
def test_a_bad_first_row_is_no_header(run, where, text):
    with pytest.raises(InvalidInput, match=r"standard input, line 1, column 2 \(column 1\): '\w+' is not a number"):
        run("logprob", *where("affine"), stdin=text)


def test_a_fault_leaves_no_output(run, where, tmp_path):
    with pytest.raises(InvalidInput, match="line 2"):
        run("logprob", *where("affine"), "--out", tmp_path / "out.csv", stdin="1,2\n1,x\n")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_by_its_folder(run, repository):
    folder = repository / "square" / "1"
    assert run("logprob", "--bundle", folder, stdin="0.25\n").stdout == "log_prob\n-0.6931472\n"
    assert run("logprob", "--bundle", folder.parent, stdin="0.25\n").stdout == "log_prob\n-0.6931472\n"


def test_places_that_contradict(run, repository):
    with pytest.raises(InvalidInput, match="--url and --bundle"):
        run("logprob", "--url", "http://host", "--bundle", "b", stdin="1\n")
    with pytest.raises(InvalidInput, match="go with --repository"):
        run("logprob", "--bundle", repository / "square" / "1", "--model", "square", stdin="1\n")
    with pytest.raises(InvalidInput, match="--model must say which"):
        run("logprob", "--repository", repository, stdin="1\n")
    with pytest.raises(PushforwardError, match="no flow 'nosuch'"):
        run("logprob", "--repository", repository, "--model", "nosuch", stdin="1\n")


def test_a_server_that_is_not_there(run):
    with pytest.raises(ClientError, match=r"no answer from http://127\.0\.0\.1:9"):
        run("logprob", "--url", "http://127.0.0.1:9", stdin="1\n")


def test_standard_input_may_be_npy(run, where):
    buffer = io.BytesIO()
    np.save(buffer, np.array([0.25, 4.0]))
    assert len(numbers(run("logprob", *where("square"), stdin=buffer.getvalue()))) == 2

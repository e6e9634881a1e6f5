from __future__ import annotations

import io

import numpy as np
import pytest

from service.errors import PushforwardError


def table(result):
    return np.genfromtxt(io.StringIO(result.stdout), delimiter=",", skip_header=1, ndmin=2)


def test_rows_and_their_densities(run, where):
    result = run("sample", "-n", 5, "--seed", 7, *where("affine"))
    lines = result.stdout.splitlines()
    assert lines[0] == "column 0,column 1,log_prob"
    assert len(lines) == 6
    assert result.stderr == ""
    again = run("logprob", *where("affine"), stdin=result.stdout)
    assert np.allclose([float(v) for v in again.stdout.splitlines()[1:]], table(result)[:, 2], rtol=1e-5)


def test_offset_and_blocks_do_not_change_a_row(run, where, monkeypatch):
    whole = run("sample", "-n", 20, "--seed", 7, *where("affine")).stdout.splitlines()
    rest = run("sample", "-n", 12, "--seed", 7, "--offset", 8, *where("affine")).stdout.splitlines()
    assert rest[1:] == whole[9:]
    monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", 6)
    assert run("sample", "-n", 20, "--seed", 7, *where("affine")).stdout.splitlines() == whole


def test_a_server_and_a_bundle_give_the_same(run, server, repository):
    arguments = ["sample", "-n", 3, "--seed", 1, "--temperature", 0.5, "--model", "image"]
    assert run(*arguments, "--url", server).stdout == run(*arguments, "--repository", repository).stdout


def test_a_drawn_seed_is_told_and_gives_the_same_rows(run, where, monkeypatch):
    monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", 4)
    result = run("sample", "-n", 5, *where("affine"))
    word, seed = result.stderr.split()
    assert word == "seed"
    assert run("sample", "-n", 5, "--seed", seed, *where("affine")).stdout == result.stdout


def test_images_as_npy(run, where, tmp_path):
    run("sample", "-n", 4, "--seed", 1, "--out", tmp_path / "x.npy", *where("image"))
    assert np.load(tmp_path / "x.npy").shape == (4, 2, 3, 1)


def test_context(run, where):
    assert len(table(run("sample", "-n", 3, "--seed", 1, "--context", "1,2", *where("conditional")))) == 3


def test_rows_of_several_contexts_follow_each_other(run, where, tmp_path, monkeypatch):
    (tmp_path / "c.csv").write_text("kind,dose\nred,1\n7,2\nred,3\n")
    arguments = ["--seed", 1, "-n", 4, *where("classes")]
    result = run("sample", *arguments, "--context", f"@{tmp_path / 'c.csv'}")
    assert result.stdout.splitlines()[0] == "dose,kind=red,kind=7,column 0,column 1,log_prob"
    found = table(result)
    assert found.shape == (12, 6)
    for at, context in enumerate(["dose=1,kind=red", "dose=2,kind=7", "3,1,0"]):
        one = table(run("sample", *arguments, "--context", context))
        assert (found[4 * at : 4 * at + 4, 3:] == one).all()
    again = run("logprob", *where("classes"), stdin=result.stdout)
    assert np.allclose([float(v) for v in again.stdout.splitlines()[1:]], found[:, 5], rtol=1e-4)
    for values in (1, 6, 20):  # part of a context, one context, several
        monkeypatch.setattr("pushforward.cli.row_layout._BLOCK_VALUES", values)
        assert run("sample", *arguments, "--context", f"@{tmp_path / 'c.csv'}").stdout == result.stdout
    run("sample", *arguments, "--context", f"@{tmp_path / 'c.csv'}", "--out", tmp_path / "x.npy")
    assert (np.load(tmp_path / "x.npy") == found[:, 3:5].astype(np.float32)).all()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_noise_of_several_contexts(run, where, server, tmp_path, method):
    (tmp_path / "c.csv").write_text("kind,dose\nred,1\n7,2\nred,-0.0\n")
    arguments = ["--seed", 1, "-n", 4, "--method", method, *where("classes")]
    several = ["--context", f"@{tmp_path / 'c.csv'}"]
    independent, common = (run("sample", *arguments, *several, "--noise", n) for n in ("independent", "common"))
    assert run("sample", *arguments, *several).stdout == independent.stdout != common.stdout
    assert (
        common.stdout
        == run("sample", *arguments[:6], *several, "--noise", "common", *("--url", server, "--model", "classes")).stdout
    )
    for how, text in (("independent", independent), ("common", common)):
        for at, context in enumerate(["dose=1,kind=red", "dose=2,kind=7", "0,1,0"]):
            one = table(run("sample", *arguments, "--noise", how, "--context", context))
            assert (table(text)[4 * at : 4 * at + 4, 3:] == one).all()
    density = table(common)[:, 5].reshape(3, 4)  # that of the latents, which are the same
    assert np.allclose(density, density[0], atol=1e-4)
    assert not np.allclose(table(independent)[:, 5].reshape(3, 4), density[0], atol=1e-4)


def test_a_picture_is_of_the_noise_that_is_asked_for(run, where, tmp_path):
    arguments = ["-n", 50, "--seed", 1, "--context", "1,2", *where("conditional")]
    pictures = []
    for noise in ("independent", "common"):
        run("sample", *arguments, "--noise", noise, "--png", tmp_path / f"{noise}.png")
        pictures.append((tmp_path / f"{noise}.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_a_context_is_needed_and_must_fit(run, where):
    with pytest.raises(PushforwardError, match="a context of 3 columns is needed, and there is none"):
        run("sample", *where("classes"))
    with pytest.raises(PushforwardError, match="'blue' is no class of kind"):
        run("sample", *where("classes"), "--context", "dose=1,kind=blue")


def test_truncated_and_quasi_random_rows(run, where):
    arguments = ["-n", 64, "--seed", 7, *where("affine")]
    texts = {run("sample", *arguments, *more).stdout for more in ([], ["--truncation", 1], ["--method", "sobol"])}
    assert len(texts) == 3
    whole = run("sample", *arguments, "--method", "sobol").stdout.splitlines()
    rest = run("sample", *arguments, "--method", "sobol", "--offset", 60, "-n", 4).stdout.splitlines()
    assert whole[-4:] == rest[1:]
    with pytest.raises(PushforwardError, match="truncation"):
        run("sample", *where("square"), "--truncation", 1)


def test_a_temperature_that_the_base_does_not_have(run, where):
    with pytest.raises(PushforwardError, match="temperature"):
        run("sample", "--seed", 1, "--temperature", 2, *where("square"))


@pytest.mark.parametrize("arguments", [["-n", 0], ["--seed", -1], ["--offset", -1], ["--temperature", -1]])
def test_arguments_out_of_range(run, arguments):
    assert run("sample", *arguments).exit_code == 2

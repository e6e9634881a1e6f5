from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.peers import PEERS, PeerMissing


def test_a_peer_is_named_with_its_interpreter():
    assert peers.parse("litserve") == (PEERS["litserve"], sys.executable)
    assert peers.parse("mlserver=/there/python") == (PEERS["mlserver"], "/there/python")


def test_an_unknown_peer_is_told_with_those_there_are():
    with pytest.raises(PeerMissing, match="no peer 'nobody'; there are litserve, mlserver, bentoml, triton"):
        peers.parse("nobody")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_s_program_is_there(name: str):
    command = PEERS[name].command(Path("bundle"), 1, Path("scratch"))
    assert Path(command[0]).is_file()


@pytest.mark.parametrize("python", [sys.executable, "/nowhere/python"])
def test_a_missing_peer_is_told_with_how_to_install_it(python: str):
    done = CliRunner().invoke(main, ["--peer", f"litserve={python}"])
    assert done.exit_code == 1
    assert "litserve is not installed for" in done.output
    assert "pip install litserve onnxruntime==" in done.output
    assert "Traceback" not in done.output


def test_without_a_compiler_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(main, ["--quick"])
    assert done.exit_code == 1
    assert "no C compiler" in done.output

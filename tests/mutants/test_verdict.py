from __future__ import annotations

import sys

import pytest

pytest.importorskip("cosmic_ray", reason="`make mutants` installs it")

from tests.mutants.sample import sample
from tests.mutants.verdict import enter, failing, judge

SOURCE = "def larger(a, b):\n    return a if a > b else b\n"
TEST = "from models.a import larger\n\n\ndef test_larger():\n    assert larger(2, 1) == 2 == larger(1, 2)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one function and one test, which is the current folder."""
    for name, text in {"models/__init__.py": "", "models/a.py": SOURCE, "tests/models/test_a.py": TEST}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.chdir(tmp_path)
    enter(tmp_path)
    return tmp_path


def test_a_turned_comparison_is_killed_and_an_equal_one_survives(project):
    verdicts = {mutant.after: judge(mutant, 10.0) for mutant in sample(project, 10, seed=0)}
    assert {after: (verdict.survived, verdict.by) for after, verdict in verdicts.items()} == {
        "return a if a >= b else b": (True, ""),
        "return a if a <= b else b": (False, "tests/models/test_a.py::test_larger"),
    }
    assert [verdict.files for verdict in verdicts.values()] == [["tests/models/test_a.py"]] * 2
    assert (project / "models" / "a.py").read_text() == SOURCE


def test_a_test_that_fails_without_a_mutant_is_told(project):
    tests = ["tests/models/test_a.py::test_larger"]
    assert failing(tests) == ""
    (project / "models" / "a.py").write_text(SOURCE.replace(">", "<"))
    assert "FAILED tests/models/test_a.py::test_larger" in failing(tests)

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("cosmic_ray", reason="`make mutants` installs it")

from tests.mutants.sample import sample
from tests.mutants.verdict import enter, judge, run, take

SOURCE = "def larger(a, b):\n    return a if a > b else b\n"
TEST = "from models.a import larger\n\n\ndef test_larger():\n    assert larger(2, 1) == 2 == larger(1, 2)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one function and one test, which is the current folder."""
    for name, text in {"models/__init__.py": "", "models/a.py": SOURCE, "tests/models/test_a.py": TEST}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(tmp_path)
    enter(tmp_path)
    return tmp_path


def measured(line_is_known: bool):
    """A measurement by hand."""
    seconds = {"tests/models/test_a.py::test_larger": 0.1}
    return SimpleNamespace(
        seconds=seconds,
        seconds_of_files={"tests/models/test_a.py": 0.1},
        tests_of_line=lambda file, line: list(seconds) if line_is_known else [],
        files_near=lambda file: ["tests/models/test_a.py"],
    )


@pytest.mark.parametrize("line_is_known", [True, False])
def test_a_turned_comparison_is_killed_and_an_equal_one_survives(project, line_is_known):
    verdicts = {mutant.after: judge(mutant, measured(line_is_known), 10.0) for mutant in sample(project, 10, seed=0)}
    assert {after: verdict.survived for after, verdict in verdicts.items()} == {
        "return a if a >= b else b": True,
        "return a if a <= b else b": False,
    }
    assert "FAILED tests/models/test_a.py::test_larger" in verdicts["return a if a <= b else b"].by
    assert (project / "models" / "a.py").read_text() == SOURCE


def test_a_test_that_has_another_name_now_is_run_with_its_file(project):
    assert run(["tests/models/test_a.py::test_before"], 60.0)[0]


def test_names_are_taken_until_the_seconds_are_spent_and_one_at_least():
    lengths = {"a": 3.0, "b": 4.0, "c": 1.0}
    assert [take("abc", lengths, seconds) for seconds in (1.0, 7.0, 8.0)] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert take([], lengths, 1.0) == []

from __future__ import annotations

import pytest

pytest.importorskip("cosmic_ray", reason="`make mutants` installs it")

from tests.mutants.sample import changed_lines, places, sample


def mutants(source: str) -> list[str]:
    return [changed_lines(source, *place)[2] for place in places(source)]


CHANGED = {
    "a = b < c": ["a = b <= c", "a = b >= c"],
    "a = b == c": ["a = b != c"],
    "a = b is None": ["a = b is not None"],
    "a = b - c": ["a = b + c"],
    "a = b and c": ["a = b or c"],
    "a = not b": ["a =  b"],
    "for a in b: break": ["for a in b: continue"],
    "a = b[1:]": ["a = b[ 2:]", "a = b[ 0:]"],
    "a = b[0]": ["a = b[ 1]"],
    "a = b[..., -1]": ["a = b[..., - 2]", "a = b[..., - 0]"],
    "a = range(1, b)": ["a = range( 2, b)", "a = range( 0, b)"],
}
UNCHANGED = [
    "def a(b, /, *, c=1): pass",
    "def a(b: Literal[1, 2]) -> Literal[1]: pass",
    "a: Literal[1, 2]",
    "a = b(1, 64)",
    'raise ValueError("a" if b == 1 else "c")',
    'a = f"{b + 1} rows"',
    'a = "b" * c',
    '_log.error("a", b + 1)',
    "if TYPE_CHECKING:\n    a = 1 + b",
    "@a(b[1])\ndef c(): pass",
]


@pytest.mark.parametrize("source", CHANGED)
def test_each_kind_of_change(source):
    assert mutants(source) == CHANGED[source]


@pytest.mark.parametrize("source", UNCHANGED)
def test_what_no_test_should_hold_is_left_out(source):
    assert mutants(source) == []


def test_a_seed_draws_the_same_mutants(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_text("\n".join(CHANGED))
    drawn = sample(tmp_path, 10, seed=0)
    assert drawn == sample(tmp_path, 10, seed=0) != sample(tmp_path, 10, seed=1)
    assert {mutant.file for mutant in drawn} == {"models/a.py"}
    assert all(list(CHANGED)[mutant.line - 1] == mutant.before for mutant in drawn)

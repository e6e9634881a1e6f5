from __future__ import annotations

from tests.mutants.equivalent import reasons
from tests.test_architecture import ROOT


def test_each_equivalent_mutant_is_one_of_the_code_as_it_is_and_has_a_reason():
    for (file, before, after), reason in reasons().items():
        source = " ".join(map(str.strip, (ROOT / file).read_text().splitlines()))
        assert before in source, file
        assert before != after, file
        assert reason, file

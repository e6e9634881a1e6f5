from __future__ import annotations

from tests.mutants.nearness import nearest, read_tests, rounds
from tests.test_architecture import ROOT


def test_the_breadth_increases():
    order = [
        "tests/service/engine/verbs/test_paths.py",
        "tests/service/engine/test_canary.py",
        "tests/service/engine/verbs/test_flow.py",
        "tests/service/test_doors.py",
        "tests/service/test_app.py",
        "tests/models/test_recipe.py",
    ]
    tests = dict.fromkeys(sorted(order), "from service.engine.verbs.paths_of_others import Path")
    tests["tests/service/engine/test_canary.py"] = "from service.engine.verbs.paths import Path"
    assert nearest("service/engine/verbs/paths.py", tests) == order


def test_the_mirrored_file_is_found_in_the_tree_as_it_is():
    tests = read_tests(ROOT)
    assert nearest("service/engine/verbs/paths.py", tests)[0] == "tests/service/engine/verbs/test_paths.py"
    assert nearest("models/recipe.py", tests)[0] == "tests/models/test_recipe.py"
    assert "tests/laws/test_flows.py" in nearest("models/flows/linear.py", tests)[:30]


def test_each_round_has_twice_as_many_files_as_the_last():
    assert list(rounds(list("abcdefghi"))) == [["a"], ["b", "c"], ["d", "e", "f", "g"], ["h", "i"]]
    assert list(rounds([])) == []

from __future__ import annotations

from tests.mutants.measurement import nearest


def test_the_mirrored_file_comes_first_then_its_folder_then_the_folders_around_it():
    tests = [
        "tests/laws/test_zoo.py",
        "tests/service/test_doors.py::test_b",
        "tests/service/engine/test_canary.py",
        "tests/service/engine/verbs/test_flow.py",
        "tests/service/engine/verbs/test_paths.py::test_a[1]",
        "tests/models/test_recipe.py",
    ]
    assert nearest("service/engine/verbs/paths.py", tests) == [tests[i] for i in (4, 3, 2, 1, 0, 5)]

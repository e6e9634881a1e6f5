from __future__ import annotations

from dataclasses import replace as replace_fields

import pytest

from tests.faults.scenario import Outcome, Scenario, Without
from tests.faults.table import BEGIN, END, Cell, render, replace


def scenario(name: str) -> Scenario:
    return Scenario(name, "it is done", "it holds", lambda start, effort: Outcome(True, ""))


def test_the_column_of_the_missing_guard_names_it():
    guarded = replace_fields(scenario("a"), without=Without("its lock"))
    found = render([Cell(guarded, "without its guard", Outcome(False, "3 lost"))])
    assert found.splitlines()[2] == "| `a` | it is done | it holds |  | **fell** without its lock: 3 lost |  |"


def cells(name: str, seen: str) -> list[Cell]:
    one = scenario(name)
    return [Cell(one, "pushforward", Outcome(True, seen)), Cell(one, "plain", Outcome(False, "8 | 9 lost"))]


def test_each_subject_has_its_column():
    assert render(cells("a", "0 lost")).splitlines()[2:] == [
        "| `a` | it is done | it holds | held: 0 lost |  | **fell**: 8 / 9 lost |"
    ]


def test_rows_that_were_not_run_stay():
    page = replace(f"Text\n{BEGIN}\n{END}\nmore", [*cells("a", "1"), *cells("b", "2")])
    again = replace(page, cells("b", "3"))
    assert "| `a` | it is done | it holds | held: 1 |" in again
    assert "held: 3" in again
    assert "held: 2" not in again
    assert again.startswith("Text\n")
    assert again.endswith("\nmore")


def test_a_page_without_a_table_is_refused():
    with pytest.raises(ValueError, match="no table"):
        replace("Text", cells("a", "1"))

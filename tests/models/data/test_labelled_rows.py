from __future__ import annotations

import numpy as np
import pytest

from models.data.labelled_rows import LabelledRows


def notes(column: np.ndarray) -> str:
    rows = column.reshape(-1, 1)
    labelled = LabelledRows(file="a.csv", rows=rows, labels=["column a"], keys=["a"], place=str)
    return " ".join(labelled.notes(None))


@pytest.mark.parametrize(("count", "told"), [(4, False), (5, True), (6, True)])
def test_a_value_that_one_row_in_twenty_has_is_a_spike(count: int, told: bool):
    column = np.random.default_rng(0).normal(size=100)
    column[:count] = 0.25
    assert ("column a repeats values" in notes(column)) is told


@pytest.mark.parametrize(("distinct", "told"), [(99, True), (100, True), (101, False)])
def test_a_column_of_few_distinct_values_repeats_them(distinct: int, told: bool):
    column = np.resize(np.random.default_rng(0).normal(size=distinct), 1000)
    assert ("column a repeats values" in notes(column)) is told


def test_integers_are_told_as_such():
    found = notes(np.resize(np.arange(7.0), 1000))
    assert "column a holds integers only" in found
    assert "repeats values" not in found

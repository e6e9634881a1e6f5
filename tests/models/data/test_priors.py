from __future__ import annotations

import numpy as np
import pytest

from models.data.priors import check_inside, read_prior
from service.bundle.priors import Prior, Simplex
from service.errors import DataError

COLUMNS = ["rate", "size", "share"]


@pytest.fixture
def read(tmp_path):
    def reader(text):
        path = tmp_path / "prior.toml"
        path.write_text(text)
        return read_prior(path, COLUMNS)

    return reader


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("low = 0\nhigh = 1.5", [0.0] * 3, [1.5] * 3),
        ("low = [0, -inf, 1]", [0.0, None, 1.0], [None] * 3),
        ('constraints = "positive"', [0.0] * 3, [None] * 3),
        ('constraints = {name = "interval", low = -1, high = 1}', [-1.0] * 3, [1.0] * 3),
        ('[constraints]\nname = "less_than"\nhigh = 3', [None] * 3, [3.0] * 3),
        ('[constraints]\nsize = "unit_interval"', [None, 0.0, None], [None, 1.0, None]),
        (
            'constraints = ["real", {name = "greater_than", low = 2}, "nonnegative"]',
            [None, 2.0, 0.0],
            [None, None, None],
        ),
    ],
)
def test_forms_of_a_prior(read, text, low, high):
    assert read(text) == Prior(low=low, high=high)


def test_a_simplex_spans_columns(read):
    found = read('constraints = ["positive", {name = "simplex", columns = 2}]')
    assert found == Prior(low=[0.0] * 3, high=[None, 1.0, 1.0], simplexes=[Simplex(first=1, count=2)])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("low = [0, 1]", "low has 2 numbers, and there are 3 columns"),
        ("low = 1\nhigh = 1", "column rate lies between 1 and 1: the prior excludes everything"),
        ("lwo = 1", "no key 'lwo'; did you mean 'low'"),
        ("", "a box, low and high, or constraints"),
        ('low = 0\nconstraints = "real"', "give one of them"),
        ("low = true", "must be a number"),
        ("low = nan", "must be a number"),
        ("low = ", "is not TOML"),
        ('constraints = "positve"', "no constraint 'positve'; did you mean 'positive'"),
        ("constraints = 3", "a constraint is a name"),
        ('constraints = ["real"]', "of 1 columns, and there are 3"),
        ('[constraints]\nrat = "real"', "no column 'rat'; did you mean 'rate'"),
        ('constraints = {name = "interval", low = 0}', "high of interval must be a number"),
        ('constraints = {name = "positive", low = 0}', "takes no 'low'"),
        ('constraints = [{name = "simplex"}]', "needs columns"),
        ('constraints = [{name = "simplex", columns = 9}]', "needs columns, a number from 1 to 3"),
    ],
)
def test_what_is_no_prior_is_refused(read, text, match):
    with pytest.raises(DataError, match=match):
        read(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_prior(tmp_path / "nothing.toml", COLUMNS)
    with pytest.raises(DataError, match="cannot be read"):
        read_prior(tmp_path, COLUMNS)


def test_rows_outside_are_named_with_their_column():
    prior = Prior(low=[0.0, None, None], high=[1.0, None, None], simplexes=[Simplex(first=1, count=2)])
    check_inside(prior, np.array([[0.5, 0.2, 0.2]]), COLUMNS)
    with pytest.raises(DataError, match=r"2 of 3 rows .* row 1: column rate is 2, and .* from 0 to 1") as told:
        check_inside(prior, np.array([[0.5, 0.2, 0.2], [2, 0, 0], [0, 0.6, 0.6]]), COLUMNS)
    assert [(reason.row, reason.column) for reason in told.value.errors] == [(1, 0), (2, 1)]

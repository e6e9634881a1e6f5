from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.api.native.schemas import EditRequest, InterpolateRequest, LogProbRequest, SampleRequest
from service.api.native.validation import validate
from service.errors import InvalidArgument


def refused(schema, arguments, place="body"):
    with pytest.raises(InvalidArgument) as caught:
        validate(schema, arguments, place)
    return caught.value


def test_defaults():
    asked = validate(SampleRequest, {}, "body")
    assert (asked.n, asked.seed, asked.offset, asked.temperature, asked.context) == (1, None, 0, 1.0, None)
    assert validate(LogProbRequest, {"x": 1}, "body").returns == []


def test_an_unknown_argument_is_named_with_the_nearest_known_one():
    error = refused(LogProbRequest, {"x": [[1]], "retrun": ["z"]})
    assert error.detail == "retrun: unknown argument; did you mean return?"
    assert error.errors[0].loc == ("body", "retrun")
    assert "the arguments are model, version, columns, size, n, seed" in refused(SampleRequest, {"zzzzzz": 1}).detail


def test_the_field_behind_an_alias_is_no_argument():
    assert "unknown argument" in refused(LogProbRequest, {"x": [[1]], "returns": ["z"]}).detail


def test_several_faults_are_all_named():
    error = refused(SampleRequest, {"n": 0, "seed": -1, "offset": 2**53, "temperature": -0.5})
    assert [reason.loc[1] for reason in error.errors] == ["n", "seed", "offset", "temperature"]
    assert "is 0" in error.errors[0].reason


@pytest.mark.parametrize(
    ("schema", "arguments", "most"),
    [
        (EditRequest, {"x": 1, "direction": "a", "strength": [None] * 1000}, 1),
        (LogProbRequest, {"x": 1, **{f"a{at}": 1 for at in range(1000)}, "return": 1}, 21),
        (LogProbRequest, {"x": 1, "return": [1] * 1000}, 1),
    ],
)
def test_of_countless_faults_a_few_are_looked_at(schema, arguments, most):
    error = refused(schema, arguments)
    assert isinstance(error.__context__, ValidationError)
    assert error.__context__.error_count() == most


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (SampleRequest, {"n": True}),
        (SampleRequest, {"n": "5"}),
        (SampleRequest, {"n": 1.5}),
        (SampleRequest, {"n": None}),
        (SampleRequest, {"seed": 2**64}),
        (SampleRequest, {"temperature": "1"}),
        (SampleRequest, {"model": "../etc"}),
        (SampleRequest, {"version": 0}),
        (LogProbRequest, {}),
        (LogProbRequest, {"x": [], "return": ["y"]}),
        (LogProbRequest, {"x": [], "return": "z"}),
        (LogProbRequest, {"x": [], "alarm_rate": 0}),
        (LogProbRequest, {"x": [], "alarm_rate": 1}),
        (InterpolateRequest, {"points": [], "steps": 1}),
        (InterpolateRequest, {"points": [], "space": "y"}),
        (InterpolateRequest, {"points": [], "path": "straight"}),
    ],
)
def test_a_body_is_held_to_its_types_and_ranges(schema, arguments):
    assert refused(schema, arguments).errors


def test_query_values_are_read_as_their_types():
    asked = validate(SampleRequest, {"n": "5", "seed": str(2**64 - 1), "temperature": "0.5"}, "query")
    assert (asked.n, asked.seed, asked.temperature) == (5, 2**64 - 1, 0.5)
    for wrong in ({"n": "five"}, {"n": "1.5"}, {"temperature": "nan"}, {"temperature": "inf"}, {"seed": ""}):
        assert refused(SampleRequest, wrong, "query").errors[0].loc[0] == "query"
    (reason,) = refused(SampleRequest, {"n": "1_0"}, "query").errors
    assert (reason.loc, reason.row) == (("query", "n"), None)
    assert reason.reason == 'should be a valid integer, and is "1_0"'
    assert "less than or equal" in refused(SampleRequest, {"seed": "9" * 30}, "query").detail
    assert "should be greater than or equal to 1, and is -1" in refused(SampleRequest, {"n": "-1"}, "query").detail


def test_what_came_is_told_but_not_at_length():
    error = refused(SampleRequest, {"model": "x" * 10_000})
    assert len(error.detail) < 300
    assert len(refused(SampleRequest, {"y" * 10_000: 1}).detail) < 300

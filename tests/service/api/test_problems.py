from __future__ import annotations

import json

import pytest

from service import errors
from service.api.problems import MEDIA_TYPE, PROBLEMS, problem
from service.errors import DataError, PushforwardError, QueueFull, Reason, WrongShape


def every_error():
    return [
        c for name in errors.__all__ if isinstance(c := getattr(errors, name), type) and issubclass(c, PushforwardError)
    ]


@pytest.mark.parametrize("kind", [k for k in every_error() if issubclass(k, (errors.RequestError, errors.ServerError))])
def test_every_error_that_http_can_meet_is_in_the_table(kind):
    reply = problem(kind("why"))
    document = json.loads(reply.body)
    assert reply.media_type == MEDIA_TYPE
    assert reply.status == document["status"] == PROBLEMS[kind.code].status
    assert document["code"] == kind.code
    assert document["detail"] == "why"
    assert document["type"] == f"urn:pushforward:problem:{kind.code}"
    assert document["title"]
    assert document["errors"] == []


def test_the_table_holds_nothing_else():
    assert set(PROBLEMS) <= {kind.code for kind in every_error()}


@pytest.mark.parametrize(("code", "entry"), PROBLEMS.items())
def test_whoever_may_come_again_is_told_when(code, entry):
    assert (entry.retry_after is not None) == (entry.status in (429, 503))


def test_retry_after_is_a_header():
    assert problem(QueueFull("full")).headers["Retry-After"] == "1"


def test_reasons_say_row_and_column_where_they_have_them():
    reasons = (Reason(("body", "x"), "wrong", 3, 1), Reason(("query", "n"), "small"))
    assert json.loads(problem(WrongShape("no", reasons)).body)["errors"] == [
        {"loc": ["body", "x"], "row": 3, "column": 1, "reason": "wrong"},
        {"loc": ["query", "n"], "reason": "small"},
    ]


def test_an_error_that_is_not_in_the_table_tells_nothing():
    reply = problem(DataError("/home/someone/data.csv is broken"))
    assert reply.status == 500
    assert b"someone" not in reply.body

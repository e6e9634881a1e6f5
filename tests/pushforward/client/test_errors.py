from __future__ import annotations

import inspect

import orjson
import pytest

import pushforward
from pushforward.client import errors
from pushforward.client.errors import ApiError, api_error
from service import errors as service_errors
from service.api.problems import PROBLEMS, problem
from service.errors import PushforwardError, Reason

STATUSES = {
    400: errors.InvalidRequest,
    401: errors.NotAuthorized,
    403: errors.NotAuthorized,
    404: errors.NotFound,
    405: errors.InvalidRequest,
    406: errors.InvalidRequest,
    408: errors.InvalidRequest,
    409: errors.InvalidRequest,
    413: errors.TooLarge,
    415: errors.InvalidRequest,
    421: errors.InvalidRequest,
    422: errors.InvalidRequest,
    429: errors.Overloaded,
    431: errors.TooLarge,
    500: errors.ServerFailed,
    502: errors.ServerFailed,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
    507: errors.ServerFailed,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_each_status_has_its_class(status, kind):
    error = api_error(status, b"<html>a proxy's page</html>", 2.0)
    assert type(error) is kind
    assert (error.status, error.code, error.retry_after) == (status, f"http_{status}", 2.0)
    assert str(status) in error.detail


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_of_the_server_is_read_back(code):
    kind = next(
        (k for k in vars(service_errors).values() if inspect.isclass(k) and getattr(k, "code", None) == code),
        PushforwardError,
    )
    reasons = (Reason(("body", "x", 3), "nan is not finite", 3, 1), Reason(("query",), "odd"))
    reply = problem(kind("a sentence", reasons))
    error = api_error(reply.status, reply.body)
    assert type(error) is STATUSES[reply.status]
    assert (error.code, error.detail, error.errors) == (kind.code, "a sentence", reasons)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"detail": "no code"}', b'{"code": 1, "detail": "x"}', b"\xff", b'{"code": "x"}']
)
def test_a_body_that_is_no_problem_document_still_gives_an_error(body):
    assert api_error(503, body).code == "http_503"


def test_faults_of_any_shape_are_read():
    body = orjson.dumps(
        {"code": "c", "detail": "d", "errors": ["text", {"loc": "x", "reason": 1}, {"row": "no"}, None]}
    )
    assert [fault.reason for fault in api_error(422, body).errors] == ["text", "1", "", "None"]
    assert api_error(422, b'{"code": "c", "detail": "d", "errors": 3}').errors == ()


def test_a_status_without_a_name():
    assert "799" in api_error(799, b"").detail


def test_the_text_of_an_error_holds_its_faults():
    error = ApiError(422, "not_finite", "x holds a NaN", (Reason(("body", "x"), "row 3: nan", 3),))
    assert str(error) == "422 not_finite: x holds a NaN\n  body.x: row 3: nan"
    said = ApiError(422, "not_finite", "x, row 3: nan", (Reason(("body", "x"), "row 3: nan", 3),))
    assert str(said) == "422 not_finite: x, row 3: nan"


def test_the_tree():
    assert issubclass(errors.ClientError, PushforwardError)
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.DeadlineExceeded, errors.TimedOut)
    for name in errors.__all__:
        kind = getattr(errors, name)
        if inspect.isclass(kind):
            assert issubclass(kind, errors.ClientError)
            assert f"{name} " in (errors.__doc__ or "") or f"{name}\n" in (errors.__doc__ or "")
    assert pushforward.client.errors is errors

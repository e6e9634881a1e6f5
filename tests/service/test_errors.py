from __future__ import annotations

import re

import pytest

from service import errors
from service.errors import PushforwardError, Reason

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PushforwardError)]


def test_the_public_names_are_the_ones_exported():
    assert sorted(errors.__all__) == sorted({c.__name__ for c in CLASSES} | {"Reason", "release_frames"})


def test_the_drawing_of_the_tree_is_true():
    drawn, path = {}, []
    for prefix, name, code in re.findall(r"^    ([│├└─ ]*)(\w+) +(\w+)  ", errors.__doc__ or "", re.MULTILINE):
        path[len(prefix) // 4 :] = [name]
        drawn[name] = (path[-2] if len(path) > 1 else "Exception", code)
    assert drawn == {c.__name__: (c.__base__.__name__, c.code) for c in CLASSES}


def test_leaves_have_codes_of_their_own():
    codes = [c.code for c in CLASSES if not c.__subclasses__()]
    assert len(codes) == len(set(codes))


def test_a_failure_carries_its_sentence_and_its_reasons_up_to_a_cap():
    reasons = tuple(Reason(("body", "x"), "expected a number", row=i) for i in range(50))
    error = errors.NotFinite("50 rows hold NaN", reasons)
    assert str(error) == error.detail == "50 rows hold NaN"
    assert error.errors == reasons[: PushforwardError.MAX_REASONS]


def test_a_reason_that_the_sentence_holds_is_said_already():
    reasons = (Reason(("body", "x"), "it is empty"), Reason(("body", "z", 2), "it is missing"))
    error = errors.InvalidArgument("x: it is empty", reasons)
    assert error.unsaid() == reasons[1:]
    assert str(reasons[1]) == "body.z.2: it is missing"


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_can_be_told_with_more_words(cls):
    error = cls("the graphs differ", (Reason(("golden",), "error 1"),))
    longer = error.extended(". Next: try again")
    assert type(longer) is cls
    assert (longer.detail, str(longer), longer.errors) == (*["the graphs differ. Next: try again"] * 2, error.errors)
    assert error.detail == "the graphs differ"

from __future__ import annotations

import re

import pytest

from service import errors
from service.errors import PushforwardError, Reason

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PushforwardError)]


def test_the_public_names_are_the_ones_exported():
    assert sorted(errors.__all__) == sorted({c.__name__ for c in CLASSES} | {"Reason"})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_the_drawing_of_the_tree_is_true(cls: type[PushforwardError]):
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{cls.__name__}\b", line)]
    assert lines, f"{cls.__name__} is not drawn"
    leaf = not cls.__subclasses__()
    assert not leaf or cls.code in lines[0].split()


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

from __future__ import annotations

import pytest

from service.access.request_ids import RequestIds, read_request_id


@pytest.mark.parametrize("value", [b"a", b"7f3c-1", b"a b", b'"quoted"', b"x" * 128, b"~!@#$%^&*()"])
def test_a_printable_id_is_kept(value):
    assert read_request_id(value) == value


@pytest.mark.parametrize(
    "value", [b"", b" ", b"a ", b" a", b"x" * 129, b"a\tb", b"a\nb", b"\x00", "é".encode(), b"\xe9", b"\x7f"]
)
def test_any_other_is_not(value):
    assert read_request_id(value) is None


def test_ids_that_are_made_are_readable_and_no_two_are_equal():
    ids, others = RequestIds(), RequestIds()
    made = [each.make() for each in (ids, others) for _ in range(1000)]
    assert len(set(made)) == 2000
    assert all(read_request_id(each) == each for each in made)

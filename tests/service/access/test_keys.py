from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access import keys
from service.access.keys import KeyRing, StoredKey, make_key, parse_keys
from service.access.scopes import SCOPES
from service.errors import BudgetSpent, InvalidArgument


def test_a_key_has_256_bits_and_no_two_are_equal():
    made = [make_key("alice", ["infer"]) for _ in range(100)]
    assert len({each.key for each in made}) == 100
    assert all(re.fullmatch(r"pf_[A-Za-z0-9_-]{43}", each.key) for each in made)
    assert all(each.stored.digest == hashlib.sha256(each.key.encode()).digest() for each in made)


def test_what_is_stored_does_not_hold_the_key():
    new = make_key("alice", ["infer"])
    assert new.key not in new.stored.line()
    assert new.key not in repr(new.stored)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    st.sets(st.sampled_from(SCOPES), min_size=1),
    st.none() | st.integers(1, 10**12),
    st.none() | st.integers(1, 10**12),
)
def test_a_line_is_read_as_it_was_written(name, scopes, requests, rows):
    stored = make_key(name, scopes, requests, rows).stored
    assert parse_keys(stored.line(), "keys") == (stored,)


def test_remarks_empty_lines_and_semicolons():
    one, two = make_key("one", ["infer"]).stored, make_key("two", ["admin", "metrics"]).stored
    assert parse_keys(f"# keys\n\n{one.line()}  # of one\n\t{two.line()}\n", "keys") == (one, two)
    assert parse_keys(f"{one.line()};{two.line()};", "PUSHFORWARD_KEYS") == (one, two)


HASH = "sha256:" + "0" * 64
KEY = make_key("x", ["infer"]).key


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"alice infer {KEY}", "only its hash may stand there"),
        (KEY, "only its hash may stand there"),
        ("alice infer", "there are 2 words"),
        (f"Alice infer {HASH}", "not the name of a key"),
        (f"alice infer,root {HASH}", "which are infer, admin, metrics"),
        (f"alice , {HASH}", "not a list of scopes"),
        ("alice infer sha256:" + "0" * 63, "third word"),
        ("alice infer sha256:" + "G" * 64, "third word"),
        ("alice infer md5:" + "0" * 64, "third word"),
        (f"alice infer {HASH} requests_per_minute=0", "not a budget"),
        (f"alice infer {HASH} requests_per_minute=1 requests_per_minute=2", "there twice"),
        (f"alice infer {HASH} rows=5", "not a budget"),
        (f"alice infer {HASH}\nalice admin sha256:{'1' * 64}", "line 2: the name alice stands there twice"),
        (f"alice infer {HASH}\nbob admin {HASH}", "line 2: the key of alice stands there twice"),
    ],
    ids=lambda text: text.replace(KEY, "KEY"),  # which is another in each process
)
def test_a_wrong_line_is_named_and_not_repeated(line, why):
    with pytest.raises(InvalidArgument, match=re.escape(why)) as caught:
        parse_keys(line, "keys")
    assert "keys, line " in caught.value.detail
    told = f"{caught.value.detail} {caught.value.errors}"
    assert KEY not in told
    assert "0" * 60 not in told


def test_a_ring_finds_each_key_and_nothing_else():
    made = [make_key(f"key{i}", ["infer"]) for i in range(5)]
    ring = KeyRing(each.stored for each in made)
    for each in made:
        caller = ring.find(each.key.encode())
        assert caller is not None
        assert caller.stored == each.stored
        for wrong in (
            each.key[:-1],
            each.key + "A",
            each.key.swapcase(),
            each.key + "\0",
            each.stored.digest.hex(),
            "",
        ):
            assert ring.find(wrong.encode()) is None
    assert ring.find(b"x" * (1 << 20)) is None


def test_every_key_is_compared_in_constant_time_whichever_it_is(monkeypatch):
    compared = []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(b) or a == b)
    made = [make_key(f"key{i}", ["infer"]) for i in range(5)]
    ring = KeyRing(each.stored for each in made)
    for wanted in (made[0].key, made[4].key, "pf_none"):
        compared.clear()
        ring.find(wanted.encode())
        assert compared == [each.stored.digest for each in made]


def test_a_key_that_stays_keeps_what_is_left_of_its_budget():
    one, two = make_key("one", ["infer"], 2), make_key("two", ["infer"])
    ring = KeyRing([one.stored, two.stored], clock=lambda: 0.0)
    caller = ring.find(one.key.encode())
    caller.take_request()
    caller.take_request()
    ring.replace([one.stored])
    assert ring.find(two.key.encode()) is None
    with pytest.raises(BudgetSpent, match="one may make 2 requests a minute") as caught:
        ring.find(one.key.encode()).take_request()
    assert caught.value.retry_seconds == pytest.approx(30)


def test_rows_are_refused_before_any_is_computed():
    new = make_key("one", ["infer"], rows_per_minute=100)
    caller = KeyRing([new.stored], clock=lambda: 0.0).find(new.key.encode())
    caller.take_rows(60)
    with pytest.raises(BudgetSpent, match="too few are left"):
        caller.take_rows(41)
    with pytest.raises(BudgetSpent, match="send fewer rows at once"):
        caller.take_rows(101)
    caller.take_rows(40)


def test_a_name_is_bounded():
    with pytest.raises(InvalidArgument, match="lower-case letters"):
        make_key("Alice Smith", ["infer"])


def test_a_ring_without_keys_lets_nobody_in():
    ring = KeyRing([StoredKey("a", frozenset({"infer"}), b"\0" * 32)])
    ring.replace([])
    assert ring.find(b"") is None

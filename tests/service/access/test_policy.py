from __future__ import annotations

import pytest

from service.access.keys import KeyRing, make_key
from service.access.policy import AccessPolicy, by_name
from service.errors import (
    BudgetSpent,
    ForeignOrigin,
    KeyMissing,
    KeyUnknown,
    MisdirectedRequest,
    RouteNotFound,
    ScopeMissing,
)

ALICE = make_key("alice", ["infer"], requests_per_minute=3)
OPS = make_key("ops", ["admin", "metrics"])


def policy(**more):
    return AccessPolicy(KeyRing([ALICE.stored, OPS.stored], clock=lambda: 0.0), **more)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_without_keys_anyone_passes():
    assert AccessPolicy().admit("POST", "/repository", {}) is None


def test_a_key_passes_where_its_scope_is_enough():
    here = policy()
    assert here.admit("POST", "/logprob", bearer(ALICE.key)).stored == ALICE.stored
    assert here.admit("GET", "/metrics", bearer(OPS.key)).stored == OPS.stored
    assert here.admit("GET", "/health/live", {}) is None
    with pytest.raises(ScopeMissing, match="needs the scope infer, and the key ops has admin, metrics"):
        here.admit("POST", "/logprob", bearer(OPS.key))
    with pytest.raises(ScopeMissing):
        here.admit("PUT", "/repository/a/versions/1", bearer(ALICE.key))


def test_who_has_no_key_and_who_has_a_wrong_one():
    with pytest.raises(KeyMissing, match="Authorization: Bearer KEY"):
        policy().admit("POST", "/logprob", {})
    for field in ("", "Bearer", f"Basic {ALICE.key}", ALICE.key, f"Bearer {ALICE.key}, Bearer {ALICE.key}"):
        with pytest.raises(KeyUnknown) as caught:
            policy().admit("POST", "/logprob", {"authorization": field})
        assert ALICE.key not in caught.value.detail


def test_the_scheme_may_be_written_in_any_case_and_the_key_may_not():
    assert policy().admit("GET", "/models", {"authorization": f"bEARER   {ALICE.key} "})
    with pytest.raises(KeyUnknown):
        policy().admit("GET", "/models", bearer(ALICE.key.swapcase()))


def test_a_budget_is_used_up_and_what_is_refused_costs_nothing():
    here = policy()
    for _ in range(5):
        with pytest.raises(ScopeMissing):
            here.admit("GET", "/metrics", bearer(ALICE.key))
    for _ in range(3):
        here.admit("POST", "/logprob", bearer(ALICE.key))
    with pytest.raises(BudgetSpent):
        here.admit("POST", "/logprob", bearer(ALICE.key))


def test_hosts_and_origins_hold_without_keys_too():
    with pytest.raises(MisdirectedRequest, match=r"'evil\.example'.*--allowed-host"):
        AccessPolicy().admit("GET", "/health/live", {"host": "evil.example"})
    with pytest.raises(ForeignOrigin, match="--cors-origin"):
        AccessPolicy().admit("POST", "/logprob", {"host": "localhost", "origin": "http://evil.example"})


def test_a_port_of_its_own():
    here = AccessPolicy(separate=True)
    for path in ("/metrics", "/repository", "/v2/repository/index"):
        here.admit("GET", path, {}, at_admin_port=True)
        with pytest.raises(RouteNotFound):
            here.admit("GET", path, {})
    here.admit("POST", "/logprob", {})
    with pytest.raises(RouteNotFound):
        here.admit("POST", "/logprob", {}, at_admin_port=True)
    for at in (True, False):
        here.admit("GET", "/health/live", {}, at_admin_port=at)


def test_a_field_that_stands_there_twice_has_both_values():
    assert by_name([(b"host", b"a"), (b"x", b"1"), (b"host", b"b")]) == {"host": "a, b", "x": "1"}


@pytest.mark.parametrize("path", ["/metrics\n", "/repository\n", "/logprob\n", "/models/a\x00", "/models/\x7f/encode"])
def test_no_path_has_a_control_character(path):
    """A route's pattern passes over a line end, and so would find `/metrics` in a path that needs `infer` alone."""
    for here in (AccessPolicy(), AccessPolicy(separate=True), policy()):
        with pytest.raises(RouteNotFound, match="control character"):
            here.admit("GET", path, bearer(ALICE.key))
    with pytest.raises(KeyMissing):
        policy().admit("GET", path, {})

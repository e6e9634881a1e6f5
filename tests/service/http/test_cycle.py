from __future__ import annotations

from service.http.cycle import HotCycle
from service.http.heads import Call, Fields, Hot


def test_a_body_is_put_together_and_let_go_of_once_it_is_answered():
    cycle = HotCycle(Hot(Call(lambda exchange: None), Fields()), length=4)
    cycle.take(b"ab")
    assert cycle.received == b"ab"
    cycle.take(b"cd")
    assert cycle.body == b"abcd"
    cycle.end()
    assert (cycle.response_complete, cycle.going, cycle.body) == (True, None, b"")

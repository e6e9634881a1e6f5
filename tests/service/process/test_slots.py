from __future__ import annotations

from service.process.slots import Slot


def test_patience_grows_with_early_ends_and_is_forgotten():
    slot, now, delays = Slot(0, 5.0), 100.0, []
    for lived in (1, 1, 1, 1, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1):
        slot.record_start(None, now)
        now += lived
        delays.append(slot.record_exit(now))
        assert slot.restart_at == now + delays[-1]
    assert delays == [0, 0.5, 1, 2, 0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]

"""The renewal of workers: one after the other gets a successor, and ends once that answers. The port stays open.

A successor counts under the number that no worker has. The number of the worker that ends is then free for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.process.slots import Slot

__all__ = ["Renewal"]


class Renewal:
    """The order in which workers are replaced. Knows no process.

    Args:
        workers: the number of workers.
        drain_seconds: from the signal to a worker that ends to the moment at which it must have ended.
        new_slot: makes the slot of a number.
    """

    def __init__(self, workers: int, drain_seconds: float, new_slot: Callable[[int], Slot]) -> None:
        self._new_slot = new_slot
        self._numbers = frozenset(range(workers + 1))
        self._drain_seconds = drain_seconds
        self._waiting: list[Slot] = []
        self._old: Slot | None = None
        self._successor: Slot | None = None
        self._leaving: Slot | None = None
        self._ends_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether workers are being replaced."""
        return bool(self._waiting or self.slots)

    @property
    def slots(self) -> list[Slot]:
        """The slots beside those that serve: of the successor, and of the worker that ends."""
        return [slot for slot in (self._successor, self._leaving) if slot is not None]

    @property
    def deadline(self) -> float | None:
        """The time by which the worker that ends must have ended."""
        return None if self._leaving is None else self._ends_at

    def ask(self, slots: Sequence[Slot]) -> None:
        """Replace the workers of these slots."""
        self._waiting = list(slots)

    def next_successor(self, slots: Sequence[Slot]) -> Slot | None:
        """The slot of the next successor, to be started now; None where there is none to start.

        Args:
            slots: that serve.
        """
        if self.slots:
            return None
        while self._waiting:
            old = self._waiting.pop(0)
            if old in slots and old.worker is not None:  # else it has been replaced meanwhile, or soon will be
                (number,) = self._numbers - {slot.number for slot in slots}
                self._old, self._successor = old, self._new_slot(number)
                return self._successor
        return None

    def take_over(self, slots: list[Slot], now: float) -> Slot | None:
        """Let the successor serve in the place of its predecessor, once it answers and has loaded everything.

        Args:
            slots: that serve; the successor is put in the place of its predecessor.
            now: seconds.

        Returns:
            The slot of the worker that is to end; None where none is.
        """
        successor, old = self._successor, self._old
        if successor is None or old is None or not successor.loaded or successor.status is None:
            return None
        slots[slots.index(old)] = successor
        self._successor = self._old = None
        self._leaving, self._ends_at = (None if old.worker is None else old), now + self._drain_seconds
        return old

    def late(self, now: float) -> list[Slot]:
        """The slot of a worker that should have ended by now.

        Args:
            now: seconds.
        """
        if self._leaving is None or now < self._ends_at:
            return []
        self._ends_at = now + self._drain_seconds
        return [self._leaving]

    def end(self, slot: Slot) -> bool:
        """Note that a process of `slots` has ended.

        Returns:
            Whether it was the successor. No further worker is then replaced.
        """
        if slot is self._leaving:
            self._leaving = None
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """Replace no further worker."""
        self._waiting = []
        self._successor = self._old = None

"""The options of isolation: the flows that run in processes of their own, and the bounds of these processes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Isolation"]


@dataclass(frozen=True, slots=True)
class Isolation:
    """The options of isolation.

    Args:
        flows: the names of the flows that run in processes of their own; None for all.
        processes: of each version of such a flow. Each runs one batch at a time.
        hang_seconds: a batch that runs longer than this hangs: its process is killed.
        memory_bytes: the most memory that a process may allocate; 0 for no bound.
        start_seconds: a process that has not loaded and warmed its graphs by then is killed.
    """

    flows: frozenset[str] | None = frozenset()
    processes: int = 2
    hang_seconds: float = 10.0
    memory_bytes: int = 0
    start_seconds: float = 60.0

    def covers(self, name: str) -> bool:
        """Whether the flow of a name runs in processes of its own."""
        return self.flows is None or name in self.flows

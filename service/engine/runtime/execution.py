"""How a flow is run, as the server tells it of itself."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Execution"]


class Execution(NamedTuple):
    """How a flow is run.

    Args:
        provider: ONNX Runtime's execution provider.
        batch_invariant: whether a row was shown to have the same bits in every batch: by the exporter's gate for the
            CPU, by a trial of the golden rows at load for a device.
        fallback: why it is not on the device that was asked for; None where it is.
    """

    provider: str
    batch_invariant: bool
    fallback: str | None = None

"""The execution of a flow, as the server describes it: provider, batch invariance, fallback."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Execution"]


class Execution(NamedTuple):
    """The execution of a flow.

    Args:
        provider: ONNX Runtime's execution provider.
        batch_invariant: whether a row was proved to have the same bits in every batch: by the exporter's gate for the
            CPU, by a trial of the golden rows at load for a device.
        fallback: the reason why it is not on the device of the settings; None where it is.
    """

    provider: str
    batch_invariant: bool
    fallback: str | None = None

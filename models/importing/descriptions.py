"""Descriptions of layers and of exceptions for an error message. Must not import torch."""

from __future__ import annotations

__all__ = ["layer_name", "one_line"]


def layer_name(layer: object) -> str:
    """A layer's class with its library in front: ``nflows LULinear``."""
    kind = type(layer)
    return f"{kind.__module__.partition('.')[0]} {kind.__name__}"


def one_line(error: BaseException | None) -> str:
    """A library's exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__

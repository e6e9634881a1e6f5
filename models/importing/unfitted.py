"""The layers that take their scale from the first rows they see: found before a flow is taken, and fitted to rows.

Such are the ActNorms of nflows, normflows and FrEIA, in a chain or inside a network. One that has seen no data takes
what comes first for its data, or is the identity for want of any: neither is what whoever built the flow means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from models.importing.adapted import Unsupported
from models.importing.descriptions import layer_name

__all__ = ["UnfittedLayer", "find_unfitted", "fitting", "refuse_unfitted", "taken_as_fitted"]

_FLAGS: Final[dict[str, tuple[str, bool]]] = {
    "normflows": ("data_dep_init_done", True),
    "nflows": ("initialized", True),
    "FrEIA": ("init_on_next_batch", False),
}
"""The root package of an ActNorm -> the attribute that says whether it has seen data, and what it is then."""
_CONSTANT: Final = -math.log(1e-6)
"""What normflows' log scale is, with either sign, for rows that do not vary: it adds 1e-6 to their deviation."""
_NEAR: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class UnfittedLayer:
    """An ActNorm that has seen no data.

    Args:
        path: where it is in the flow, as `named_modules` has it.
        layer: the layer.
        flag: the attribute that says whether it has.
        fitted: what that attribute is once it has.
        least: whether it adds normflows' least deviation to that of its rows.
    """

    path: str
    layer: Any
    flag: str
    fitted: bool
    least: bool

    @property
    def sees_no_data(self) -> bool:
        """Whether it still has not."""
        return bool(getattr(self.layer, self.flag)) != self.fitted

    @property
    def has_scale(self) -> bool:
        """Whether its numbers are finite, and those of rows that vary."""
        values = torch.cat([value.detach().flatten() for value in self.layer.parameters()])
        constant = (values.abs() - _CONSTANT).abs() < _NEAR
        return bool(torch.isfinite(values).all()) and not (self.least and bool(constant.any()))

    def mark(self, *, fitted: bool) -> None:
        """Set the attribute, as what it is: a plain value, or a tensor."""
        value = self.fitted if fitted else not self.fitted
        before = getattr(self.layer, self.flag)
        if isinstance(before, torch.Tensor):
            before.fill_(value)
        else:
            setattr(self.layer, self.flag, value)


def find_unfitted(source: nn.Module) -> list[UnfittedLayer]:
    """The ActNorms of a flow that have seen no data.

    Raises:
        Unsupported: a layer has no weights yet, such as a `LazyLinear` that was never called.
    """
    found = []
    for path, layer in source.named_modules():
        if any(is_lazy(value) for value in (*layer._parameters.values(), *layer._buffers.values())):  # noqa: SLF001
            raise Unsupported(
                f"{layer_name(layer)}{_at(path)} has no weights yet: they are made when it first sees rows. Call the "
                "flow once on rows of the right shape, or load its weights into layers of a stated size"
            )
        roots = {kind.__module__.partition(".")[0] for kind in type(layer).__mro__ if kind.__name__ == "ActNorm"}
        for root in sorted(roots & set(_FLAGS)):
            flag, fitted = _FLAGS[root]
            act_norm = UnfittedLayer(path, layer, flag, fitted, root == "normflows")
            if hasattr(layer, flag) and act_norm.sees_no_data:
                found.append(act_norm)
    return found


def refuse_unfitted(layers: Sequence[UnfittedLayer], fault: str = "") -> Unsupported:
    """The error for a flow with ActNorms that have seen no data.

    Args:
        layers: the ActNorms; at least one.
        fault: why the data given cannot set their scale, a sentence; "" where none were given.
    """
    first, more = layers[0], len(layers) - 1
    others = f", as have {more} others," if more > 1 else ", as has another," if more else ""
    rows = "other rows" if fault else "rows of the data"
    return Unsupported(
        f"{layer_name(first.layer)}{_at(first.path)} cannot be exported: it has seen no data{others} and its first "
        f"batch would set its scale. {fault}{' ' if fault else ''}Give {rows} by --data, import the flow after it was "
        "fitted, or load its weights"
    )


@contextmanager
def taken_as_fitted(layers: Sequence[UnfittedLayer]) -> Iterator[None]:
    """Let ActNorms that have seen no data pass for fitted ones: they then keep the weights that they were made with."""
    for layer in layers:
        layer.mark(fitted=True)
    try:
        yield
    finally:
        for layer in layers:
            layer.mark(fitted=False)


@contextmanager
def fitting(layers: Sequence[UnfittedLayer]) -> Iterator[None]:
    """Let ActNorms take their scale from the next rows: those of nflows do so in training mode only."""
    for layer in layers:
        layer.layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.layer.training = False


def _at(path: str) -> str:
    return f" {path!r}" if path else ""

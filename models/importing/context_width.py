"""The number of columns of context that a flow takes: what its layers say, and with what numbers its log_prob runs.

A width that runs is not yet the flow's: layers that broadcast, such as `(context - mean) / std`, run with one column in
the place of three. A width is taken without a question only where a layer says it, or where no other one runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.descriptions import one_line
from models.importing.support import place_rows
from service.errors import DataError

__all__ = ["ContextWidth", "find_context_width", "standardizes"]

_SMALL: Final = 4
"""Widths up to this one are tried in any case: a layer that broadcasts or sums takes them all."""
_ENOUGH: Final = 4
"""So many widths that run are enough to ask which."""
_STEPS: Final = (1.0, -1.0, 4.0, 1000.0)
_TOGETHER: Final = 256
"""So many columns of the context are changed in one call."""
_NEAR: Final = 1e-9
"""A relative difference of two log_prob in float64 that is rounding: a row may lie elsewhere in its batch."""
_MEANS: Final = ("mean", "loc", "shift", "mu")
_DEVIATIONS: Final = ("std", "scale", "sigma", "dev")


@dataclass(frozen=True, slots=True)
class ContextWidth:
    """The number of columns of a flow's context.

    Args:
        columns: C; 0 for a flow without context.
        reason: how it was found, in words.
        notes: what a reader of the manifest should know.
    """

    columns: int
    reason: str
    notes: tuple[str, ...] = ()


def find_context_width(
    adapted: AdaptedFlow, exact: nn.Module, shape: tuple[int, ...], given: int | None
) -> ContextWidth:
    """Find the number of columns of context of a flow.

    Args:
        adapted: the flow taken apart, in float64; it takes rows of `shape`.
        exact: the module that it was made of.
        shape: of a row.
        given: the number that the user says; None where he says none.

    Raises:
        DataError: it is another one than given, no width runs, or several do and nothing says which.
        Unsupported: the context of one row changes the log_prob of another, or a column given has no effect.
    """
    probe = _Probe(adapted, exact, shape)
    if adapted.context_width is not None:
        stated = _Said(adapted.context_width, f"the {adapted.library} flow says so")
        if not probe.runs(_agree(stated, given).columns):
            raise probe.fault(f"{_counted(stated.columns)} of context")
        return _checked(probe, stated.columns, stated.reason)
    running: list[int] = []
    for width in dict.fromkeys([*([] if given is None else [given]), *_likely(exact, shape)]):
        if not probe.runs(width):
            continue
        said = probe.said(width)
        if said is not None and (said.columns == width or probe.runs(said.columns)):
            return _checked(probe, _agree(said, given).columns, said.reason)
        running.append(width)
        if len(running) >= _ENOUGH:
            break
    if given is not None:
        return _given(probe, running, given)
    return _only(probe, [0, *running] if probe.runs(0) else running)


@dataclass(frozen=True, slots=True)
class _Said:
    """A width that a layer says, and which layer."""

    columns: int
    reason: str


def _agree(said: _Said, given: int | None) -> _Said:
    if given is not None and given != said.columns:
        raise DataError(f"--context is {given}, and the flow takes {said.columns} columns of context: {said.reason}")
    return said


def _given(probe: _Probe, running: list[int], given: int) -> ContextWidth:
    if not probe.runs(given):
        raise probe.fault(f"{_counted(given)} of context")
    probe.refuse_leak(given)
    dead = probe.without_effect(given)
    smaller = [width for width in running if width < given]
    if dead and smaller:
        raise Unsupported(
            f"--context is {given}, and log_prob of the flow does not depend on {_columns(dead)} of the context. It "
            f"runs with {_listed(smaller)} as well: give --context as the flow was fitted"
        )
    return _checked(probe, given, "given by --context")


def _only(probe: _Probe, running: list[int]) -> ContextWidth:
    """The one width that can be meant."""
    if not running:
        raise probe.fault("any width of context that its layers could take")
    sound = [width for width in running if not width or probe.depends(width)]
    if len(sound) == 1 and (sound[0] == 0 or len(running) == 1):
        return _checked(probe, sound[0], "no other width runs" if sound[0] else "the flow takes no context")
    if len(running) == 1:
        return _checked(probe, running[0], "no other width runs")
    for width in running:
        probe.refuse_leak(width)
    raise DataError(
        f"the number of columns of context cannot be told: log_prob of the flow runs with {_listed(running)}, and no "
        "layer says which. A layer that broadcasts takes more widths than it was fitted to, and the densities are "
        "others: give --context N" + (", or --context 0 for none" if running[0] == 0 else "")
    )


def _checked(probe: _Probe, width: int, reason: str) -> ContextWidth:
    if not width:
        return ContextWidth(0, reason)
    probe.refuse_leak(width)
    dead = probe.without_effect(width)
    notes = [f"log_prob was not seen to depend on {_columns(dead)} of the context"] if dead else []
    return ContextWidth(width, reason, tuple(notes))


def _likely(exact: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """Widths that a layer could take, those first that a layer for the context has.

    A network's first layer takes the context alone, or beside as many columns of a row as its step shows it.
    """
    # by the attribute, not by nn.Linear: zuko has a class of its own
    named = [(name, getattr(layer, "in_features", None)) for name, layer in exact.named_modules()]
    layers = [(name, width) for name, width in named if isinstance(width, int)]
    first = [width for name, width in layers if name.endswith("context_layer")]
    beside = {width - k for _, width in layers for k in range(min(math.prod(shape), width - 1) + 1)}
    tensors = [tensor for module in exact.modules() for tensor in _own_tensors(module).values()]
    sizes = {size for tensor in tensors for size in tensor.shape if size}
    return list(dict.fromkeys([*first, *sorted({*beside, *sizes, *range(1, _SMALL + 1)})]))


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters, buffers and other tensors that a module itself holds."""
    held = {**module._parameters, **module._buffers, **vars(module)}  # noqa: SLF001  no public name holds them by name
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


class _Probe:
    """The library's own log_prob, tried with contexts of several widths."""

    def __init__(self, adapted: AdaptedFlow, exact: nn.Module, shape: tuple[int, ...]) -> None:
        self.adapted, self.exact, self.shape = adapted, exact, shape
        self.failure: Exception | None = None
        self.standards: tuple[Tensor, Tensor] | None = None

    def fault(self, asked: str) -> DataError:
        """The error for a flow that does not run with what was asked."""
        error = DataError(
            f"the flow's own log_prob does not run on rows of shape {list(self.shape)} with {asked}: "
            f"{one_line(self.failure)}. "
            "Give --context and --event-shape as the flow has them"
        )
        error.__cause__ = self.failure
        return error

    def runs(self, width: int) -> bool:
        """Whether log_prob gives one number a row, and the steps keep the number of columns."""
        rows = self._row_count(width)
        # a Bijection in float64 takes what the library takes, so that contexts which broadcast over columns show
        context = self._contexts(width, rows)[0] if width else None
        x = self._rows(rows, context)
        try:
            values = self.adapted.log_prob(x, context)
            if values.shape != (rows,):
                raise DataError(f"log_prob has the shape {list(values.shape)} for {rows} rows")
            if width:
                self._check_columns(x, context)
        except Exception as error:  # whatever a library raises for another width than its own; the first is told
            self.failure = self.failure or error
            return False
        return True

    def said(self, width: int) -> _Said | None:
        """The width that a layer which is handed the context itself says, with a context of a width that runs."""
        rows = self._row_count(width)
        if not width:
            return None
        # no ones or zeros: a layer that is handed these values is handed the context
        context = self._contexts(width, rows)[1]
        with _receivers(self.exact, context) as receivers:
            self._try(self._rows(rows, context), context)
        found = {}
        for name, layer in receivers.items():
            columns = _columns_of(layer, width)
            if columns is not None:
                found[columns] = _Said(columns, f"{type(layer).__name__}{f' {name!r}' if name else ''} takes so many")
            if (standards := _standards(layer)) is not None:
                self.standards = standards
        return next(iter(found.values())) if len(found) == 1 else None

    def depends(self, width: int) -> bool:
        """Whether log_prob of a row depends on each column of its own context, and on no other row's."""
        return not self._leak(width) and not self.without_effect(width)

    def without_effect(self, width: int) -> list[int]:
        """The columns of the context that log_prob was not seen to depend on."""
        dead = []
        for start in range(0, width, _TOGETHER):
            left = list(range(start, min(start + _TOGETHER, width)))
            for base, step in product(self._contexts(width, 1), _STEPS):
                moved = base.repeat(len(left) + 1, 1)
                moved[range(1, len(moved)), left] += step * self._unit(left)
                values = self._try(self._rows(1, base).expand(len(moved), *self.shape).clone(), moved)
                if values is not None:
                    changes = _differs(values[1:], values[0])
                    left = [column for column, changed in zip(left, changes, strict=True) if not changed]
                if not left:
                    break
            dead += left
        return dead

    def _unit(self, columns: list[int]) -> Tensor:
        """What the context's columns are measured in: the deviations of a standardizing layer, or one."""
        deviation = self.standards[1] if self.standards is not None else torch.ones(1)
        return deviation[columns] if deviation.numel() > max(columns) else deviation[:1]

    def refuse_leak(self, width: int) -> None:
        """Refuse a flow in which the context of one row changes log_prob of another.

        Raises:
            Unsupported: it does.
        """
        if width and self._leak(width):
            raise Unsupported(
                f"the context of one row changes log_prob of another: with {width} columns of context the "
                f"{self.adapted.library} flow broadcasts its contexts over the rows, or takes one for all of them. "
                "Take the context row by row, [N, C] beside x [N, D]"
            )

    def _leak(self, width: int) -> bool:
        rows = self._row_count(width)
        for context in self._contexts(width, rows)[1:]:
            x = self._rows(rows, context)
            before = self._try(x, context)
            if before is None:
                continue
            for row in (0, rows - 1):
                moved = context.clone()
                moved[row] += 1.0
                after = self._try(x, moved)
                others = [other for other in range(rows) if other != row]
                if after is not None and any(_differs(after[others], before[others])):
                    return True
            return False
        return False

    def _try(self, x: Tensor, context: Tensor) -> Tensor | None:
        """Log_prob; None where it does not run on these values."""
        try:
            return self.adapted.log_prob(x, context)
        except Exception:  # whatever a library, or a user's embedding, raises for a context that it does not take
            return None

    def _check_columns(self, x: Tensor, context: Tensor | None) -> None:
        value: Tensor = x.movedim(3, 1).contiguous() if self._channels_first() else x
        context = self._embedded(context)
        for step in self.adapted.steps:
            value = step(value, context)[0]
        for step in self.adapted.base_steps:
            value = step(value.flatten(1), context)[0]
        if value.numel() != x.numel():
            raise DataError(f"the flow makes {value[0].numel()} numbers of a row of {math.prod(self.shape)}")

    def _channels_first(self) -> bool:
        return len(self.shape) == 3 and self.adapted.channels_first

    def _row_count(self, width: int) -> int:
        """A number of rows that is no other size of the flow: a context that broadcasts over rows does not pass."""
        others = {width, *self.shape, math.prod(self.shape), 2 * width}
        return next(count for count in (3, 5, 7, 11, 13, 17, 19, 23) if count not in others)

    def _embedded(self, context: Tensor | None) -> Tensor | None:
        """The context as the steps take it."""
        if context is None or self.adapted.embedding is None:
            return context
        embedded: Tensor = self.adapted.embedding(context)[0]
        return embedded

    def _rows(self, count: int, context: Tensor | None) -> Tensor:
        """Rows ``[count, *shape]`` around the middle of the box of the data; around 0.5 where there is none."""
        steps = torch.linspace(-0.2, 0.2, count * math.prod(self.shape)) if count > 1 else torch.zeros(1)
        shares = 0.5 + steps.expand(count * math.prod(self.shape)).reshape(count, *self.shape)
        try:
            given = self._embedded(context)
        except Exception:  # whatever a user's embedding raises for a width that is not its own: log_prob will tell it
            return shares
        if not self._channels_first():
            return place_rows(self.adapted.steps, self.adapted.base, shares, given)
        rows = place_rows(self.adapted.steps, self.adapted.base, shares.movedim(3, 1).contiguous(), given)
        return rows.movedim(1, 3).contiguous()

    def _contexts(self, width: int, count: int) -> list[Tensor]:
        """Contexts ``[count, width]`` to start from: an embedding may not take all of them."""
        normal = torch.randn(count, width, generator=torch.Generator().manual_seed(width))
        contexts = [torch.ones(count, width), normal, torch.zeros(count, width), normal.abs() + 0.1]
        if self.standards is None or {len(part) for part in self.standards} - {1, width}:
            return contexts
        mean, deviation = self.standards
        return [mean + deviation * context for context in contexts]


def _differs(values: Tensor, other: Tensor) -> list[bool]:
    near = torch.isclose(values, other.expand_as(values), rtol=_NEAR, atol=_NEAR, equal_nan=True)
    return [not bool(value) for value in near]


@contextmanager
def _receivers(module: nn.Module, context: Tensor) -> Iterator[dict[str, nn.Module]]:
    """The modules without parts of their own that are handed a tensor of just these values, by name."""
    found: dict[str, nn.Module] = {}

    def watch(name: str) -> Any:  # noqa: ANN401  a hook
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            handed = [*args, *named.values()]
            tensor = handed[0] if len(handed) == 1 else None
            if isinstance(tensor, Tensor) and tensor.shape == context.shape and bool((tensor == context).all()):
                found[name] = layer

        return hook

    hooks = [
        layer.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, layer in module.named_modules()
        if not list(layer.children())
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _columns_of(layer: nn.Module, width: int) -> int | None:
    """The number of columns that a layer says it takes; None where it takes any."""
    columns = getattr(layer, "in_features", None)
    if isinstance(columns, int) and columns == width:
        return columns
    standards = _standards(layer)
    columns = max((part.numel() for part in standards or ()), default=1)
    return columns if columns > 1 else None


def standardizes(layer: nn.Module) -> bool:
    """Whether a layer computes (x - mean) / std by two tensors that it holds."""
    return _standards(layer) is not None


def _standards(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Mean and std, flat, of a layer that computes (context - mean) / std by two tensors that it holds."""
    tensors = {name.lower(): value.detach().to(torch.float64) for name, value in _own_tensors(layer).items()}
    means = [value for name, value in tensors.items() if any(word in name for word in _MEANS)]
    deviations = [value for name, value in tensors.items() if any(word in name for word in _DEVIATIONS)]
    if len(means) != 1 or len(deviations) != 1 or len(tensors) != 2:
        return None
    mean, deviation = means[0].flatten(), deviations[0].flatten()
    columns = max(mean.numel(), deviation.numel())
    if {mean.numel(), deviation.numel()} - {1, columns}:
        return None
    values = torch.randn(5, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        scaled = layer(values)
    except Exception:  # any layer with two such tensors is called: what fails on a plain table does not standardize it
        return None
    same = isinstance(scaled, Tensor) and scaled.shape == values.shape
    return (mean, deviation) if same and torch.allclose(scaled, (values - mean) / deviation) else None


def _listed(widths: list[int]) -> str:
    words = ["no context" if width == 0 else str(width) for width in sorted(widths)]
    head = ", ".join(words[:-1])
    return f"{head} and {words[-1]} columns" if head else f"{words[-1]} column{'' if widths == [1] else 's'}"


def _counted(columns: int) -> str:
    return f"{columns} column{'' if columns == 1 else 's'}"


def _columns(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"column{'s' if len(numbers) > 1 else ''} {shown}"

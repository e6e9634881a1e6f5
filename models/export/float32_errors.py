"""The error of float32 itself: what torch's own float32, and the rounding of a row to it, do to a flow's answers.

A steep flow magnifies the last digit of a row. No graph in float32 can be nearer to the exact answer there than float32
lets it, and the gate must not ask it to be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.export.parts import answer_in_parts
from models.flows.flow import Flow
from service.bundle.bases import UniformBase
from service.bundle.parity import relative_errors

__all__ = [
    "Answer",
    "Float32",
    "Float32Errors",
    "Float64",
    "answer_forward",
    "answer_inverse",
    "answer_round_trip",
    "answer_trace",
]

_BESIDE: Final = 16
"""So many rows beside a row are looked at, one to eight steps of float32 away: up or down in all columns, or by random
signs."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Rows = Sequence[int] | npt.NDArray[np.intp]

Answer = Callable[[Flow, Tensor, Tensor | None], dict[str, Tensor]]
"""One direction of a flow: rows and their context -> quantities by name, ``[N, ...]`` each."""


def answer_forward(flow: Flow, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """From x to z; the density without regard to the support, whose ends float32 tells apart by itself."""
    z, ladj = flow(x, context)
    return {"value": z, "log_abs_det_jacobian": ladj, "log_prob": flow.base_log_prob(z) + ladj}


def answer_inverse(flow: Flow, z: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """From z to x."""
    x, ladj, log_prob = flow.inverse_log_prob(z, context)
    return {"value": x, "log_abs_det_jacobian": ladj, "log_prob": log_prob}


def answer_round_trip(flow: Flow, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """From x to z and back."""
    return {"value": flow.inverse(flow(x, context)[0], context)[0]}


def answer_trace(flow: Flow, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """The event after each step, flat, and each step's log-determinant; their sum, and the density."""
    values, terms = flow.trace(x, context)
    ladj = torch.stack(terms, dim=1)
    total = ladj.sum(dim=1)
    log_prob = flow.base_log_prob(values[-1]) + total
    flat = torch.stack([value.flatten(1) for value in values], dim=1)
    return {"value": flat, "log_abs_det_jacobian": ladj, "sum": total, "log_prob": log_prob}


class Float32Errors:
    """The errors of torch's own float32 in one direction of a flow, row by row, where they are asked for.

    A row r stands for every number that rounds to it. Its error is the greatest of |f32(r) - f(r)|, of
    |f32(r) - f(r')| with r' half a step of float32 beside r, and of |f32(s) - f(s)| with s a float32 beside r: one row
    alone may be right by luck. f is the flow in float64 and f32 the same in float32, both by torch.

    Args:
        exact: f.
        answer: the direction.
        rows: float32 ``[N, ...]``. Rows in float64 have no error of float32: nothing is excused for them.
        context: ``[N, C]`` of the same precision, or None.
        seed: of the random signs.
    """

    def __init__(
        self, exact: Flow, answer: Answer, rows: Float32, context: Float32 | None = None, *, seed: int = 0
    ) -> None:
        self._exact, self._answer = exact, answer
        self._rows, self._context = rows, context
        self._seed = seed
        self._single: Flow | None = None
        self._pairs: dict[int, Mapping[str, tuple[Float64, Float64]]] = {}

    def __call__(self, quantity: str, rows: Rows, unit: npt.ArrayLike = 1.0) -> Float64:
        """The errors of one quantity, relative to one plus its size.

        Args:
            quantity: its name, as the direction has it.
            rows: ``[M]``, their numbers.
            unit: what both values are divided by first; it broadcasts against ``[N, ...]``.

        Returns:
            ``[M]``. What torch cannot answer in float32 at all counts as no error: it excuses nothing.
        """
        if self._rows.dtype != np.float32:
            return np.zeros(len(rows))
        self._look_at(rows)
        return np.array([self._error(quantity, int(row), np.asarray(unit, np.float64)) for row in rows], np.float64)

    def at_an_edge(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows float32 cannot tell to lie inside or outside the box of a uniform base.

        Args:
            rows: ``[M]``, their numbers.

        Returns:
            ``[M]``; false for a row outside the support, whose density is zero wherever its latent lies.
        """
        if not isinstance(self._exact.base, UniformBase) or self._rows.dtype != np.float32:
            return np.zeros(len(rows), np.bool_)
        self._look_at(rows)
        inside = self._exact.in_support(torch.from_numpy(self._rows[np.asarray(rows, np.intp)]).double())
        edges = [len({*np.isneginf(self._pairs[int(row)]["log_prob"]).ravel().tolist()}) > 1 for row in rows]
        return np.array(edges, np.bool_) & (True if inside is None else inside.numpy())

    def _error(self, quantity: str, row: int, unit: Float64) -> float:
        single, exact = self._pairs[row][quantity]
        unit = unit[row] if unit.ndim else unit
        errors = relative_errors(single / unit, exact / unit)
        return float(errors[np.isfinite(errors)].max(initial=0.0))

    def _look_at(self, rows: Rows) -> None:
        """Answer the rows that were not yet asked for, and those beside them, in both precisions."""
        new = np.array([int(row) for row in rows if int(row) not in self._pairs], np.intp)
        if not new.size:
            return
        if self._single is None:
            self._single = copy.deepcopy(self._exact).float()
        here, given = self._rows[new], None if self._context is None else self._context[new]
        pairs = [(self._run(self._single, here, given), self._run(self._exact, here, given))]
        for number in range(_BESIDE):
            beside, half = self._step(here, self._rows, number)
            beside_given, half_given = None, None
            if given is not None and self._context is not None:
                beside_given, half_given = self._step(given, self._context, number)
            pairs.append((pairs[0][0], self._run(self._exact, half, half_given)))
            pairs.append((self._run(self._single, beside, beside_given), self._run(self._exact, beside, beside_given)))
        for position, row in enumerate(new.tolist()):
            self._pairs[row] = {
                name: (
                    np.stack([single[name][position] for single, _ in pairs]),
                    np.stack([exact[name][position] for _, exact in pairs]),
                )
                for name in pairs[0][0]
            }

    def _step(self, rows: Float32, every: Float32, number: int) -> tuple[Float32, Float64]:
        """A float32 beside each value, up or down by the signs of that number, and half a step of float32 that way.

        Both stay between the least and the greatest value of each column of `every`: a library may fail outside.
        """
        signs = np.full(rows.shape[1:], -1.0 if number % 2 else 1.0)
        if number > 1:
            signs = np.random.default_rng((self._seed, number)).choice((-1.0, 1.0), rows.shape[1:])
        towards = (signs * np.inf).astype(np.float32)
        low, high = every.min(axis=0), every.max(axis=0)
        following = np.clip(np.nextafter(rows, towards), low, high)
        beside = following
        for _ in range(number // 2):
            beside = np.nextafter(beside, towards)
        return np.clip(beside, low, high), (rows.astype(np.float64) + following.astype(np.float64)) / 2

    def _run(self, flow: Flow, rows: Float32 | Float64, context: Float32 | Float64 | None) -> dict[str, Float64]:
        dtype = torch.float32 if flow is self._single else torch.float64
        given = None if context is None else torch.from_numpy(np.ascontiguousarray(context)).to(dtype)
        names: tuple[str, ...] = ()

        def answer(rows: Tensor, given: Tensor | None) -> tuple[Tensor, ...]:
            nonlocal names
            answers = self._answer(flow, rows, given)
            names = tuple(answers)
            return tuple(answers.values())

        values = answer_in_parts(answer, torch.from_numpy(np.ascontiguousarray(rows)).to(dtype), given)
        return {name: value.double().numpy() for name, value in zip(names, values, strict=True)}

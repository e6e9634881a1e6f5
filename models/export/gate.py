"""The parity gate: what an exported graph must show before a bundle of it is written.

A graph can be wrong while its export succeeds: a batch size frozen into it, a log-determinant with the wrong sign, an
inverse that is not the inverse, NaN far from the data. The gate looks for each of them, in float64 where there is a
choice, and one finding stops the export.

A graph in float32 is not asked for more than float32 can give. At a row where torch's own float32 is off by more than
half of a bound, the graph may be off by `OWN_ERRORS` times as much.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.export.exported_graph import ExportedGraph, GraphOutputs
from models.export.float32_errors import Float32Errors, answer_forward, answer_inverse, answer_round_trip
from models.export.parts import answer_in_parts
from models.export.probes import Probes
from models.flows.bases import sample_base
from models.flows.flow import Flow
from service.bundle.manifest import Parity
from service.bundle.parity import (
    ROUND_TRIP_TOLERANCE,
    TOLERANCE,
    log_det_unit,
    relative_error,
    relative_errors,
    row_errors,
)
from service.errors import ParityFailed

__all__ = [
    "BATCHES",
    "LATENT_TOLERANCE",
    "RowFails",
    "check_flow",
    "check_graphs",
    "compare",
    "draw_latents",
    "reference",
]

BATCHES: Final = (1, 7, 1000)
"""The batch sizes that every probe goes through the graphs in."""
LATENT_TOLERANCE: Final = 1e-3
"""The bound on the error of z and of x, relative to the greatest coordinate of the row: far outside the data a small
coordinate may be what is left of large ones, and its last digits say nothing."""
OWN_ERRORS: Final = 2.0
"""How many times torch's own error in float32 the error of a graph may be."""
_EXACT: Final = 1e-6
"""What float64 must reach against itself: the inverse of the inverse, and the Jacobian by differentiation."""
_JACOBIAN_ROWS, _JACOBIAN_WIDTH = 4, 1024  # the determinant of a wider Jacobian costs minutes
_LINES: Final = 32
"""So many lines of a Jacobian are computed at once."""

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


class RowFails(ParityFailed):
    """An answer that is off at one row.

    Args:
        detail: the quantity, the row and both values.
        row: the number of the probe, or of the draw from the base.
        drawn: whether it is a draw from the base.
        own: whether torch's own float32 is off by more than the bound there.
    """

    def __init__(self, detail: str, *, row: int, drawn: bool, own: bool) -> None:
        super().__init__(detail)
        self.row, self.drawn, self.own = row, drawn, own


def reference(flow: Flow) -> Flow:
    """The same flow in float64, in evaluation mode, its base frozen: what the graphs are held against."""
    exact = copy.deepcopy(flow).cpu().double().eval().freeze_base()
    return exact.requires_grad_(requires_grad=False)


def check_flow(exact: Flow, probes: Probes, seed: int = 0) -> None:
    """Hold the float64 flow against itself, before anything is compared with it.

    On every probe z and the log-determinant are finite and log_prob is neither NaN nor +inf; on held-out rows the
    inverse undoes the flow, its log-determinant is minus the forward one, its log_prob is that of x, and on a few of
    them the log-determinant is that of the Jacobian by differentiation.

    Args:
        exact: from `reference`.
        probes: the rows.
        seed: which held-out rows are differentiated.

    Raises:
        ParityFailed: naming the quantity, the row and both values.
    """
    context = _tensor(probes.context)
    z, ladj, log_prob = _forward(exact, _exactly(probes.x), context)
    for name, values in (("z", z), ("log_abs_det_jacobian", ladj), ("log_prob", log_prob)):
        allowed = values == -np.inf if name == "log_prob" else np.zeros(values.shape, bool)
        bad = ~(np.isfinite(values) | allowed).reshape(values.shape[0], -1).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            raise RowFails(
                f"the flow's {name} is not finite in float64 for {probes.describe(row)}",
                row=row,
                drawn=False,
                own=False,
            )
    held_out = probes.held_out
    x = _exactly(probes.x[held_out])
    context = _tensor(None if probes.context is None else probes.context[held_out])
    back, inverse_ladj, inverse_log_prob = answer_in_parts(
        exact.inverse_log_prob, torch.from_numpy(z[held_out]), context
    )
    for what, actual, expected in (
        ("x after f and its inverse", back.numpy(), exact.nearest(x).numpy()),
        ("log_abs_det_jacobian of the inverse, negated,", -inverse_ladj.numpy(), ladj[held_out]),
        ("log_prob of the inverse", inverse_log_prob.numpy(), log_prob[held_out]),
    ):
        compare(actual, expected, what=what, where="in float64", bound=_EXACT, probes=probes)
    _check_jacobian(exact, x, context, ladj=ladj[held_out], probes=probes, seed=seed)


def check_graphs(exact: Flow, forward: ExportedGraph, inverse: ExportedGraph, probes: Probes, seed: int = 0) -> Parity:
    """Hold both graphs against the float64 flow, in every batch size of `BATCHES`.

    Args:
        exact: from `reference`.
        forward: x -> z.
        inverse: z -> x; tried on as many draws from the base as there are probes, and on their near outside.
        probes: the rows.
        seed: of those draws.

    Returns:
        The greatest errors, for the manifest.

    Raises:
        ParityFailed: naming the quantity, the batch size, the row and both values.
    """
    worst = dict.fromkeys(("log_prob", "log_abs_det_jacobian", "z", "x"), 0.0)
    expected = GraphOutputs(*_forward(exact, _exactly(probes.x), _tensor(probes.context)))
    z = draw_latents(exact, probes.x.shape[0], seed)
    generated = answer_in_parts(exact.inverse_log_prob, _exactly(z), _tensor(probes.context))
    inverted = GraphOutputs(*(part.numpy() for part in generated))
    errors_of_x = Float32Errors(exact, answer_forward, probes.x, probes.context)
    errors_of_z = Float32Errors(exact, answer_inverse, z, probes.context)
    held_out = probes.held_out
    off = np.zeros(held_out.stop)
    for batch in BATCHES:
        for graph, rows, answers, own in (
            (forward, probes.x, expected, errors_of_x),
            (inverse, z, inverted, errors_of_z),
        ):
            actual = graph(rows, probes.context, batch)
            check = partial(
                compare,
                where=f"of {graph.direction}.onnx in batches of {batch}",
                probes=probes if graph is forward else None,
                own=own,
            )
            size = 1.0 + np.abs(answers.value).reshape(rows.shape[0], -1).max(axis=1)
            size = size.reshape(-1, *(1 for _ in answers.value.shape[1:]))
            check(actual.value, answers.value, what=graph.output, quantity="value", bound=LATENT_TOLERANCE, unit=size)
            worst[graph.output] = max(worst[graph.output], relative_error(actual.value, answers.value))
            ladj_unit = log_det_unit(answers.log_prob, exact.width)
            for name, unit in (("log_abs_det_jacobian", ladj_unit), ("log_prob", 1.0)):
                edge = own.at_an_edge if (name, graph) == ("log_prob", forward) else None
                error = check(
                    getattr(actual, name), getattr(answers, name), what=name, bound=TOLERANCE, unit=unit, edge=edge
                )
                worst[name] = max(worst[name], error)
            if graph is forward:
                off = np.maximum(off, row_errors(actual.log_prob, answers.log_prob)[held_out])
    context = None if probes.context is None else probes.context[held_out]
    latent = forward(probes.x[held_out], context, BATCHES[-1]).value.astype(probes.x.dtype)
    back = inverse(latent, context, BATCHES[-1])
    round_trip = compare(
        back.value,
        probes.x[held_out].astype(np.float64),
        what="x",
        where="after forward.onnx and inverse.onnx",
        bound=ROUND_TRIP_TOLERANCE,
        probes=probes,
        quantity="value",
        own=Float32Errors(exact, answer_round_trip, probes.x[held_out], context),
    )
    lost = int((row_errors(back.value, probes.x[held_out].astype(np.float64)) > ROUND_TRIP_TOLERANCE).sum())
    beyond = np.flatnonzero(off > TOLERANCE)
    edges = errors_of_x.at_an_edge(beyond)
    beyond = beyond[~edges]
    torch_error = float(errors_of_x("log_prob", beyond).max()) if beyond.size else None
    return Parity(
        tolerance=TOLERANCE,
        batches=list(BATCHES),
        log_prob=worst["log_prob"],
        log_abs_det_jacobian=worst["log_abs_det_jacobian"],
        z=worst["z"],
        x=worst["x"],
        round_trip=round_trip,
        rows=held_out.stop,
        rows_beyond=len(beyond),
        log_prob_beyond=float(off[beyond].max()) if beyond.size else None,
        rows_left_out=int(edges.sum()),
        torch_log_prob=torch_error,
        warning=_warning(off, beyond, int(edges.sum()), torch_error, round_trips=lost, round_trip=round_trip),
    )


def _warning(
    off: Float64,
    beyond: npt.NDArray[np.intp],
    edges: int,
    torch_error: float | None,
    *,
    round_trips: int,
    round_trip: float,
) -> str | None:
    """What is to be told of held-out rows that float32 answers worse than the tolerance.

    Args:
        off: the error of log_prob of each held-out row.
        beyond: those over the tolerance.
        edges: how many lie at an edge of the base's box.
        torch_error: torch's own greatest error over `beyond`.
        round_trips: how many held-out rows do not come back from their latents.
        round_trip: the greatest error of those that were tried.
    """
    said = []
    if round_trips:
        said.append(
            f"{round_trips} of {len(off)} held-out rows tried do not come back from their latents: a value is off by "
            f"{round_trip:.1e} of 1 + abs(value) at worst, since float32 keeps 7 digits of the largest values of its "
            "column"
        )
    if beyond.size:
        said.append(
            f"{beyond.size} of {len(off)} held-out rows tried ({beyond.size / len(off):.1%}) have a log_prob that "
            f"float32 gives to {float(off[beyond].max()):.1e} of 1 + abs(log_prob) at worst, and not to {TOLERANCE:g}; "
            f"torch's own float32 is off by {torch_error or 0.0:.1e} there"
        )
    if edges:
        said.append(
            f"{edges} of {len(off)} held-out rows tried lie so near an edge of the base's box that float32 cannot tell "
            "on which side, and are left out"
        )
    return "; ".join(said) + ". --precision float64 computes in double" if said else None


def _forward(exact: Flow, x: Tensor, context: Tensor | None) -> tuple[Float64, Float64, Float64]:
    def answer(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        z, ladj = exact(x, context)
        return z, ladj, exact.masked(x, exact.base_log_prob(z) + ladj)

    z, ladj, log_prob = answer_in_parts(answer, x, context)
    return z.numpy(), ladj.numpy(), log_prob.numpy()


def draw_latents(exact: Flow, rows: int, seed: int = 0) -> Floats:
    """Draws from the base ``[rows, D]``; some of them stretched, as `temperature` does, and beyond a box."""
    draws = sample_base(exact.base, rows, exact.width, torch.Generator().manual_seed(seed), exact.dtype)
    draws[: rows // 8] *= 1.5
    return draws.numpy()


def _check_jacobian(
    exact: Flow, x: Tensor, context: Tensor | None, *, ladj: Float64, probes: Probes, seed: int
) -> None:
    if exact.width > _JACOBIAN_WIDTH:
        return
    rows = 1 if exact.width > _JACOBIAN_WIDTH // 8 else min(_JACOBIAN_ROWS, x.shape[0])
    chosen = np.random.default_rng(seed).choice(x.shape[0], rows, replace=False)
    by_differentiation = np.empty(rows)
    x = exact.nearest(x)
    tangents = exact.tangents()
    for position, row in enumerate(chosen):
        given = None if context is None else context[row : row + 1]
        jacobian = _jacobian(exact, x[row], given)
        square = jacobian if tangents is None else jacobian @ tangents
        by_differentiation[position] = torch.linalg.slogdet(square)[1]
    what = "log_abs_det_jacobian, against the Jacobian by differentiation,"
    expected = ladj.copy()
    expected[chosen] = by_differentiation
    compare(ladj, expected, what=what, where="in float64", bound=_EXACT, probes=probes)


def _jacobian(exact: Flow, event: Tensor, given: Tensor | None) -> Tensor:
    """dz/dx ``[D, E]`` at one event of E values, by differentiation: each row of a batch of that event gives a line.

    Args:
        exact: from `reference`.
        event: ``[*event]``.
        given: ``[1, C]``, its context, or None.
    """
    lines = []
    for columns in torch.split(torch.arange(exact.width), _LINES):
        copies = event.expand(len(columns), *event.shape).clone().requires_grad_()
        z = exact(copies, None if given is None else given.expand(len(columns), -1))[0]
        (gradient,) = torch.autograd.grad(z.gather(1, columns[:, None]).sum(), copies)
        lines.append(gradient.flatten(1))
    return torch.cat(lines)


def compare(
    actual: Float64,
    expected: Float64,
    *,
    what: str,
    where: str,
    bound: float,
    probes: Probes | None,
    unit: Float64 | float = 1.0,
    quantity: str | None = None,
    own: Float32Errors | None = None,
    edge: Callable[[npt.NDArray[np.intp]], npt.NDArray[np.bool_]] | None = None,
) -> float:
    """Hold one quantity against what it should be.

    Args:
        actual: ``[N, ...]``.
        expected: of the same shape.
        what: the quantity, for an error.
        where: what ends its name there.
        bound: the greatest relative error that there may be, or `OWN_ERRORS` times torch's own where that is more.
        probes: the rows, in words; None where they are draws from the base.
        unit: what both are divided by first; it broadcasts against them.
        quantity: its name in `own`; None for `what`.
        own: what torch's own float32 is off by; None for nothing.
        edge: which rows, by their numbers, float32 cannot tell to have a density or none: they are left out where one
            side has none. None for no such row; else ``[N]`` values are compared.

    Returns:
        The greatest relative error of the rows that are not left out.

    Raises:
        RowFails: it is over the bound; the worst row is named, with both values.
        ParityFailed: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise ParityFailed(f"{what} {where} has shape {list(actual.shape)}; expected {list(expected.shape)}")
    errors = row_errors(actual / unit, expected / unit)
    if edge is not None:
        one_sided = np.isneginf(actual) != np.isneginf(expected)
        lost = np.flatnonzero(one_sided & ~np.isnan(actual) & ~np.isposinf(actual))
        errors[lost[edge(lost)]] = 0.0
    over = np.flatnonzero(errors > bound)
    over = over[np.argsort(-errors[over], kind="stable")]
    for rows in (over[:1], over[1:]):  # the worst alone first: of a wrong graph no other row need be looked at
        allowed = np.full(len(rows), bound)
        if own is not None and rows.size:
            allowed = np.maximum(allowed, OWN_ERRORS * own(quantity or what, rows, unit))
        failed = np.flatnonzero(errors[rows] > allowed)
        if failed.size:
            row, most = int(rows[failed[0]]), float(allowed[failed[0]])
            entries = relative_errors((actual / unit)[row], (expected / unit)[row]).ravel()
            column = int(np.argmax(entries))
            place = f"row {row} drawn from the base" if probes is None else probes.describe(row)
            place += f", column {column}" if len(entries) > 1 else ""
            found = f"{errors[row]:.2g}" if math.isfinite(errors[row]) else "without bound"
            of_torch = f": torch's own float32 is off by {most / OWN_ERRORS:.2g} there" if most > bound else ""
            raise RowFails(
                f"{what} {where} is {actual[row].ravel()[column]:.9g} for {place}; float64 gives "
                f"{expected[row].ravel()[column]:.9g}. The relative error is {found}, and may be {most:.3g}{of_torch}",
                row=row,
                drawn=probes is None,
                own=most > bound,
            )
    return float(errors.max(initial=0.0))


def _exactly(rows: Floats) -> Tensor:
    return torch.from_numpy(rows.astype(np.float64))


def _tensor(context: Floats | None) -> Tensor | None:
    return None if context is None else _exactly(context)

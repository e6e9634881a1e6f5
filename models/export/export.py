"""The export of a trained flow as a bundle: graphs, parity gate, calibration, golden rows, manifest.

Nothing is written before the gate has passed, and then the whole bundle or nothing.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.export.advice import PRECISION, advise
from models.export.exported_graph import ExportedGraph
from models.export.gate import BATCHES, RowFails, check_flow, check_graphs, draw_latents, reference
from models.export.graph import OPSET, export_forward_and_trace, export_graph
from models.export.invariance import check_invariance
from models.export.probes import OUTSIDE, Probes, make_probes, outside_support
from models.export.resolution import keep_resolvable
from models.export.trace import check_trace, trace_steps
from models.flows.bases import sample_base
from models.flows.constrained import Constrained
from models.flows.flow import Flow
from service.bundle.bases import UniformBase
from service.bundle.calibration import calibrate
from service.bundle.constraints import Constraint
from service.bundle.context_scale import ContextScale
from service.bundle.manifest import (
    MAX_TEXT,
    ContextFeature,
    Feature,
    Manifest,
    Parity,
    Provenance,
    Quantization,
    shorten_texts,
)
from service.bundle.parity import BATCH_MULTIPLE, TOLERANCE, golden_errors, traced_golden_errors
from service.bundle.precision import DTYPES, FloatType
from service.bundle.priors import Prior
from service.bundle.store import Golden, Repository
from service.bundle.variational import Variational
from service.errors import DataError, ParityFailed, Reason

__all__ = ["export_flow", "golden_rows", "without_edges"]

GOLDEN_ROWS: Final = 8
_CANDIDATES: Final = 512
"""Out of so many held-out rows golden ones are chosen, where the first choice has one that float32 cannot answer."""
_MARGIN: Final = 0.5
"""They are then to keep this share of a bound: on another processor the last digits differ."""
_LIBRARIES: Final = ("pushforward", "torch", "zuko", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")

Floats = npt.NDArray[np.floating[Any]]


def export_flow(
    flow: Flow,
    *,
    repository: Repository,
    name: str,
    held_out: Tensor | npt.ArrayLike,
    data: str,
    version: int | None = None,
    context: Tensor | npt.ArrayLike | None = None,
    description: str = "",
    features: Sequence[Feature] = (),
    context_features: Sequence[ContextFeature] = (),
    quantization: Quantization | None = None,
    gaussian_mean: float | None = None,
    prior: Prior | None = None,
    scale_contexts: bool = True,
    recipe: Mapping[str, Any] | None = None,
    seed: int | None = None,
    created: datetime | None = None,
    trace: bool = True,
    far_rows: Literal["all", "resolvable"] = "all",
    variational: Variational | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Export a flow, hold the graphs against it in float64, and install the bundle.

    Args:
        flow: a trained flow; a copy of it is exported, in its precision and in evaluation mode, a learnt base as the
            manifest states it.
        repository: where the bundle goes.
        name: what the flow is called there.
        held_out: ``[M, *event]``, M >= 2, rows that were not fitted to, in the units of the user; integers of
            quantized data as integers. They give the calibration, the golden rows and the gate's rows.
        data: what the flow was fitted to, in words.
        version: None for one more than the newest; if another export takes that meanwhile, for the one after it.
        context: ``[M, C]``, the context of those rows.
        description: one or two sentences, to be read in a list of flows.
        features: one for each column of a table, or none.
        context_features: one for each column of the context, or none.
        quantization: for integer-valued data.
        gaussian_mean: the mean log_prob of `held_out` under a Gaussian fitted to the training rows, in nats; given
            their context, where there is one.
        prior: outside of which what the flow stands for has no mass; None for none.
        scale_contexts: whether the contexts given are those that the flow was made for, so that others can be told from
            them.
        recipe: what it was fitted by, as plain JSON values.
        seed: of the fit.
        created: the moment of export; None for now.
        trace: whether the bundle holds trace.onnx, which shows the event after each step; it holds the weights again.
        far_rows: which rows far outside the data the gate tries: "resolvable" leaves out those that torch itself
            cannot answer in the flow's precision, as there are in flows whose scales have no bound.
        variational: the evidence for a flow that was fitted to a density.
        progress: called with a few words before each step that takes seconds.

    Returns:
        The folder of the bundle.

    Raises:
        ParityFailed: where the graphs are not the flow, or the flow is not one; nothing is written.
        ForbiddenGraph: where the flow needs an operator that a bundle may not hold.
        DataError: where `held_out` or `context` has another shape than the flow's, is not finite, or lies outside
            the support; where `version` is there already; or where the description is too long.
    """
    say = progress or (lambda _: None)
    if len(description) > MAX_TEXT:
        raise DataError(f"the description has {len(description)} characters; at most {MAX_TEXT} fit into a manifest")
    dtype = DTYPES[flow.precision]
    rows = _as_floats(held_out, flow.event_shape, name="held_out", rows=None, dtype=dtype)
    given = None
    if context is not None:
        given = _as_floats(context, (flow.context_width,), name="context", rows=rows.shape[0], dtype=dtype)
    if (given is None) != (flow.context_width == 0):
        raise DataError(f"the flow takes {flow.context_width} columns of context; held_out came with another number")
    _check_inside(flow, rows)
    names = flow.steps
    flow = copy.deepcopy(flow).cpu().to(flow.dtype).eval().requires_grad_(requires_grad=False).freeze_base().fold()
    exact = reference(flow)
    probes = make_probes(rows, given, flow.support, edges=far_rows == "all")
    if far_rows == "resolvable":
        probes = keep_resolvable(flow, exact, probes)
    try:
        passed = _pass_gate(flow, exact, probes, trace=trace, say=say)
    except RowFails as failed:
        x, borrowed = _row_of(failed, exact, probes)
        far = far_rows == "all" and not failed.drawn and failed.row >= probes.held_out.stop
        advice = advise(failed, exact, x, borrowed, columns=[feature.name for feature in features], far=far)
        raise ParityFailed(f"{failed.detail}. {advice}") from failed
    log_prob = passed.forward(rows, given, BATCHES[-1]).log_prob
    with_outside = flow.support is not None and (far_rows == "all" or OUTSIDE in probes.labels)
    golden = golden_rows(exact, rows, given, log_prob, passed.keeps, outside=with_outside)
    manifest = Manifest(
        name=name,
        version=version or repository.next_version(name),
        description=description,
        event_shape=list(flow.event_shape),
        latent_width=flow.width,
        context_width=flow.context_width,
        features=list(features),
        context_features=list(context_features),
        base=flow.base,
        support=flow.support,
        constraints=_constraints(flow),
        quantization=quantization,
        inverse="numeric" if flow.numeric_inverse else "closed form",
        opset=OPSET,
        precision=flow.precision,
        files={},
        trace=trace_steps(flow, names) if trace else [],
        calibration=calibrate(without_edges(exact, rows, given, log_prob).astype(dtype), gaussian_mean),
        parity=passed.parity,
        provenance=Provenance(
            data=shorten_texts(data),
            recipe=shorten_texts(dict(recipe or {})),
            seed=seed,
            libraries=_versions(),
            created=(created or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        ),
        prior=prior,
        variational=variational,
        context_scale=ContextScale.of(given) if given is not None and scale_contexts else None,
    )
    whole = {**passed.files, "golden.npz": golden.to_npz()}
    return repository.install_next(manifest, whole, pinned=version is not None)


def _constraints(flow: Flow) -> list[Constraint]:
    """The constraints of a flow's first step, where its support does not say all of them."""
    first = flow.bijections[0]
    return first.stated() if isinstance(first, Constrained) and flow.support is None else []


@dataclass(frozen=True, slots=True, eq=False)
class _Passed:
    """Graphs that have passed the gate.

    Args:
        files: the files of the graphs, by name.
        forward: x -> z.
        inverse: z -> x.
        trace: x -> the event after each step; None where there is none.
        parity: the errors that were measured.
    """

    files: Mapping[str, bytes]
    forward: ExportedGraph
    inverse: ExportedGraph
    trace: ExportedGraph | None
    parity: Parity

    def keeps(self, golden: Golden) -> npt.NDArray[np.float64]:
        """How much of the server's bounds the graphs need for each golden row: ``[G]``, at most 1 where kept."""
        batch = len(golden.x) + -len(golden.x) % BATCH_MULTIPLE
        forward = self.forward(golden.x, golden.context, batch)
        inverse = self.inverse(golden.latents(), golden.context, batch)
        found = golden_errors(golden, forward, inverse)
        if self.trace is not None:
            found += traced_golden_errors(golden, self.trace(golden.x, golden.context, batch))
        return np.asarray(np.max([each.errors / each.tolerance for each in found], axis=0), np.float64)


def _pass_gate(flow: Flow, exact: Flow, probes: Probes, *, trace: bool, say: Callable[[str], None]) -> _Passed:
    """Export the graphs of a flow, and hold them against it.

    Args:
        flow: folded, in float32 and evaluation mode.
        exact: the same in float64.
        probes: the rows to try.
        trace: whether there is to be a trace.
        say: called before each step.

    Returns:
        The graphs.

    Raises:
        ParityFailed: as `export_flow`.
        ForbiddenGraph: as `export_flow`.
    """
    check_flow(exact, probes)
    files = {}
    say("exporting forward.onnx")
    if trace:
        files["forward.onnx"], files["trace.onnx"] = export_forward_and_trace(flow, flow.dtype)
    else:
        files["forward.onnx"] = export_graph(flow, "forward", flow.dtype)
    say("exporting inverse.onnx")
    files["inverse.onnx"] = export_graph(flow, "inverse", flow.dtype)
    say("comparing the graphs with the flow in float64")
    forward = ExportedGraph(files["forward.onnx"], "forward", flow.precision)
    inverse = ExportedGraph(files["inverse.onnx"], "inverse", flow.precision)
    parity = check_graphs(exact, forward, inverse, probes)
    check_invariance(forward, probes.x, probes.context)
    generator = torch.Generator().manual_seed(0)
    latents = sample_base(flow.base, probes.x.shape[0], flow.width, generator, flow.dtype).numpy()
    check_invariance(inverse, latents, probes.context)
    traced = None
    if trace:
        say("comparing trace.onnx with the flow in float64")
        traced = ExportedGraph(files["trace.onnx"], "trace", flow.precision)
        check_trace(exact, traced, probes)
    parity = parity.model_copy(update={"batch_multiple": BATCH_MULTIPLE})
    return _Passed(files=files, forward=forward, inverse=inverse, trace=traced, parity=parity)


def _row_of(failed: RowFails, exact: Flow, probes: Probes) -> tuple[Floats, Floats | None]:
    """The row that the gate refused, ``[1, *event]``, and its context; for a draw from the base, what it generates."""
    at = slice(failed.row, failed.row + 1)
    context = None if probes.context is None else probes.context[at]
    if not failed.drawn:
        return probes.x[at], context
    z = torch.from_numpy(draw_latents(exact, probes.x.shape[0])[at]).double()
    with torch.no_grad():
        x = exact.inverse(z, None if context is None else torch.from_numpy(context).double())[0]
    return x.float().numpy(), context


def without_edges(
    exact: Flow, rows: Floats, context: Floats | None, log_prob: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """log_prob of the held-out rows, without those at the edge of a uniform base's box.

    Args:
        exact: the flow in float64.
        rows: the held-out rows.
        context: theirs.
        log_prob: what the graph gives for them, ``[M]``.

    Raises:
        DataError: a row has no density, in float64 either, or fewer than two are left.
    """
    lost = np.flatnonzero(~np.isfinite(log_prob))
    if not lost.size:
        return log_prob
    x = torch.from_numpy(rows[lost]).double()
    with torch.no_grad():
        answers = exact.log_prob(x, None if context is None else torch.from_numpy(context[lost]).double()).numpy()
    outside = lost[~np.isfinite(answers)]
    if outside.size or not isinstance(exact.base, UniformBase) or len(log_prob) - len(lost) < 2:
        bad = outside if outside.size else lost
        raise DataError(
            f"{len(bad)} of {len(log_prob)} held-out rows have no density under the flow: leave them out",
            tuple(Reason(("held_out",), "its log_prob is not finite", int(row)) for row in bad),
        )
    return log_prob[np.isfinite(log_prob)]


def golden_rows(
    exact: Flow,
    held_out: Floats,
    context: Floats | None,
    log_prob: npt.NDArray[np.float64],
    keeps: Callable[[Golden], npt.NDArray[np.float64]] | None = None,
    *,
    outside: bool = False,
) -> Golden:
    """Choose golden rows, evenly over the quantiles of log_prob, and answer them in float64.

    Where one of them is off by more than the server allows when it loads a bundle, all are chosen among those that are
    not.

    Args:
        exact: the flow in float64.
        held_out: ``[M, *event]``.
        context: ``[M, C]``, or None.
        log_prob: ``[M]``, to choose by.
        keeps: golden rows -> how much of the server's bounds the graphs need for each; None for none.
        outside: whether one more row is to lie outside the support, which has ends: its log_prob is -inf.

    Returns:
        At most `GOLDEN_ROWS` rows, and one outside.

    Raises:
        ParityFailed: too few rows keep the bounds.
    """
    order = np.argsort(log_prob, kind="stable")
    count = min(GOLDEN_ROWS, len(order))

    def answered(chosen: npt.NDArray[np.intp]) -> Golden:
        return _answered(exact, held_out, context, chosen, outside=outside)

    golden = answered(_spread(order, count))
    if keeps is None or (keeps(golden) <= 1.0).all():
        return golden
    candidates = _spread(order, min(_CANDIDATES, len(order)))
    needed = keeps(answered(candidates))[: len(candidates)]
    good = candidates[needed <= _MARGIN]
    if len(good) < count:
        good = candidates[needed <= 1.0]
    if len(good) < count:
        raise ParityFailed(
            f"float32 answers {len(good)} of {len(candidates)} held-out rows within {TOLERANCE:g} of float64, and a "
            f"bundle needs {count} of them to be checked by: the flow is too steep for float32. Try {PRECISION}, a "
            "filter that leaves far rows out, or more noise in the fit"
        )
    return answered(_spread(good, count))


def _spread(order: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    return np.asarray(order[np.linspace(0, len(order) - 1, count).round().astype(int)], np.intp)


def _answered(
    exact: Flow, held_out: Floats, context: Floats | None, chosen: npt.NDArray[np.intp], *, outside: bool
) -> Golden:
    """The chosen rows and their answers in float64, and one outside of a bounded support behind them if asked for."""
    x = held_out[chosen]
    if outside and exact.support is not None:
        beyond = x[:1].copy()
        beyond.reshape(-1)[0] = outside_support(exact.support)
        x, chosen = np.concatenate((x, beyond)), np.append(chosen, chosen[0])
    given = None if context is None else context[chosen]
    rows = torch.from_numpy(x.astype(np.float64))
    with torch.no_grad():
        z, ladj = exact(rows, None if given is None else torch.from_numpy(given.astype(np.float64)))
        answers = exact.masked(rows, exact.base_log_prob(z) + ladj)
    return Golden(
        x=x,
        z=z.numpy(),
        log_abs_det_jacobian=ladj.numpy(),
        log_prob=answers.numpy(),
        context=given,
    )


def _as_floats(
    values: Tensor | npt.ArrayLike, shape: tuple[int, ...], *, name: str, rows: int | None, dtype: FloatType
) -> Floats:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.shape[1:] != shape or array.shape[0] < 2 or array.shape[0] != (rows or array.shape[0]):
        expected = f"[{rows or 'at least 2'}, {', '.join(map(str, shape))}]"
        raise DataError(f"{name} must have shape {expected}, and has {list(array.shape)}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype)
    flat = array.reshape(array.shape[0], -1)
    bad = np.argwhere(~np.isfinite(flat))
    if bad.size:
        where = tuple(Reason((name,), f"expected a finite {dtype}", int(row), int(column)) for row, column in bad[:20])
        raise DataError(f"{name} holds numbers that are not finite", where)
    return array


def _check_inside(flow: Flow, rows: Floats) -> None:
    inside = flow.in_support(torch.from_numpy(rows))
    if inside is not None and not inside.all():
        outside = torch.nonzero(~inside).flatten().tolist()
        raise DataError(
            f"{len(outside)} of {rows.shape[0]} held-out rows lie outside the flow's support",
            tuple(Reason(("held_out",), "expected a row inside the support", row) for row in outside[:20]),
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found

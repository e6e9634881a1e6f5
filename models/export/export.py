"""The export of a trained flow as a bundle: graphs, parity gate, calibration, golden rows, manifest.

Nothing is written before the gate has passed, and then the whole bundle or nothing.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.export.exported_graph import ExportedGraph
from models.export.gate import BATCHES, check_flow, check_graphs, reference
from models.export.graph import OPSET, export_forward_and_trace, export_graph
from models.export.invariance import check_invariance
from models.export.probes import make_probes, outside_support
from models.export.resolution import keep_resolvable
from models.export.trace import check_trace, trace_steps
from models.flows.bases import sample_base
from models.flows.flow import Flow
from service.bundle.calibration import calibrate
from service.bundle.manifest import ContextFeature, Feature, Manifest, Provenance, Quantization
from service.bundle.parity import BATCH_MULTIPLE
from service.bundle.store import Golden, Repository
from service.errors import DataError, Reason

__all__ = ["export_flow", "golden_rows"]

GOLDEN_ROWS: Final = 8
_LIBRARIES: Final = ("pushforward", "torch", "zuko", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")

Float32 = npt.NDArray[np.float32]


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
    recipe: Mapping[str, Any] | None = None,
    seed: int | None = None,
    created: datetime | None = None,
    trace: bool = True,
    far_rows: Literal["all", "resolvable"] = "all",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Export a flow, hold the graphs against it in float64, and install the bundle.

    Args:
        flow: a trained flow; a copy of it is exported, in float32 and evaluation mode, a learnt base as the manifest
            states it.
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
        recipe: what it was fitted by, as plain JSON values.
        seed: of the fit.
        created: the moment of export; None for now.
        trace: whether the bundle holds trace.onnx, which shows the event after each step; it holds the weights again.
        far_rows: which rows far outside the data the gate tries: "resolvable" leaves out those that torch itself
            cannot answer in float32, as there are in flows whose scales have no bound.
        progress: called with a few words before each step that takes seconds.

    Returns:
        The folder of the bundle.

    Raises:
        ParityFailed: where the graphs are not the flow, or the flow is not one; nothing is written.
        ForbiddenGraph: where the flow needs an operator that a bundle may not hold.
        DataError: where `held_out` or `context` has another shape than the flow's, is not finite, or lies outside
            the support; or where `version` is there already.
    """
    say = progress or (lambda _: None)
    rows = _as_float32(held_out, flow.event_shape, name="held_out", rows=None)
    given = None if context is None else _as_float32(context, (flow.context_width,), name="context", rows=rows.shape[0])
    if (given is None) != (flow.context_width == 0):
        raise DataError(f"the flow takes {flow.context_width} columns of context; held_out came with another number")
    _check_inside(flow, rows)
    names = flow.steps
    flow = copy.deepcopy(flow).cpu().float().eval().requires_grad_(requires_grad=False).freeze_base().fold()
    exact = reference(flow)
    probes = make_probes(rows, given, flow.support)
    if far_rows == "resolvable":
        probes = keep_resolvable(flow, exact, probes)
    check_flow(exact, probes)
    say("exporting forward.onnx")
    trace_graph = b""
    if trace:
        forward_graph, trace_graph = export_forward_and_trace(flow)
    else:
        forward_graph = export_graph(flow, "forward")
    say("exporting inverse.onnx")
    graphs = {"forward": forward_graph, "inverse": export_graph(flow, "inverse")}
    say("comparing the graphs with the flow in float64")
    forward, inverse = ExportedGraph(graphs["forward"], "forward"), ExportedGraph(graphs["inverse"], "inverse")
    parity = check_graphs(exact, forward, inverse, probes)
    check_invariance(forward, probes.x, probes.context)
    latents = sample_base(flow.base, probes.x.shape[0], flow.width, torch.Generator().manual_seed(0)).numpy()
    check_invariance(inverse, latents, probes.context)
    parity = parity.model_copy(update={"batch_multiple": BATCH_MULTIPLE})
    files = {f"{direction}.onnx": graph for direction, graph in graphs.items()}
    if trace:
        say("comparing trace.onnx with the flow in float64")
        check_trace(exact, ExportedGraph(trace_graph, "trace"), probes)
        files["trace.onnx"] = trace_graph
    log_prob = forward(rows, given, BATCHES[-1]).log_prob
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
        quantization=quantization,
        inverse="numeric" if flow.numeric_inverse else "closed form",
        opset=OPSET,
        files={},
        trace=trace_steps(flow, names) if trace else [],
        calibration=calibrate(log_prob, gaussian_mean),
        parity=parity,
        provenance=Provenance(
            data=data,
            recipe=dict(recipe or {}),
            seed=seed,
            libraries=_versions(),
            created=(created or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        ),
    )
    golden = golden_rows(exact, rows, given, log_prob)
    whole = {**files, "golden.npz": golden.to_npz()}
    return repository.install_next(manifest, whole, pinned=version is not None)


def golden_rows(exact: Flow, held_out: Float32, context: Float32 | None, log_prob: npt.NDArray[np.float64]) -> Golden:
    """Choose golden rows, evenly over the quantiles of log_prob, and answer them in float64.

    Where the support is bounded, one more row lies outside: its log_prob is -inf.

    Args:
        exact: the flow in float64.
        held_out: float32 ``[M, *event]``.
        context: float32 ``[M, C]``, or None.
        log_prob: ``[M]``, to choose by.

    Returns:
        At most `GOLDEN_ROWS` rows, and one outside.
    """
    count = min(GOLDEN_ROWS, held_out.shape[0])
    chosen = np.argsort(log_prob, kind="stable")[np.linspace(0, held_out.shape[0] - 1, count).round().astype(int)]
    x = held_out[chosen]
    if exact.support is not None:
        outside = x[:1].copy()
        outside.reshape(-1)[0] = outside_support(exact.support)
        x, chosen = np.concatenate((x, outside)), np.append(chosen, chosen[0])
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


def _as_float32(values: Tensor | npt.ArrayLike, shape: tuple[int, ...], *, name: str, rows: int | None) -> Float32:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.shape[1:] != shape or array.shape[0] < 2 or array.shape[0] != (rows or array.shape[0]):
        expected = f"[{rows or 'at least 2'}, {', '.join(map(str, shape))}]"
        raise DataError(f"{name} must have shape {expected}, and has {list(array.shape)}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    flat = array.reshape(array.shape[0], -1)
    bad = np.argwhere(~np.isfinite(flat))
    if bad.size:
        where = tuple(Reason((name,), "expected a finite float32", int(row), int(column)) for row, column in bad[:20])
        raise DataError(f"{name} holds numbers that are not finite", where)
    return array


def _check_inside(flow: Flow, rows: Float32) -> None:
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

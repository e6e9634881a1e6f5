"""An imported flow: a `Flow` in float64 made of any flow that is recognized, and the functions of its own library."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Flatten
from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.bases import check_width
from models.importing.context_width import find_context_width
from models.importing.descriptions import layer_name, one_line
from models.importing.estimators import adapt_estimator, check_whole, held_flows, posterior_hint, refuse_part
from models.importing.posteriors import is_posterior, open_posterior, refuse_estimator
from models.importing.steps import per_row
from models.importing.summary import summarize
from models.importing.support import find_support, place_rows
from models.importing.unfitted import UnfittedLayer, find_unfitted, fitting, refuse_unfitted, taken_as_fitted
from service.bundle.precision import Precision
from service.bundle.priors import Prior
from service.errors import DataError, PushforwardError

__all__ = ["ImportedFlow", "ReadRows", "knows_shape", "library_precision", "own_precision", "recognize", "take"]

Floats = npt.NDArray[np.floating[Any]]
ReadRows = Callable[[tuple[int, ...], int], tuple[Floats, Floats | None]]
"""The shape of a row and the width of its context -> rows of data ``[M, *event]``, and their context ``[M, C]``."""

_ADAPTERS: Final = {
    "zuko": "models.importing.zuko",
    "nflows": "models.importing.nflows",
    "normflows": "models.importing.normflows",
    "FrEIA": "models.importing.freia",
}
"""The root package of a class -> the module that adapts it; `models.importing.torch_module` takes the rest."""

_TRIED_ROWS: Final = 3
_TRIED_CONTEXTS: Final = 16
_FITTED_ROWS: Final = 4096
"""At most so many rows are what an ActNorm takes its scale from,"""
_FITTED_VALUES: Final = 2**22
"""and at most so many numbers: an image flow keeps many times that of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class ImportedFlow:
    """A flow that was taken apart.

    Args:
        flow: in float64 and evaluation mode; shares no parameter with the one it was made of.
        library: where it comes from.
        log_prob: the library's own, x ``[N, *event]``, context -> ``[N]`` in nats; call it within `library_precision`.
        generate: the library's own way back, z ``[N, D]``, context -> x ``[N, *event]``; None where it has none.
        notes: what a reader of the manifest should know.
        summary: what was taken, a line each: the flow, its context, its base and what scales its rows.
        classes: the context is a class: a column for each, 1 in that of the row and 0 in the others.
        prior: the bounds of the prior, where the flow came in a posterior.
    """

    flow: Flow
    library: str
    log_prob: Callable[[Tensor, Tensor | None], Tensor]
    generate: Callable[[Tensor, Tensor | None], Tensor] | None
    notes: tuple[str, ...]
    summary: tuple[str, ...] = ()
    classes: bool = False
    prior: Prior | None = None


@contextmanager
def library_precision() -> Iterator[None]:
    """Let a library compute in float64, also the tensors that it makes without a precision of their own.

    Its warnings are its own: most are of functions that torch will drop, from code that nobody changes any more.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def recognize(source: object) -> str:
    """The name of the adapter for a flow: a key of `_ADAPTERS`, by its class or one that it inherits from; or ""."""
    roots = [kind.__module__.partition(".")[0] for kind in type(source).__mro__]
    return next((root for root in roots if root in _ADAPTERS), "")


def own_precision(source: object) -> Precision:
    """The precision of a flow's own weights: float64 where any of them is, as after `.double()`; else float32."""
    if is_posterior(source):
        source = getattr(source, "posterior_estimator", None)
    weights = source.parameters() if isinstance(source, nn.Module) else ()
    return "float64" if any(weight.dtype == torch.float64 for weight in weights) else "float32"


def knows_shape(source: object) -> bool:
    """Whether a flow knows the shape of its rows: all do but a transform without a base, and a module of no library."""
    if is_posterior(source):
        return True
    own = {"nflows": "_distribution", "": "event_shape"}.get(recognize(source))
    return own is None or hasattr(source, own)


def take(
    source: object,
    *,
    event_shape: Sequence[int] | None = None,
    context_width: int | None = None,
    precision: Precision = "float32",
    read_rows: ReadRows | None = None,
) -> ImportedFlow:
    """Take a flow of zuko, nflows, normflows, FrEIA or of no library apart.

    Args:
        source: the flow; it is copied, and left as it is.
        event_shape: the shape of one row, ``[D]`` or ``[H, W, C]``; None to find it in the flow.
        context_width: the number of columns of context; None to find it.
        precision: what the graphs of the flow are to compute in.
        read_rows: reads rows of the data; called only for a flow with ActNorms that have seen none, which take their
            scale from them. None where there are no rows.

    Raises:
        Unsupported: the flow, or a layer of it, cannot be exported.
        DataError: its event shape or its context width cannot be found, or is another one than given.
    """
    if is_posterior(source):
        opened = open_posterior(source)
        imported = take(
            opened.estimator,
            event_shape=event_shape,
            context_width=context_width,
            precision=precision,
            read_rows=read_rows,
        )
        return replace(imported, prior=opened.prior, notes=(*imported.notes, opened.note))
    if not isinstance(source, nn.Module):
        raise Unsupported(
            f"{type(source).__name__} is not a torch module. Accepted are a zuko Flow, an nflows Flow or Transform, a "
            "normflows NormalizingFlow, a FrEIA SequenceINN or GraphINN, and any torch module with forward(x, context) "
            f"and inverse(z, context), each returning a tensor and its log-determinant{posterior_hint(source)}"
        )
    refuse_estimator(source)
    refuse_part(source)
    unfitted = find_unfitted(source)
    if unfitted and read_rows is None:
        raise refuse_unfitted(unfitted)
    exact = _exact_copy(source)
    with library_precision():
        layers = find_unfitted(exact)
        if not layers or read_rows is None:
            return _take_exact(exact, event_shape, context_width, precision)
        rows = _fit_layers(exact, layers, event_shape, context_width, read_rows)
        imported = _take_exact(exact, event_shape, context_width, precision)
    kinds = ", ".join(sorted({layer_name(layer.layer) for layer in layers}))
    counted = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
    note = f"{counted} that had seen no data ({kinds}) took the scale from {rows} rows of the data given"
    return replace(imported, notes=(*imported.notes, note))


def _take_exact(
    exact: nn.Module, event_shape: Sequence[int] | None, context_width: int | None, precision: Precision
) -> ImportedFlow:
    """Take a copy in float64 apart, all of whose layers have seen data."""
    adapted = _adapt(exact)
    shape = _event_shape(adapted, event_shape)
    check_width(adapted.base, adapted.base_steps, math.prod(shape), f"this flow of {adapted.library}")
    images = len(shape) == 3 and adapted.channels_first
    if images:
        adapted = _channels_last(adapted, shape)
    found = find_context_width(adapted, exact, shape, context_width)
    width = found.columns
    chain = _whole_chain(adapted, shape, width, images=images)
    given = torch.randn(_TRIED_CONTEXTS, width, generator=torch.Generator().manual_seed(0)) if width else None
    if given is not None and adapted.embedding is not None:
        given = adapted.embedding(given)[0]
    support, notes = find_support(chain, adapted.base, shape, given, precision)
    flow = Flow(shape, chain, adapted.base, support, width, adapted.embedding if width else None, precision)
    flow = flow.double().eval().requires_grad_(requires_grad=False)
    if adapted.estimator:
        check_whole(adapted, flow)
    return ImportedFlow(
        flow,
        adapted.library,
        adapted.log_prob,
        adapted.generate,
        (*adapted.notes, *found.notes, *notes),
        summarize(exact, adapted, flow, found),
        adapted.classes,
    )


def _fit_layers(
    exact: nn.Module,
    layers: Sequence[UnfittedLayer],
    event_shape: Sequence[int] | None,
    context_width: int | None,
    read_rows: ReadRows,
) -> int:
    """Let ActNorms take their scale from rows, by the library's own log_prob; gives the number of rows.

    Args:
        exact: the copy in float64, whose layers are fitted in place.
        layers: those that have seen no data.
        event_shape: as `take` has it.
        context_width: as `take` has it.
        read_rows: as `take` has it.

    Raises:
        Unsupported: the library fails on the rows, or a layer does not see them, or cannot take its scale from them.
    """
    with taken_as_fitted(layers):
        trial = _take_exact(exact, event_shape, context_width, "float64")
    x, context = read_rows(trial.flow.event_shape, trial.flow.context_width)
    count = min(len(x), _FITTED_ROWS, max(2, _FITTED_VALUES // trial.flow.width))
    chosen = np.linspace(0, len(x) - 1, count).round().astype(int)  # spread: a file may be sorted
    given = None if context is None else torch.from_numpy(context[chosen].astype(np.float64))
    with fitting(layers):
        try:
            trial.log_prob(torch.from_numpy(x[chosen].astype(np.float64)), given)
        except Exception as error:  # whatever a library raises
            raise refuse_unfitted(layers, f"On the data given log_prob fails: {one_line(error)}.") from error
    for layer in layers:
        if layer.sees_no_data:
            raise refuse_unfitted([layer], "log_prob of the data given does not reach it.")
        if not layer.has_scale:
            raise refuse_unfitted([layer], "The data given do not vary in one of its columns or channels.")
    return count


def _adapt(exact: nn.Module) -> AdaptedFlow:
    """Take a flow apart by the adapter of its library; an estimator around one as a whole."""
    if not (library := recognize(exact)) and not callable(getattr(exact, "inverse", None)):
        held = held_flows(exact, _ADAPTERS)
        if held:
            return adapt_estimator(exact, held, _ADAPTERS)
    adapter = importlib.import_module(_ADAPTERS.get(library, "models.importing.torch_module"))
    try:
        adapted: AdaptedFlow = adapter.adapt(exact)
    except PushforwardError:
        raise
    except Exception as error:  # whatever a library raises where its parts are tried
        raise Unsupported(f"{layer_name(exact)} cannot be taken apart: {one_line(error)}") from error
    return adapted


def _exact_copy(source: nn.Module) -> nn.Module:
    """A copy in float64 and evaluation mode, without what it remembers from earlier calls."""
    modes = [(module, module.training) for module in source.modules()]
    # nflows forgets the matrices that it cached: they belong to a graph, and their precision is another
    source.train()
    for module, _ in modes:
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                # a tensor kept from the last call: it belongs to a graph, and cannot be copied
                setattr(module, name, value.detach())
    exact = copy.deepcopy(source).cpu().double()
    for module, training in modes:
        module.training = training
    return exact.eval().requires_grad_(requires_grad=False)


def _event_shape(adapted: AdaptedFlow, given: Sequence[int] | None) -> tuple[int, ...]:
    known = adapted.event_shape
    if known is not None and len(known) == 3 and adapted.channels_first:
        known = (known[1], known[2], known[0])
    if known is None and given is None:
        raise DataError(
            f"this flow of {adapted.library} does not say what shape its rows have: give --event-shape, such as 4 for "
            "rows of 4 columns or 28,28,1 for images"
        )
    if known is not None and given is not None and tuple(given) != known:
        raise DataError(f"--event-shape is {list(given)}, and the flow's rows have the shape {list(known)}")
    return tuple(known if known is not None else given or ())


def _channels_last(adapted: AdaptedFlow, shape: tuple[int, ...]) -> AdaptedFlow:
    """The same for images ``[H, W, C]``, as a bundle has them."""
    own_log_prob, own_generate = adapted.log_prob, adapted.generate

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        return own_log_prob(x.movedim(3, 1).clone(memory_format=torch.contiguous_format), context)

    generate = None if own_generate is None else partial(_generate_channels_last, own_generate)
    return replace(adapted, log_prob=log_prob, generate=generate, event_shape=shape)


def _generate_channels_last(
    generate: Callable[[Tensor, Tensor | None], Tensor], z: Tensor, context: Tensor | None
) -> Tensor:
    return generate(z, context).movedim(1, 3)


def _whole_chain(adapted: AdaptedFlow, shape: tuple[int, ...], width: int, *, images: bool) -> list[Bijection]:
    """The whole chain, the last step of which gives ``[N, D]``."""
    chain: list[Bijection] = [*([_ChannelsFirst()] if images else []), *adapted.steps]
    context = torch.zeros(_TRIED_ROWS, width) if width else None
    if context is not None and adapted.embedding is not None:
        context = adapted.embedding(context)[0]
    value = place_rows(chain, adapted.base, torch.full((_TRIED_ROWS, *shape), 0.5), context)
    for number, step in enumerate(chain):
        try:
            value = step(value, context)[0]
        except Exception as error:
            raise Unsupported(
                f"{step.name}, step {number + 1} of {len(chain)} from data to latent, fails on rows of shape "
                f"{list(shape)}: {one_line(error)}"
            ) from error
    if value[0].numel() != math.prod(shape):
        raise Unsupported(
            f"the flow makes {value[0].numel()} numbers of a row of {math.prod(shape)}: a bijection keeps their number"
        )
    return [*chain, *([Flatten(value.shape[1:])] if value.ndim > 2 else []), *adapted.base_steps]


class _ChannelsFirst(Bijection):
    """Images ``[N, H, W, C]`` as most libraries have them, ``[N, C, H, W]``; volume stays."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, H, W, C]`` -> ``[N, C, H, W]``."""
        # a copy in plain order: a library may look at it by `view`
        return x.movedim(3, 1).clone(memory_format=torch.contiguous_format), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, H, W]`` -> ``[N, H, W, C]``."""
        return y.movedim(1, 3), per_row(0.0, y)

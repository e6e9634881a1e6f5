"""The import of a flow: its weights, the rows to hold it against, and the bundle.

No pickle is loaded here: weights come through the user's own code, or from a safetensors file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.export.export import export_flow
from models.export.exported_graph import GraphFails
from models.flows.bases import sample_base
from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.descriptions import one_line
from models.importing.fault_location import locate_fault
from models.importing.take import ImportedFlow, library_precision
from service.bundle.manifest import ContextFeature
from service.bundle.store import Repository
from service.errors import DataError, ForbiddenGraph, PushforwardError

__all__ = [
    "DRAWN_ROWS",
    "HeldOutRows",
    "draw_rows",
    "export_imported",
    "find_precision_fault",
    "load_weights",
    "parse_event_shape",
]

_TRIED_ROWS: Final = 8

DRAWN_ROWS: Final = 2000
"""So many rows are drawn from a flow that comes without held-out rows."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """Rows to hold a flow against, and to calibrate it on.

    Args:
        x: ``[M, *event]``.
        context: ``[M, C]``, or None.
        origin: where they are from, in words, for the manifest.
        drawn: whether they come from the flow itself, with contexts that nobody observed.
    """

    x: Floats
    context: Floats | None
    origin: str
    drawn: bool = False


def find_precision_fault(imported: ImportedFlow, rows: HeldOutRows) -> str | None:
    """Why a flow that is to be one of float32 does not compute in it; None where it does, and for one of float64.

    A module may cast to float64 inside, and then either fail on weights of float32, or give float64.

    Args:
        imported: from `models.importing.take.take`.
        rows: to try it on.
    """
    if imported.flow.precision == "float64":
        return None
    flow = copy.deepcopy(imported.flow).float()
    x = torch.from_numpy(rows.x[:_TRIED_ROWS]).float()
    context = None if rows.context is None else torch.from_numpy(rows.context[:_TRIED_ROWS]).float()
    try:
        with torch.no_grad():
            z, ladj = flow(x, context)
            back, inverse_ladj = flow.inverse(z.float(), context)
    except (RuntimeError, TypeError) as error:
        return one_line(error)
    wide = [name for name, made in (("z", z), ("x", back)) if made.dtype != torch.float32]
    wide += ["the log-determinant"] * any(made.dtype != torch.float32 for made in (ladj, inverse_ladj))
    return f"given float32 it makes float64 of {' and '.join(wide)}" if wide else None


def load_weights(flow: nn.Module, file: Path) -> None:
    """Load a safetensors file into a flow: every tensor of the flow, and no other.

    Raises:
        DataError: the file is not there or is none, or its names or shapes are others than the flow's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or one_line(error)}") from error
    except SafetensorError as error:
        raise DataError(
            f"{file} is not a safetensors file; other formats may hold code and are not loaded: convert it by "
            "safetensors.torch.save_file(flow.state_dict(), ...)"
        ) from error
    try:
        flow.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        faults = " ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise DataError(f"the weights of {file.name} are not this flow's: {faults[:500]}") from error


def draw_rows(imported: ImportedFlow, count: int = DRAWN_ROWS, seed: int = 0) -> HeldOutRows:
    """Draw rows from the flow itself, where nobody has held-out ones; for contexts of normal numbers, or of each class.

    Args:
        imported: from `models.importing.take.take`.
        count: how many.
        seed: of the draws.

    Raises:
        DataError: fewer than two of them are finite.
    """
    flow, generator = imported.flow, torch.Generator().manual_seed(seed)
    z = sample_base(flow.base, count, flow.width, generator, torch.float64)
    context = _draw_contexts(imported, count, generator).to(flow.dtype) if flow.context_width else None
    try:
        with library_precision():
            x = flow.inverse(z, None if context is None else context.double())[0].to(flow.dtype)
    except Exception as error:  # whatever a library raises
        raise DataError(
            f"the flow's inverse fails on draws from its base, so that there are no rows: {one_line(error)}"
        ) from error
    finite = torch.isfinite(x.flatten(1)).all(dim=1)
    if int(finite.sum()) < 2:
        raise DataError("the rows that the flow generates are not finite; give held-out rows by --data")
    origin = f"no held-out rows were given: {int(finite.sum())} rows drawn from the flow itself, seed {seed}"
    if context is not None:
        origin += ", for classes in equal parts" if imported.classes else ", for contexts drawn from a standard normal"
    return HeldOutRows(x[finite].numpy(), None if context is None else context[finite].numpy(), origin, drawn=True)


def _draw_contexts(imported: ImportedFlow, count: int, generator: torch.Generator) -> Tensor:
    """Contexts ``[count, C]``: standard normal numbers, or a class each."""
    width = imported.flow.context_width
    if imported.classes:
        return torch.nn.functional.one_hot(torch.arange(count) % width, width).float()
    return torch.randn(count, width, generator=generator)


def export_imported(
    imported: ImportedFlow,
    rows: HeldOutRows,
    *,
    repository: Repository,
    name: str,
    source: str,
    version: int | None = None,
    description: str = "",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Hold a flow against its own library, export it, and install the bundle.

    Args:
        imported: from `models.importing.take.take`.
        rows: from `draw_rows`, or the user's.
        repository: where the bundle goes.
        name: what the flow is called there.
        source: the spec it came from, for the manifest.
        version: None for one more than the newest.
        description: one or two sentences for whoever meets the flow in a list.
        progress: called with a few words before each step that takes seconds.

    Returns:
        The folder of the bundle.

    Raises:
        ParityFailed: the flow is not what its library computes, is broken, or its graphs are not the flow.
        Unsupported: a layer cannot be exported; it is named. Nothing is written in either case.
    """
    say = progress or (lambda _: None)
    say(f"comparing the flow with {imported.library}'s own log_prob in float64")
    error = check_agreement(imported, rows.x, rows.context)
    say(f"log_prob is {imported.library}'s to {error:.1e}")
    made_by = _version(imported.library)
    told = {
        "source": source,
        "library": made_by,
        "library_error": error,
        "taken": list(imported.summary),
        "notes": list(imported.notes),
    }
    recipe = {"import": told}
    flow = imported.flow.to(imported.flow.dtype)
    try:
        return export_flow(
            flow,
            repository=repository,
            name=name,
            held_out=rows.x,
            data=f"imported from {made_by}; {rows.origin}",
            version=version,
            context=rows.context,
            context_features=_class_columns(flow.context_width) if imported.classes else (),
            description=description,
            prior=imported.prior,
            scale_contexts=not rows.drawn,
            recipe=recipe,
            far_rows="resolvable",
            progress=progress,
        )
    except (ForbiddenGraph, GraphFails) as refused:
        raise locate_fault(flow, refused) from refused
    except PushforwardError:
        raise
    except Exception as failed:  # whatever a library raises for rows far outside its data
        raise Unsupported(f"the flow cannot be exported, it fails on some rows: {one_line(failed)}") from failed
    finally:
        imported.flow.double()


def _class_columns(classes: int) -> list[ContextFeature]:
    """The columns of a context that is a class, by the number of the class."""
    return [ContextFeature(name=f"class={number}", column="class", category=str(number)) for number in range(classes)]


def _version(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return library


def parse_event_shape(text: str) -> tuple[int, ...]:
    """Read ``4`` or ``28,28,1``.

    Raises:
        DataError: it is anything else.
    """
    parts: Sequence[str] = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise DataError(f"--event-shape: expected numbers with commas, such as 4 or 28,28,1, and found {text!r}")
    return tuple(int(part) for part in parts)

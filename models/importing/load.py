"""`pushforward import`: from a callable of the user's own code to a bundle.

No pickle is loaded here: weights come through that code, or from a safetensors file.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.export.export import export_flow
from models.flows.bases import sample_base
from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.descriptions import first_words
from models.importing.fault_location import blamed
from models.importing.take import Imported, library_terms
from service.bundle.store import Repository
from service.errors import DataError, ForbiddenGraph, PushforwardError

__all__ = ["DRAWN_ROWS", "Rows", "drawn_rows", "event_shape_of", "export_imported", "load_flow", "load_weights"]

DRAWN_ROWS: Final = 2000
"""So many rows are drawn from a flow that comes without held-out rows."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to hold a flow against, and to calibrate it on.

    Args:
        x: float32 ``[M, *event]``.
        context: float32 ``[M, C]``, or None.
        words: where they are from, for the manifest.
    """

    x: Float32
    context: Float32 | None
    words: str


def load_flow(spec: str) -> nn.Module:
    """Call ``module:function``, the current directory importable, and return the flow that it returns.

    Raises:
        DataError: the spec is malformed, the module or the function is not there, either of them raises, or what comes
            back is no torch module.
    """
    module_name, sign, function_name = spec.partition(":")
    if not sign or not function_name.isidentifier() or not all(p.isidentifier() for p in module_name.split(".")):
        raise DataError(f"expected MODULE:FUNCTION, such as my_flows:make_flow, and found {spec!r}")
    here = os.getcwd()  # noqa: PTH109  sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise DataError(f"there is no module {module_name!r}, here or among the installed ones") from error
        raise DataError(f"importing {module_name} failed: {first_words(error)}") from error
    except Exception as error:  # whatever the user's code raises
        raise DataError(f"importing {module_name} failed: {first_words(error)}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise DataError(f"the module {module_name} has no {function_name!r}")
    if isinstance(function, nn.Module):
        return function
    if not callable(function):
        raise DataError(f"{spec} is a {type(function).__name__}; expected a function that returns a flow")
    return _called(function, spec)


def _called(function: Callable[[], Any], spec: str) -> nn.Module:
    try:
        flow = function()
    except Exception as error:  # whatever the user's code raises
        raise DataError(f"{spec} failed: {first_words(error)}") from error
    if not isinstance(flow, nn.Module):
        raise DataError(
            f"{spec} returned a {type(flow).__name__}. Accepted are a zuko Flow, an nflows Flow or Transform, a "
            "normflows NormalizingFlow, a FrEIA SequenceINN or GraphINN, and any torch module with forward(x, context) "
            "and inverse(z, context), each returning a tensor and its log-determinant"
        )
    return flow


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
        raise DataError(f"{file} cannot be read: {error.strerror or first_words(error)}") from error
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


def drawn_rows(imported: Imported, count: int = DRAWN_ROWS, seed: int = 0) -> Rows:
    """Rows drawn from the flow itself, where nobody has held-out ones; a context of standard normal numbers.

    Raises:
        DataError: fewer than two of them are finite.
    """
    flow, generator = imported.flow, torch.Generator().manual_seed(seed)
    z = sample_base(flow.base, count, flow.width, generator, torch.float64)
    context = torch.randn(count, flow.context_width, generator=generator) if flow.context_width else None
    try:
        with library_terms():
            x = flow.inverse(z, None if context is None else context.double())[0].float()
    except Exception as error:  # whatever a library raises
        raise DataError(
            f"the flow's inverse fails on draws from its base, so that there are no rows: {first_words(error)}"
        ) from error
    finite = torch.isfinite(x.flatten(1)).all(dim=1)
    if int(finite.sum()) < 2:
        raise DataError("the rows that the flow generates are not finite; give held-out rows by --data")
    words = f"no held-out rows were given: {int(finite.sum())} rows drawn from the flow itself, seed {seed}"
    if context is not None:
        words += ", for contexts drawn from a standard normal"
    return Rows(x[finite].numpy(), None if context is None else context[finite].numpy(), words)


def export_imported(
    imported: Imported,
    rows: Rows,
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
        rows: from `drawn_rows`, or the user's.
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
    recipe = {"import": {"source": source, "library": made_by, "library_error": error, "notes": list(imported.notes)}}
    flow = imported.flow.float()
    try:
        return export_flow(
            flow,
            repository=repository,
            name=name,
            held_out=rows.x,
            data=f"imported from {made_by}; {rows.words}",
            version=version,
            context=rows.context,
            description=description,
            recipe=recipe,
            far_rows="resolvable",
            progress=progress,
        )
    except ForbiddenGraph as refused:
        raise blamed(flow, refused) from refused
    except PushforwardError:
        raise
    except Exception as failed:  # whatever a library raises for rows far outside its data
        raise Unsupported(f"the flow cannot be exported, it fails on some rows: {first_words(failed)}") from failed
    finally:
        imported.flow.double()


def _version(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return library


def event_shape_of(text: str) -> tuple[int, ...]:
    """Read ``4`` or ``28,28,1``.

    Raises:
        DataError: it is anything else.
    """
    parts: Sequence[str] = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise DataError(f"--event-shape: expected numbers with commas, such as 4 or 28,28,1, and found {text!r}")
    return tuple(int(part) for part in parts)

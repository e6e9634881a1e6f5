"""The target: a density of the user's, known up to a constant factor, that a flow is fitted to.

It is a function or an object of theirs, in torch or in NumPy. Whatever it returns is checked here, so that a fault of
it is told as one, with the row.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from models.importing.descriptions import one_line
from models.importing.user_code import load_user_object
from service.bundle.manifest import MAX_NAME
from service.errors import DataError, Reason

__all__ = ["Target", "load_target", "take_target"]

_SHOWN_VALUES: Final = 8
_TRIED_ROWS: Final = 4
_MAX_DIM: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A density up to a constant factor, in the user's own coordinates.

    Args:
        title: what the user calls it, for errors and for the manifest.
        dim: the number of its coordinates.
        names: one a coordinate, or none.
        constraints: as the user gave them: none, one for all coordinates, or one a coordinate.
        arrays: "torch" or "numpy": what the function takes.
        differentiable: whether its value has a gradient.
        joint: whether it is a density of z and x, ``log_density(z, x)``.
        digest: SHA-256 of its source, as far as that can be read.
        function: the user's.
        owner: the user's object; a module in it may have parameters of its own.
    """

    title: str
    dim: int
    names: tuple[str, ...]
    constraints: tuple[Any, ...]
    arrays: str
    differentiable: bool
    joint: bool
    digest: str
    function: Callable[..., Any]
    owner: object

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are learnt with the flow: those of a joint density that is a torch module."""
        if not self.joint or not isinstance(self.owner, nn.Module):
            return []
        return [parameter for parameter in self.owner.parameters() if parameter.requires_grad]

    def log_density(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Log density of rows, up to a constant, in nats.

        Args:
            z: ``[N, D]``, in the user's coordinates.
            x: ``[N, C]``, the rows that a joint density is of; None for any other.

        Returns:
            ``[N]`` of z's dtype: finite or -inf. It has a gradient where the target is differentiable.

        Raises:
            DataError: the target raises, or gives another shape, NaN or +inf; the row is shown.
        """
        given = (z,) if x is None else (z, x)
        try:
            if self.arrays == "numpy":
                with np.errstate(all="ignore"):
                    values = self.function(*(each.detach().to(torch.float64).numpy() for each in given))
            else:
                values = self.function(*given)
        except DataError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise DataError(f"{self.title}: log_density failed: {one_line(error)}") from error
        return _checked(self.title, values, z)


def load_target(spec: str, *, dim: int | None = None, rows: Tensor | None = None) -> Target:
    """Load ``module:target`` or ``file.py:target``.

    Args:
        spec: where it is, as `load_user_object` takes it.
        dim: the number of coordinates, where the target does not say it.
        rows: ``[N, C]`` rows of x, where it is a joint density ``log_density(z, x)``.

    Raises:
        DataError: it is not there, or is no target; see `take_target`.
    """
    return take_target(load_user_object(spec), spec, dim=dim, rows=rows)


def take_target(given: object, title: str, *, dim: int | None = None, rows: Tensor | None = None) -> Target:
    """Take a function or an object as a target, and try it.

    Args:
        given: a function ``log_density(z) -> [N]``, or an object (or a class) that has such a method.
        title: what the user calls it.
        dim: the number of coordinates, where the target does not say it.
        rows: ``[N, C]`` rows of x, for a joint density.

    Raises:
        DataError: it is neither, says no dim or another one, has names or constraints that do not fit, or gives
            anything but one number a row.
    """
    if inspect.isclass(given):
        try:
            given = given()
        except Exception as error:  # whatever the user's code raises
            raise DataError(f"{title}: making an object of the class failed: {one_line(error)}") from error
    function = getattr(given, "log_density", given)
    if not callable(function):
        raise DataError(
            f"{title} is a {type(given).__name__}; expected a function log_density(z) -> [N], or an object that has "
            "such a method"
        )
    width = _dim(title, getattr(given, "dim", None), dim)
    arrays, differentiable = _find_arrays(title, function, width, rows)
    return Target(
        title=title,
        dim=width,
        names=_names(title, getattr(given, "names", None), width),
        constraints=_constraints(getattr(given, "constraints", None)),
        arrays=arrays,
        differentiable=differentiable,
        joint=rows is not None,
        digest=_digest(given),
        function=function,
        owner=given,
    )


def _dim(title: str, own: object, asked: int | None) -> int:
    if own is not None and not (isinstance(own, int) and not isinstance(own, bool) and 1 <= own <= _MAX_DIM):
        raise DataError(f"{title}: dim must be a whole number from 1 to {_MAX_DIM}, and is {own!r}")
    if own is None and asked is None:
        raise DataError(
            f"{title} does not say how many coordinates it has: give the target an attribute `dim`, or give --dim"
        )
    if own is not None and asked is not None and own != asked:
        raise DataError(f"{title} has dim {own}, and --dim is {asked}")
    return int(own if isinstance(own, int) else asked or 0)


def _names(title: str, given: object, width: int) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise DataError(f"{title}: names must be a list of texts, one a coordinate")
    if len(given) != width:
        raise DataError(f"{title} has {len(given)} names for {width} coordinates; expected one a coordinate")
    bad = next((name for at, name in enumerate(given) if not 0 < len(name) <= MAX_NAME or name in given[:at]), None)
    if bad is not None:
        raise DataError(f"{title}: the name {bad[:80]!r} is empty, too long, or stands twice")
    return tuple(given)


def _constraints(given: object) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, (list, tuple)) else (given,)


def _find_arrays(title: str, function: Callable[..., Any], width: int, rows: Tensor | None) -> tuple[str, bool]:
    """Whether a function takes torch's tensors or NumPy's arrays, and whether it has a gradient: it is tried on both.

    Inside the unit interval most densities can be evaluated, so that rows lie there. What they give is judged later.
    """
    z = (0.25 + 0.5 * torch.rand(_TRIED_ROWS, width, generator=torch.Generator().manual_seed(0))).requires_grad_()
    given = () if rows is None else (rows[:1].expand(_TRIED_ROWS, -1),)
    torch_error: Exception | None = None
    try:
        values = function(z, *given)
        if isinstance(values, Tensor):
            return "torch", values.requires_grad and _reaches(values, z)
    except DataError:
        raise
    except Exception as error:  # whatever the user's code raises
        torch_error = error
    try:
        with np.errstate(all="ignore"):
            function(z.detach().double().numpy(), *(each.double().numpy() for each in given))
    except Exception as error:  # whatever the user's code raises
        first = torch_error or error
        raise DataError(
            f"{title} takes neither a torch tensor [N, {width}] ({one_line(first)}) nor a NumPy array of that shape "
            f"({one_line(error)})"
        ) from first
    return "numpy", False


def _reaches(values: Tensor, z: Tensor) -> bool:
    """Whether values depend on z through torch; a target may have a gradient in its own parameters alone."""
    (found,) = torch.autograd.grad(values.sum(), z, allow_unused=True)
    return found is not None


def _checked(title: str, values: object, z: Tensor) -> Tensor:
    """What a target gave, as ``[N]`` of z's dtype."""
    try:
        result = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"{title}: log_density gave a {type(values).__name__}; expected [{len(z)}] numbers") from error
    if tuple(result.shape) != (len(z),):
        what = "a single number" if result.ndim == 0 else f"the shape {list(result.shape)}"
        hint = "; sum over the last axis only" if result.ndim in (0, 2) else ""
        raise DataError(f"{title}: log_density gave {what} for {len(z)} rows; expected [{len(z)}], one a row{hint}")
    if not result.is_floating_point():
        result = result.to(z.dtype)
    bad = torch.isnan(result) | (result == math.inf)
    if bad.any():
        row = int(torch.nonzero(bad)[0])
        found = "NaN" if torch.isnan(result[row]) else "+inf"
        raise DataError(
            f"{title}: log_density gave {found} for {int(bad.sum())} of {len(z)} rows; expected a finite number, or "
            "-inf where the density is zero",
            (Reason(("log_density",), f"{found} at z = {describe_row(z[row])}", row),),
        )
    return result.to(z.dtype)


def describe_row(row: Tensor) -> str:
    """A row in a few words: its first numbers."""
    shown = ", ".join(f"{value:.6g}" for value in row.detach().flatten()[:_SHOWN_VALUES].tolist())
    return f"[{shown}{', …' if row.numel() > _SHOWN_VALUES else ''}]"


def _digest(given: object) -> str:
    """SHA-256 of the file that a target is written in; of its name where there is none."""
    kind = given if inspect.isroutine(given) or inspect.isclass(given) else type(given)
    module = sys.modules.get(getattr(kind, "__module__", "") or "")
    file = getattr(module, "__file__", None)
    try:
        content = b"" if file is None else Path(file).read_bytes()
    except OSError:
        content = b""
    return hashlib.sha256(content + getattr(kind, "__qualname__", "").encode()).hexdigest()

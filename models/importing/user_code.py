"""The user's own code: a flow from a callable in a module or a file of theirs.

Their code is loaded under a package name of its own, so that a `models.py` or `service.py` of theirs is not taken for
the packages of those names that this project is made of.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import nn

from models.importing.descriptions import one_line
from models.importing.estimators import made_modules, posterior_hint, refuse_part
from models.importing.posteriors import is_posterior
from service.errors import DataError

__all__ = ["PACKAGE", "load_user_flow", "load_user_object"]

PACKAGE: Final = "user_code"
"""The package that the user's module is loaded into; its folder is the user's."""

_OURS: Final = ("models", "service")
"""The packages of this project that code of a user's is likely to have modules of the same name as."""


def load_user_flow(spec: str) -> Any:  # noqa: ANN401  a module, or a posterior
    """Call ``module:function`` or ``file.py:function``, and give the flow that it returns.

    Args:
        spec: what to call, as `load_user_object` takes it. A torch module or a posterior in the place of the function
            is taken as it is.

    Raises:
        DataError: as `load_user_object`; or the function raises, or what comes back is no torch module and no
            posterior.
        Unsupported: what comes back is a part of an estimator.
    """
    found = load_user_object(spec)
    if isinstance(found, nn.Module) or is_posterior(found):
        return found
    if not callable(found):
        raise DataError(f"{spec} is a {type(found).__name__}; expected a function that returns a flow")
    with _first_on_path(_folder_of(spec)):
        return _call(found, spec)


def load_user_object(spec: str) -> Any:  # noqa: ANN401  whatever the user has there
    """Load ``module:name`` or ``file.py:name``.

    A module is looked for in the current directory first, and then among the installed ones. What the code itself
    imports is looked for in the folder of the file, or in the current directory, first.

    Args:
        spec: what to load.

    Raises:
        DataError: the spec is malformed, the file, the module or the name is not there, or the code raises.
    """
    source, _, function_name = spec.rpartition(":")
    is_file = source.endswith(".py")
    if not function_name.isidentifier() or not (is_file or all(part.isidentifier() for part in source.split("."))):
        raise DataError(
            f"expected MODULE:FUNCTION, such as my_flows:make_flow, and found {spec!r}; a file is given as "
            "./my_flows.py:make_flow"
        )
    folder = _folder_of(spec)
    with _first_on_path(folder):
        module = _import_file(Path(source), folder) if is_file else _import_module(source, folder)
        found = getattr(module, function_name, None)
        if found is None:
            kind = "file" if is_file else "module"
            raise DataError(f"the {kind} {source} has no {function_name!r}")
        return found


def _folder_of(spec: str) -> Path:
    """The user's folder: that of the file, or the current directory."""
    source = spec.rpartition(":")[0]
    return Path(source).resolve().parent if source.endswith(".py") else Path.cwd()


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Let imports look into the user's folder first; after that last, so that no file there hides a library."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _import_file(file: Path, folder: Path) -> ModuleType:
    if not file.is_file():
        raise DataError(f"there is no file {str(file)!r}")
    _make_package(folder)
    name = f"{PACKAGE}.{file.stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, folder / file.name)
    if spec is None or spec.loader is None:
        raise DataError(f"{file} cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise _failed(f"importing {file}", error) from error
    return module


def _import_module(name: str, folder: Path) -> ModuleType:
    path = folder.joinpath(*name.split("."))
    own = path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    if own:
        _make_package(folder)
    try:
        return importlib.import_module(f"{PACKAGE}.{name}" if own else name)
    except ModuleNotFoundError as error:
        if not own and error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise DataError(f"there is no module {name!r}, here or among the installed ones") from error
        raise _failed(f"importing {name}", error) from error
    except Exception as error:  # whatever the user's code raises
        raise _failed(f"importing {name}", error) from error


def _make_package(folder: Path) -> None:
    """Put a package into `sys.modules` whose modules are those of the folder; nothing of an earlier one stays."""
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    spec = ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    importlib.invalidate_caches()


def _call(function: Callable[[], Any], spec: str) -> Any:  # noqa: ANN401  a module, or a posterior
    with made_modules():
        try:
            flow = function()
        except Exception as error:  # whatever the user's code raises
            raise _failed(spec, error) from error
        if isinstance(flow, nn.Module):
            refuse_part(flow)
    if not isinstance(flow, nn.Module) and not is_posterior(flow):
        raise DataError(
            f"{spec} returned a {type(flow).__name__}. Accepted are a zuko Flow, an nflows Flow or Transform, a "
            "normflows NormalizingFlow, a FrEIA SequenceINN or GraphINN, and any torch module with forward(x, context) "
            f"and inverse(z, context), each returning a tensor and its log-determinant{posterior_hint(flow)}"
        )
    return flow


def _failed(what: str, error: Exception) -> DataError:
    """The error for code of the user's that raised; where it met a package of ours, with what to do about that."""
    hint = ""
    if (ours := _met_package(error)) is not None:
        hint = (
            f". The code met Pushforward's own package {ours!r}: it hides a module of that name. Import yours by "
            f"`from .{ours} import ...` or `from . import {ours}`, or give it another name"
        )
    return DataError(f"{what} failed: {one_line(error)}{hint}")


def _met_package(error: Exception) -> str | None:
    """The package of ours that an import or an attribute was looked for in, to no avail."""
    name = None
    if isinstance(error, ImportError):
        name = error.name
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    root = (name or "").partition(".")[0]
    return root if root in _OURS else None

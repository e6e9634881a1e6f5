"""The reader of priors: a TOML file that bounds the columns of a posterior, by a box or by constraints.

A box is ``low`` and ``high``, a number for all columns or one for each, where ``inf`` and ``-inf`` are no bounds::

    low = [0.0, -inf]
    high = 1.0

``constraints`` are those of ``torch.distributions.constraints``, by name: one for all columns, one for each in a list,
or those of columns by their names, where the others are not bounded::

    constraints = ["positive", {name = "interval", low = 0.0, high = 3.0}]

    [constraints]
    rate = "positive"

A simplex stands in a list for the K - 1 columns that are the first of K shares: ``{name = "simplex", columns = 2}``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from models.recipe import nearest
from service.bundle.priors import Prior, Simplex
from service.errors import DataError, PushforwardError, Reason

__all__ = ["check_inside", "read_prior"]

_MAX_BYTES: Final = 1 << 20

_ENDS: Final[Mapping[str, tuple[float | str | None, float | str | None]]] = {
    "real": (None, None),
    "positive": (0.0, None),
    "nonnegative": (0.0, None),
    "greater_than": ("low", None),
    "greater_than_eq": ("low", None),
    "less_than": (None, "high"),
    "interval": ("low", "high"),
    "half_open_interval": ("low", "high"),
    "unit_interval": (0.0, 1.0),
}
"""The name of a constraint -> its lower and its upper end: a number, the argument that gives it, or none."""

_SIMPLEX: Final = "simplex"
_Ends = tuple[float | None, float | None]


def read_prior(path: Path, columns: Sequence[str]) -> Prior:
    """Read the prior of some columns.

    Args:
        path: of the TOML file.
        columns: their names, or their numbers where they have none.

    Raises:
        DataError: the file cannot be read, a key or a constraint is unknown, there are more or fewer than the columns,
            or the prior excludes everything.
    """
    where = path.name
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"the prior {where} has more than {_MAX_BYTES} bytes")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the prior {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the prior {where} is not TOML: {error}") from error
    unknown = next((key for key in values if key not in ("low", "high", "constraints")), None)
    if unknown is not None:
        raise DataError(f"{where}: there is no key {unknown!r}{nearest(unknown, ['low', 'high', 'constraints'])}")
    if ("constraints" in values) == bool({"low", "high"} & values.keys()):
        raise DataError(f"{where}: a prior is a box, low and high, or constraints: give one of them")
    if "constraints" in values:
        ends, simplexes = _of_constraints(values["constraints"], columns, where)
    else:
        lows, highs = (_of_box(values.get(key), key, columns, where) for key in ("low", "high"))
        ends, simplexes = list(zip(lows, highs, strict=True)), []
    for name, (low, high) in zip(columns, ends, strict=True):
        if low is not None and high is not None and not low < high:
            raise DataError(f"{where}: column {name} lies between {low:g} and {high:g}: the prior excludes everything")
    try:
        return Prior(low=[low for low, _ in ends], high=[high for _, high in ends], simplexes=simplexes)
    except ValidationError as error:
        raise DataError(f"{where}: {str(error.errors()[0]['msg']).removeprefix('Value error, ')}") from error


def check_inside(prior: Prior, rows: npt.NDArray[np.float64], columns: Sequence[str]) -> None:
    """Let no row pass that lies outside: rows to fit a posterior to are draws of the prior.

    Args:
        prior: of the columns.
        rows: ``[N, D]``.
        columns: their names.

    Raises:
        DataError: naming the rows, up to a number, and the column.
    """
    outside = np.flatnonzero(~prior.inside(rows))
    if not outside.size:
        return
    low = np.array([-math.inf if end is None else end for end in prior.low])
    high = np.array([math.inf if end is None else end for end in prior.high])
    reasons = []
    for row in outside[: PushforwardError.MAX_REASONS].tolist():
        wrong = np.flatnonzero((rows[row] < low) | (rows[row] > high))
        at = int(wrong[0]) if wrong.size else prior.simplexes[0].first
        found = f"column {columns[at]} is {rows[row, at]:g}"
        expected = prior.describe(at)
        reasons.append(Reason(("prior",), f"row {row}: {found}, and the prior allows {expected}", row, at))
    raise DataError(
        f"{outside.size} of {len(rows)} rows lie outside the prior, the first at {reasons[0].reason}", tuple(reasons)
    )


def _of_box(value: Any, key: str, columns: Sequence[str], where: str) -> list[float | None]:  # noqa: ANN401  of TOML
    """One end of a box for each column."""
    if value is None:
        return [None] * len(columns)
    found = [_number(each, key, where) for each in (value if isinstance(value, list) else [value] * len(columns))]
    if len(found) != len(columns):
        raise DataError(f"{where}: {key} has {len(found)} numbers, and there are {len(columns)} columns")
    return found


def _number(value: Any, what: str, where: str) -> float | None:  # noqa: ANN401  of TOML
    """A finite number; None for an infinite one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise DataError(f"{where}: {what} must be a number, and is {str(value)[:80]!r}")
    return float(value) if math.isfinite(value) else None


def _of_constraints(
    given: Any,  # noqa: ANN401  of TOML
    columns: Sequence[str],
    where: str,
) -> tuple[list[_Ends], list[Simplex]]:
    """The ends of each column, and the simplexes."""
    if isinstance(given, dict) and not isinstance(given.get("name"), str | None):
        raise DataError(f"{where}: a constraint has a name, and not {str(given['name'])[:80]!r}")
    if isinstance(given, dict) and ("name" not in given or given["name"] not in (*_ENDS, _SIMPLEX)):
        unknown = next((name for name in given if name not in columns), None)
        if unknown is not None:
            raise DataError(f"{where}: there is no column {unknown!r}{nearest(unknown, list(columns))}")
        given = [given.get(name, "real") for name in columns]
    elif not isinstance(given, list):
        given = [given] * len(columns)
    ends: list[_Ends] = []
    simplexes: list[Simplex] = []
    for each in given:
        name, options = (each, {}) if isinstance(each, str) else (None, {})
        if isinstance(each, dict):
            options = dict(each)
            name = options.pop("name", None)
        if not isinstance(name, str):
            raise DataError(f"{where}: a constraint is a name, or a table with a name, and not {str(each)[:80]!r}")
        if name == _SIMPLEX:
            count = options.pop("columns", None)
            if type(count) is not int or not 1 <= count <= len(columns):
                raise DataError(f"{where}: a simplex needs columns, a number from 1 to {len(columns)}")
            simplexes.append(Simplex(first=len(ends), count=count))
            ends += [(0.0, 1.0)] * count
        elif name in _ENDS:
            low, high = (
                _number(options.pop(end, None), f"{end} of {name}", where) if isinstance(end, str) else end
                for end in _ENDS[name]
            )
            ends.append((low, high))
        else:
            raise DataError(f"{where}: there is no constraint {name!r}{nearest(name, [*_ENDS, _SIMPLEX])}")
        if options:
            raise DataError(f"{where}: the constraint {name} takes no {next(iter(options))!r}")
    if len(ends) != len(columns):
        raise DataError(f"{where}: the constraints are of {len(ends)} columns, and there are {len(columns)}")
    return ends, simplexes

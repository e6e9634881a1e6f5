"""The kept fit: a fit whose export failed, on disk beside its checkpoint, to be exported by other options.

It holds the recipe and the rows, so that nothing else is needed: the file of the rows may have changed meanwhile.
"""

from __future__ import annotations

import json
import shutil
import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter

from models.data.load import Table
from models.recipe import Recipe
from service.errors import DataError, PushforwardError

__all__ = ["REPORT_FOLDER", "KeptFit"]

_FACTS_FILE: Final = "kept-fit.json"
_ROWS_FILE: Final = "kept-rows.npz"
REPORT_FOLDER: Final = "kept-report"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class KeptFit:
    """What an export needs beside the checkpoint.

    Args:
        recipe: of the fit.
        table: the rows that it was fitted to, all of them.
    """

    recipe: Recipe
    table: Table

    def save(self, folder: Path) -> None:
        """Write it into `folder`, the rows first: without the other file nothing is there.

        Raises:
            OSError: the folder cannot be written into.
        """
        values = _flatten(self.table)
        arrays = {name: value for name, (value, _) in values.items() if isinstance(value, np.ndarray)}
        facts: dict[str, Any] = {
            name: None if value is None else json.loads(TypeAdapter(hint).dump_json(value))
            for name, (value, hint) in values.items()
            if name not in arrays
        }
        recipe = self.recipe.model_dump(mode="json", exclude_unset=True)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _ROWS_FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        content = {"format": _FORMAT, "recipe": recipe, "table": facts}
        (folder / _FACTS_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> KeptFit | None:
        """Read the one in `folder`; None where there is none.

        Raises:
            DataError: the files are not those of this version, or cannot be read.
        """
        path = folder / _FACTS_FILE
        if not path.is_file():
            return None
        hints = _hints(Table)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("format") != _FORMAT:
                raise DataError(f"{path} is not of this version")
            with (folder / _ROWS_FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays: dict[str, Any] = dict(stored)
            values: dict[str, Any] = {
                name: None if value is None else TypeAdapter(hints[name]).validate_json(json.dumps(value))
                for name, value in content["table"].items()
            }
            return cls(recipe=Recipe.parse(content["recipe"], _FACTS_FILE), table=_build(Table, {**values, **arrays}))
        except PushforwardError:
            raise
        except Exception as error:  # the readers of JSON, of archives and of arrays raise a dozen classes
            raise DataError(f"the fit that was kept in {folder} cannot be read: {error}") from error

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove what was kept in `folder`, its report too, and nothing else: the folder may be the user's.

        Raises:
            DataError: where a file of it cannot be removed.
        """
        try:
            for name in (_FACTS_FILE, _ROWS_FILE):
                (folder / name).unlink(missing_ok=True)
            if (folder / REPORT_FOLDER).is_dir():
                shutil.rmtree(folder / REPORT_FOLDER)
        except OSError as error:
            raise DataError(f"the fit that was kept in {folder} cannot be removed: {error.strerror}") from error


def _flatten(record: Any, before: str = "") -> dict[str, tuple[Any, Any]]:  # noqa: ANN401  any dataclass
    """The fields of a dataclass, and of those in it: their names, joined by dots -> the value and its type."""
    hints, found = typing.get_type_hints(type(record)), {}
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(hints[field.name]):
            found.update(_flatten(value, f"{before}{field.name}."))
        else:
            found[before + field.name] = value, hints[field.name]
    return found


def _hints(kind: Any, before: str = "") -> dict[str, Any]:  # noqa: ANN401  any dataclass
    """The types of the fields that `_flatten` gives."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        found |= _hints(hint, f"{before}{name}.") if is_dataclass(hint) else {before + name: hint}
    return found


def _build(kind: Any, values: dict[str, Any], before: str = "") -> Any:  # noqa: ANN401  any dataclass
    """The dataclass whose fields `_flatten` gave."""
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            field.name: _build(hints[field.name], values, f"{before}{field.name}.")
            if is_dataclass(hints[field.name])
            else values[before + field.name]
            for field in fields(kind)
        }
    )

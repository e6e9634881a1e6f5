"""The common part of the commands that write a bundle's next version: its rows, its place, and its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

from pushforward.cli.conditions import context_layout, context_options, given_context
from pushforward.cli.layout import Block, Layout
from pushforward.cli.options import block_rows, input_options
from pushforward.cli.rows import open_rows
from pushforward.client.arrays import Float32Array
from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.bundle.manifest import Manifest
    from service.bundle.store import Repository

__all__ = ["RowOptions", "WholeFile", "next_manifest", "out_option", "read_whole", "repository_of"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def out_option(command: _Command) -> _Command:
    """Add --out, the repository of the new version."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="REPOSITORY",
        help="Where to write the new version; the bundle's own repository by default.",
    )(command)


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How a command's files of rows are read.

    Args:
        delimiter: what stands between the cells of CSV.
        context: of --context; None where it is not given.
        context_columns: of --context-columns; None where it is not given.
    """

    delimiter: str
    context: str | None
    context_columns: str | None

    @staticmethod
    def add(command: _Command) -> _Command:
        """Add the options: by name the arguments of this class."""
        return input_options(context_options(command))


@dataclass(frozen=True, slots=True, eq=False)
class WholeFile:
    """All rows of one file.

    Args:
        name: the file's, as errors have it.
        block: the rows, and where each of them stands.
        context: their context, float32 ``[N, C]``, or ``[1, C]`` for all of them; None for a flow without.
    """

    name: str
    block: Block
    context: Float32Array | None


def read_whole(manifest: Manifest, file: str, options: RowOptions) -> WholeFile:
    """Read all rows of a file, with their context.

    Args:
        manifest: of the flow whose rows they are.
        file: a path, or - for the standard input.
        options: how to read it.

    Returns:
        The rows.

    Raises:
        InvalidInput: the file or the context does not fit the flow.
    """
    layout = Layout.of(manifest.event_shape, [feature.name for feature in manifest.features])
    features = [feature.model_dump() for feature in manifest.context_features]
    conditions = context_layout(manifest.context_width, features)
    given = given_context(options.context, options.context_columns, conditions)
    with open_rows(file, layout, block_rows(layout.width + given.width), options.delimiter, given.beside) as rows:
        block = rows.whole()
    given.require_used(len(block.values), rows.name)
    context = given.of(block, rows.name)
    return WholeFile(rows.name, block, None if context is None else np.atleast_2d(context))


def repository_of(folder: Path, manifest: Manifest, out: Path | None) -> Repository:
    """The repository that a new version goes into: the one given, or the bundle's own.

    Args:
        folder: the bundle's.
        manifest: its manifest.
        out: the repository that was asked for, if any.

    Raises:
        InvalidInput: none is given, and the bundle does not lie in one.
    """
    from service.bundle.store import Repository, identity_of_folder

    if out is None and identity_of_folder(folder) != (manifest.name, manifest.version):
        raise InvalidInput(f"the bundle does not lie at REPOSITORY/{manifest.name}/VERSION: say --out REPOSITORY")
    return Repository(out or folder.absolute().parent.parent)


def next_manifest(manifest: Manifest, repository: Repository) -> Manifest:
    """The manifest of the next version, in the format that is written now."""
    from service.bundle.manifest import FORMAT

    return manifest.model_copy(update={"format": FORMAT, "version": repository.next_version(manifest.name)})

"""The next version of a bundle that a command writes: the rows it is made from, its repository and its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

from pushforward.cli.context_input import choose_context, context_options, make_context_layout
from pushforward.cli.options import input_options
from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import RowBlock, RowLayout
from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.bundle.manifest import Manifest
    from service.bundle.store import Repository

__all__ = ["RowOptions", "WholeFile", "choose_repository", "make_next_manifest", "out_option", "read_whole"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def out_option(command: _Command) -> _Command:
    """Add --out, the repository of the new version."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="REPOSITORY",
        help="Where to write the new version.  [default: the bundle's own repository]",
    )(command)


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How a command's files of rows are read.

    Args:
        delimiter: what stands between the cells of CSV; None for what the first lines show.
        context: of --context; None where it is not given.
        context_columns: of --context-columns; None where it is not given.
    """

    delimiter: str | None
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
        context: their context, ``[N, C]``, or ``[1, C]`` for all of them; None for a flow without.
    """

    name: str
    block: RowBlock
    context: FloatArray | None


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
    layout = RowLayout.of(
        manifest.event_shape, [feature.name for feature in manifest.features], precision=manifest.precision
    )
    features = [feature.model_dump() for feature in manifest.context_features]
    given = choose_context(
        options.context, options.context_columns, make_context_layout(layout, manifest.context_width, features)
    )
    with open_rows(file, layout, options.delimiter, given.layout) as rows:
        block = rows.read_whole()
    given.require_used(len(block.values), rows.name)
    context = given.for_block(block, rows.name)
    return WholeFile(rows.name, block, None if context is None else np.atleast_2d(context))


def choose_repository(folder: Path, manifest: Manifest, out: Path | None) -> Repository:
    """The repository that a new version goes into.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        out: the repository of --out; None for the one that the bundle lies in.

    Raises:
        InvalidInput: none is given, and the bundle does not lie in one.
    """
    from service.bundle.store import Repository, identity_of_folder

    if out is None and identity_of_folder(folder) != (manifest.name, manifest.version):
        raise InvalidInput(f"the bundle does not lie at REPOSITORY/{manifest.name}/VERSION: say --out REPOSITORY")
    return Repository(out or folder.absolute().parent.parent)


def make_next_manifest(manifest: Manifest, repository: Repository) -> Manifest:
    """The manifest of the next version, in the format that is written now."""
    from service.bundle.manifest import FORMAT

    return manifest.model_copy(update={"format": FORMAT, "version": repository.next_version(manifest.name)})

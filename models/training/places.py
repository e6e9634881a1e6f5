"""The places of a training: the repository of its bundle, the folder of its checkpoints, and that of its report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from models.recipe import BaseRecipe
from models.training.checkpoint import Checkpoint
from models.training.kept_fit import KeptFit
from models.training.output_folders import check_writable, remove_empty
from service.bundle.manifest import shorten_texts
from service.bundle.store import Repository, read_bundle
from service.errors import BundleError, DataError, Reason

__all__ = ["WORK_FOLDER", "Places", "export_command", "require_one", "serve_command"]

WORK_FOLDER = ".training"
"""Where unfinished fits lie in a repository; no flow can be called so, and it is passed over."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that a training writes into.

    Args:
        name: the flow's.
        repository: where the bundle goes.
        work: the folder for checkpoints.
        own: whether `work` is the default folder, which goes when it is empty.
        report: the report's folder, where it was asked for.
    """

    name: str
    repository: Repository
    work: Path
    own: bool
    report: Path | None

    @classmethod
    def of(cls, recipe: BaseRecipe, *, work: Path | None, report: Path | None, own: bool | None = None) -> Places:
        """The folders that a recipe and the options name.

        Args:
            recipe: with name and out.
            work: the folder for checkpoints; None for the default one.
            report: the report's folder; None for the default one.
            own: whether `work` is the default folder; None where that is told by its absence.

        Returns:
            The folders; none is made.

        Raises:
            DataError: the recipe has no name or no repository.
        """
        missing = [key for key in ("name", "out") if getattr(recipe, key) is None]
        if recipe.name is None or recipe.out is None:
            raise DataError(
                f"a flow needs {' and '.join(missing)}: what it is called, and the repository it goes into",
                tuple(Reason(("recipe", key), f"give --{key}, or {key} in the recipe") for key in missing),
            )
        out = Path(recipe.out)
        return cls(
            name=recipe.name,
            repository=Repository(out),
            work=work or out / WORK_FOLDER / recipe.name,
            own=work is None if own is None else own,
            report=report,
        )

    def check(self) -> None:
        """Try to write into each, before hours are spent.

        Raises:
            DataError: naming the option whose folder cannot be written into.
        """
        check_writable(self.repository.root / self.name, "out")
        check_writable(self.work, "work")
        if self.report is not None:
            check_writable(self.report, "report")

    def installed(self, recipe: BaseRecipe, created: str | None, data: str) -> Path | None:
        """The bundle that an export left behind, where the run was killed after it.

        Args:
            recipe: of the fit.
            created: the moment at which the export began; None where it never did.
            data: what was fitted, in words.
        """
        if created is None:
            return None
        told = shorten_texts(recipe.published()), shorten_texts(data)  # as a manifest holds them
        for version in reversed(self.repository.versions(self.name)):
            folder = self.repository.path(self.name, version)
            try:
                provenance = read_bundle(folder).manifest.provenance
            except BundleError:
                continue  # none of this fit's: a bundle is checked before it is installed
            if (provenance.created, provenance.recipe, provenance.data) == (created, *told):
                return folder
        return None

    def clear(self, version: int) -> None:
        """Remove the checkpoint, and the default folder where that leaves it empty.

        Raises:
            DataError: a file cannot be removed; the bundle and its report are there all the same.
        """
        try:
            KeptFit.remove(self.work)
            Checkpoint.remove(self.work)
            for empty in (self.work, self.work.parent) if self.own else ():
                remove_empty(empty)
        except DataError as error:
            raise DataError(
                f"{self.name} is installed as version {version}, with its report; {error.detail}"
            ) from error


def export_command(folder: Path) -> str:
    """What to type to go on with a fit that was kept."""
    return shlex.join(["pushforward", "export", str(folder)])


def serve_command(recipe: BaseRecipe) -> str:
    """What to type to serve what a recipe gave."""
    return shlex.join(["pushforward", "serve", "--repository", recipe.out or "", "--default-flow", recipe.name or ""])


def require_one(*, resume: bool, restart: bool) -> None:
    """Refuse to go on with an unfinished fit and to throw it away.

    Raises:
        DataError: both are asked for.
    """
    if resume and restart:
        raise DataError("resume goes on with an unfinished fit and restart throws it away: give one of them")

"""The checkpoint: a fit on disk, with all that it needs to go on after a kill as if nothing had happened.

A checkpoint holds tensors, numbers and text only, and is read with `weights_only`, so that no code comes out of it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from service.bundle.durable import replace_durably
from service.errors import DataError, PushforwardError, Reason

__all__ = [
    "CHECKPOINT_FILE",
    "Checkpoint",
    "EpochRecord",
    "Origin",
    "read_state",
    "reading_state",
    "remove_state",
    "write_state",
]

CHECKPOINT_FILE: Final = "checkpoint.pt"
_TEMPORARY: Final = ".checkpoint-"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch, as the loss curves show it.

    Args:
        epoch: counted from 1.
        train: mean log-likelihood of the training rows as they were stepped on, noise included, in nats.
        validation: mean log-likelihood of the validation rows after the epoch, in nats.
        best: the greatest `validation` so far.
        learning_rate: the step it was done with.
        skipped: steps left out, since their loss or gradient was not finite.
    """

    epoch: int
    train: float
    validation: float
    best: float
    learning_rate: float
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fit belongs to: with other data or another recipe, other weights would come out.

    Args:
        recipe: ``section.key`` -> value, of all that decides which weights come out.
        data: the digest of the rows.
    """

    recipe: Mapping[str, Any]
    data: str

    def check(self, other: Origin) -> None:
        """Refuse to go on with `other`'s fit.

        Raises:
            DataError: naming each key of the recipe that differs, or the data.
        """
        reasons = [
            Reason(("checkpoint", key), f"it was {other.recipe.get(key)!r}, and is {self.recipe.get(key)!r} now")
            for key in sorted({*self.recipe, *other.recipe})
            if self.recipe.get(key) != other.recipe.get(key)
        ]
        if self.data != other.data:
            reasons.append(Reason(("checkpoint", "data"), "the rows are not those that the fit began with"))
        if reasons:
            raise DataError(
                "the unfinished fit cannot be resumed: it began with another "
                + " and another ".join(
                    ["recipe"] * any(r.loc != ("checkpoint", "data") for r in reasons)
                    + ["data set"] * (self.data != other.data)
                )
                + "; --restart throws it away",
                tuple(reasons),
            )


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A fit between two epochs.

    Args:
        origin: what it belongs to.
        epoch: how many epochs are done.
        finished: whether the fit is over, and only export and report are left.
        weights: the flow's state, as the optimizer left it.
        average: the running mean of the weights, and how many steps it has seen.
        best: the averaged flow's state after `best_epoch`.
        best_epoch: the epoch of the best validation so far; 0 before the first.
        skipped_in_a_row: steps without a finite gradient, up to now.
        optimizer: its state.
        schedule: the learning rate's state.
        generator: the state of the stream of noise and order, uint8.
        history: an entry for each epoch.
        library: torch's version.
        exporting: the moment at which the export began, as the bundle's provenance has it; None before. By it a
            bundle is known that was installed by a run that was then killed.
        chosen: the options that a search chose before this fit, nested as in a recipe; empty where none did.
    """

    origin: Origin
    epoch: int
    finished: bool
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    best_epoch: int
    skipped_in_a_row: int
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    generator: Tensor
    history: list[EpochRecord] = field(default_factory=list)
    library: str = str(torch.__version__)  # its own class of text is no plain text to the reader
    exporting: str | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into `folder`, whole or not at all: a temporary file, fsync, rename."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("origin", "history")}
        content |= {
            "origin": {"recipe": dict(self.origin.recipe), "data": self.origin.data},
            "history": [asdict(record) for record in self.history],
        }
        write_state(folder, content, _FORMAT)

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """Read the one in `folder`; None where there is none.

        Raises:
            DataError: where the file is not a checkpoint of this format.
        """
        with reading_state():
            content = read_state(folder, _FORMAT)
            if content is None:
                return None
            origin = Origin(**content.pop("origin"))
            history = [EpochRecord(**record) for record in content.pop("history")]
            return cls(origin=origin, history=history, **content)

    @classmethod
    def note_export(cls, folder: Path, moment: str) -> None:
        """Write into the one in `folder`, if any, that its export begins."""
        found = cls.load(folder)
        if found is not None:
            replace(found, exporting=moment).save(folder)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove what `save` writes into `folder`, and nothing else: the folder may be the user's.

        Raises:
            DataError: where a file of it cannot be removed.
        """
        remove_state(folder)


def write_state(folder: Path, content: Mapping[str, Any], form: int | str) -> None:
    """Write a checkpoint's content into `folder`, whole or not at all: a temporary file, fsync, rename.

    Args:
        folder: made where it is not there.
        content: tensors, numbers, text, and mappings and lists of them.
        form: the number or the name of the content's format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({**content, "format": form}, buffer)
    replace_durably(folder / CHECKPOINT_FILE, buffer.getbuffer(), prefix=_TEMPORARY)


def read_state(folder: Path, form: int | str) -> dict[str, Any] | None:
    """Read the content of the checkpoint in `folder`; None where there is none.

    Args:
        folder: where `write_state` wrote.
        form: the format that is expected.

    Raises:
        DataError: the file is no checkpoint of this format.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    with reading_state():
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.pop("format", None) != form:
            raise DataError(
                f"{CHECKPOINT_FILE} is not a checkpoint of this version, or is one of another command: a fit of "
                "`pushforward vi` goes on by its own --resume; --restart throws it away"
            )
        return content


@contextmanager
def reading_state() -> Iterator[None]:
    """Tell whatever goes wrong in a block that reads a checkpoint as the fault of its file.

    Raises:
        DataError: for any error in the block.
    """
    try:
        yield
    except PushforwardError:
        raise
    except Exception as error:  # torch's reader raises a dozen classes
        raise DataError(f"{CHECKPOINT_FILE} cannot be read; --restart throws it away") from error


def remove_state(folder: Path) -> None:
    """Remove what `write_state` writes into `folder`, and nothing else: the folder may be the user's.

    Raises:
        DataError: where a file of it cannot be removed.
    """
    try:
        for path in (folder / CHECKPOINT_FILE, *folder.glob(f"{_TEMPORARY}*")):
            if path.is_file():
                path.unlink()
    except OSError as error:
        raise DataError(f"the checkpoint in {folder} cannot be removed: {error.strerror}") from error

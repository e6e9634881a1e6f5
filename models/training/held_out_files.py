"""The files of held-out rows in a report: the figure that each gives, and the command for it. Must not import torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from models.evaluation.likelihood import Evaluation

__all__ = ["AS_GIVEN", "AS_SCORED", "CONTEXT", "HeldOutFile", "list_held_out_files"]

AS_GIVEN: Final = "held_out.npy"
"""The rows as the user has them."""

AS_SCORED: Final = "held_out_scored.npy"
"""The same, spread over their bins; written only where the data was dequantized."""

CONTEXT: Final = "held_out_context.npy"
"""The context of those rows; written only where the flow takes one."""

_MEAN: Final = """awk 'NR > 1 { sum += $1 } END { printf "%.3f\\n", sum / (NR - 1) }'"""


@dataclass(frozen=True, slots=True)
class HeldOutFile:
    """One file of held-out rows.

    Args:
        path: where it lies.
        words: what it holds, and which figure it gives.
        mean: that figure: the mean of the flow's log_prob over its rows, in nats.
        command: what prints that mean, for a shell; empty where there is no bundle.
    """

    path: Path
    words: str
    mean: float
    command: str


def list_held_out_files(evaluation: Evaluation, report: Path, bundle: Path | None) -> tuple[HeldOutFile, ...]:
    """The files of held-out rows in the report's folder, the one as the user has them first.

    Args:
        evaluation: what the rows gave.
        report: the report's folder.
        bundle: the bundle's folder; None where there is none.

    Returns:
        One file, or two where the data was dequantized.
    """
    count = len(evaluation.flow.log_prob)
    figure = "the figure of the flow" if evaluation.centres is None else "the figure at the centres of the bins"
    given = (AS_GIVEN, f"the {count} held-out rows as the data has them; HTTP answers for them give {figure}")
    scored = (AS_SCORED, "the same rows spread over their bins, as they were scored; they give the figure of the flow")
    found = [(given, evaluation.served)]
    if evaluation.centres is not None:
        found.append((scored, evaluation.flow))
    context = report / CONTEXT if evaluation.context_width else None
    return tuple(
        HeldOutFile(
            path=report / name,
            words=words,
            mean=score.mean,
            command="" if bundle is None else _mean_command(report / name, context=context, bundle=bundle),
        )
        for (name, words), score in found
    )


def _mean_command(rows: Path, context: Path | None, bundle: Path) -> str:
    """What prints the mean log_prob of a file's rows, given the context in another, under a bundle, for a shell."""
    given = [] if context is None else ["--context", f"@{context}"]
    return f"{shlex.join(['pushforward', 'logprob', str(rows), *given, '--bundle', str(bundle)])} | {_MEAN}"

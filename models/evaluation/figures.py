"""The figures of an evaluation under the names that docs/evaluation.md explains, as plain JSON values.

Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from models.data.readers import FloatArray
from models.evaluation.evaluate import Diagnosis
from models.evaluation.likelihood import Evaluation
from models.evaluation.two_sample import TwoSample
from models.evaluation.uniformity import Uniformity
from models.evaluation.verdict import Verdict

__all__ = ["collect_figures"]


def collect_figures(
    evaluation: Evaluation,
    diagnosis: Diagnosis,
    verdict: Verdict,
    columns: Sequence[str],
    rows: FloatArray,
    place: Callable[[int], str] | None = None,
) -> dict[str, Any]:
    """All figures of an evaluation.

    Args:
        evaluation: the likelihoods.
        diagnosis: the tests.
        verdict: on both.
        columns: the names of the columns of x; of pixels, their places.
        rows: ``[N, D]`` the held-out rows as the user has them, whose worst are shown.
        place: the number of a held-out row -> where it is in its file, in words; None for rows without a file.

    Returns:
        Plain JSON values, none of them NaN or infinite.
    """
    return {
        **evaluation.summary(),
        "log_prob_quantiles": {**_test(diagnosis.log_prob), "samples": diagnosis.drawn},
        "coverage": [
            {"level": each.level, "covered": each.covered, "standard_error": each.standard_error}
            for each in diagnosis.coverage
        ],
        "latents": {
            "p_value": diagnosis.latents_p_value,
            "coordinates": [{"coordinate": at, **_test(test)} for at, test in enumerate(diagnosis.latents)],
        },
        "two_sample": _two_sample(diagnosis.samples, columns),
        "margins": [
            {
                "column": name,
                "statistic": margin.statistic,
                "p_value": margin.p_value,
                "wasserstein": margin.wasserstein,
            }
            for name, margin in zip(columns, diagnosis.margins, strict=True)
        ],
        "ranks": None
        if diagnosis.ranks_p_value is None
        else {
            "p_value": diagnosis.ranks_p_value,
            "samples": diagnosis.drawn,
            "columns": [{"column": name, **_test(test)} for name, test in zip(columns, diagnosis.ranks, strict=True)],
        },
        "tarp": None if diagnosis.tarp is None else _test(diagnosis.tarp),
        "worst_rows": [
            {
                "row": worst.row,
                "place": f"row {worst.row}" if place is None else place(worst.row),
                "log_prob": worst.log_prob,
                "quantile": worst.quantile,
                "column": columns[worst.column],
                "deviations": worst.deviations,
                "values": {name: float(value) for name, value in zip(columns, rows[worst.row], strict=True)},
            }
            for worst in diagnosis.worst
        ],
        "verdict": {"grade": verdict.grade, "sentences": list(verdict.sentences)},
    }


def _test(test: Uniformity) -> dict[str, Any]:
    return {"rows": len(test.quantiles), "statistic": test.statistic, "p_value": test.p_value}


def _two_sample(found: TwoSample, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "auroc": found.auroc,
        "standard_error": found.standard_error,
        "p_value": found.p_value,
        "rows": found.rows,
        "telling_columns": [{"column": columns[at], "fall": fall} for at, fall in found.telling],
        "atoms": [
            {"column": columns[atom.column], "kind": atom.kind, "repeated": atom.repeated} for atom in found.atoms
        ],
        "auroc_rounded": found.auroc_rounded,
    }

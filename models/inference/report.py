"""The report of an inference: one HTML page with its pictures, and the figures as JSON."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation import pictures
from models.evaluation.page import fill_template, table, to_images, verdict_box, write_pictures
from models.inference.evidence import Evidence
from models.inference.run import RoundRecord
from models.inference.verdict import InferenceVerdict

__all__ = ["InferenceFindings", "write_inference_report"]


@dataclass(frozen=True, slots=True, eq=False)
class InferenceFindings:
    """All that a report says.

    Args:
        name: of the flow.
        version: of the bundle.
        description: of the flow.
        target: what it was fitted to, in words.
        columns: the names of the coordinates.
        samples: ``[M, D]`` draws of the flow.
        annealed: ``[K, D]`` annealed rows, drawn by their weights; None where there are none.
        history: a record for each round of the kept restart.
        evidence: of the kept restart.
        log_evidence_ais: log Z by annealing, and its standard error.
        restarts: the evidence of each.
        kept: the number of the kept one, from 1.
        verdict: in words.
        seconds: how long the fit took.
        recipe: as plain JSON values.
        serve: what to type next.
    """

    name: str
    version: int
    description: str
    target: str
    columns: Sequence[str]
    samples: npt.NDArray[np.floating[Any]]
    annealed: npt.NDArray[np.floating[Any]] | None
    history: Sequence[RoundRecord]
    evidence: Evidence
    log_evidence_ais: tuple[float, float]
    restarts: Sequence[Evidence]
    kept: int
    verdict: InferenceVerdict
    seconds: float
    recipe: Mapping[str, Any]
    serve: str


def write_inference_report(findings: InferenceFindings, folder: Path) -> None:
    """Write the report into a folder: index.html, its pictures, and figures.json.

    Args:
        findings: what it says.
        folder: made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _draw(findings)
    write_pictures(drawn, folder)
    (folder / "figures.json").write_text(
        json.dumps(_figures(findings), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / "index.html").write_text(_page(findings, to_images(drawn)), encoding="utf-8")


def _draw(findings: InferenceFindings) -> dict[str, bytes]:
    shown = pictures.MAX_PAIRED
    points = [(f"restart {number}", e.log_evidence, e.log_evidence_se) for number, e in enumerate(findings.restarts, 1)]
    points.append(("annealing", *findings.log_evidence_ais))
    samples = findings.samples[:, :shown].astype(np.float64)
    other = samples if findings.annealed is None else findings.annealed[:, :shown].astype(np.float64)
    records = [(record.step, record.elbo, record.stage) for record in findings.history]
    return {
        "evidence": pictures.evidence_bars(points),
        "weights": pictures.weight_histogram(findings.evidence.log_weights),
        "pairs": pictures.pair_plot(other, samples, findings.columns[:shown], data_label="annealed rows"),
        "elbo": pictures.elbo_curve(records, findings.evidence.log_evidence),
    }


def _figures(findings: InferenceFindings) -> dict[str, Any]:
    return {
        "name": findings.name,
        "version": findings.version,
        "verdict": findings.verdict.word,
        "sentences": list(findings.verdict.sentences),
        "kept": findings.kept,
        "log_evidence_ais": _number(findings.log_evidence_ais[0]),
        "log_evidence_ais_se": _number(findings.log_evidence_ais[1]),
        "restarts": [
            {
                "elbo": _number(each.elbo),
                "elbo_se": _number(each.elbo_se),
                "log_evidence": _number(each.log_evidence),
                "log_evidence_se": _number(each.log_evidence_se),
                "ess_share": each.ess_share,
                "pareto_k": each.pareto_k,
                "outside": each.outside,
            }
            for each in findings.restarts
        ],
        "history": [
            {"stage": record.stage, "step": record.step, "elbo": _number(record.elbo), "skipped": record.skipped}
            for record in findings.history
        ],
        "seconds": findings.seconds,
        "recipe": dict(findings.recipe),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _page(findings: InferenceFindings, images: Mapping[str, str]) -> str:
    rows = [
        (
            f"Restart {number}" + (", kept" if number == findings.kept else ""),
            _shown(each.elbo, each.elbo_se),
            _shown(each.log_evidence, each.log_evidence_se),
            f"{each.ess_share:.3f}",
            "unknown" if each.pareto_k is None else f"{each.pareto_k:.2f}",
        )
        for number, each in enumerate(findings.restarts, 1)
    ]
    rows.append(("Annealing from a wide start", "", _shown(*findings.log_evidence_ais), "", ""))
    skipped = sum(record.skipped for record in findings.history)
    stages = dict.fromkeys(record.stage.replace("_", " ") for record in findings.history)
    facts = {
        "stages": ", ".join(stages),
        "steps": f"{findings.history[-1].step}" if findings.history else "0",
        "time": f"{findings.seconds:.1f} s, all restarts",
    }
    if skipped:
        facts["skipped steps"] = f"{skipped}, since their loss or gradient was not finite"
    hidden = len(findings.columns) - pictures.MAX_PAIRED
    pairs = f'<img src="{images["pairs"]}" alt="Draws of the flow over annealed rows, each pair of coordinates">'
    if hidden > 0:
        pairs += f'<p class="faint">The first {pictures.MAX_PAIRED} of {len(findings.columns)} coordinates.</p>'
    grade = {"good": "good", "heavy_tails": "fair"}.get(findings.verdict.word, "poor")
    text = {
        "title": f"{findings.name}, version {findings.version}",
        "name": findings.name,
        "version": str(findings.version),
        "description": findings.description,
        "target": findings.target,
        "serve": findings.serve,
        "recipe": json.dumps(findings.recipe, indent=2, ensure_ascii=False),
        "explanation": (
            f"ELBO is the mean of log p - log q over {len(findings.evidence.log_weights)} draws of the flow, in nats. "
            "log Z is estimated by importance sampling from the flow, and by annealed importance sampling from a wide "
            "normal distribution, which does not know the flow. Where annealing finds more, the flow misses something. "
            "The effective share of the draws and the Pareto k say how far weighted means can be relied on: k should "
            "be below 0.7."
        ),
    }
    markup = {
        "verdict": verdict_box(findings.verdict.title, grade, findings.verdict.sentences),
        "table": table(("", "ELBO", "log Z", "effective share", "Pareto k"), rows),
        "evidence": images["evidence"],
        "weights": images["weights"],
        "elbo": images["elbo"],
        "pairs": pairs,
        "facts": "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()),
    }
    return fill_template("models.inference", "report.html", text, markup, {})


def _shown(value: float, error: float) -> str:
    if not math.isfinite(value):
        return "minus infinity"
    return f"{value:.4f}" + (f" ± {error:.4f}" if math.isfinite(error) else "")

"""The report of a fit: a folder with a page that stands by itself, its pictures, its figures as JSON, and the rows.

It knows nothing of how a flow was fitted or exported: `Findings` holds all that it says.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from models.data.readers import FloatArray
from models.data.split import derived_generator
from models.evaluation import live, pictures
from models.evaluation.evaluate import Diagnosis
from models.evaluation.figures import collect_figures
from models.evaluation.likelihood import Evaluation
from models.evaluation.page import (
    diagnosis_sections,
    draw_diagnosis,
    explain,
    fill_template,
    likelihood_table,
    list_figures,
    name_columns,
    picture,
    to_images,
    verdict_box,
    write_pictures,
)
from models.evaluation.verdict import Verdict, judge
from models.flows.bases import sample_base
from models.flows.flow import Flow
from models.training.checkpoint import EpochRecord
from models.training.fit import log_prob
from models.training.held_out_files import AS_GIVEN, AS_SCORED, CONTEXT, list_held_out_files

__all__ = ["Findings", "draw", "write_report"]

_SHOWN_ROWS: Final = 2000
_SHOWN_IMAGES: Final = 36
_MAP: Final = 160
_AVERAGED: Final = 16  # contexts that a map of the density is averaged over


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """All that a report says.

    Args:
        name: what the flow is called.
        version: its version; None for a fit that could not be exported.
        description: a sentence or two.
        data: what it was fitted to, in words.
        columns: the columns' names with their units; empty for images.
        flow: as fitted.
        held_out: ``[M, *event]`` the held-out rows as the user has them, in the user's units.
        scored: ``[M, *event]`` the same as they were scored: dequantized once, where they are.
        evaluation: what they gave.
        diagnosis: what the tests of samples, densities and latents found.
        history: an entry for each epoch.
        best_epoch: the epoch whose weights were kept.
        stopped: why the fit ended.
        chosen: the options that were chosen by validation rows, in words; "" where none were.
        seconds: how long the fit took in this run; a fit that was resumed had more.
        rows: training, validation and held-out rows.
        seed: of the fit.
        recipe: the whole of it, plain values.
        notes: what the user should know.
        bundle: the bundle's folder; None where there is none.
        serve: the command that serves the flow; of one that could not be exported, that goes on with it.
        context: ``[M, C]`` the context of the held-out rows; None for a flow without.
        context_columns: its columns' names with their units.
        published: bits per dimension that others have published for this data, by name.
        warnings: what the user must know.
        split: how rows were parted, in words.
    """

    name: str
    version: int | None
    description: str
    data: str
    columns: Sequence[str]
    flow: Flow
    held_out: Tensor
    scored: Tensor
    evaluation: Evaluation
    diagnosis: Diagnosis
    history: Sequence[EpochRecord]
    best_epoch: int
    stopped: str
    seconds: float
    rows: tuple[int, int, int]
    seed: int
    recipe: Mapping[str, Any]
    notes: Sequence[str]
    bundle: Path | None
    serve: str
    context: Tensor | None = None
    context_columns: Sequence[str] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    split: str = "at random"
    chosen: str = ""

    @property
    def title(self) -> str:
        """What the report is of."""
        return self.name if self.version is None else f"{self.name}, version {self.version}"

    @property
    def names(self) -> list[str]:
        """The names of the values of a row."""
        return name_columns(self.columns, self.flow.event_shape)

    @property
    def verdict(self) -> Verdict:
        """On the flow, in words."""
        return judge(self.evaluation, self.diagnosis, self.names)


def write_report(findings: Findings, folder: Path) -> Path:
    """Write ``index.html``, its pictures, ``report.json`` and the held-out rows.

    Args:
        findings: what to say.
        folder: made where it is not there; files of the same names are replaced.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, shown = draw(findings)
    write_pictures(drawn, folder)
    np.save(folder / AS_GIVEN, findings.held_out.numpy())
    if findings.evaluation.centres is not None:
        np.save(folder / AS_SCORED, findings.scored.numpy())
    if findings.context is not None:
        np.save(folder / CONTEXT, findings.context.numpy())
    figures = _figures(findings)
    text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_page(findings, figures, drawn, shown, folder), encoding="utf-8")
    return page


def draw(findings: Findings) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The report's pictures: name -> PNG; and what a live figure in the place of each shows."""
    evaluation = findings.evaluation
    train, validation = ([getattr(each, name) for each in findings.history] for name in ("train", "validation"))
    log_probs = evaluation.flow.log_prob, evaluation.gaussian.log_prob
    drawn = {
        "loss": pictures.loss_curves(train, validation, findings.best_epoch),
        "log_prob": pictures.log_prob_histogram(*log_probs),
        **draw_diagnosis(findings.diagnosis, findings.names),
    }
    shown = {
        "loss": live.loss_curves(train, validation, findings.best_epoch),
        "log_prob": live.log_prob_histogram(*log_probs),
        **list_figures(findings.diagnosis, findings.names),
    }
    data = findings.scored[:_SHOWN_ROWS].to(torch.float64).numpy()
    context = None if findings.context is None else findings.context[:_SHOWN_ROWS]
    samples = _samples(findings.flow, findings.seed, len(data), context)
    if len(findings.flow.event_shape) == 3:
        support = findings.flow.support
        low = float(data.min()) if support is None or support.low is None else support.low
        high = float(data.max()) if support is None or support.high is None else support.high
        images = findings.held_out[:_SHOWN_IMAGES].to(torch.float64).numpy()
        sheets = images, samples[:_SHOWN_IMAGES], low, high
        drawn["samples"], shown["samples"] = pictures.image_grid(*sheets), live.image_grid(*sheets)
        return drawn, shown
    data, samples = data.reshape(len(data), -1), samples.reshape(len(samples), -1)
    names = findings.names
    many = min(data.shape[1], pictures.MAX_PAIRED)
    pairs = data[:, :many], samples[:, :many], names[:many]
    drawn["samples"], shown["samples"] = pictures.pair_plot(*pairs), live.pair_plot(*pairs)
    if data.shape[1] == 2:
        grid = _density(findings.flow, data, context)
        drawn["density"], shown["density"] = (kind.density(*grid, data, names) for kind in (pictures, live))
    return drawn, shown


def _samples(flow: Flow, seed: int, count: int, context: Tensor | None) -> FloatArray:
    """Rows drawn from the flow, one at each context; the few that are not finite are left out."""
    generator = derived_generator(seed, "report")
    with torch.no_grad():
        x, _ = flow.inverse(sample_base(flow.base, count, flow.width, generator, flow.dtype), context)
    rows = x.to(torch.float64).numpy()
    return np.asarray(rows[np.isfinite(rows.reshape(count, -1)).all(axis=1)], np.float64)


def _density(flow: Flow, data: FloatArray, context: Tensor | None) -> tuple[FloatArray, list[float], list[float]]:
    """The log_prob of a flow of two columns on a grid ``[R, R]``, and its lower and upper ends.

    With a context it is that of the mean density over the first few held-out rows' contexts.
    """
    low, high = data.min(axis=0), data.max(axis=0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    first, second = (np.linspace(low[i], high[i], _MAP) for i in range(2))
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    points = torch.from_numpy(grid).to(flow.dtype)
    if context is None:
        values = log_prob(flow, points).to(torch.float64).numpy()
    else:
        each = [log_prob(flow, points, one.expand(len(points), -1)) for one in context[:_AVERAGED]]
        values = (torch.stack(each).to(torch.float64).logsumexp(dim=0) - math.log(len(each))).numpy()
    return values.reshape(_MAP, _MAP), low.tolist(), high.tolist()


def _figures(findings: Findings) -> dict[str, Any]:
    """The content of report.json."""
    train, validation, test = findings.rows
    return {
        "name": findings.name,
        "version": findings.version,
        "data": findings.data,
        "rows": {"train": train, "validation": validation, "held_out": test},
        "split": findings.split,
        "width": findings.evaluation.width,
        "context": list(findings.context_columns),
        **collect_figures(
            findings.evaluation,
            findings.diagnosis,
            findings.verdict,
            findings.names,
            findings.held_out.to(torch.float64).flatten(1).numpy(),
        ),
        **({"published_bits_per_dim": dict(findings.published)} if findings.published else {}),
        "fit": {
            "epochs": len(findings.history),
            "best_epoch": findings.best_epoch,
            "stopped": findings.stopped,
            "chosen": findings.chosen,
            "seconds": round(findings.seconds, 3),
            "seed": findings.seed,
            "skipped_steps": sum(record.skipped for record in findings.history),
            "history": [_finite(asdict(record)) for record in findings.history],
        },
        "recipe": dict(findings.recipe),
        "notes": list(findings.notes),
        "warnings": list(findings.warnings),
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an epoch that diverged shows null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _page(
    findings: Findings, figures: Mapping[str, Any], drawn: Mapping[str, bytes], shown: Mapping[str, Any], folder: Path
) -> str:
    images = to_images(drawn)
    width = len(findings.columns) or findings.evaluation.width
    if len(findings.flow.event_shape) == 3:
        title = "Samples"
    else:
        first = f" (the first {pictures.MAX_PAIRED} of {width} columns)" if width > pictures.MAX_PAIRED else ""
        title = f"Samples over held-out rows{first}"
    given = "" if findings.context is None else ", each drawn at the context of one of them"
    below = [picture("samples", images["samples"], f"Samples of the flow beside held-out rows{given}")]
    if findings.context is not None:
        below.append('<p class="faint">Each sample is drawn at the context of one held-out row.</p>')
    if "density" in images:
        below.append(picture("density", images["density"], "The density as a map, with held-out rows on it"))
        if findings.context is not None:
            many = min(_AVERAGED, len(findings.context))
            below.append(f'<p class="faint">The map is the mean density over the contexts of {many} held-out rows.</p>')
    train, validation, test = findings.rows
    facts = {
        "rows": f"{train} to train on, {validation} to stop by, {test} held out, split {findings.split}",
        "epochs": f"{len(findings.history)}: {findings.stopped}; the weights of epoch {findings.best_epoch} were kept",
        "time": f"{findings.seconds:.1f} s",
        "parameters": f"{sum(p.numel() for p in findings.flow.parameters())}",
        "seed": str(findings.seed),
    }
    if findings.context_columns:
        facts = {"given": ", ".join(findings.context_columns)} | facts
    if findings.chosen:
        facts["chosen by validation"] = findings.chosen
    skipped = sum(record.skipped for record in findings.history)
    if skipped:
        facts["skipped steps"] = f"{skipped}, since their likelihood or gradient was not finite"
    text = {
        "title": findings.title,
        "name": findings.name,
        "version": "not exported" if findings.version is None else f"version {findings.version}",
        "next": "Serve it" if findings.bundle is not None else "Go on with it",
        "description": findings.description,
        "data": findings.data,
        "samples_title": title,
        "serve": findings.serve,
        "recipe": json.dumps(findings.recipe, indent=2, ensure_ascii=False),
        "explanation": explain(findings.evaluation),
    }
    markup = {
        "verdict": verdict_box(findings.verdict.grade, findings.verdict.grade, findings.verdict.sentences),
        "warnings": "".join(f'<p class="warned">{html.escape(said)}.</p>' for said in findings.warnings),
        "notes": "".join(f'<p class="remark">{html.escape(note)}.</p>' for note in findings.notes),
        "table": likelihood_table(findings.evaluation, findings.published),
        "files": "".join(
            f"<p><code>{file.path.name}</code>: {html.escape(file.words)}, {file.mean:.3f} nats.</p>"
            + (f"<pre>{html.escape(file.command)}</pre>" if file.command else "")
            for file in list_held_out_files(findings.evaluation, folder, findings.bundle)
        ),
        "histogram": picture(
            "log_prob",
            images["log_prob"],
            "Histogram of log_prob over held-out rows, under the flow and under the Gaussian",
        ),
        "loss": picture("loss", images["loss"], "Mean log-likelihood of training and validation rows over the epochs"),
        "samples": "\n".join(below),
        "diagnosis": diagnosis_sections(figures, images),
        "facts": "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()),
    }
    return fill_template("models.training", "report.html", text, markup, shown)

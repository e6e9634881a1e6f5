"""The parts of a report's page that an evaluation fills, as HTML. Must not import torch."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np

from models.evaluation import live, pictures
from models.evaluation.components import data_script, inline_modules, inline_styles
from models.evaluation.evaluate import Diagnosis
from models.evaluation.likelihood import Evaluation, Score

__all__ = [
    "diagnosis_sections",
    "draw_diagnosis",
    "explain",
    "fill_template",
    "likelihood_table",
    "list_figures",
    "name_columns",
    "picture",
    "table",
    "to_images",
    "verdict_box",
    "write_pictures",
]

_MARK: Final = (
    '<svg viewBox="0 0 32 32" class="mark" aria-hidden="true"><path class="mark-data" d="M2 26c7 0 7-16 11-16s3 9 6 9 '
    '3-6 5-6 3 13 6 13z"/><path class="mark-latent" d="M2 26c7 0 9-9 14-9s7 9 14 9z"/></svg>'
)

_SHOWN_COLUMNS: Final = 64
_SHOWN_VALUES: Final = 8


def name_columns(names: Sequence[str], event_shape: Sequence[int]) -> list[str]:
    """The names of the values of a row: the columns', or places in an event of several axes."""
    if names:
        return list(names)
    if len(event_shape) == 1:
        return [f"column {at}" for at in range(event_shape[0])]
    return [f"[{', '.join(map(str, place))}]" for place in np.ndindex(*event_shape)]


def fill_template(
    package: str, name: str, text: Mapping[str, str], markup: Mapping[str, str], figures: Mapping[str, Any]
) -> str:
    """Fill a page, which then stands by itself: styles, modules and what its figures show lie within it.

    Args:
        package: that holds the template of what `page.html` frames.
        name: of the template's file.
        text: plain text by key, the title among it; it is escaped.
        markup: HTML by key.
        figures: what the live figures show, by the names of the pictures that they replace (`models.evaluation.live`).
    """
    escaped = {key: html.escape(value) for key, value in text.items()}
    return _template("models.evaluation", "page.html").substitute(
        title=escaped["title"],
        mark=_MARK,
        style=inline_styles(),
        modules=inline_modules(),
        figures=data_script(figures),
        body=_template(package, name).substitute(escaped, **markup),
    )


def _template(package: str, name: str) -> Template:
    return Template(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def picture(name: str, source: str, words: str) -> str:
    """A picture, which a live figure of the same name replaces where the page's script runs.

    Args:
        name: of the picture.
        source: of its image.
        words: for whoever does not see it.
    """
    return f'<div class="picture" data-figure="{name}"><img src="{source}" alt="{html.escape(words)}"></div>'


def to_images(drawn: Mapping[str, bytes]) -> dict[str, str]:
    """PNG files as sources of images that need no other file."""
    return {name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in drawn.items()}


def write_pictures(drawn: Mapping[str, bytes], folder: Path) -> None:
    """Write each picture into a folder."""
    for name, picture in drawn.items():
        (folder / f"{name}.png").write_bytes(picture)


def draw_diagnosis(diagnosis: Diagnosis, columns: Sequence[str]) -> dict[str, bytes]:
    """The pictures of the tests: name -> PNG."""
    drawn = {"quantiles": pictures.quantile_plot(diagnosis.log_prob.quantiles, diagnosis.coverage)}
    if diagnosis.ranks:
        shown = diagnosis.ranks[: pictures.MAX_PAIRED]
        quantiles = np.stack([test.quantiles for test in shown], axis=1)
        drawn["ranks"] = pictures.rank_plot(quantiles, columns[: len(shown)])
    return drawn


def list_figures(diagnosis: Diagnosis, columns: Sequence[str]) -> dict[str, Any]:
    """What the live figures of the tests show, by the names that `draw_diagnosis` gives."""
    shown = {"quantiles": live.quantile_plot(diagnosis.log_prob.quantiles, diagnosis.coverage)}
    if diagnosis.ranks:
        tests = diagnosis.ranks[: pictures.MAX_PAIRED]
        shown["ranks"] = live.rank_plot(np.stack([test.quantiles for test in tests], axis=1), columns[: len(tests)])
    return shown


def verdict_box(title: str, grade: str, findings: Sequence[str]) -> str:
    """The verdict.

    Args:
        title: its heading.
        grade: "good", "fair" or "poor", which decides its colour.
        findings: what was found, each a sentence without a final full stop.
    """
    sentences = "".join(f"<li>{html.escape(_sentence(each))}</li>" for each in findings)
    return f'<div class="verdict {grade}"><strong>Verdict: {html.escape(title)}.</strong><ul>{sentences}</ul></div>'


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def explain(evaluation: Evaluation) -> str:
    """What the figures of `likelihood_table` are, in words."""
    said = (
        f"Means over {len(evaluation.flow.log_prob)} held-out rows, in nats and in the units of the data, with the "
        "standard error of the mean. "
    )
    rows = "training rows"
    if evaluation.train is None:
        rows = "other folds (each fifth of the rows is scored by what is fitted to the four others)"
    if evaluation.context_width:
        said += (
            "The flow and the Gaussian are given each row's context: the Gaussian's mean is a linear regression of the "
            f"columns on the context, and it has the full covariance of what that leaves over of the {rows}."
        )
    else:
        said += f"The Gaussian has the mean and the full covariance of the {rows}."
    if evaluation.mixture is not None:
        said += " The mixture has as many Gaussians as give rows held back from it the most."
    if evaluation.centres is not None:
        said += (
            " Values on a grid were spread over their bins once, by a fixed seed, and so scored. At the centres of the "
            "bins are the same rows as they stand in the data, which is how the server answers them."
        )
    if evaluation.gaussian_ridged:
        said += " Columns determine one another, so a millionth of each variance was added to the covariance."
    return said


def likelihood_table(evaluation: Evaluation, published: Mapping[str, float]) -> str:
    """The table of log-likelihoods.

    Args:
        evaluation: what it holds.
        published: bits per dimension that others have published, by name.
    """
    gaussian = "Linear Gaussian, given the context" if evaluation.context_width else "Full-covariance Gaussian"
    lines: list[tuple[str, str, Score, bool]] = [
        ("flow", "The flow", evaluation.flow, True),
        ("", gaussian, evaluation.gaussian, True),
        ("", "Gain over the Gaussian", evaluation.gain, False),
    ]
    if evaluation.mixture is not None:
        lines.insert(2, ("", f"Mixture of {evaluation.components} Gaussians", evaluation.mixture, True))
    if evaluation.train is not None:
        lines.append(("", "The flow, on its training rows", evaluation.train, True))
    if evaluation.centres is not None and evaluation.centres_gaussian is not None:
        lines += [
            ("", "The flow, at the centres of the bins", evaluation.centres, False),
            ("", "Gaussian, at the centres of the bins", evaluation.centres_gaussian, False),
        ]
    head = "<tr><th></th><th>log-likelihood, nats</th><th>per dimension, nats</th>"
    head += ("<th>bits per dimension</th>" if evaluation.log_bins is not None else "") + "</tr>"
    rows = "".join(_line(*line, evaluation) for line in lines)
    rows += "".join(
        f'<tr class=""><td>Published: {html.escape(name)}</td><td></td><td></td><td>{bits:g}</td></tr>'
        for name, bits in published.items()
    )
    return f"<table>{head}{rows}</table>"


def _line(kind: str, label: str, score: Score, has_bits: bool, evaluation: Evaluation) -> str:
    cells = [label, f"{score.mean:.3f} ± {score.standard_error:.3f}", f"{score.mean / evaluation.width:.4f}"]
    bits, error = evaluation.bits_per_dim(score), evaluation.bits_error(score)
    if bits is not None and error is not None:
        cells.append(f"{bits:.4f} ± {error:.4f}" if has_bits else "")
    return f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def diagnosis_sections(figures: Mapping[str, Any], images: Mapping[str, str]) -> str:
    """The sections of the tests: quantiles, ranks, samples, columns and worst rows.

    Args:
        figures: from `collect_figures`.
        images: the pictures of `draw_diagnosis`, as sources.
    """
    quantiles, latents = figures["log_prob_quantiles"], figures["latents"]
    parts = [
        "<h2>Are the densities right?</h2>",
        picture("quantiles", images["quantiles"], "Quantiles of log_prob, and the coverage of regions"),
        (
            '<p class="faint">If rows were drawn from the flow, the quantile of their log_prob among the flow\'s own '
            f"samples would be uniform: p = {quantiles['p_value']:.2g}. A region of greatest density would hold just "
            "the share of the rows that it holds of the probability. "
            f"Each coordinate of z has the base's distribution: p = {latents['p_value']:.2g} for all "
            f"{len(latents['coordinates'])} as one test.</p>"
        ),
        table(
            ("probability of the region", "rows inside it"),
            [(f"{c['level']:.0%}", f"{c['covered']:.1%} ± {c['standard_error']:.1%}") for c in figures["coverage"]],
        ),
    ]
    if figures["ranks"] is not None:
        ranks = figures["ranks"]
        parts += [
            "<h2>Ranks given the context</h2>",
            picture("ranks", images["ranks"], "Ranks of each value among samples at the same context"),
            (
                f'<p class="faint">The rank of each value among {ranks["samples"]} samples at its row\'s context '
                f"(simulation-based calibration): p = {ranks['p_value']:.2g} for all columns as one test. The distance "
                "of each row from a random point, among those of the samples (TARP): "
                f"p = {figures['tarp']['p_value']:.2g}.</p>"
            ),
        ]
    return "\n".join([*parts, *_sample_parts(figures), *_worst_parts(figures)])


def _sample_parts(figures: Mapping[str, Any]) -> list[str]:
    found, margins = figures["two_sample"], figures["margins"]
    said = (
        f"A classifier tells {found['rows']} samples from as many held-out rows with AUROC {found['auroc']:.3f} ± "
        f"{found['standard_error']:.3f}; 0.5 is perfect, and 1 tells all."
    )
    if found["atoms"]:
        named = ", ".join(f"{atom['column']} ({atom['kind']})" for atom in found["atoms"][:_SHOWN_COLUMNS])
        said += f" Values repeat in {named}, as no sample of a density does, which may give the table away."
    if found["auroc_rounded"] is not None:
        said += f" With samples rounded to these values the AUROC is {found['auroc_rounded']:.3f}."
    if found["telling_columns"]:
        said += " It falls most without " + ", ".join(
            f"{each['column']} (by {each['fall']:.3f})" for each in found["telling_columns"][:_SHOWN_VALUES]
        )
        said += "."
    parts = ["<h2>Samples and held-out rows</h2>", f"<p>{html.escape(said)}</p>"]
    ranked = sorted(margins, key=lambda margin: -margin["statistic"])[:_SHOWN_COLUMNS]
    margin_table = table(
        ("column", "Kolmogorov-Smirnov", "p", "Wasserstein"),
        [(m["column"], f"{m['statistic']:.3f}", f"{m['p_value']:.2g}", f"{m['wasserstein']:.4g}") for m in ranked],
    )
    which = f"The {_SHOWN_COLUMNS} columns that differ most" if len(margins) > len(ranked) else "Each column"
    return [
        *parts,
        f'<p class="faint">{which}, samples beside held-out rows, the greatest difference first.</p>',
        margin_table,
    ]


def _worst_parts(figures: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            worst["place"],
            f"{worst['log_prob']:.3f}",
            f"{worst['quantile']:.4f}",
            f"{worst['column']} ({worst['deviations']:+.1f} sd)",
            ", ".join(f"{value:g}" for value in list(worst["values"].values())[:_SHOWN_VALUES])
            + ("…" if len(worst["values"]) > _SHOWN_VALUES else ""),
        )
        for worst in figures["worst_rows"]
    ]
    head = ("held-out row", "log_prob, nats", "quantile", "furthest out", "values")
    return ["<h2>Rows of least density</h2>", table(head, rows)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text, which is escaped.

    Args:
        head: the headings of the columns.
        rows: the cells of each row.
    """
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells}</tr>{lines}</table></div>'

"""`pushforward evaluate`: how good a bundle's flow is on held-out rows, in figures, pictures and words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np

from pushforward.cli.evaluation_rows import EvaluationRows, Float64Array, find_steps, read_rows
from pushforward.cli.next_version import RowOptions
from pushforward.cli.options import load_options
from pushforward.cli.progress import show_progress
from pushforward.cli.row_layout import rows_of_block
from pushforward.client.errors import InvalidInput
from service.errors import DataError, PushforwardError
from service.plan import run_now

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.evaluation.density import Draws
    from models.evaluation.evaluate import Diagnosis, HeldOutRows
    from models.evaluation.likelihood import Evaluation
    from models.evaluation.verdict import Verdict
    from service.bundle.bases import Base
    from service.bundle.manifest import Manifest
    from service.engine.verbs.flow import Return, ServedFlow

__all__ = ["BELOW", "command"]

BELOW: Final = 3
"""The exit status where the flow is below --fail-below."""

_SHOWN_ROWS: Final = 2000
_SHOWN_IMAGES: Final = 36
_PLACES: Final = 100  # of rows outside the support
_LINES: Final = 5  # of worst rows and columns on the terminal


def _require_finite(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:  # noqa: ARG001  click's signature
    if value is not None and not np.isfinite(value):
        raise click.BadParameter("must be a finite number")
    return value


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@RowOptions.add
@click.option("--key", help="The array of an .npz. Default: X, x, or the only array with rows and columns.")
@click.option("--where", multiple=True, metavar="CONDITION", help="Keep the rows for which this holds, such as y=0.")
@click.option(
    "--train",
    metavar="FILE",
    help="The rows that the flow was fitted to. The flow is scored on them too, and the Gaussian and the mixture are "
    "fitted to them. Without this option these two are fitted to DATA, in folds.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    default=0,
    show_default=True,
    help="The seed of samples, folds and noise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON (docs/evaluation.md).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write index.html, a page with pictures, and evaluation.json into FOLDER.",
)
@click.option(
    "--fail-below",
    type=float,
    callback=_require_finite,
    metavar="NATS",
    help="End with exit status 3 if the flow's mean log_prob over DATA is below NATS.",
)
@load_options
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    data: str,
    delimiter: str,
    context: str | None,
    context_columns: str | None,
    key: str | None,
    where: tuple[str, ...],
    train: str | None,
    seed: int,
    as_json: bool,
    out: Path | None,
    fail_below: float | None,
    load_seconds: float,
    load_bytes: int,
) -> None:
    """Say how good the flow of BUNDLE is on DATA, rows that it was not fitted to.

    BUNDLE is a bundle's folder, or REPOSITORY/NAME for the newest version. DATA is a CSV, .npy, .npz or Parquet file, a
    folder of PNG images, a built-in data set, or - for CSV or .npy on standard input.

    The command prints: the log-likelihood beside a Gaussian and a mixture of Gaussians; whether densities and latents
    are distributed as they should be; how well a classifier tells samples from DATA; the distribution of each column;
    ranks and coverage, for a conditional flow; the rows of least density; and a verdict. The exit status is 0 whatever
    the verdict is, 3 below --fail-below, and 1 or 2 if the evaluation itself fails.

    \b
      pushforward evaluate repository/wine held_out.csv
      pushforward evaluate repository/wine held_out.csv --json --fail-below -20 > figures.json
      pushforward evaluate repository/wine held_out.csv --train train.csv --out report
    """  # noqa: D301  \b keeps click from joining the lines
    from pushforward.cli.flow_sources import find_bundle
    from service.engine.loading import load_folder
    from service.engine.trials import TrialLimits

    _require_libraries()
    checked, flow = load_folder(find_bundle(bundle), TrialLimits(load_seconds, load_bytes))
    options = RowOptions(delimiter=delimiter, context=context, context_columns=context_columns)
    manifest = checked.manifest
    given = read_rows(manifest, data, options, key=key, where=where)
    fitted = None
    if train is not None:
        if context is not None:
            raise InvalidInput(
                "--context gives the context of DATA alone: with --train, both files must hold their own"
            )
        fitted = read_rows(manifest, train, options, key=None, where=where)
    found = _evaluate(flow, given, fitted, seed=seed, same_file=_same_file(manifest, data))
    mean = -np.inf if found.outside else found.evaluation.flow.mean
    failed = fail_below is not None and mean < fail_below
    figures = found.figures(data=Path(data).name, seed=seed) | {"fail_below": fail_below, "failed": failed}
    if out is not None:
        _write_page(found, figures, Path(data).name, out)
    if as_json:
        click.echo(json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(_format(figures))
        if out is not None:
            click.echo(f"Page: {out / 'index.html'}")
    if failed:
        click.echo(f"FAILED: mean log_prob {mean:.4f} is below --fail-below {fail_below:g}", err=True)
        ctx.exit(BELOW)


def _require_libraries() -> None:
    """Refuse to begin without the libraries that serving does without.

    Raises:
        DataError: one is not installed.
    """
    missing = [name for name in ("matplotlib", "pyarrow", "scipy", "sklearn") if find_spec(name) is None]
    if missing:
        raise DataError(
            f"an evaluation needs {', '.join(missing)}: install the extra `train` of pushforward; torch may be left out"
        )


def _same_file(manifest: Manifest, data: str) -> bool:
    """Whether DATA has the name of the file that the flow was fitted to."""
    source = manifest.provenance.recipe.get("data", {}).get("source")
    return source is not None and Path(data).name == source


class _BundleDensity:
    """A bundle's flow, run by ONNX Runtime in this process, as its evaluation sees it."""

    def __init__(self, flow: ServedFlow) -> None:
        self._flow = flow

    @property
    def base(self) -> Base:
        return self._flow.manifest.base

    def log_prob(self, rows: Float64Array, context: Float64Array | None) -> Float64Array:
        return self._run(rows, context, value=False)[1]

    def score(self, given: EvaluationRows) -> Float64Array:
        """Log p(x) ``[N]`` of the rows of a file.

        Raises:
            InvalidInput: a row is so far out that its answer has no float32; its place in the file is named.
        """
        at_once = rows_of_block(self._flow.event_width)
        rows, context = _flat(given.rows), _double(given.context)
        scores = []
        for start in range(0, len(rows), at_once):
            block = slice(start, start + at_once)
            try:
                scores.append(self.log_prob(rows[block], None if context is None else context[block]))
            except PushforwardError as error:
                row = next((fault.row for fault in error.errors if fault.row is not None), None)
                if row is None:
                    raise
                raise InvalidInput(f"{given.name}, {given.place(start + row)}: {error.errors[0].reason}") from error
        return np.concatenate(scores)

    def latents(self, rows: Float64Array, context: Float64Array | None) -> Float64Array:
        return self._run(rows, context, value=True)[0]

    def sample(self, count: int, context: Float64Array | None, seed: int) -> Draws:
        from models.evaluation.density import Draws

        given = None if context is None else context.astype(self._flow.dtype)
        drawn = run_now(self._flow.sample(count, seed, context=given))
        contexts = 1 if context is None else len(context)
        return Draws(
            drawn.x.astype(np.float64).reshape(contexts, count, self._flow.event_width),
            drawn.log_prob.astype(np.float64).reshape(contexts, count),
        )

    def _run(
        self, rows: Float64Array, context: Float64Array | None, *, value: bool
    ) -> tuple[Float64Array, Float64Array]:
        returns: tuple[Return, ...] = ("z",) if value else ()
        at_once = rows_of_block(self._flow.event_width)
        z, log_prob = [], []
        for start in range(0, len(rows), at_once):
            x = rows[start : start + at_once].astype(self._flow.dtype).reshape(-1, *self._flow.event_shape)
            given = None if context is None else context[start : start + at_once].astype(self._flow.dtype)
            found = run_now(self._flow.log_prob(x, given, returns))
            log_prob.append(found.log_prob)
            if value:
                z.append(found.extras["z"])
        latents = np.concatenate(z) if value else np.empty((len(rows), 0))
        return latents.astype(np.float64), np.concatenate(log_prob).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """All that was found.

    Args:
        manifest: of the flow.
        density: the flow.
        given: the rows inside the support.
        held_out: the same, as they are scored.
        evaluation: the likelihoods.
        diagnosis: the tests.
        verdict: on both.
        shift: the test of log_prob against that of the rows that the bundle was calibrated by.
        outside: where the rows are that have log_prob -inf.
        columns: the names of the values of a row.
    """

    manifest: Manifest
    density: _BundleDensity
    given: EvaluationRows
    held_out: HeldOutRows
    evaluation: Evaluation
    diagnosis: Diagnosis
    verdict: Verdict
    shift: tuple[float, float]
    outside: list[str]
    columns: list[str]

    def figures(self, data: str, seed: int) -> dict[str, Any]:
        """All figures, under the names that docs/evaluation.md explains."""
        from models.evaluation.figures import collect_figures

        calibration = self.manifest.calibration
        step = self.held_out.step
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "data": data,
            "rows": len(self.given.rows) + len(self.outside),
            "outside_support": {"rows": len(self.outside), "places": self.outside[:_PLACES]},
            "width": self.evaluation.width,
            "context_width": self.evaluation.context_width,
            "seed": seed,
            "spread": {} if step is None else {n: float(s) for n, s in zip(self.columns, step, strict=True) if s},
            "fitted_to": "training rows" if self.evaluation.train is not None else "other folds",
            **collect_figures(
                self.evaluation,
                self.diagnosis,
                self.verdict,
                self.columns,
                self.given.rows.astype(np.float64).reshape(len(self.given.rows), -1),
                self.given.place,
            ),
            "calibration": {
                "rows": calibration.rows,
                "mean": calibration.mean,
                "standard_error": calibration.standard_error,
                "statistic": self.shift[0],
                "p_value": self.shift[1],
            },
        }


def _evaluate(
    flow: ServedFlow, given: EvaluationRows, train: EvaluationRows | None, *, seed: int, same_file: bool
) -> _Found:
    """Evaluate a flow.

    Args:
        flow: of the bundle.
        given: held-out rows.
        train: the rows that it was fitted to; None where they are not known.
        seed: of samples, folds and noise.
        same_file: whether the rows come from a file of the name of that which the flow was fitted to.
    """
    from scipy.stats import ks_2samp

    from models.evaluation.evaluate import diagnose, measure_likelihood, stages
    from models.evaluation.page import name_columns
    from models.evaluation.verdict import judge

    density = _BundleDensity(flow)
    manifest = flow.manifest
    with show_progress(stages() + 2, unit="stages") as progress:
        given, outside = _inside(density, given)
        if train is not None:
            train, _ = _inside(density, train)
        held_out = _held_out(manifest, given, train, seed)
        progress(1)
        evaluation = measure_likelihood(density, held_out, seed)
        progress(1)
        diagnosis = diagnose(density, held_out, evaluation.flow.log_prob, seed, progress)
    served = evaluation.served.log_prob.astype(np.float32)
    shift = ks_2samp(served, np.asarray(manifest.calibration.quantiles, np.float32), method="asymp")
    columns = name_columns([feature.name for feature in manifest.features], manifest.event_shape)
    verdict = judge(
        evaluation,
        diagnosis,
        columns,
        outside=outside,
        same_rows=same_file,
        shift=(manifest.calibration.mean, float(shift.pvalue)),
    )
    return _Found(
        manifest=manifest,
        density=density,
        given=given,
        held_out=held_out,
        evaluation=evaluation,
        diagnosis=diagnosis,
        verdict=verdict,
        shift=(float(shift.statistic), float(shift.pvalue)),
        outside=outside,
        columns=columns,
    )


def _inside(density: _BundleDensity, given: EvaluationRows) -> tuple[EvaluationRows, list[str]]:
    """The rows inside the support, and where those are that are outside it."""
    scores = density.score(given)
    kept = np.flatnonzero(np.isfinite(scores))
    outside = [given.place(int(row)) for row in np.flatnonzero(~np.isfinite(scores))]
    if len(kept) < 2:
        raise InvalidInput(
            f"{given.name}: {len(kept)} of {len(scores)} rows lie inside the flow's support; 2 are needed"
        )
    if not outside:
        return given, []
    context = None if given.context is None else given.context[kept]
    return EvaluationRows(given.name, given.rows[kept], context, lambda row: given.place(int(kept[row]))), outside


def _held_out(manifest: Manifest, given: EvaluationRows, train: EvaluationRows | None, seed: int) -> HeldOutRows:
    """The rows as they are scored: values on a grid are spread over their bins."""
    from models.evaluation.evaluate import HeldOutRows

    rows = _flat(given.rows)
    fitted = None if train is None else _flat(train.rows)
    step = find_steps(manifest, rows)
    generator = np.random.default_rng(seed)
    return HeldOutRows(
        rows=rows if step is None else _spread(rows, step, generator),
        context=_double(given.context),
        centres=None if step is None else rows,
        step=step,
        train=fitted if fitted is None or step is None else _spread(fitted, step, generator),
        train_context=None if train is None else _double(train.context),
    )


def _spread(rows: Float64Array, step: Float64Array, generator: np.random.Generator) -> Float64Array:
    """X + U(-step/2, step/2), strictly inside each bin as float32."""
    margin = 4 * float(np.finfo(np.float32).eps) * (np.abs(rows).max(axis=0) + step)
    spread = rows + generator.uniform(-0.5, 0.5, rows.shape) * np.maximum(step - 2 * margin, 0)
    return np.asarray(spread.astype(np.float32), np.float64)


def _flat(rows: npt.NDArray[np.float32]) -> Float64Array:
    return rows.astype(np.float64).reshape(len(rows), -1)


def _double(context: npt.NDArray[np.float32] | None) -> Float64Array | None:
    return None if context is None else context.astype(np.float64)


def _format(figures: dict[str, Any]) -> str:
    """The figures for a terminal."""
    held_out, width = figures["held_out"], figures["width"]
    lines = [
        f"{figures['name']} version {figures['version']} on {figures['rows']} rows of {figures['data']}",
        "",
        "Log-likelihood, nats a row:",
    ]
    mixture = held_out.get("mixture")
    scores = [("flow", held_out["flow"]), ("Gaussian", held_out["gaussian"])]
    if mixture is not None:
        scores.append((f"mixture of {mixture['components']}", mixture))
    if "training" in figures:
        scores.append(("training rows", figures["training"]["flow"]))
    if "held_out_at_bin_centres" in figures:
        scores.append(("at bin centres", figures["held_out_at_bin_centres"]["flow"]))
    scores.append(("at export", figures["calibration"]))
    for name, score in scores:
        bits = score.get("bits_per_dim")
        lines.append(
            f"  {name:<15}{score['mean']:>11.4f} ± {score['standard_error']:.4f}   {score['mean'] / width:.4f} per "
            f"dimension" + ("" if bits is None else f", {bits:.4f} bits")
        )
    found = figures["two_sample"]
    lines += [
        "",
        f"Quantiles of log_prob uniform:  p {figures['log_prob_quantiles']['p_value']:.2g}",
        f"Latents as the base:            p {figures['latents']['p_value']:.2g}",
        "Samples told from rows (AUROC): "
        f"{found['auroc']:.3f} ± {found['standard_error']:.3f}, p {found['p_value']:.2g}"
        + ("" if found["auroc_rounded"] is None else f"; rounded as the rows are {found['auroc_rounded']:.3f}"),
    ]
    if figures["ranks"] is not None:
        lines.append(f"Ranks given the context:        p {figures['ranks']['p_value']:.2g}")
        lines.append(f"Distances from random points:   p {figures['tarp']['p_value']:.2g}")
    coverage = ", ".join(f"{each['level']:.0%}: {each['covered']:.1%}" for each in figures["coverage"])
    lines += [f"Rows inside regions of:         {coverage}", "", "Columns that differ most (Kolmogorov-Smirnov):"]
    for margin in sorted(figures["margins"], key=lambda each: -float(each["statistic"]))[:_LINES]:
        lines.append(f"  {margin['column']}: {margin['statistic']:.3f}, p {margin['p_value']:.2g}")
    lines += ["", "Rows of least density:"]
    for worst in figures["worst_rows"][:_LINES]:
        lines.append(
            f"  {worst['place']}: log_prob {worst['log_prob']:.3f}, quantile {worst['quantile']:.4f}; furthest out: "
            f"{worst['column']}, {worst['deviations']:+.1f} sd"
        )
    verdict = figures["verdict"]
    lines += ["", f"Verdict: {verdict['grade']}", *(f"- {sentence}" for sentence in verdict["sentences"])]
    return "\n".join(lines)


def _write_page(found: _Found, figures: dict[str, Any], data: str, folder: Path) -> None:
    """Write index.html, its pictures and evaluation.json."""
    from models.evaluation import live, page, pictures

    evaluation, manifest = found.evaluation, found.manifest
    log_probs = evaluation.flow.log_prob, evaluation.gaussian.log_prob
    drawn = {
        "log_prob": pictures.log_prob_histogram(*log_probs),
        **page.draw_diagnosis(found.diagnosis, found.columns),
    }
    live_figures = {
        "log_prob": live.log_prob_histogram(*log_probs),
        **page.list_figures(found.diagnosis, found.columns),
    }
    rows = found.held_out.rows[:_SHOWN_ROWS]
    context = found.held_out.context
    seed = int(figures["seed"])
    if context is None:
        samples = found.density.sample(len(rows), None, seed).rows[0]
    else:
        samples = found.density.sample(1, context[:_SHOWN_ROWS], seed).rows[:, 0]
    if len(manifest.event_shape) == 3:
        event = tuple(manifest.event_shape)
        images = found.given.rows[:_SHOWN_IMAGES].astype(np.float64)
        support = manifest.support
        low = float(rows.min()) if support is None or support.low is None else support.low
        high = float(rows.max()) if support is None or support.high is None else support.high
        sheets = images, samples[:_SHOWN_IMAGES].reshape(-1, *event), low, high
        drawn["samples"], live_figures["samples"] = pictures.image_grid(*sheets), live.image_grid(*sheets)
    else:
        shown = min(rows.shape[1], pictures.MAX_PAIRED)
        pairs = rows[:, :shown], samples[:, :shown], found.columns[:shown]
        drawn["samples"], live_figures["samples"] = pictures.pair_plot(*pairs), live.pair_plot(*pairs)
    images_of = page.to_images(drawn)
    text = {
        "title": f"{manifest.name}, version {manifest.version}, on {data}",
        "name": manifest.name,
        "version": str(manifest.version),
        "description": manifest.description,
        "data": f"{figures['rows']} rows of {data}; fitted to {manifest.provenance.data}",
        "samples_title": "Samples over held-out rows",
        "explanation": page.explain(evaluation),
    }
    markup = {
        "verdict": page.verdict_box(found.verdict.grade, found.verdict.grade, found.verdict.sentences),
        "notes": "",
        "table": page.likelihood_table(evaluation, {}),
        "histogram": page.picture(
            "log_prob",
            images_of["log_prob"],
            "Histogram of log_prob over held-out rows, under the flow and under the Gaussian",
        ),
        "samples": page.picture("samples", images_of["samples"], "Samples of the flow beside held-out rows"),
        "diagnosis": page.diagnosis_sections(figures, images_of),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write_pictures(drawn, folder)
        written = page.fill_template("models.evaluation", "report.html", text, markup, live_figures)
        (folder / "index.html").write_text(written, encoding="utf-8")
        content = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "evaluation.json").write_text(content + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--out: {folder} cannot be written into: {error.strerror}") from error

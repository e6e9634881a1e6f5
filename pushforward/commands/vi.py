"""`pushforward vi`: fit a flow to a density that can be evaluated up to a constant, and export it as a bundle.

Every option of the recipe is a flag here; flags win over the file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from models.inference.recipe import InferenceRecipe
from pushforward.cli.fit_options import FitBar, fit_options, pace_options, read_recipe

if TYPE_CHECKING:
    from models.inference.infer import InferenceResult
    from models.inference.run import RoundRecord

__all__ = ["command"]

_HELP: Final = """Fit a flow to the density TARGET and export it as a bundle.

TARGET is MODULE:TARGET or FILE.py:TARGET: your own function log_density(z), or an object with such a method. It takes
rows [N, D] and returns [N] log densities, up to a constant, in torch or in NumPy.
The verdict says whether the fit can be relied on: good, heavy tails, modes missing or not converged.

\b
pushforward vi ./eight_schools.py:target --out flows --name eight-schools
pushforward vi my_targets:banana --dim 2 --objective ais --out flows --name banana
pushforward vi --recipe inference.toml --resume
"""


@click.command(help=_HELP)
@click.argument("target", required=False)
@fit_options(InferenceRecipe)
@click.option(
    "--far-rows",
    type=click.Choice(["all", "resolvable"]),
    default="all",
    show_default=True,
    help="The rows far outside the draws on which the graphs are checked. resolvable leaves out those for which torch "
    "itself has no answer in float32.",
)
@pace_options
def command(
    target: str | None,
    recipe_file: Path | None,
    flow_option: tuple[str, ...],
    resume: bool,
    restart: bool,
    work: Path | None,
    report: Path | None,
    far_rows: Literal["all", "resolvable"],
    checkpoint_seconds: float,
    quiet: bool,
    **flags: Any,  # noqa: ANN401  one for each option of a recipe
) -> None:
    """Fit a flow to TARGET."""
    recipe = read_recipe(InferenceRecipe, recipe_file, flags, flow_option, ("target", target))
    # torch takes seconds to import: a wrong flag is refused before that.
    from models.inference.infer import infer

    with _Progress(quiet=quiet) as progress:
        result = infer(
            recipe,
            resume=resume,
            restart=restart,
            work=work,
            report=report,
            far_rows=far_rows,
            observe=progress.observe,
            say=progress.say,
            seconds_between=checkpoint_seconds,
        )
    if not quiet:
        _conclude(result)


class _Progress(FitBar):
    """A bar of steps with the ELBO as it stands, one for each restart."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("step", quiet=quiet)
        self.restart = 0
        self.elbo = math.nan

    def observe(self, restart: int, record: RoundRecord) -> None:
        """Show a round of a restart."""
        if restart != self.restart:
            self.end()
            self.restart, self.elbo = restart, math.nan
        if not math.isnan(record.elbo):
            self.elbo = record.elbo
        elbo = "" if math.isnan(self.elbo) else f", ELBO {self.elbo:.3f} nats"
        words = f"restart {restart}, {record.stage.replace('_', ' ')}{elbo}"
        self.advance(words, total=record.steps, before=0, done=record.step)


def _conclude(result: InferenceResult) -> None:
    """Print what an inference came to, and what to type next."""
    from models.training.places import serve_command

    found = result.variational
    click.echo(f"\nEvidence of {result.recipe.name}, version {result.version}, in nats:")
    click.echo(f"  {'ELBO':<22}{_shown(found.elbo, None)}")
    click.echo(f"  {'log Z, by draws':<22}{_shown(found.log_evidence, found.log_evidence_se)}")
    click.echo(f"  {'log Z, by annealing':<22}{_shown(found.log_evidence_ais, found.log_evidence_ais_se)}")
    k = "unknown" if found.pareto_k is None else f"{found.pareto_k:.2f}"
    click.echo(f"  {'effective draws':<22}{found.ess_share:.1%}, Pareto k {k}")
    click.secho(f"Verdict: {result.verdict.title}", bold=found.verdict != "good")
    for sentence in result.verdict.sentences:
        click.echo(f"- {sentence}")
    click.echo(f"Fitted in {result.seconds:.0f} s.")
    click.echo(f"Bundle: {result.bundle}")
    click.echo(f"Report: {result.report / 'index.html'}")
    click.echo(f"Next:   {serve_command(result.recipe)}")


def _shown(value: float | None, error: float | None) -> str:
    shown = "unknown" if value is None else f"{value:.4f}"
    return shown if error is None else f"{shown} ± {error:.4f}"

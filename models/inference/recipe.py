"""The recipe of a fit to a density: all that `pushforward vi` needs, in a TOML file or in flags. Must not import torch.

Each option is one field of one model, as in `models.recipe`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from models.recipe import BaseRecipe, Flag, FlowRecipe, Section, flatten
from service.bundle.precision import Precision

__all__ = ["InferenceFit", "InferenceRecipe", "Objective", "TargetRecipe"]

Objective = Literal["auto", "reverse_kl", "tempered", "ais"]


class TargetRecipe(Section):
    """What is fitted: a density that can be evaluated, up to a constant factor."""

    source: Annotated[str | None, Flag(None)] = Field(
        None, description="MODULE:TARGET or FILE.py:TARGET, a function or an object of yours"
    )
    dim: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the number of coordinates, if the target has no attribute dim"
    )
    rows: str | None = Field(
        None,
        description="a CSV or .npy file with rows of x. The target is then a joint density, log_density(z, x), and the "
        "flow is q(z given x)",
    )


class InferenceFit(Section):
    """How it is fitted: Adam on the objective, from annealed draws or from a normal distribution."""

    objective: Objective = Field(
        "auto",
        description="auto: find the modes, then refine by the gradient if there is one. reverse_kl: by the "
        "gradient alone, from a normal distribution; it may miss modes. tempered: the same, the target being flattened "
        "at first. ais: find the modes, without a gradient",
    )
    precision: Precision = Field(
        "float32", description="what the flow is fitted in, and what its graphs take, compute and give"
    )
    steps: Annotated[int, Field(ge=1)] = Field(1000, description="steps of reverse KL, refinement included")
    mode_steps: Annotated[int, Field(ge=1)] = Field(
        600, description="steps on annealed rows, by which modes are found. Half of them are on rows of the buffer"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(256, description="rows in a step")
    learning_rate: Annotated[FiniteFloat, Field(gt=0)] = Field(
        1e-3, description="the learning rate at the start of each stage. It falls to 0 by a half cosine"
    )
    clip: Annotated[FiniteFloat, Field(gt=0)] = Field(
        5.0, description="the greatest norm of a gradient; a longer one is scaled down"
    )
    start_scale: Annotated[FiniteFloat, Field(gt=0)] = Field(
        3.0,
        description="the standard deviation of the wide start of annealing, in unconstrained coordinates. It must "
        "reach every mode",
    )
    chains: Annotated[int, Field(ge=64)] = Field(2000, description="chains of annealing from the wide start")
    chain_steps: Annotated[int, Field(ge=1)] = Field(8, description="Metropolis steps at each temperature")
    buffer_batches: Annotated[int, Field(ge=2)] = Field(64, description="batches that the replay buffer holds")
    draws: Annotated[int, Field(ge=1000)] = Field(
        50_000, description="draws of the flow, by which ELBO, evidence and verdict are measured"
    )
    restarts: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="fits from different seeds. The best is kept, and the verdict compares them"
    )
    threads: Annotated[int, Field(ge=1)] = Field(1, description="torch's threads")


class InferenceRecipe(BaseRecipe):
    """All that a fit to a density needs.

    Args:
        target: what is fitted.
        flow: which flow.
        fit: how.

    Example:
        >>> InferenceRecipe(name="eight", target={"source": "./eight_schools.py:target"}).fit.objective
        'auto'
    """

    target: TargetRecipe = Field(default_factory=TargetRecipe)
    flow: FlowRecipe = Field(default_factory=FlowRecipe)
    fit: InferenceFit = Field(default_factory=InferenceFit)

    @model_validator(mode="after")
    def _check_joint(self) -> Self:
        if self.target.rows is not None and self.fit.objective == "ais":
            raise ValueError(
                "a joint density is fitted by its gradient, since each row of x has a posterior of its own: "
                "objective = 'ais' is for a single density"
            )
        return self

    def found_from(self, folder: Path) -> Self:
        """This recipe with the files of its target starting at `folder`."""
        changes: dict[str, Any] = {}
        source, rows = self.target.source, self.target.rows
        if source is not None and source.rpartition(":")[0].endswith(".py"):
            changes["source"] = str(folder / source)
        if rows is not None:
            changes["rows"] = str(folder / rows)
        return self.override({"target": changes}) if changes else self

    def published(self) -> dict[str, Any]:
        """The recipe whole, as plain JSON values, for the manifest; without a path of this machine."""
        values = super().published()
        for key in ("source", "rows"):
            if values["target"][key] is not None:
                values["target"][key] = Path(values["target"][key]).name
        return values

    def fitted_by(self) -> dict[str, Any]:
        """The part that decides which weights come out, as ``section.key`` -> value."""
        values = self.published()
        for key in ("name", "description"):
            del values[key]
        return flatten(values)

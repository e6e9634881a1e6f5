"""The evidence for a flow that was fitted to a density, as a manifest writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from service.bundle.bases import ManifestPart

__all__ = ["Variational"]


class Variational(ManifestPart):
    """The evidence for a flow that was fitted to a density.

    Args:
        elbo: the mean of log p - log q over draws of the flow, in nats; null for minus infinity. Of a joint density it
            is a mean over rows of x, as all of these numbers are.
        log_evidence: log Z by importance sampling from the flow, in nats; null for minus infinity.
        log_evidence_se: its standard error; null where it is not finite.
        log_evidence_ais: log Z by annealed importance sampling from a wide start, in nats; null where there was none.
        log_evidence_ais_se: its standard error.
        ess_share: the effective share of the flow's draws.
        pareto_k: the shape of the tail of their weights; null where it cannot be told.
        restarts: from how many seeds the fit was made.
        verdict: "good"; "heavy_tails" where the weights have no reliable mean; "modes_missing" where annealing found
            what the flow does not have; "not_converged" where the flow is not yet the target.
    """

    elbo: FiniteFloat | None
    log_evidence: FiniteFloat | None
    log_evidence_se: Annotated[FiniteFloat, Field(ge=0)] | None
    log_evidence_ais: FiniteFloat | None
    log_evidence_ais_se: Annotated[FiniteFloat, Field(ge=0)] | None
    ess_share: Annotated[FiniteFloat, Field(ge=0, le=1.000001)]
    pareto_k: FiniteFloat | None
    restarts: Annotated[int, Field(ge=1, lt=1 << 53)]
    verdict: Literal["good", "heavy_tails", "modes_missing", "not_converged"]

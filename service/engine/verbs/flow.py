"""A served flow and its verbs, each a plan: NumPy in, NumPy out, whoever drives it.

f: x -> z is the forward direction, g = f^-1 the inverse. Every density is the flow's own,

    log p(x) = log p_Z(f(x)) + log|det df/dx|,

in nats, in the units of x. Inputs are finite numbers of the flow's precision, float32 or float64, in the right shape
(`service.api.native.arrays` sees to it for HTTP). What a verb gives back is of the same precision. It holds no NaN and,
but for log_prob = -inf where the density is zero, no infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Manifest
from service.bundle.priors import Prior
from service.bundle.store import Golden
from service.engine.runtime.execution import Execution
from service.engine.sampling.latents import words_per_row
from service.engine.sampling.noise import BaseNoise, ContextNoise, Method
from service.engine.sampling.sobol import MAX_ROWS, MAX_WIDTH
from service.engine.verbs.acceptance import Acceptance, AcceptanceCache, measure_acceptance
from service.engine.verbs.checks import check_outputs
from service.engine.verbs.rejection import reject
from service.engine.verbs.round_trips import RoundTripCounts, round_trip_error
from service.engine.verbs.scores import HeldOut, bits_per_dim
from service.errors import EngineFailed, InvalidArgument, NotFinite, PushforwardError, Reason, WrongShape
from service.plan import Floats, Lane, Outputs, Plan, Rows, Run

__all__ = ["RETURNS", "Decoded", "Densities", "Encoded", "Return", "Samples", "ServedFlow"]

Return = Literal[
    "z",
    "log_abs_det_jacobian",
    "base_log_prob",
    "quantile",
    "typicality",
    "bits_per_dim",
    "context_quantile",
    "round_trip_error",
]
RETURNS: Final[tuple[Return, ...]] = get_args(Return)
"""The names of what `ServedFlow.log_prob` can give beside log_prob."""


class Densities(NamedTuple):
    """The answer of `ServedFlow.log_prob`.

    Args:
        log_prob: ``[N]``, in nats; -inf where the density is zero.
        extras: what was asked for beside it, ``[N]`` each, z ``[N, D]``.
        anomaly: bool ``[N]``, where an alarm rate was given.
        acceptance: of the context of each row, ``[N]`` each, where log_prob was corrected for it.
    """

    log_prob: Floats
    extras: Mapping[Return, Floats] = MappingProxyType({})
    anomaly: npt.NDArray[np.bool_] | None = None
    acceptance: Acceptance | None = None


class Samples(NamedTuple):
    """The answer of `ServedFlow.sample`: x ``[n, *event]`` and log_prob ``[n]``; with K contexts, K of each.

    round_trip_error is None where it was not asked for; in latent space, as `log_prob`. Of a flow with a prior every
    row lies inside, and acceptance ``[K]`` is the share of the draws of each context that did; None of any other flow.
    """

    x: Floats
    log_prob: Floats
    round_trip_error: Floats | None = None
    acceptance: Floats | None = None


class Encoded(NamedTuple):
    """z ``[N, D]``, log|det df/dx| ``[N]`` and log_prob ``[N]``, in nats.

    round_trip_error ``[N]``, the greatest abs(g(z) - x) over the coordinates, is None where it was not asked for.
    """

    z: Floats
    log_abs_det_jacobian: Floats
    log_prob: Floats
    round_trip_error: Floats | None = None


class Decoded(NamedTuple):
    """x ``[N, *event]``, log|det dg/dz| ``[N]`` and log_prob ``[N]`` at x, in nats.

    round_trip_error ``[N]``, the greatest abs(f(x) - z) over the coordinates, is None where it was not asked for.
    """

    x: Floats
    log_abs_det_jacobian: Floats
    log_prob: Floats
    round_trip_error: Floats | None = None


class _EachRepeated:
    """Each row `times` over, one row after the other, without a copy of the whole: the context of n samples each."""

    def __init__(self, rows: Floats, times: int) -> None:
        self._rows = rows
        self._times = times

    def __len__(self) -> int:
        return len(self._rows) * self._times

    def __getitem__(self, index: slice, /) -> Floats:
        rows: Floats = self._rows[np.arange(index.start, index.stop) // self._times]
        return rows


class ServedFlow:
    """A flow that is loaded: its manifest, and a lane for each direction.

    Args:
        manifest: from its bundle.
        golden: the rows with known answers, for the canary.
        forward: x -> z.
        inverse: z -> x.
        execution: how both are run; None where that is not known.
        round_trips: where round-trip errors are counted; None for nowhere.
        tracer: x -> the event after each step (`service.engine.verbs.traces`); None for a bundle without trace.onnx.
    """

    def __init__(
        self,
        manifest: Manifest,
        golden: Golden,
        forward: Lane,
        inverse: Lane,
        execution: Execution | None = None,
        round_trips: RoundTripCounts | None = None,
        tracer: Lane | None = None,
    ) -> None:
        self.manifest = manifest
        self.golden = golden
        self.forward = forward
        self.inverse = inverse
        self.execution = execution
        self.round_trips = round_trips
        self.tracer = tracer
        self.held_out = HeldOut(manifest.calibration, manifest.dtype)
        self.dtype = manifest.dtype
        """The dtype of rows, context and answers: float32 or float64."""
        self.event_shape = tuple(manifest.event_shape)
        """The shape of one row of x."""
        self.width = manifest.latent_width
        """D, the number of coordinates of z."""
        self.event_width = manifest.event_width
        """The number of values of a row: D, or more where some of them follow from others."""
        named = tuple(feature.name for feature in manifest.features)
        self.named = bool(named)
        """Whether the manifest names x's columns."""
        self.features = named or tuple(f"x{at}" for at in range(self.event_width))
        """The names of x's columns; x0, x1 and so on where the manifest names none."""
        self.prior = manifest.prior
        """Outside of which draws are drawn again; None for a flow without."""
        self._acceptances = AcceptanceCache()
        self.conditions = tuple(feature.name for feature in manifest.context_features)
        """The names of the context's columns; empty where the manifest names none."""

    def log_prob(
        self,
        x: Floats,
        context: Floats | None = None,
        returns: Collection[Return] = (),
        alarm_rate: float | None = None,
        *,
        correct: bool = False,
        check_points: Callable[[int], None] | None = None,
    ) -> Plan[Densities]:
        """Log-densities of rows.

        Args:
            x: ``[N, *event]``.
            context: ``[N, C]`` or ``[1, C]`` for all rows; None for a flow without.
            returns: what to give beside log_prob: z, log_abs_det_jacobian, base_log_prob (log p_Z(z), in nats),
                the scores of `service.engine.verbs.scores`: quantile, typicality and bits_per_dim; context_quantile
                (the share of held-out contexts that lie at least as far out as the row's); and round_trip_error
                (the greatest abs(g(f(x)) - x) over the coordinates, by a run of g).
            alarm_rate: between 0 and 1; a row is an anomaly where at most this share of held-out rows has a log_prob
                as low.
            correct: whether log_prob is that of the flow cut off at its prior: -inf outside, and inside less the
                logarithm of the acceptance. The scores stay those of the flow itself.
            check_points: called with the number of points that measure the acceptance, before they are run; it raises
                where they are too many.

        Raises:
            PushforwardError: from `check_points`.
            WrongShape: the context is missing, superfluous or of another number of rows.
            InvalidArgument: a correction is asked for, and the flow has no prior, or no mass inside it.
            NotFinite: a row is so far out that the answer is beyond the range of its precision.
        """
        each = self.context_for(context, len(x))
        returned = "round_trip_error" in returns
        usual = self._context_quantile(context, len(x)) if "context_quantile" in returns else None
        outputs = yield Run(self.forward, x, each, value=returned or "z" in returns)
        check_outputs(outputs, "x", NotFinite)
        log_prob = outputs.log_prob
        if not returns and alarm_rate is None and not correct:
            return Densities(log_prob)
        extras = {name: self.returned(name, outputs) for name in RETURNS[:-2] if name in returns}
        if usual is not None:
            extras["context_quantile"] = usual
        if returned:
            extras["round_trip_error"] = yield from self._data_round_trip(outputs.value, x, each)
        anomaly = None if alarm_rate is None else self.held_out.anomaly(log_prob, alarm_rate)
        if not correct:
            return Densities(log_prob, extras, anomaly)
        acceptance = yield from self.acceptance(context, len(x), check_points)
        inside = self.require_prior().inside(x.reshape(len(x), -1))
        corrected = (log_prob - np.log(acceptance.share)).astype(self.dtype)
        return Densities(np.where(inside, corrected, self.dtype.type(-np.inf)), extras, anomaly, acceptance)

    def sample(
        self,
        n: int,
        seed: int,
        offset: int = 0,
        temperature: float = 1.0,
        context: Floats | None = None,
        truncation: float | None = None,
        method: Method = "random",
        *,
        noise: ContextNoise = "independent",
        round_trip: bool = False,
    ) -> Plan[Samples]:
        """Draw rows; row i of a seed and a context is one value, whatever n and offset, and whatever other contexts.

        Of a flow with a prior what lies outside is drawn again, as `service.engine.verbs.rejection` says.

        Args:
            n: how many, at least 1; as many for each context.
            seed: 0 to 2^64 - 1.
            offset: the row of the seed that comes first.
            temperature: multiplies the standard deviations of a normal base, diagonal one or mixture, about their
                means; log_prob stays the flow's own.
            context: ``[C]``, or ``[K, C]`` for n rows of each; None for a flow without.
            truncation: where a normal base ends, on both sides of its mean, in its standard deviations, which
                temperature scales; None for nowhere. log_prob stays the flow's own.
            method: independent rows, or Sobol's (`service.engine.sampling.sobol`): as a whole spread more evenly.
            noise: whether each context has latents of its own, or all contexts have those of no context.
            round_trip: whether to give round_trip_error, by a run of f.

        Raises:
            InvalidArgument: a temperature other than 1 or a truncation for a uniform base or a Student-t; for
                sobol, more numbers a row or rows of a seed than there are.
            WrongShape: the context is missing or superfluous.
            NotFinite: a row is beyond the range of its precision, at a temperature above 1 or under the context given.
            EngineFailed: any other row that was drawn has none.
            OverWorkBudget: too few draws lie inside the prior.
        """
        self.check_noise(offset + n, temperature, truncation, method)
        contexts = 1 if context is None else math.prod(context.shape[:-1])
        each = None if context is None else context.reshape(contexts, context.shape[-1])
        self.require_context(each)
        rows = BaseNoise(
            self.manifest.base,
            self.width,
            seed=seed,
            offset=offset,
            count=n,
            temperature=temperature,
            truncation=truncation,
            method=method,
            contexts=each,
            context_noise=noise,
            dtype=self.dtype,
        )
        latents = rows.buffered()
        repeated = None if each is None else _EachRepeated(each, n)
        outputs = yield Run(self.inverse, latents, repeated)
        # The flow's own rows are the server's matter; how hot they are, and under which context, is the caller's.
        argument = "context" if context is not None and temperature <= 1.0 else "temperature"
        unservable = EngineFailed if context is None and temperature <= 1.0 else NotFinite
        check_outputs(outputs, argument, unservable, each=n if argument == "context" else 1)
        lead = (n,) if context is None else (*context.shape[:-1], n)
        error = accepted = None
        if self.prior is not None:
            drawn = yield from reject(self.inverse, self.prior, rows, outputs)
            latents, outputs = drawn.z, Outputs(drawn.x, drawn.log_abs_det_jacobian, drawn.log_prob)
            accepted = (n / drawn.tries.reshape(contexts, n).sum(axis=1)).astype(self.dtype)
        if round_trip:
            found = yield from self._latent_round_trip(outputs.value, latents, repeated, "temperature", unservable)
            error = found.reshape(lead)
        x = outputs.value.reshape(*lead, *self.event_shape)
        return Samples(x, outputs.log_prob.reshape(lead), error, accepted)

    def encode(self, x: Floats, context: Floats | None = None, *, round_trip: bool = False) -> Plan[Encoded]:
        """Normalize, z = f(x), with log|det df/dx| and log_prob.

        Args:
            x: ``[N, *event]``.
            context: as in `log_prob`.
            round_trip: whether to give round_trip_error, by a run of g.

        Raises:
            WrongShape, NotFinite: as in `log_prob`.
        """
        each = self.context_for(context, len(x))
        outputs = yield Run(self.forward, x, each)
        check_outputs(outputs, "x", NotFinite)
        error = (yield from self._data_round_trip(outputs.value, x, each)) if round_trip else None
        return Encoded(*outputs.arrays, error)

    def decode(self, z: Floats, context: Floats | None = None, *, round_trip: bool = False) -> Plan[Decoded]:
        """Generate, x = g(z), with log|det dg/dz| and the log_prob at x.

        Args:
            z: ``[N, D]``.
            context: as in `log_prob`.
            round_trip: whether to give round_trip_error, by a run of f.

        Raises:
            WrongShape, NotFinite: as in `log_prob`.
        """
        each = self.context_for(context, len(z))
        outputs = yield Run(self.inverse, z, each)
        check_outputs(outputs, "z", NotFinite)
        error = (yield from self._latent_round_trip(outputs.value, z, each, "z", NotFinite)) if round_trip else None
        return Decoded(*outputs.arrays, error)

    def _data_round_trip(self, z: Floats, x: Floats, context: Rows | None) -> Plan[Floats]:
        """The error of each row: abs(g(z) - x), where z = f(x)."""
        back = Run(self.inverse, z, context)
        return round_trip_error(back, x, "forward", self.round_trips, argument="x", error=NotFinite)

    def _latent_round_trip(
        self, x: Floats, z: Rows, context: Rows | None, argument: str, error: type[PushforwardError]
    ) -> Plan[Floats]:
        """The error of each row: abs(f(x) - z), where x = g(z).

        Args:
            x: ``[N, *event]``.
            z: ``[N, D]``.
            context: of each row; None for a flow without.
            argument: at fault where a row does not come back to a finite number.
            error: to raise then.
        """
        back = Run(self.forward, x, context)
        return round_trip_error(back, z, "inverse", self.round_trips, argument=argument, error=error)

    def _context_quantile(self, context: Floats | None, count: int) -> Floats:
        """How usual the context of each row is: the share of held-out contexts that lie at least as far, ``[count]``.

        Raises:
            InvalidArgument: the bundle does not say how far they lie.
        """
        scale = self.manifest.context_scale
        if scale is None or context is None:
            detail = "context_quantile: this flow has no contexts to compare with"
            raise InvalidArgument(detail, (Reason(("return",), detail),))
        return np.broadcast_to(scale.quantile(context).astype(self.dtype), (count,)).copy()

    def returned(self, name: Return, outputs: Outputs) -> Floats:
        """The array of this name beside the log_prob of rows; those of `RETURNS` that need more are none of them."""
        z, ladj, log_prob = outputs.arrays
        if name == "z":
            return z
        if name == "log_abs_det_jacobian":
            return ladj
        if name == "base_log_prob":
            return log_prob - ladj
        if name == "quantile":
            return self.held_out.quantile(log_prob)
        if name == "typicality":
            return self.held_out.typicality(log_prob)
        quantization = self.manifest.quantization
        return bits_per_dim(log_prob, self.width, quantization.step if quantization else 1.0)

    def context_for(self, context: Floats | None, count: int) -> Rows | None:
        """The context of each row.

        Args:
            context: ``[count, C]``, or ``[1, C]`` for all rows; None where there is none.
            count: the number of rows.

        Returns:
            ``[count, C]``; None for a flow without.

        Raises:
            WrongShape: it is missing, superfluous or of another number of rows.
        """
        self.require_context(context)
        if context is None or len(context) == count:
            return context
        if len(context) == 1:
            return np.broadcast_to(context, (count, context.shape[1]))
        detail = f"context must have one row, or one for each of the {count} rows, and has {len(context)}"
        raise WrongShape(detail, (Reason(("context",), detail),))

    def acceptance(
        self, context: Floats | None, count: int, check_points: Callable[[int], None] | None = None
    ) -> Plan[Acceptance]:
        """How much of the mass lies inside the prior, under the context of each row.

        Args:
            context: as in `log_prob`.
            count: the number of rows.
            check_points: as for `log_prob`.

        Returns:
            ``[count]``.

        Raises:
            PushforwardError: from `check_points`.
            WrongShape: as `log_prob`.
            InvalidArgument: the flow has no prior, or no mass inside it.
        """
        self.context_for(context, count)
        prior = self.require_prior()
        found = yield from measure_acceptance(
            self.inverse, self.manifest, prior, context, self._acceptances, check_points
        )
        return Acceptance(*(np.broadcast_to(values, (count,)) for values in found))

    def require_prior(self) -> Prior:
        """The prior.

        Raises:
            InvalidArgument: the flow has none.
        """
        if self.prior is None:
            detail = "this flow has no prior, so that there is nothing to correct its density for"
            raise InvalidArgument(detail, (Reason(("correct",), detail),))
        return self.prior

    def check_noise(self, end: int, temperature: float, truncation: float | None, method: Method) -> None:
        """Hold the arguments of `sample` against the flow's base.

        Args:
            end: one past the last row of the seed.
            temperature: as for `sample`.
            truncation: as for `sample`.
            method: as for `sample`.

        Raises:
            InvalidArgument: as `sample`.
        """
        base = self.manifest.base
        if temperature != 1.0 and not base.tempered:
            detail = f"temperature scales a normal base; this flow's base is {base.title}, for which only 1 is possible"
            raise InvalidArgument(detail, (Reason(("temperature",), detail),))
        if truncation is not None and not base.tempered:
            detail = f"truncation cuts off a normal base; this flow's base is {base.title}, and cannot be cut off"
            raise InvalidArgument(detail, (Reason(("truncation",), detail),))
        if method == "random":
            return
        if (numbers := words_per_row(base, self.width)) > MAX_WIDTH:
            detail = f"a row of this flow takes {numbers} numbers, and sobol has {MAX_WIDTH}; use method=random"
            raise InvalidArgument(detail, (Reason(("method",), detail),))
        if end > MAX_ROWS:
            detail = f"sobol has 2^52 rows, numbered from 0, and these end at {end}"
            raise InvalidArgument(detail, (Reason(("offset",), detail),))

    def require_context(self, context: Floats | None) -> None:
        """Hold the width of a context ``[N, C]`` against the flow's.

        Raises:
            WrongShape: it is missing, superfluous or of another width.
        """
        width = self.manifest.context_width
        found = 0 if context is None else context.shape[1]
        if found != width:
            expected = f"a context of {width} columns is needed" if width else "this flow takes no context"
            detail = expected + (f", and it has {found}" if width and found else ", and there is none" if width else "")
            raise WrongShape(detail, (Reason(("context",), detail),))

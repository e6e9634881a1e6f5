"""A flow of no library: any module with `forward(x, context)` and `inverse(z, context)`, a value and a log-det each."""

from __future__ import annotations

from torch import Tensor, distributions, nn

from models.flows.bases import base_log_prob
from models.flows.flow import Bijection, Flow
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.steps import LibraryLayer, per_row
from models.importing.support import box_of, support_of_constraint
from service.bundle.bases import Base, NormalBase
from service.bundle.manifest import Support

__all__ = ["adapt"]


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a module of anyone's as one step.

    Args:
        source: in float64 and evaluation mode. `forward` is the normalizing direction. Where it has a `base` of torch's
            distributions, that is its base, else a standard normal; where it has a `log_prob` its answers are held
            against it.

    Raises:
        Unsupported: it has not the two methods, or another base.
    """
    if isinstance(source, Flow):
        return _ours(source)
    if not callable(getattr(source, "inverse", None)):
        raise Unsupported(
            f"{type(source).__name__} is not a flow that can be imported. Accepted are a zuko Flow, an nflows Flow or "
            "Transform, a normflows NormalizingFlow, a FrEIA SequenceINN or GraphINN, and any torch module with "
            "forward(x, context) and inverse(z, context), each returning a tensor and its log-determinant"
        )
    step = LibraryLayer(source)
    step.domain = _stated_support(source)
    own, own_log_prob = getattr(source, "base", None), getattr(source, "log_prob", None)
    base: Base = NormalBase()
    extra: list[Bijection] = []
    notes = []
    if isinstance(own, distributions.Distribution):
        base, extra = bases.of_distribution(own, type(source).__name__)
    elif callable(getattr(own, "log_prob", None)):
        raise bases.unsupported_base(own, type(source).__name__)
    else:
        notes.append("the module has no base: a standard normal was taken")

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        given = () if context is None else (context,)
        if callable(own_log_prob):
            values: Tensor = own_log_prob(x, *given)
            return per_row(values, x)
        z, ladj = step(x, context)
        for more in extra:
            z, term = more(z, context)
            ladj = ladj + term
        result: Tensor = base_log_prob(base, z.flatten(1)) + ladj
        return result

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for more in reversed(extra):
            z, _ = more.inverse(z, context)
        x, _ = step.inverse(z, context)
        return x

    return AdaptedFlow(
        "torch", [step], base, None, log_prob, generate, base_steps=extra, channels_first=False, notes=notes, part=False
    )


def _stated_support(source: nn.Module) -> Support | None:
    """The box that a module says its rows lie in: by a pair of numbers, or a constraint of torch's distributions.

    Raises:
        Unsupported: its `support` is no pair of numbers.
    """
    stated = getattr(source, "support", None)
    if not isinstance(stated, (tuple, list)):
        return support_of_constraint(stated)
    try:
        low, high = (None if end is None else float(end) for end in stated)
    except (TypeError, ValueError) as error:
        raise Unsupported(
            f"the support of {type(source).__name__} must be a pair of numbers that all columns lie between, such as "
            f"(0.0, 1.0), None for an end that there is not; and it is {stated!r:.80}"
        ) from error
    return None if low is None and high is None else box_of(low, high)


def _ours(flow: Flow) -> AdaptedFlow:
    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        x, _ = flow.inverse(z, context)
        return x

    if flow.support is not None:
        raise Unsupported("a pushforward Flow with a bounded support is exported by models.export.export.export_flow")
    steps = [step for step in flow.bijections if isinstance(step, Bijection)]
    return AdaptedFlow("pushforward", steps, flow.latent, flow.event_shape, flow.log_prob, generate,
                 flow.context_width, flow.context_scaling, channels_first=False, part=False)  # fmt: skip

"""Flows of normflows (https://github.com/VincentStimper/normalizing-flows, 1.7) with their base.

The layers are those of `models.importing.normflows_layers`. A flow with classes takes the class as a context: a column
for each class, 1 in that of the row and 0 in the others. A flow with levels has a base for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import normflows as nf
import torch
from normflows.distributions import base as distributions  # normflows.distributions has an encoder called Uniform
from torch import Tensor, nn

from models.flows.flow import Bijection
from models.flows.images.layers import Levels
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported
from models.importing.images import data_shape
from models.importing.normflows_layers import merge_steps, steps_of, with_plain_networks
from models.importing.steps import Affine, ConditionalAffine, ContextFree
from service.bundle.bases import Base, NormalBase

__all__ = ["adapt"]


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a flow apart: a `NormalizingFlow`, a `ConditionalNormalizingFlow`, a `ClassCondFlow`, a `MultiscaleFlow`.

    Args:
        source: in float64 and evaluation mode; its ActNorms have seen data.

    Raises:
        Unsupported: a layer or the base cannot be exported, or it is another class.
    """
    copied: Any = with_plain_networks(source)
    if isinstance(copied, nf.MultiscaleFlow):
        return _with_levels(source, copied)
    if isinstance(copied, nf.ClassCondFlow):
        return _with_classes(source, copied)
    if not isinstance(copied, nf.NormalizingFlow):
        raise Unsupported(
            f"normflows {type(source).__name__} cannot be imported: a NormalizingFlow, a ConditionalNormalizingFlow, a "
            "ClassCondFlow or a MultiscaleFlow can"
        )
    return _plain(source, copied)


def _plain(source: Any, copied: Any) -> AdaptedFlow:  # noqa: ANN401
    base, extra = _base(copied.q0)
    conditional = isinstance(source, nf.ConditionalNormalizingFlow)
    shape = getattr(source.q0, "shape", None) or ((source.q0.dim,) if hasattr(source.q0, "dim") else None)
    steps = _chain(copied.flows)

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        # of a copy: a Shift adds to it in place
        rows = x.clone()
        result: Tensor = source.log_prob(rows, context=context) if conditional else source.log_prob(rows)
        return result

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        z = z.reshape(-1, *(shape or z.shape[1:])).clone()
        result: Tensor = source.forward(z, context=context) if conditional else source.forward(z)
        return result

    return AdaptedFlow(
        "normflows",
        steps,
        base,
        None if shape is None else data_shape(steps, shape),
        log_prob,
        generate,
        context_width=None if conditional else 0,
        base_steps=extra,
    )


def _with_classes(source: Any, copied: Any) -> AdaptedFlow:  # noqa: ANN401
    """A flow whose base knows the class."""
    steps = _chain(copied.flows)
    base, extra, classes = _joint_base([copied.q0], by_class=True)
    shape = tuple(source.q0.shape)

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        z = z.reshape(-1, *shape).clone()
        for flow in source.flows:
            z, _ = flow(z)
        return z

    return AdaptedFlow(
        "normflows",
        _context_free(steps, classes),
        base,
        data_shape(steps, shape),
        partial(_log_prob_of_class, source),
        generate,
        context_width=classes,
        classes=classes > 0,
        base_steps=extra,
    )


def _with_levels(source: Any, copied: Any) -> AdaptedFlow:  # noqa: ANN401
    """A flow with a latent at each of several scales, such as Glow; the last level of the data's is its first."""
    top = len(source.q0) - 1
    base, extra, classes = _joint_base(list(reversed(copied.q0)), by_class=bool(source.class_cond))
    levels = [
        [*_chain(copied.flows[index]), *(merge_steps(copied.merges[index - 1]) if index else [])]
        for index in range(top, -1, -1)
    ]
    shapes = [tuple(q0.shape) for q0 in reversed(source.q0)]
    before = [] if copied.transform is None else steps_of(copied.transform)
    steps = [*before, Levels(levels, shapes)]

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        parts = torch.split(z, [math.prod(shape) for shape in shapes], dim=1)
        latents = [part.reshape(-1, *shape).clone() for part, shape in zip(parts, shapes, strict=True)]
        result: Tensor = source.forward_and_log_det(latents[::-1])[0]
        return result

    return AdaptedFlow(
        "normflows",
        _context_free(steps, classes),
        base,
        data_shape(steps, (sum(map(math.prod, shapes)),)),
        partial(_log_prob_of_class, source),
        generate,
        context_width=classes,
        classes=classes > 0,
        base_steps=extra,
    )


def _log_prob_of_class(source: Any, x: Tensor, context: Tensor | None) -> Tensor:  # noqa: ANN401
    """The library's own log_prob of a flow that takes the class as its second argument; of a copy of the rows."""
    result: Tensor = source.log_prob(x.clone(), context)
    return result


def _context_free(steps: list[Bijection], classes: int) -> list[Bijection]:
    """The steps of a flow that hands the class to its base alone."""
    return [ContextFree(step) for step in steps] if classes else steps


def _chain(flows: Sequence[nn.Module]) -> list[Bijection]:
    return [step for flow in reversed(list(flows)) for step in steps_of(flow)]


@dataclass(frozen=True, slots=True, eq=False)
class _Normal:
    """Normals of independent columns, flat.

    Args:
        mean: ``[D]``.
        log_scale: ``[D]``.
        by_class: ``[K, 2, D]``, what each of K classes adds to both; None for a base without classes.
    """

    mean: Tensor
    log_scale: Tensor
    by_class: Tensor | None = None


def _normal(q0: Any) -> _Normal | None:  # noqa: ANN401
    """The normals that a base is; None where it is another distribution."""
    temperature = getattr(q0, "temperature", None)
    log_temperature = 0.0 if temperature is None else math.log(temperature)
    if bases.is_own(q0, distributions.DiagGaussian):
        return _Normal(q0.loc.flatten(), q0.log_scale.flatten() + log_temperature)
    if bases.is_own(q0, distributions.ClassCondDiagGaussian):
        by_class = torch.stack((q0.loc, q0.log_scale)).movedim(-1, 0).flatten(2)
        zeros = torch.zeros_like(by_class[0, 0])
        return _Normal(zeros, zeros + log_temperature, by_class)
    if bases.is_own(q0, distributions.GlowBase):
        loc = q0.loc * torch.exp(q0.loc_logs * q0.logscale_factor)
        log_scale = q0.log_scale * torch.exp(q0.log_scale_logs * q0.logscale_factor) + log_temperature
        classes = (q0.loc_cc, q0.log_scale_cc) if q0.class_cond else None
        return _spread(loc, log_scale, classes, loc.shape[1:], q0.shape)
    if bases.is_own(q0, distributions.AffineGaussian):
        layer = q0.transform
        classes = (layer.t_cc, layer.s_cc) if q0.class_cond else None
        return _spread(layer.t, layer.s + log_temperature, classes, layer.s.shape[1:], q0.shape)
    return None


def _spread(
    mean: Tensor,
    log_scale: Tensor,
    classes: tuple[Tensor, Tensor] | None,
    given: Sequence[int],
    shape: Sequence[int],
) -> _Normal:
    """A mean and a log scale for each column, from fewer that broadcast.

    Args:
        mean: ``[1, *given]``.
        log_scale: ``[1, *given]``.
        classes: what each class adds to both, ``[K, G]``, G numbers in all.
        given: the shape of one row of them.
        shape: the shape of one latent.
    """
    mean, log_scale = mean.expand(1, *shape).flatten(), log_scale.expand(1, *shape).flatten()
    if classes is None:
        return _Normal(mean, log_scale)
    by_class = [value.reshape(-1, *given).expand(-1, *shape).flatten(1) for value in classes]
    return _Normal(mean, log_scale, torch.stack(by_class, dim=1))


def _joint_base(q0s: list[Any], *, by_class: bool) -> tuple[Base, list[Bijection], int]:
    """The base of several latents, one behind the other: normals, and what the class changes in them.

    Args:
        q0s: the base of each latent, in their order.
        by_class: whether the flow hands the class to its bases.

    Returns:
        The base, the step before it, and the number of classes; 0 for none.

    Raises:
        Unsupported: a base is no normal of independent columns, or knows other classes than the flow says.
    """
    normals = []
    for q0 in q0s:
        normal = _normal(q0)
        if normal is None:
            raise bases.unsupported_base(q0, "a normflows flow with levels or classes")
        normals.append(normal)
    numbers = {0 if normal.by_class is None else len(normal.by_class) for normal in normals}
    classes = max(numbers)
    if len(numbers - {0}) > 1:
        raise Unsupported(f"the bases of the normflows flow know {sorted(numbers - {0})} classes: one number for all")
    if classes and not by_class:
        raise Unsupported(
            f"the base of the normflows flow knows {classes} classes, and the flow has class_cond=False, so that its "
            "own log_prob fails. Make it with class_cond=True"
        )
    mean = torch.cat([normal.mean for normal in normals])
    log_scale = torch.cat([normal.log_scale for normal in normals])
    if not classes:
        moved = bool(mean.any() or log_scale.any())
        return NormalBase(), [Affine(mean, log_scale)] if moved else [], 0
    network = nn.Linear(classes, 2 * len(mean)).double()
    parts = [
        torch.zeros(classes, 2, len(normal.mean), dtype=torch.float64) if normal.by_class is None else normal.by_class
        for normal in normals
    ]
    with torch.no_grad():
        network.weight.copy_(torch.cat(parts, dim=2).flatten(1).T)
        network.bias.copy_(torch.cat((mean, log_scale)))
    return NormalBase(), [ConditionalAffine(network)], classes


def _base(q0: Any) -> tuple[Base, list[Bijection]]:  # noqa: ANN401
    normal = _normal(q0)
    if normal is not None and normal.by_class is None:
        return bases.of_normal(normal.mean, normal.log_scale), []
    if bases.is_own(q0, distributions.GaussianMixture):
        return bases.of_mixture(q0.weight_scores[0], q0.loc[0], q0.log_scale[0]), []
    if bases.is_own(q0, distributions.Uniform):
        return bases.of_uniform(q0.low, q0.high)
    conditional = getattr(distributions, "ConditionalDiagGaussian", None)  # not in every version
    if conditional is not None and bases.is_own(q0, conditional) and len(q0.shape) == 1:
        return NormalBase(), [ConditionalAffine(q0.context_encoder)]
    raise bases.unsupported_base(q0, "a normflows flow")

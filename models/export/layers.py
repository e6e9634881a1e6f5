"""Layers of torch that the exporter cannot write, as layers that it can: the same function in evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["replace_layers"]

Module = TypeVar("Module", bound=nn.Module)


def replace_layers(module: Module) -> Module:
    """The same module with layers that can be written, as a copy; the module itself where there is nothing to replace.

    Args:
        module: in evaluation mode.
    """
    if not any(_replacement(layer) is not None for layer in module.modules()):
        return module
    module = copy.deepcopy(module)
    for name, layer in list(module.named_modules()):
        new = _replacement(layer)
        if new is not None:
            module.set_submodule(name, new)
    return module


def _replacement(layer: nn.Module) -> nn.Module | None:
    return next((new for rule in _RULES if (new := rule(layer)) is not None), None)


class _RunningNorm(_BatchNorm):
    """A batch norm of events of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  torch's own name
        pass


def _leaky_relu(layer: nn.Module) -> nn.Module | None:
    """The same as an RReLU: in evaluation its slope is the middle of its range."""
    return nn.LeakyReLU((layer.lower + layer.upper) / 2) if isinstance(layer, nn.RReLU) else None


def _running_norm(layer: nn.Module) -> nn.Module | None:
    """The same as an instance norm that keeps running statistics: in evaluation it applies those, as a batch norm."""
    if not isinstance(layer, _InstanceNorm) or layer.running_mean is None:
        return None
    norm = _RunningNorm(layer.num_features, eps=layer.eps, affine=layer.affine).to(layer.running_mean.dtype)
    norm.load_state_dict(layer.state_dict())
    return norm.eval().requires_grad_(requires_grad=False)


_RULES: Final[tuple[Callable[[nn.Module], nn.Module | None], ...]] = (_leaky_relu, _running_norm)

"""Stand-ins of sbi's density estimators, which hold a flow of nflows or zuko and are no dependency of this project.

Their structure is sbi's: rows come as ``[sample, batch, event]`` and conditions as ``[batch, condition]``. The
embedding that standardizes the condition lies in the nflows Flow, and beside the zuko Flow.
"""

from __future__ import annotations

import torch
import zuko
from nflows import distributions, flows, transforms
from torch import Tensor, nn

from tests.models.importing.families import network

MEAN, STD = torch.tensor([1.0, -4.0, 30.0]), torch.tensor([0.5, 2.0, 7.0])


class Standardize(nn.Module):
    """(c - mean) / std, by buffers of shape [C], or by single numbers that broadcast."""

    def __init__(self, mean: Tensor | float, std: Tensor | float) -> None:
        super().__init__()
        self.register_buffer("_mean", torch.as_tensor(mean))
        self.register_buffer("_std", torch.as_tensor(std))

    def forward(self, tensor: Tensor) -> Tensor:
        return (tensor - self._mean) / self._std


class Estimator(nn.Module):
    def __init__(self, net: nn.Module, input_shape: tuple[int, ...], condition_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.input_shape, self.condition_shape = torch.Size(input_shape), torch.Size(condition_shape)


class NFlowsFlow(Estimator):
    @property
    def embedding_net(self) -> nn.Module:
        return self.net._embedding_net

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:  # noqa: A002  as sbi calls it
        samples, batch = input.shape[:2]
        repeated = condition.repeat(samples, 1)
        return self.net.log_prob(input.reshape(samples * batch, -1), context=repeated).reshape(samples, batch)


class ZukoFlow(Estimator):
    def __init__(self, net: nn.Module, embedding_net: nn.Module, shape: tuple[int], condition: tuple[int]) -> None:
        super().__init__(net, shape, condition)
        self._embedding_net = embedding_net

    @property
    def embedding_net(self) -> nn.Module:
        return self._embedding_net

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:  # noqa: A002  as sbi calls it
        return self.net(self._embedding_net(condition)).log_prob(input)


def standardizing(
    mean: Tensor | float = MEAN, std: Tensor | float = STD, embedding: nn.Module | None = None
) -> nn.Module:
    return nn.Sequential(Standardize(mean, std), embedding or nn.Identity())


def of_nflows(embedding: nn.Module, context: int = 3, width: int = 2) -> NFlowsFlow:
    torch.manual_seed(0)
    steps = [transforms.PointwiseAffineTransform(torch.full((width,), 0.5), torch.full((width,), 2.0))]
    for _ in range(2):
        steps.append(transforms.AffineCouplingTransform(torch.arange(width) % 2, network(context)))
        steps.append(transforms.ReversePermutation(width))
    flow = flows.Flow(transforms.CompositeTransform(steps), distributions.StandardNormal([width]), embedding)
    return NFlowsFlow(flow, (width,), (3,)).eval()


def of_zuko(embedding: nn.Module, context: int = 3) -> ZukoFlow:
    torch.manual_seed(0)
    flow = zuko.flows.MAF(2, context, transforms=2, hidden_features=(12,))
    return ZukoFlow(flow, embedding, (2,), (3,)).eval()

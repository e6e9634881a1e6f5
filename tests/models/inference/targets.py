"""Targets whose evidence is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MANY_WELL_LOG_Z = 30.8804
"""Of the many-well of 6 coordinates: 8 modes, P(x > 0) = 0.844 in each well."""


class Gaussian:
    """An unnormalized Gaussian with log Z = log(2 pi s_1 s_2)."""

    dim = 2
    names = ("slope", "offset")
    mean, deviation = (1.0, -2.0), (0.5, 1.5)
    log_z = math.log(2 * math.pi * 0.5 * 1.5)

    def log_density(self, z: Tensor) -> Tensor:
        scaled = (z - z.new_tensor(self.mean)) / z.new_tensor(self.deviation)
        return -0.5 * (scaled * scaled).sum(dim=1)


class TwoModes:
    """Equal normals at -4 and 4 in the first coordinate; log Z = 0."""

    dim = 2
    log_z = 0.0

    def log_density(self, z: Tensor) -> Tensor:
        distance = torch.stack([(z[:, 0] - 4) ** 2, (z[:, 0] + 4) ** 2])
        first = torch.logsumexp(-0.5 * distance, dim=0) - math.log(2)
        return first - 0.5 * z[:, 1] ** 2 - math.log(2 * math.pi)


class ManyWell:
    """The many-well of fab-torch: per pair -a^4 + 6 a^2 + a / 2 - b^2 / 2."""

    dim = 6

    def log_density(self, z: Tensor) -> Tensor:
        a, b = z[:, 0::2], z[:, 1::2]
        return (-(a**4) + 6 * a**2 + 0.5 * a - 0.5 * b**2).sum(dim=1)


def banana(z: npt.NDArray[np.float64]) -> Any:
    """A banana in NumPy alone: log Z = log(2 pi 2 0.5)."""
    if not isinstance(z, np.ndarray):
        raise TypeError("NumPy arrays only")
    return -0.5 * (z[:, 0] ** 2 / 4 + (z[:, 1] - 0.5 * z[:, 0] ** 2 + 2) ** 2 / 0.25)


BANANA_LOG_Z = math.log(2 * math.pi)

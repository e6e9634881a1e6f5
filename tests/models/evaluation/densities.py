"""Densities in closed form, as an evaluation sees a flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.evaluation.density import Draws
from service.bundle.bases import NormalBase


@dataclass
class NormalDensity:
    """x = scale z + shift + slope c, in each column; the rows that it is held against have scale 1 and no shift."""

    width: int = 2
    scale: float = 1.0
    shift: float = 0.0
    slope: float = 1.0

    base = NormalBase()

    def latents(self, rows, context):
        return (rows - self._mean(len(rows), context)) / self.scale

    def log_prob(self, rows, context):
        z = self.latents(rows, context)
        return -0.5 * (z**2).sum(axis=1) - self.width * (np.log(self.scale) + 0.5 * np.log(2 * np.pi))

    def sample(self, count, context, seed):
        contexts = 1 if context is None else len(context)
        z = np.random.default_rng(seed).normal(size=(contexts, count, self.width))
        given = None if context is None else np.repeat(context, count, axis=0)
        rows = self.scale * z.reshape(-1, self.width) + self._mean(contexts * count, given)
        return Draws(rows.reshape(z.shape), self.log_prob(rows, given).reshape(contexts, count))

    def _mean(self, count, context):
        return np.full((count, self.width), self.shift) + (0 if context is None else self.slope * context[:, :1])


def rows(count: int, seed: int = 1, width: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def rows_given_context(count: int, seed: int = 1, width: int = 2) -> tuple[np.ndarray, np.ndarray]:
    context = np.random.default_rng(seed + 1000).normal(size=(count, 1)) * 3
    return rows(count, seed, width) + context, context

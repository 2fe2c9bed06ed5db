"""Ridge regression in closed form from sums, so that samples are seen once and never held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.shapes import Float


@dataclass(frozen=True)
class LinearMap:
    """A ridge regression's answer: ``((x - mean) / std) @ weight + bias``, all float64.

    Args:
        strength: of the ridge.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    strength: float

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n o"]:
        return ((features.double() - self.mean) / self.std) @ self.weight + self.bias


class RidgeSums:
    """Ridge regression from sums that are gathered batch by batch; no more than one batch is ever held.

    Features are standardised with the mean and spread of what was added (an affine-free batch norm, seen once), so a
    strength means the same for every encoder. Minimises mean squared error + strength x squared weights.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin: Tensor | None = None
        self._sums: tuple[Tensor, ...] = ()

    def add(self, features: Float[Tensor, "n d"], targets: Float[Tensor, "n o"]) -> None:
        """Add samples; sums are taken about the first batch's mean, so that nothing is lost to a large mean."""
        x, y = features.double(), targets.double()
        if not len(x):
            return
        if self._origin is None:
            self._origin = x.mean(dim=0)
        x = x - self._origin
        new = (x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y)
        self._sums = tuple(a + b for a, b in zip(self._sums, new)) if self._sums else new
        self.count += len(x)

    def solve(self, strengths: Sequence[float]) -> list[LinearMap]:
        """One map per strength, from one decomposition.

        Raises:
            ConfigError: no sample was added.
        """
        if not self.count:
            raise ConfigError("no patch with measured depth to fit the probe on")
        sum_x, sum_y, xx, xy = self._sums
        mean_x, mean_y = sum_x / self.count, sum_y / self.count
        covariance = xx / self.count - mean_x[:, None] * mean_x[None]
        variance = covariance.diagonal().clamp(min=0)
        is_constant = variance <= 1e-12 * (variance.max() if len(variance) else 1.0) + 1e-30
        std = torch.where(is_constant, torch.inf, variance.sqrt())  # a constant feature says nothing
        values, vectors = torch.linalg.eigh(covariance / std[:, None] / std[None])
        values = values.clamp(min=0)
        projected = vectors.T @ ((xy / self.count - mean_x[:, None] * mean_y[None]) / std[:, None])
        return [LinearMap(self._origin + mean_x, std, vectors @ (projected / (values + s)[:, None]), mean_y, float(s))
                for s in strengths]

"""Reading depth, normals and classes off frozen features: by one matrix, or by the nearest training patches.

Both work on standardised features: the mean and spread of the training patches, an affine-free batch normalisation seen once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import LINEAR, NEAREST, SEMANTICS, BenchConfig
from mask3d_core.evaluation.bench.targets import Target
from mask3d_core.evaluation.ridge import RidgeSums
from mask3d_core.shapes import Float

_CHUNK = 8_000_000  # similarities that are held at once


class Standard:
    """Standardises features with the mean and spread of training patches; a constant feature becomes 0."""

    def __init__(self, features: Float[Tensor, "m d"]):
        values = features.double()
        mean = values.mean(dim=0)
        spread = (values - mean).square().mean(dim=0).sqrt()
        self.mean = mean.float()
        is_constant = spread <= 1e-6 * (spread.max() if spread.numel() else 1.0) + 1e-15
        self.inverse = torch.where(is_constant, 0.0, 1.0 / spread.clamp(min=1e-15)).float()

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.inverse


class Linear:
    """One matrix per task and strength: ridge regression in closed form (depth, normals), logistic regression (semantics).

    Args:
        features: Float (m, d), standardised training patches.
        targets: by task.
        config: strengths, and the least share of a cell that must be known.

    Raises:
        ConfigError: nothing to fit a task on.
    """

    name = LINEAR

    def __init__(self, features: Float[Tensor, "m d"], targets: dict[str, Target], config: BenchConfig):
        self.settings: dict[str, tuple[float, ...]] = {}
        self._maps: dict[str, list[Callable[[Tensor], Tensor]]] = {}
        for task, target in targets.items():
            is_fitted = target.weight >= config.least_measured
            if not is_fitted.any():
                raise ConfigError(f"no training patch has enough known pixels to fit {task} on")
            if task == SEMANTICS:
                fitted = target.at(is_fitted.nonzero()[:, 0])
                self._maps[task] = logistic_maps(features[is_fitted], fitted, config.class_strengths, config.class_steps)
                self.settings[task] = config.class_strengths
            else:
                sums = RidgeSums()
                sums.add(features[is_fitted], target.value[is_fitted])
                self._maps[task] = list(sums.solve(config.strengths))
                self.settings[task] = config.strengths

    def prepared(self, features: Float[Tensor, "m d"]) -> Tensor:
        """What :meth:`answer` wants."""
        return features

    def answer(self, prepared: Tensor, task: str, setting: int) -> Float[Tensor, "m o"]:
        """One row per patch."""
        return self._maps[task][setting](prepared)


class Nearest:
    """The mean of the nearest training patches' targets (cosine of standardised features, all neighbours alike).

    Args:
        features, targets, config: as :class:`Linear`; of the numbers of neighbours those that there are patches for.
    """

    name = NEAREST

    def __init__(self, features: Float[Tensor, "m d"], targets: dict[str, Target], config: BenchConfig):
        self._keys = F.normalize(features, dim=1)
        self._targets = targets
        counts = tuple(k for k in config.neighbours if k <= len(features)) or (len(features),)
        self.settings = dict.fromkeys(targets, counts)

    def prepared(self, features: Float[Tensor, "m d"]) -> Tensor:
        """The nearest patches of each, int64 (m, k), the nearest first."""
        most = max(next(iter(self.settings.values())))
        queries, step = F.normalize(features, dim=1), max(1, _CHUNK // len(self._keys))
        return torch.cat([(queries[start:start + step] @ self._keys.T).topk(most, dim=1).indices
                          for start in range(0, len(queries), step)])

    def answer(self, prepared: Tensor, task: str, setting: int) -> Float[Tensor, "m o"]:
        """One row per patch; neighbours count by how much of them is known."""
        near, target = prepared[:, :self.settings[task][setting]], self._targets[task]
        weight = target.weight[near].clamp(min=1e-6)
        return (target.value[near] * weight[..., None]).sum(dim=1) / weight.sum(dim=1)[:, None]


def logistic_maps(features: Float[Tensor, "m d"], target: Target, strengths: Sequence[float], steps: int
                  ) -> list[Callable[[Tensor], Tensor]]:
    """Multinomial logistic regression by L-BFGS over all patches at once, from the strongest penalty to the weakest, each
    from the last one's answer.

    Args:
        features: standardised.
        target: shares of classes in each patch, weighted by how much of it is labelled.
        strengths: of half the squared weights, beside the mean cross-entropy; the bias is free.
        steps: of L-BFGS at most for each.

    Returns:
        In the order of ``strengths``, functions from features to one number per class.
    """
    share = target.weight / target.weight.sum()
    base = (target.value * share[:, None]).sum(dim=0).clamp(min=1e-6).log()  # the frequencies of the classes: the best start
    with torch.inference_mode(False), torch.enable_grad():
        x, wanted, share = features.clone(), target.value.clone(), share.clone()
        weight = torch.zeros(x.shape[1], wanted.shape[1], requires_grad=True)
        bias = base.clone().requires_grad_()
        found = {}
        for strength in sorted(strengths, reverse=True):
            solver = torch.optim.LBFGS([weight, bias], max_iter=steps, tolerance_grad=1e-5, tolerance_change=1e-8,
                                       history_size=10, line_search_fn="strong_wolfe")

            def loss(strength: float = strength, solver=solver) -> Tensor:
                solver.zero_grad()
                entropy = -(F.log_softmax(x @ weight + bias, dim=1) * wanted).sum(dim=1)
                value = (entropy * share).sum() + 0.5 * strength * weight.square().sum()
                value.backward()
                return value

            solver.step(loss)
            found[strength] = (weight.detach().clone(), bias.detach().clone())
    return [lambda values, w=found[s][0], b=found[s][1]: values @ w + b for s in strengths]

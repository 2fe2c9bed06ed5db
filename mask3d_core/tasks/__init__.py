"""What a run is for. A task is a model, a loss, metrics and predictions; the engine (``training.engine``) is one for all.

A new task is one new file here that satisfies :class:`Task`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class LossSum:
    """A loss that can be added over micro-batches and ranks before dividing.

    Args:
        total: scalar with gradient, the sum over frames of each frame's mean loss.
        count: scalar, how many frames had anything to count.
        parts: named scalars without gradient, sums over the same frames, for the log.
    """

    total: Tensor
    count: Tensor
    parts: dict[str, Tensor]


@runtime_checkable
class Task(Protocol):
    """What the engine needs to know.

    Two more attributes are optional: ``selection``, (name of a validation score, whether higher is better), keeps the best
    weights as ``best.safetensors``; ``layer_scale``, from a parameter's name to a factor of its learning rate.
    """

    name: str
    model: nn.Module

    def loss(self, model: nn.Module, batch: Any, step: int) -> LossSum:
        """The loss of one micro-batch; ``model`` may be compiled or wrapped for several processes."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Scores on fixed validation frames."""
        ...

    def preview(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Predictions for a few fixed frames, as plain arrays for other tools to draw."""
        ...

    def record(self) -> dict[str, Any]:
        """What a checkpoint's JSON must say about this run."""
        ...

    def extras(self) -> dict[str, Tensor]:
        """Tensors that travel with the published weights (an opponent's map, say)."""
        ...

    def may_leave_unused(self) -> bool:
        """True when some steps use only part of the parameters."""
        ...

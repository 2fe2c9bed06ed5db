"""What a cell's features are asked for, and how an answer is scored at the protocol's resolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import DEPTH, METRICS, NORMALS, SEMANTICS, BenchConfig
from mask3d_core.evaluation.metrics import depth_metrics
from mask3d_core.evaluation.neighbours import cell_mean
from mask3d_core.evaluation.segmentation import confusion
from mask3d_core.geometry import normals_from_depth
from mask3d_core.shapes import Float, Int


@dataclass(frozen=True)
class Target:
    """One task's targets for some cells.

    Args:
        value: Float (m, o).
        weight: Float (m,), the share of the cell's pixels that is known.
    """

    value: Tensor
    weight: Tensor

    def at(self, rows: Int[Tensor, "k"]) -> Target:
        """Some of the cells."""
        return Target(self.value[rows], self.weight[rows])

    @staticmethod
    def joined(parts: list[Target]) -> Target:
        """In a row."""
        return Target(torch.cat([p.value for p in parts]), torch.cat([p.weight for p in parts]))


class Truth:
    """One batch's truth.

    Args:
        batch: frames of the protocol's size.
        config: protocol.
        classes: how many semantic classes; 0 where there are no labels.
    """

    def __init__(self, batch: Batch, config: BenchConfig, classes: int = 0):
        self.batch, self.config, self.classes = batch, config, classes
        self.scale = (config.reference_focal / batch.intrinsics[:, 0])[:, None, None]
        self.is_counted = batch.is_valid & (batch.depth <= config.max_depth)

    @cached_property
    def normals(self) -> tuple[Tensor, Tensor]:
        """Float (b, h, w, 3) in the camera's frame, and where they are defined, Bool (b, h, w)."""
        return normals_from_depth(self.batch.depth, self.is_counted, self.batch.intrinsics)

    def target(self, task: str) -> Target:
        """What the readouts are fitted to: logarithm of canonical depth, normals, or shares of classes."""
        rows, columns = self.config.grid
        if task == SEMANTICS:
            if self.batch.semantic is None:
                count = len(self.batch) * rows * columns
                return Target(torch.zeros(count, self.classes), torch.zeros(count))
            everywhere, labels = torch.ones_like(self.batch.depth), self.batch.semantic
            shares = torch.stack([cell_mean(everywhere, labels == k, self.config.grid)[1] for k in range(self.classes)], -1)
            known = shares.sum(dim=-1)
            return Target((shares / known[..., None].clamp(min=1e-9)).flatten(0, 2), known.flatten())
        if task == DEPTH:
            logarithm = (self.batch.depth * self.scale).clamp(min=1e-3).log()
            value, weight = self._parts(logarithm, self.is_counted)
            return Target(value, weight)
        _only_normals(task)
        normals, is_defined = self.normals
        parts = [self._parts(normals[..., axis], is_defined) for axis in range(3)]
        value = F.normalize(torch.stack([value for value, _ in parts], dim=-1), dim=-1)
        return Target(value.flatten(1), parts[0][1])

    def _parts(self, picture: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the parts of each cell, (b * n, parts * parts), and the share of the cell that is known, (b * n,).

        A part of which nothing is known takes the cell's mean.
        """
        (rows, columns), k = self.config.grid, self.config.parts
        fine, share = cell_mean(picture, where, (rows * k, columns * k))
        coarse, cell_share = cell_mean(picture, where, (rows, columns))
        around = coarse.repeat_interleave(k, 1).repeat_interleave(k, 2)
        fine = torch.where(share > 0, fine, around)
        folded = fine.reshape(-1, rows, k, columns, k).permute(0, 1, 3, 2, 4).reshape(-1, k * k)
        return folded, cell_share.flatten()

    def _unfolded(self, answer: Tensor, channels: int) -> Tensor:
        """(b * n, parts * parts * channels) to (b, channels, h, w), every part repeated over its pixels."""
        (rows, columns), k = self.config.grid, self.config.parts
        picture = answer.float().reshape(-1, rows, columns, k, k, channels).permute(0, 5, 1, 3, 2, 4)
        picture = picture.reshape(-1, channels, rows * k, columns * k)
        return F.interpolate(picture, self.batch.depth.shape[1:], mode="nearest")

    def score(self, task: str, answer: Float[Tensor, "m o"]) -> dict[str, Tensor]:
        """How good an answer is, frame by frame.

        Args:
            answer: one row per cell, as :meth:`target` has them; for semantics any number per class, the largest wins.

        Returns:
            Metric to (b,), NaN where a frame has nothing to count; for semantics "confusion", int64 (b, classes, classes), rows
            the truth.
        """
        if task == SEMANTICS:
            return {"confusion": self._confusion(answer)}
        if task == DEPTH:
            # a linear map in the logarithm extrapolates without bounds: nobody's answer goes beyond twice the scored range
            metres = (self._unfolded(answer, 1)[:, 0].clamp(max=10.0).exp() / self.scale).clamp(max=2 * self.config.max_depth)
            found = depth_metrics(metres, self.batch.depth, self.is_counted)
            return {name: found[name] for name in METRICS[DEPTH]}
        _only_normals(task)
        return self._normal_score(answer)

    def _normal_score(self, answer: Tensor) -> dict[str, Tensor]:
        true, is_defined = self.normals
        unit = F.normalize(answer.float().reshape(len(answer), -1, 3), dim=-1).flatten(1)
        found = self._unfolded(unit, 3)
        cosine = sum(true[..., axis] * found[:, axis] for axis in range(3))  # in float32 good to 0.03 degrees
        angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        count = is_defined.flatten(1).sum(dim=1)
        mean = lambda value: torch.where(is_defined, value, 0.0).flatten(1).sum(dim=1) / count  # noqa: E731
        return {"mean": mean(angle), "median": torch.where(is_defined, angle, torch.nan).flatten(1).nanmedian(dim=1).values,
                "within_11": mean((angle < 11.25).float()), "within_22": mean((angle < 22.5).float()),
                "within_30": mean((angle < 30.0).float())}

    def _confusion(self, answer: Tensor) -> Tensor:
        (rows, columns), classes, labels = self.config.grid, self.classes, self.batch.semantic
        frames = len(self.batch)
        if labels is None:
            return torch.zeros(frames, classes, classes, dtype=torch.int64)
        scores = answer.float().reshape(frames, rows, columns, classes).permute(0, 3, 1, 2)
        found = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=False).argmax(dim=1)
        return confusion(found, labels, classes)


def _only_normals(task: str) -> None:
    """What is left after depth and semantics.

    Raises:
        ConfigError: another task.
    """
    if task != NORMALS:
        raise ConfigError(f"features are read off for {DEPTH}, {NORMALS} or {SEMANTICS}; got {task!r}")

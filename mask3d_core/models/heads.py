"""From the maps of a plain vision transformer to one value per pixel: a linear head, and a DPT-style one over several levels.

DPT: Ranftl, Bochkovskiy, Koltun, "Vision Transformers for Dense Prediction", ICCV 2021 (arXiv 2103.13413): levels of the
transformer are brought to strides of a quarter, a half, one and two patches and fused from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask3d_core.shapes import Float

HEADS = ("linear", "dpt")


@dataclass(frozen=True)
class HeadConfig:
    """What is put on an encoder.

    Args:
        kind: "linear": one matrix per patch, enlarged bilinearly; "dpt": convolutions over several levels.
        width: channels of the DPT head (256 in DPT's own models).
        layers: which layers of the encoder are read, 0 the first; empty: the last (linear), or four evenly spread (DPT).
        cells: the linear head gives cells x cells values per patch.
    """

    kind: str = "linear"
    width: int = 64
    layers: tuple[int, ...] = ()
    cells: int = 1

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [] if self.kind in HEADS else [f"head.kind must be one of {', '.join(HEADS)}; got {self.kind!r}"]
        found += [f"head.{name} must be at least 1; got {getattr(self, name)}" for name in ("width", "cells")
                  if getattr(self, name) < 1]
        if list(self.layers) != sorted(set(self.layers)) or min(self.layers, default=0) < 0:
            found.append(f"head.layers must rise from 0; got {self.layers}")
        if self.kind == "dpt" and self.layers and len(self.layers) != 4:
            found.append(f"a dpt head reads four layers; head.layers has {len(self.layers)}")
        if self.kind == "linear" and len(self.layers) > 1:
            found.append(f"a linear head reads one layer; head.layers has {len(self.layers)}")
        return found

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """The layers read of an encoder with ``depth`` of them."""
        if self.layers:
            return self.layers
        if self.kind == "linear":
            return (depth - 1,)
        return tuple(sorted({max(0, round(depth * k / 4) - 1) for k in range(1, 5)})) if depth >= 4 else tuple(range(depth))


class LinearHead(nn.Module):
    """One matrix per patch. Standardised features first (batch normalisation without weights), as is usual for probes.

    The statistics are those of one micro-batch in one process: how a batch is cut (``fit.accumulate``, several processes) changes
    them a little, and the running ones that are kept for scoring are rank 0's.

    Args:
        width: of the encoder. outputs: values per pixel. cells: values per patch and side.
    """

    def __init__(self, width: int, outputs: int, cells: int = 1):
        super().__init__()
        self.cells = cells
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.project = nn.Conv2d(width, outputs * cells * cells, 1)
        nn.init.trunc_normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)

    def forward(self, levels: Sequence[Float[Tensor, "b d rows columns"]]) -> Float[Tensor, "b c hh ww"]:
        """Values at the grid's resolution times ``cells``."""
        value = self.project(self.norm(levels[-1]))
        return F.pixel_shuffle(value, self.cells) if self.cells > 1 else value


class _Refine(nn.Module):
    """A residual unit of two 3 x 3 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class DPTHead(nn.Module):
    """Four levels fused from coarse to fine; the result stands at a quarter patch.

    Args:
        widths: channels of the encoder's levels (all the same for a plain transformer).
        outputs: values per pixel. width: channels inside.
    """

    SCALES = (4.0, 2.0, 1.0, 0.5)  # of the patch grid, from the first level to the last

    def __init__(self, widths: Sequence[int], outputs: int, width: int = 64):
        super().__init__()
        self.scales = self.SCALES[-len(widths):] if len(widths) < 4 else self.SCALES
        self.project = nn.ModuleList(nn.Conv2d(d, width, 1) for d in widths)
        self.resize = nn.ModuleList(self._resize(width, scale) for scale in self.scales)
        self.lateral = nn.ModuleList(_Refine(width) for _ in widths)
        self.fuse = nn.ModuleList(_Refine(width) for _ in widths)
        self.output = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 1))
        nn.init.trunc_normal_(self.output[-1].weight, std=0.01)
        nn.init.zeros_(self.output[-1].bias)

    @staticmethod
    def _resize(width: int, scale: float) -> nn.Module:
        if scale > 1:
            return nn.ConvTranspose2d(width, width, int(scale), stride=int(scale))
        return nn.Identity() if scale == 1 else nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, levels: Sequence[Float[Tensor, "b d rows columns"]]) -> Float[Tensor, "b c hh ww"]:
        """Values at four times the grid's resolution (of four levels)."""
        maps = [resize(project(level)) for level, project, resize in zip(levels, self.project, self.resize, strict=True)]
        fused = None
        for number in reversed(range(len(maps))):
            here = self.lateral[number](maps[number])
            if fused is not None:
                here = here + F.interpolate(fused, here.shape[-2:], mode="bilinear", align_corners=False)
            fused = self.fuse[number](here)
        return self.output(fused)


def build_head(config: HeadConfig, width: int, depth: int, outputs: int) -> nn.Module:
    """The head of an encoder of this width and depth; it wants the levels ``config.layers_of(depth)``."""
    layers = config.layers_of(depth)
    if config.kind == "linear":
        return LinearHead(width, outputs, config.cells)
    return DPTHead([width] * len(layers), outputs, config.width)


def enlarge(value: Float[Tensor, "b c hh ww"], size: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Bilinearly to the picture's (height, width)."""
    if tuple(value.shape[-2:]) == tuple(size):
        return value
    with torch.autocast(value.device.type, enabled=False):
        return F.interpolate(value.float(), size, mode="bilinear", align_corners=False)

"""Who is measured: encoders and their opponents, all as functions from pictures to one feature vector per cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench.config import (DEPTH, LINEAR, MATCHING, NEAREST, NORMALS, SEMANTICS, TASKS, UNTRAINED,
                                                 BenchConfig)
from mask3d_core.evaluation.features import RGBEncoder, layer_features, raw_patches
from mask3d_core.evaluation.probes import POSITION_WIDTH
from mask3d_core.models.encoders import build_vit
from mask3d_core.models.patches import sincos_positions
from mask3d_core.models.starts import Start

ENCODER, REFERENCE, OPPONENT = "encoder", "reference", "opponent"
TRIVIAL, POSITION, PIXELS, PIXELS_ALONE = "trivial answer", "position alone", "raw pixels + position", "raw pixels"
TRIVIAL_WORDS = "trivial answer: mean depth, mean normal, most frequent class, a patch drawn at random"

LayerFeatures = Callable[[Tensor, Sequence[int]], list[Tensor]]
"""From colour Float (b, 3, h, w) in 0..1 and layers to Float (b, n, d) per layer, n the cells of the grid, row by row."""


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Args:
        name: of the row.
        kind: "encoder", "reference" or "opponent".
        layers: which are tried; (0,) for what has none.
        features: see ``LayerFeatures``.
        tasks: what it takes part in. readouts: and how.
        width: of its features.
    """

    name: str
    kind: str
    layers: tuple[int, ...]
    features: LayerFeatures
    width: int
    tasks: tuple[str, ...] = TASKS
    readouts: tuple[str, ...] = (LINEAR, NEAREST, UNTRAINED)


def spaced_layers(depth: int, count: int) -> tuple[int, ...]:
    """``count`` layers evenly spaced and ending with the last, 0 the first; all where there are fewer.

    >>> spaced_layers(12, 4)
    (2, 5, 8, 11)
    """
    count = min(count, depth)
    return tuple(sorted({(depth * (k + 1) + count - 1) // count - 1 for k in range(count)}))


def encoder_entry(name: str, encoder: RGBEncoder, kind: str, config: BenchConfig) -> Entry:
    """A frozen encoder. Pictures are scaled so that it has one patch per cell, whatever its patch size."""
    def features(color: Tensor, layers: Sequence[int]) -> list[Tensor]:
        size = (config.grid[0] * encoder.patch, config.grid[1] * encoder.patch)
        if size != tuple(color.shape[-2:]):
            color = F.interpolate(color, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
        return [found.patches.float().cpu() for found in layer_features(encoder, color, layers, config.batch_size)]

    return Entry(name, kind, spaced_layers(encoder.depth, config.layers), features, encoder.vit.embed_dim)


def function_entry(name: str, function: Callable[[Tensor], Tensor], width: int, kind: str = OPPONENT,
                   tasks: tuple[str, ...] = TASKS, readouts: tuple[str, ...] = (LINEAR, NEAREST, UNTRAINED)) -> Entry:
    """Anything that gives one feature vector per cell from a picture."""
    return Entry(name, kind, (0,), lambda color, layers: [function(color) for _ in layers], width, tasks, readouts)


def opponent_entries(config: BenchConfig) -> list[Entry]:
    """The opponents that need no encoder and are always in the table."""
    code, count = sincos_positions(config.grid, POSITION_WIDTH), config.grid[0] * config.grid[1]
    place = lambda color: code.expand(len(color), -1, -1)  # noqa: E731
    pixels = lambda color: raw_patches(color, config.cell)  # noqa: E731
    width, probes = 3 * config.cell ** 2, (DEPTH, NORMALS, SEMANTICS)
    both = lambda color: torch.cat([pixels(color), place(color)], dim=-1)  # noqa: E731
    return [function_entry(PIXELS, both, width + POSITION_WIDTH, tasks=probes),
            function_entry(PIXELS_ALONE, pixels, width, tasks=(MATCHING,)),
            function_entry(POSITION, place, POSITION_WIDTH),
            function_entry(TRIVIAL, lambda color: torch.zeros(len(color), count, 0), 0, readouts=(LINEAR,), tasks=probes)]


def untrained_twin(start: Start, image_size: tuple[int, int], seed: int = 1_000) -> RGBEncoder:
    """The start's architecture from noise: the opponent that any claim about pre-training has to beat.

    Args:
        start: as ``open_start`` gave it.
        image_size: (height, width) in pixels.
        seed: of its weights; not that of any recipe.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vit = build_vit(start.config, image_size, start.patch, 3)
    return RGBEncoder(vit, start.color_mean, start.color_std, "untrained, same shape")


def check_names(groups: Sequence[Sequence[str]]) -> None:
    """Refuse two rows of one name.

    Raises:
        ConfigError: names the rows.
    """
    names = [name for group in groups for name in group]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"rows of the bench need names of their own; {', '.join(map(repr, twice))} would stand there twice")

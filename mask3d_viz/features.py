"""Pictures of features: their main components in colours that two encoders share, and nearest patches as crops.

Three numbers per patch become red, green and blue. For the first encoder they are its three main components, each scaled
to unit spread, with the sign that makes brighter patches brighter. Another encoder keeps *its own* three main components;
they are only turned (an orthogonal Procrustes rotation over the same patches of the same frames) until they resemble the
first one's as much as a rotation can make them. So equal colours mean equal content as far as both have it, and what the
second encoder's main components do not hold cannot appear in its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mask3d_core.errors import Mask3DError
from mask3d_core.shapes import Float
from mask3d_viz import style
from mask3d_viz.drawing import blank, paste, text_block
from mask3d_viz.pixels import Pixels, as_picture, cell_edges, resize_nearest

SPREAD = 2.2  # standard deviations from the middle of a colour to its end
COLORS = 3


@dataclass(frozen=True)
class Components:
    """Three directions of one encoder's feature space.

    Args:
        mean: float64 (d,).
        directions: float64 (d, 3); a feature minus the mean times these has unit spread over the fitted patches.
        explained: share of the features' variance along each of the three main components, before any turning.
        varies: how long what differs between patches is beside the whole feature, 0..1 (root mean squares). Near 0 the
            encoder says nearly the same of every patch, and the colours show what little is left.
        likeness: mean correlation of the three with the reference's over the same patches; 1 for the reference itself.
    """

    mean: Tensor
    directions: Tensor
    explained: tuple[float, float, float]
    varies: float
    likeness: float = 1.0

    def of(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n 3"]:
        """Three numbers of unit spread per feature."""
        return ((features.double() - self.mean) @ self.directions).float()


def main_components(features: Float[Tensor, "n d"], brightness: Float[Tensor, "n"]) -> Components:
    """The three main components, scaled to unit spread, in an order and with signs that do not depend on chance.

    A component's sign makes its correlation with brightness positive; where there is none, its third moment. Neither
    changes when the features' space is turned or the patches come in another order.

    Args:
        features: of many patches.
        brightness: of the same patches, any scale.

    Raises:
        Mask3DError: fewer than two patches, or numbers that are not finite.
    """
    x = features.double()
    if len(x) < 2 or not torch.isfinite(x).all():
        raise Mask3DError("finite features of at least two patches", f"{len(x)} patches, "
                          f"{int((~torch.isfinite(x)).sum())} numbers not finite", "Look at the encoder.")
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = float(values.sum())
    directions = torch.zeros(x.shape[1], COLORS, dtype=torch.float64)
    for k in range(min(COLORS, x.shape[1])):
        if values[k] <= 1e-12 * max(total, 1e-30):
            break  # nothing varies along it: grey
        score = (x - mean) @ vectors[:, k] / values[k].sqrt()
        light = brightness.double() - brightness.double().mean()
        with_light = float((score * light).mean() / light.square().mean().sqrt().clamp(min=1e-12))
        sign = with_light if abs(with_light) > 1e-6 else float(score.pow(3).mean())
        directions[:, k] = vectors[:, k] / values[k].sqrt() * (-1.0 if sign < 0 else 1.0)
    explained = [float(v) / total if total else 0.0 for v in values[:COLORS]] + [0.0] * COLORS
    whole = float(x.square().sum(dim=1).mean())
    return Components(mean, directions, tuple(explained[:COLORS]), (total / whole) ** 0.5 if whole else 0.0)


def aligned(components: Components, features: Float[Tensor, "n d"], reference: Float[Tensor, "n 3"]) -> Components:
    """The components turned towards a reference's scores of the same patches (orthogonal Procrustes; Schönemann 1966).

    Args:
        components: of the second encoder.
        features: its features.
        reference: what the first encoder's components give for the same patches.

    Returns:
        The same three-dimensional subspace, rotated or mirrored, with the likeness that was reached.

    Raises:
        Mask3DError: not the same number of patches.
    """
    scores, reference = components.of(features).double(), reference.double()
    if len(scores) != len(reference):
        raise Mask3DError("the same patches of both encoders", f"{len(scores)} and {len(reference)}",
                          "Compare encoders with the same patches and picture size.")
    u, _, v = torch.linalg.svd(scores.T @ reference)
    turned = replace(components, directions=components.directions @ (u @ v))
    return replace(turned, likeness=likeness(turned.of(features), reference))


def likeness(first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"]) -> float:
    """Mean correlation of the three numbers; a constant one correlates with nothing."""
    a, b = (t.double() - t.double().mean(dim=0) for t in (first, second))
    spread = a.square().mean(dim=0).sqrt() * b.square().mean(dim=0).sqrt()
    return float(torch.where(spread > 1e-9, (a * b).mean(dim=0) / spread.clamp(min=1e-9), 0.0).mean())


def component_picture(scores: Pixels, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Three numbers per patch as colours.

    Args:
        scores: (n, 3) of unit spread, row by row of the grid.
        grid: (rows, columns). size: (height, width) of the picture.

    Returns:
        uint8 (H, W, 3); 0 is middle grey, :data:`SPREAD` standard deviations are the ends.
    """
    values = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else np.asarray(scores)
    if values.shape != (grid[0] * grid[1], COLORS):
        raise Mask3DError(f"three numbers for each of {grid[0]} x {grid[1]} patches", str(values.shape), "Pass one frame.")
    colors = np.rint(np.clip(0.5 + values / (2 * SPREAD), 0, 1) * 255).astype(np.uint8)
    return resize_nearest(colors.reshape(*grid, COLORS), size)


def brightness_of(color: Float[Tensor, "b 3 h w"], grid: tuple[int, int]) -> Float[Tensor, "n"]:
    """Mean brightness of each patch, for the signs of :func:`main_components`."""
    return torch.nn.functional.adaptive_avg_pool2d(color.mean(dim=1, keepdim=True), grid).flatten()


@dataclass(frozen=True)
class Neighbour:
    """One patch that was found.

    Args:
        picture: uint8 (h, w, 3), the patch amid its surroundings, its border drawn.
        words: a few, under it.
    """

    picture: np.ndarray
    words: str


def patch_crop(color: Pixels, patch: int, grid: tuple[int, int], around: int = 1, side: int = 96) -> np.ndarray:
    """A patch amid the patches around it, framed; beyond the picture's border grey.

    Args:
        color: (H, W, 3). patch: its number. around: how many patches on each side.
        side: of the crop that is returned, pixels.

    Returns:
        uint8 (side, side, 3).
    """
    color = as_picture(color)
    row, column = divmod(patch, grid[1])
    high, wide = color.shape[0] // grid[0], color.shape[1] // grid[1]
    padded = np.pad(color, ((around * high,) * 2, (around * wide,) * 2, (0, 0)), constant_values=150)
    crop = padded[row * high:(row + 2 * around + 1) * high, column * wide:(column + 2 * around + 1) * wide]
    crop = resize_nearest(crop, (side, side)).copy()
    edges = cell_edges(side, 2 * around + 1)
    low, top = int(edges[around]), int(edges[around + 1])
    for offset, ink in ((-2, (17, 19, 22)), (-1, (25, 227, 255)), (0, (25, 227, 255))):
        a, b = low + offset, top - offset - 1
        crop[[a, b], a:b + 1] = ink
        crop[a:b + 1, [a, b]] = ink
    return crop


def neighbour_sheet(rows: Sequence[tuple[str, str, Sequence[Neighbour]]], asked: np.ndarray, width: int,
                    theme: str = "light") -> np.ndarray:
    """Who is nearest, one row per encoder.

    Args:
        rows: (name, a line about all of them, the neighbours).
        asked: the crop of the patch that was asked.
        width: of the sheet, pixels.

    Returns:
        uint8 (H, width, 3).
    """
    side, gap, left = asked.shape[0], 14, 260
    strips = []
    for number, (name, words, found) in enumerate(rows):
        head = np.concatenate([text_block(name, left - gap, 17, bold=True, theme=theme),
                               text_block(words, left - gap, 14, role="muted", theme=theme)])
        cells = ([Neighbour(asked, "asked")] if number == 0 else []) + list(found)
        texts = [text_block(cell.words, side + gap - 4, 13, theme=theme) for cell in cells]
        strip = blank((max(head.shape[0], side + 4 + max((t.shape[0] for t in texts), default=0)) + gap, width), theme)
        paste(strip, head, 0, gap)
        for place, (cell, text) in enumerate(zip(cells, texts)):
            x = left + (place + (number > 0)) * (side + gap)
            if x + side + gap > width:
                break
            paste(strip, cell.picture, 0, x)
            paste(strip, text[:, :width - x], side + 4, x)
        strips.append(strip)
    return np.concatenate(strips) if strips else blank((0, width), theme)


def bar_chart(rows: Sequence[tuple[str, float, float | None, float | None, bool]], width: int, *, unit: str = "",
              theme: str = "light") -> np.ndarray:
    """Numbers with their intervals as horizontal bars, from 0.

    Args:
        rows: (name, value, low, high, is marked); low and high may be None.
        width: pixels.
        unit: after each number.

    Returns:
        uint8 (H, width, 3).
    """
    from PIL import Image, ImageDraw

    size, left, right, step = 16, 280, 240, 30
    colors = style.theme(theme)
    sheet = Image.fromarray(blank((step * len(rows) + 4, width), theme))
    draw = ImageDraw.Draw(sheet)
    end = max([high if high is not None else value for _, value, _, high, _ in rows] or [1.0]) or 1.0
    place = lambda v: left + (width - left - right) * min(max(v / end, 0.0), 1.0)  # noqa: E731
    for number, (name, value, low, high, is_marked) in enumerate(rows):
        middle = number * step + step // 2
        font = style.font(size, bold=is_marked)
        draw.text((14, middle), name, font=font, fill=style.rgb(colors["ink"]), anchor="lm")
        draw.rectangle((left, middle - 8, place(value), middle + 8),
                       fill=style.rgb(style.SERIES[theme][0] if is_marked else style.SERIES[theme][6]))
        said = f"{value:.3f}{unit}"
        if low is not None and high is not None:
            draw.line((place(low), middle, place(high), middle), fill=style.rgb(colors["ink"]), width=2)
            for end_of in (low, high):
                draw.line((place(end_of), middle - 5, place(end_of), middle + 5), fill=style.rgb(colors["ink"]), width=2)
            said += f"  [{low:.3f}, {high:.3f}]"
        draw.text((width - right + 8, middle), said, font=font, fill=style.rgb(colors["ink"]), anchor="lm")
    return np.asarray(sheet)

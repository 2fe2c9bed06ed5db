"""The fixed frames that a run predicts at every evaluation, as a film: one frame, step after step, on locked scales."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mask3d_core.evaluation import OPPONENTS, counted_pixels, depth_metrics
from mask3d_core.models.patches import patchify
from mask3d_viz.images import (
    depth_image, error_end, error_image, frame_limits, masked_color_image, masked_depth_image, where_never_measured)
from mask3d_viz.pixels import resize_nearest
from mask3d_viz.predictions import MAX_DEPTH
from mask3d_viz.reconstruction import _grid_of
from mask3d_viz.widgets.film_strip import film_picture

LONGEST = 40  # pictures in a film; more are thinned evenly, the first and the newest stay
TILE = 320  # pixels across
RIVALS = {"mean": "mean of the visible", "nearest": "nearest visible pixel", "linear_inverse": "spline in 1/depth"}


@dataclass(frozen=True)
class FilmPictures:
    """A film, ready to be shown.

    Args:
        steps, pictures, captions: one each, oldest first; pictures are JPEGs of the tiles that change.
        fixed: a JPEG of the tiles that stay.
        titles, is_changing: of the tiles.
        size: (height, width) of a tile.
        count: fixed frames there are.
    """

    steps: tuple[int, ...]
    pictures: tuple[bytes, ...]
    captions: tuple[str, ...]
    fixed: bytes
    titles: tuple[str, ...]
    is_changing: tuple[bool, ...]
    size: tuple[int, int]
    count: int


def thinned(items: list, limit: int = LONGEST) -> list:
    """At most so many, evenly, with the first and the last."""
    if len(items) <= limit:
        return items
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, limit).round().astype(int))]


class FilmMaker:
    """Makes films of preview files; each file is read once per frame.

    Args:
        limit: pictures at most.
    """

    def __init__(self, limit: int = LONGEST):
        self.limit = limit
        self._made: dict[tuple, tuple[bytes, str]] = {}
        self._fixed: dict[tuple, dict] = {}

    def make(self, previews: list[tuple[int, Path]], frame: int = 0) -> FilmPictures | None:
        """The film of one fixed frame.

        Args:
            previews: (step, ``step-*.npz``), oldest first.
            frame: which of the fixed frames.

        Returns:
            None while there is no picture.
        """
        chosen, steps, pictures, captions, first = thinned(previews, self.limit), [], [], [], None
        for step, path in chosen:
            try:
                key = (str(path), path.stat().st_mtime_ns, frame)
                if first is None:
                    first = self._first(key, path)
                if key not in self._made:
                    self._made[key] = self._picture(path, frame, first)
            except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # taken away or damaged: the film goes on without
                continue
            picture, words = self._made[key]
            steps.append(step)
            pictures.append(picture)
            captions.append(f"Step {step}: {words}")
        if first is None or not steps:
            return None
        return FilmPictures(tuple(steps), tuple(pictures), tuple(captions), first["fixed"], first["titles"],
                            first["is_changing"], first["size"], first["count"])

    def _first(self, key: tuple, path: Path) -> dict:
        """What stays through the film: colour, mask, truth, scales and opponents of one frame."""
        if key in self._fixed:
            return self._fixed[key]
        frame = key[2]
        with np.load(path) as arrays:
            color = np.moveaxis(arrays["color"][frame], 0, -1)
            depth, is_valid = arrays["depth"][frame].astype(np.float32), arrays["is_valid"][frame]
            hidden_rgb, hidden_depth = arrays["is_masked_rgb"][frame], arrays["is_masked_depth"][frame]
            prediction = arrays["prediction"][frame].astype(np.float32) if "prediction" in arrays else None
            count = len(arrays["color"])
        grid = _grid_of(len(hidden_rgb), color.shape[:2])
        hidden_rgb, hidden_depth = hidden_rgb.reshape(grid), hidden_depth.reshape(grid)
        limits = frame_limits(depth, is_valid)
        tile = (round(TILE * color.shape[0] / color.shape[1]), TILE)
        hidden = np.kron(hidden_depth, np.ones((color.shape[0] // grid[0], color.shape[1] // grid[1]), bool))
        still = [masked_color_image(color, hidden_rgb), masked_depth_image(depth, is_valid, hidden_depth, limits)]
        titles, is_changing = ("RGB seen", "Depth seen"), (False, False)
        made = {"depth": depth, "is_valid": is_valid, "hidden": hidden, "limits": limits, "tile": tile}
        if prediction is None:  # a control without depth: its colour is what it predicts
            titles, is_changing = ("RGB seen",), (False,)
            still = still[:1]
        else:
            made |= {"end": error_end(limits),
                     "rivals": self._rivals(color, depth, is_valid, hidden, hidden_rgb, grid)}
            still.append(depth_image(depth, is_valid, limits))
            titles, is_changing = (*titles, "Prediction", "Error: prediction − truth", "Truth"), (
                *is_changing, True, True, False)
        made |= {"fixed": film_picture([resize_nearest(p, tile) for p in still]), "titles": titles,
                 "is_changing": is_changing, "size": tile, "count": count}
        if prediction is None:
            made |= {"titles": (*titles, "RGB predicted"), "is_changing": (*is_changing, True)}
        self._fixed = {**{k: v for k, v in self._fixed.items() if k[2] != frame}, key: made}
        return made

    def _picture(self, path: Path, frame: int, first: dict) -> tuple[bytes, str]:
        """The tiles that change and the words below them."""
        with np.load(path) as arrays:
            if "prediction" not in arrays:
                patches = arrays["rgb_prediction"][frame].astype(np.float32)
                return film_picture([resize_nearest(_rgb_picture(patches, arrays["color"][frame]), first["tile"])]), (
                    "colour predicted, each patch with its own mean and spread taken from the truth")
            prediction = arrays["prediction"][frame].astype(np.float32)
        score = _abs_rel(prediction, first)
        words = "nothing hidden was measured in this frame" if score is None else ", ".join(
            [f"AbsRel {score:.3f} over this frame's hidden pixels"] + [f"{RIVALS[k]} {v:.3f}" for k, v in first["rivals"].items()])
        tiles = [where_never_measured(depth_image(prediction, None, first["limits"]), first["is_valid"]),
                 error_image(prediction, first["depth"], first["is_valid"], first["end"])]
        return film_picture([resize_nearest(tile, first["tile"]) for tile in tiles]), words

    def _rivals(self, color: np.ndarray, depth: np.ndarray, is_valid: np.ndarray, hidden: np.ndarray,
                hidden_rgb: np.ndarray, grid: tuple[int, int]) -> dict[str, float]:
        """AbsRel of trivial opponents under the same mask; empty where no depth is visible."""
        known = torch.from_numpy(is_valid & ~hidden)[None]
        if not known.any():
            return {}
        shown = ~torch.from_numpy(np.kron(hidden_rgb, np.ones((depth.shape[0] // grid[0], depth.shape[1] // grid[1]), bool)))
        picture = torch.from_numpy(np.moveaxis(color, -1, 0).astype(np.float32) / 255)[None]
        truth = torch.from_numpy(depth)[None]
        part = {"depth": depth, "is_valid": is_valid, "hidden": hidden}
        scores = {name: _abs_rel(OPPONENTS[name](truth, known, picture, shown[None])[0].numpy(), part) for name in RIVALS}
        return {name: score for name, score in scores.items() if score is not None}


def _abs_rel(prediction: np.ndarray, part: dict) -> float | None:
    """AbsRel over hidden measured pixels; None where there are none."""
    depth, is_valid, hidden = (torch.from_numpy(part[name])[None] for name in ("depth", "is_valid", "hidden"))
    counted = counted_pixels(depth, is_valid, hidden, MAX_DEPTH)
    if not counted.any():
        return None
    return float(depth_metrics(torch.from_numpy(prediction)[None], depth, counted)["abs_rel"])


def _rgb_picture(patches: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Predicted patches in each patch's own units, as a picture: the truth's mean and spread undo the units.

    Args:
        patches: float (n, 3 * p * p), as ``rgb_target`` has them.
        color: uint8 (3, H, W), the truth.

    Returns:
        uint8 (H, W, 3).
    """
    side = round((patches.shape[1] / 3) ** 0.5)
    truth = patchify(torch.from_numpy(color).float()[None] / 255, side)[0].numpy()
    values = patches * truth.std(axis=1, keepdims=True, ddof=1) + truth.mean(axis=1, keepdims=True)
    rows, columns = color.shape[1] // side, color.shape[2] // side
    picture = values.reshape(rows, columns, 3, side, side).transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    return np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8)


__all__ = ["FilmMaker", "FilmPictures", "thinned"]

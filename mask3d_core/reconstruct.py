"""One frame through a model: prediction in metres, what was hidden, scores; PNG, NPZ and PLY for other programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.metrics import counted_pixels, depth_metrics
from mask3d_core.frames import FARTHEST_PNG, RGBDFrame
from mask3d_core.geometry import unproject, write_ply
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models.mask3d import Mask3D

PNG_UNITS = 1000.0  # predicted depth PNG: millimetres
PNG_LIMIT = 65.535  # metres


@dataclass(frozen=True)
class Reconstruction:
    """A prediction with everything needed to draw and judge it. Arrays of the model's picture size (h, w).

    Args:
        color: uint8 (h, w, 3). depth, prediction: float32 metres (raw prediction, nothing pasted).
        is_valid: bool. is_masked_rgb, is_masked_depth: bool (rows, columns), True = hidden.
        intrinsics: fx fy cx cy of this picture. scores: over hidden valid pixels; empty without any.
        is_scale_assumed: no depth was visible, so the training data's scale stands in.
        ratios: as asked for. seed: of the masks. name: of the frame.
    """

    color: np.ndarray
    depth: np.ndarray
    prediction: np.ndarray
    is_valid: np.ndarray
    is_masked_rgb: np.ndarray
    is_masked_depth: np.ndarray
    intrinsics: np.ndarray
    scores: dict[str, float]
    is_scale_assumed: bool
    ratios: tuple[float, float]
    seed: int
    name: str

    @property
    def is_visible(self) -> np.ndarray:
        """bool (h, w): measured and shown to the model."""
        patch = self.depth.shape[0] // self.is_masked_depth.shape[0]
        return self.is_valid & ~np.kron(self.is_masked_depth, np.ones((patch, patch), bool))

    @property
    def pasted(self) -> np.ndarray:
        """float32 (h, w): the prediction with measured depth where it was visible."""
        return np.where(self.is_visible, self.depth, self.prediction)


@torch.inference_mode()
def reconstruct(model: Mask3D, frame: RGBDFrame, ratios: tuple[float, float] = (0.8, 0.8), seed: int = 0,
                masks: Masks | None = None, max_depth: float = 10.0) -> Reconstruction:
    """Hide, predict, score one frame (fitted to the model's size).

    Args:
        ratios: shares of RGB and depth patches hidden. A frame without depth is predicted from colour alone.
        seed: of the masks.
        masks: painted masks instead of random ones.
        max_depth: truth beyond is not scored.

    Raises:
        ConfigError: a ratio outside 0..1, nothing visible at all, or a model without a depth target.
    """
    if "depth" not in model.config.targets:
        raise ConfigError("this model predicts no depth (model.targets has no depth)")
    batch: Batch = from_frames([frame], model.config.image_size).to(next(model.parameters()).device)
    patch, grid = model.config.patch, model.config.grid
    if masks is None:
        masks = Masks.random(ratios, batch.frame_ids, 0, batch.is_valid, patch, seed)
    output = model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks)
    hidden = to_pixels(masks.depth, grid, patch)
    counted = counted_pixels(batch.depth, batch.is_valid, hidden, max_depth)
    scores = {k: float(v) for k, v in depth_metrics(output.depth, batch.depth, counted).items() if k != "count"}
    if not counted.any():
        scores = {}
    return Reconstruction(
        (batch.color[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy(), batch.depth[0].cpu().numpy(),
        output.depth[0].cpu().numpy(), batch.is_valid[0].cpu().numpy(), masks.rgb[0].view(grid).cpu().numpy(),
        masks.depth[0].view(grid).cpu().numpy(), batch.intrinsics[0].cpu().numpy(), scores,
        bool(output.space.is_scale_assumed[0]), ratios, seed, str(frame.origin))


def write_reconstruction(result: Reconstruction, out: str | Path) -> list[Path]:
    """Write depth as 16-bit PNG (millimetres) and metric NPZ, truth and prediction as coloured PLY, scores as JSON.

    Raises:
        Mask3DError: the folder cannot be written.
    """
    from PIL import Image

    out = Path(out)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        millimetres = np.clip(np.rint(result.prediction * PNG_UNITS), 0, FARTHEST_PNG).astype(np.uint16)
        Image.fromarray(millimetres).save(out / "prediction_mm.png")
        np.savez_compressed(
            out / "prediction.npz", prediction=result.prediction, pasted=result.pasted, depth=result.depth,
            is_valid=result.is_valid, is_masked_rgb=result.is_masked_rgb, is_masked_depth=result.is_masked_depth,
            intrinsics=result.intrinsics, color=result.color)
        intrinsics = torch.from_numpy(result.intrinsics)[None]
        for name, depth, keep in (("truth", result.depth, result.is_valid),
                                  ("prediction", result.prediction, np.ones_like(result.is_valid))):
            points = unproject(torch.from_numpy(depth)[None], intrinsics)[0].numpy()
            write_ply(out / f"{name}.ply", points[keep], result.color[keep])
            written.append(out / f"{name}.ply")
        facts: dict[str, Any] = {
            "frame": result.name, "ratios": list(result.ratios), "seed": result.seed, "scores": result.scores,
            "scored_over": "hidden valid pixels", "is_scale_assumed": result.is_scale_assumed,
            "prediction_mm.png": "16 bit, 1000 units per metre, at most 65.534 m, nothing pasted"}
        (out / "reconstruction.json").write_text(json.dumps(facts, indent=1))
    except OSError as problem:
        raise Mask3DError("a folder that can be written", str(problem), "Choose another --out or free space.",
                          out) from problem
    return [*written, out / "prediction_mm.png", out / "prediction.npz", out / "reconstruction.json"]

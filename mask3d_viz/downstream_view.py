"""Pictures of fine-tuned models: classes, depth and objects beside the truth. Arrays in, uint8 (H, W, 3) out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.predict import PicturePrediction
from mask3d_viz import style
from mask3d_viz.drawing import blank, contact_sheet, paste
from mask3d_viz.images import depth_image, depth_range, label_image, label_legend
from mask3d_viz.objects_view import detect_sheet, results_image
from mask3d_viz.pixels import as_picture, hatching, save_png

RIGHT_COLORS = ((58, 122, 87), (196, 59, 59))  # a pixel that is right, and one that is wrong, over the greyed picture


def greyed_out(image: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """A picture with the pixels that are not scored hatched, as everywhere in the house."""
    return np.where(is_counted[..., None], image, hatching(is_counted.shape, style.HOLE_COLORS))


def mistakes(color: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Where a segmentation is wrong: red over the greyed picture; unscored pixels hatched.

    Args:
        color: uint8 (H, W, 3). truth, prediction: class ids (H, W).
    """
    grey = np.repeat(as_picture(color).mean(axis=2, keepdims=True) * 0.5 + 100, 3, axis=2)
    wrong = (truth != prediction)[..., None]
    image = np.where(wrong, 0.35 * grey + 0.65 * np.array(RIGHT_COLORS[1]), grey)
    return greyed_out(np.rint(np.clip(image, 0, 255)).astype(np.uint8), truth != IGNORE_LABEL)


def segment_sheet(color: np.ndarray, truth: np.ndarray, predictions: dict[str, np.ndarray], class_names: Sequence[str] = (), *,
                  theme: str = "light") -> np.ndarray:
    """Frames in rows: colour, each prediction, the truth; the classes below.

    Args:
        color: uint8 (n, H, W, 3). truth: class ids (n, H, W), ``IGNORE_LABEL`` unscored.
        predictions: caption to class ids (n, H, W).
        class_names: for the legend; only classes that occur are named.
    """
    count = max(len(class_names), 1 + max(int(p.max()) for p in predictions.values()), 13)
    colors = style.label_colors(count)
    images, captions = [], []
    for i in range(len(color)):
        counted = truth[i] != IGNORE_LABEL
        images.append(color[i])
        captions.append("RGB")
        for name, made in predictions.items():
            share = float((made[i] == truth[i])[counted].mean()) if counted.any() else float("nan")
            images.append(greyed_out(label_image(made[i], color[i], colors=colors), counted))
            captions.append(f"{name}: {share:.0%} of pixels right" if counted.any() else name)
        images.append(label_image(truth[i], color[i], colors=colors))
        captions.append("truth" + ("" if counted.all() else " (hatched: not scored)"))
    sheet = contact_sheet(images, captions, 2 + len(predictions), theme=theme)
    if not class_names:
        return sheet
    present = sorted({int(k) for labels in (truth, *predictions.values()) for k in np.unique(labels)} - {IGNORE_LABEL})
    legend = label_legend([class_names[k] for k in present], sheet.shape[1] - 24, colors=colors[present], theme=theme)
    below = blank((legend.shape[0] + 12, sheet.shape[1]), theme)
    paste(below, legend, 0, 12)
    return np.concatenate([sheet, below])


def depth_sheet(color: np.ndarray, depth: np.ndarray, is_valid: np.ndarray, predictions: dict[str, np.ndarray], *,
                theme: str = "light") -> np.ndarray:
    """Frames in rows: colour, each prediction, the truth, all in one metric range per frame."""
    images, captions = [], []
    for i in range(len(color)):
        limits = depth_range(depth[i], is_valid[i]) if is_valid[i].any() else (0.5, 4.0)
        images.append(color[i])
        captions.append("RGB")
        for name, made in predictions.items():
            error = np.abs(made[i] - depth[i])[is_valid[i]] / depth[i][is_valid[i]]
            images.append(depth_image(made[i].astype(np.float32), None, limits))
            captions.append(f"{name}: AbsRel {error.mean():.3f}" if error.size else name)
        images.append(depth_image(depth[i], is_valid[i], limits))
        captions.append(f"truth, {limits[0]:.1f} to {limits[1]:.1f} m")
    return contact_sheet(images, captions, 2 + len(predictions), theme=theme)


def preview_sheet(arrays: dict[str, np.ndarray], class_names: Sequence[str] = (), *, theme: str = "light") -> np.ndarray:
    """The fixed frames of a fine-tuning run (``RUN/previews/step-*.npz``), whatever its task."""
    color, name = np.moveaxis(arrays["color"], 1, -1), "prediction"
    if "is_training" in arrays:
        name += ", training frame"
    if "semantic_prediction" in arrays:
        return segment_sheet(color, arrays["semantic"], {name: arrays["semantic_prediction"]}, class_names, theme=theme)
    if "object_ids" in arrays:
        return detect_sheet(arrays, class_names, theme=theme)
    return depth_sheet(color, arrays["depth"].astype(np.float32), arrays["is_valid"],
                       {name: arrays["depth_prediction"].astype(np.float32)}, theme=theme)


def prediction_picture(made: PicturePrediction, *, theme: str = "light") -> np.ndarray:
    """One picture with what the model says of it."""
    if made.semantic is not None:
        colors = style.label_colors(max(13, len(made.class_names), int(made.semantic.max()) + 1))
        images = [made.color, label_image(made.semantic, made.color, colors=colors)]
        sheet = contact_sheet(images, ["RGB", "classes"], 2, theme=theme)
        present = [k for k in np.unique(made.semantic).tolist() if k < len(made.class_names)]
        legend = label_legend([made.class_names[k] for k in present], sheet.shape[1] - 24, colors=colors[present], theme=theme)
        below = blank((legend.shape[0] + 12, sheet.shape[1]), theme)
        paste(below, legend, 0, 12)
        return np.concatenate([sheet, below])
    if made.objects is not None:
        image, words = results_image(made.color, made.objects, made.class_names)
        return contact_sheet([made.color, image], ["RGB", words], 2, theme=theme)
    limits = depth_range(made.depth)
    return contact_sheet([made.color, depth_image(made.depth, None, limits)], ["RGB", f"depth, {limits[0]:.1f} to {limits[1]:.1f} m"],
                         2, theme=theme)


def save_prediction(made: PicturePrediction, out: str | Path) -> Path:
    """Write the picture to look at beside the values."""
    path = Path(out) / f"{made.name}_picture.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(prediction_picture(made), path)
    return path


def draw_finetuning(run: Path, step: int) -> None:
    """Draw the fixed frames of a fine-tuning run beside their arrays."""
    from mask3d_core.training.checkpoint import read_json

    source = Path(run) / "previews" / f"step-{step:09d}.npz"
    record = Path(run) / "latest.json"
    names = read_json(record).get("class_names", ()) if record.is_file() else ()
    with np.load(source) as arrays:
        save_png(preview_sheet(dict(arrays), names), source.with_suffix(".png"))

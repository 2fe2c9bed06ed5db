"""A reconstruction as pictures: panel, linked clouds, provenance; and the previews of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mask3d_core.frames import Intrinsics
from mask3d_core.reconstruct import Reconstruction
from mask3d_core.training.log import expected_band, read_log, reference_curve
from mask3d_viz.clouds import Cloud, cloud_colors, cloud_from_depth, linked_stills, provenance
from mask3d_viz.curves import figure_image, loss_curve
from mask3d_viz.images import (
    contact_sheet, depth_image, error_end, frame_limits, masked_color_image, masked_depth_image, save_png,
    where_never_measured)
from mask3d_viz.panels import comparison_panel, reconstruction_panel


def panel(result: Reconstruction, *, pasted: bool = False, theme: str = "light", width: int = 1600,
          title: str = "", limits: tuple[float, float] | None = None, colormap: str = "inferno_r") -> np.ndarray:
    """RGB seen, depth seen, prediction, truth, error, with their scales.

    Args:
        result: what ``mask3d_core.reconstruct.reconstruct`` gave.
        pasted: show measured depth where it was visible; the panel says so.
        limits: (near, far) metres of all depths; None: the frame's own. colormap: of depth.

    Returns:
        uint8 (height, width, 3).
    """
    note = "No depth was visible: the scale is that of the training data." if result.is_scale_assumed else ""
    scores = {k: result.scores[k] for k in ("abs_rel", "delta1") if k in result.scores}
    return reconstruction_panel(
        result.color, result.depth, result.is_valid, result.pasted if pasted else result.prediction,
        result.is_masked_rgb, result.is_masked_depth, is_pasted=pasted, scores=scores, note=note, theme=theme,
        width=width, title=title, limits=limits, colormap=colormap)


def panel_of_two(first: Reconstruction, second: Reconstruction, names: tuple[str, str], scores: dict[str, float], *,
                 pasted: bool = False, theme: str = "light", width: int = 1600, note: str = "",
                 limits: tuple[float, float] | None = None, colormap: str = "inferno_r") -> np.ndarray:
    """Two models' predictions of the same frame under the same masks: :func:`panel` with a second prediction and error.

    Args:
        first, second: of equal frames and masks. names: of the two, as they are headed.
        scores: of the second, over the pixels that the first is scored on.
        pasted, limits, colormap: as in :func:`panel`. note: a further sentence below.

    Returns:
        uint8 (height, width, 3).
    """
    short = lambda values: {k: values[k] for k in ("abs_rel", "delta1") if k in values}  # noqa: E731
    if first.is_scale_assumed:
        note = f"No depth was visible: the scale is that of the training data. {note}".strip()
    depths = tuple(r.pasted if pasted else r.prediction for r in (first, second))
    return comparison_panel(first.color, first.depth, first.is_valid, depths, first.is_masked_rgb, first.is_masked_depth,
                            names=names, is_pasted=pasted, scores=(short(first.scores), short(scores)), note=note, theme=theme,
                            width=width, limits=limits, colormap=colormap)


def clouds(result: Reconstruction) -> tuple[Cloud, Cloud]:
    """Truth and prediction as clouds with the picture's colours, flying pixels dropped."""
    camera = Intrinsics.from_array(result.intrinsics)
    return (cloud_from_depth(result.depth, result.is_valid, camera, result.color),
            cloud_from_depth(result.prediction, None, camera, result.color))


def cloud_stills(result: Reconstruction, *, mode: str = "rgb", view: str = "three-quarter", theme: str = "light",
                 size: tuple[int, int] = (480, 640), limits: tuple[float, float] | None = None) -> np.ndarray:
    """Truth and prediction under one camera.

    Args:
        mode: "rgb", "provenance" (seen / hidden and predicted / never measured) or "error".
        limits: (near, far) metres of the frame's pictures, from which the scale of errors follows; None: its own.
    """
    truth, prediction = clouds(result)
    if mode == "provenance":
        where = provenance(result.is_valid, result.is_masked_depth)
        truth, prediction = (cloud._replace(colors=cloud_colors("provenance", where, cloud.pixels))
                             for cloud in (truth, prediction))
    elif mode == "error":
        error = result.prediction - result.depth
        end = error_end(frame_limits(result.depth, result.is_valid) if limits is None else limits)
        prediction = prediction._replace(colors=cloud_colors("error", error, prediction.pixels, limits=(-end, end),
                                                             is_valid=result.is_valid))
    return linked_stills(truth, prediction, view=view, size=size, theme=theme)


def save_pictures(result: Reconstruction, out: str | Path) -> list[Path]:
    """Write ``panel.png``, ``cloud.png`` and ``provenance.png`` into a folder."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = {"panel.png": panel(result), "cloud.png": cloud_stills(result),
                "provenance.png": cloud_stills(result, mode="provenance")}
    for name, image in pictures.items():
        save_png(image, out / name)
    return [out / name for name in pictures]


def preview_image(arrays: dict[str, np.ndarray], *, theme: str = "light") -> np.ndarray:
    """The fixed frames of a run's preview: what is seen, what is predicted, what is true; one row per frame.

    Args:
        arrays: as in ``RUN/previews/step-*.npz``.
    """
    images, captions = [], []
    for i in range(len(arrays["color"])):
        color = np.moveaxis(arrays["color"][i], 0, -1)
        depth, is_valid = arrays["depth"][i].astype(np.float32), arrays["is_valid"][i]
        grid = _grid_of(arrays["is_masked_rgb"].shape[1], color.shape[:2])
        limits = frame_limits(depth, is_valid)
        images += [masked_color_image(color, arrays["is_masked_rgb"][i].reshape(grid)),
                   masked_depth_image(depth, is_valid, arrays["is_masked_depth"][i].reshape(grid), limits)]
        captions += ["RGB seen", "depth seen"]
        if "prediction" in arrays:
            drawn = depth_image(arrays["prediction"][i].astype(np.float32), None, limits)
            images.append(where_never_measured(drawn, is_valid))
            captions.append("prediction")
        images.append(depth_image(depth, is_valid, limits))
        captions.append("truth")
    return contact_sheet(images, captions, 4 if "prediction" in arrays else 3, theme=theme)


def _grid_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of ``count`` square patches over a picture."""
    side = round((size[0] * size[1] / count) ** 0.5)
    return size[0] // side, size[1] // side


def draw_preview(run: Path, step: int) -> Path:
    """Draw ``previews/step-*.png`` beside the arrays of that step."""
    source = Path(run) / "previews" / f"step-{step:09d}.npz"
    with np.load(source) as arrays:
        image = preview_image(dict(arrays))
    target = source.with_suffix(".png")
    save_png(image, target)
    return target


def draw_run(run: Path, step: int) -> None:
    """What a watcher of the run folder sees: the fixed frames of this step and the curve so far."""
    draw_preview(run, step)
    draw_curve(run)


def draw_curve(run: Path) -> Path | None:
    """Draw ``RUN/curve.png``: the loss over the band of the shipped run of the same recipe, where there is one."""
    run = Path(run)
    records = [r for r in read_log(run / "log.jsonl") if "loss" in r]
    if not records:
        return None
    name = json.loads((run / "config.json").read_text()).get("name", "") if (run / "config.json").is_file() else ""
    band = expected_band(reference_curve(name))
    figure = loss_curve(records, band=band, title=f"Training loss of {name or run.name}")
    save_png(figure_image(figure), run / "curve.png")
    return run / "curve.png"

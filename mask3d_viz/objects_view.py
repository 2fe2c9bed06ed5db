"""Detected objects over the picture: a tint and an outline per object, its box, its class and score. Arrays in, uint8 out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mask3d_core.frames import nearest_indices
from mask3d_viz import style
from mask3d_viz.drawing import contact_sheet
from mask3d_viz.pixels import PictureError, as_picture, hatching, resize_smooth

WIDTH = 480  # pixels that a picture is enlarged to before text is set on it
SHOWN = 0.5  # objects of a lower score are counted in the caption, not drawn
TINT = 0.45
OUTLINE = ((25, 227, 255), (17, 19, 22))  # in and around an outlined object
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e6b800", "#56b4e9", "#8a5fbf", "#7a4f1d")  # of neighbouring objects


def object_colors(count: int) -> np.ndarray:
    """uint8 (count, 3): a colour per object; they repeat after eight."""
    return np.array([style.rgb(HUES[k % len(HUES)]) for k in range(count)], np.uint8).reshape(count, 3)


def objects_image(color: np.ndarray, ids: np.ndarray, boxes: np.ndarray, words: Sequence[str], *,
                  is_ignored: np.ndarray | None = None, width: int = WIDTH) -> np.ndarray:
    """A picture with its objects.

    Args:
        color: uint8 (H, W, 3).
        ids: integers (H, W): 0 nothing, k the k-th object.
        boxes: (n, 4), left, top, right, bottom in pixels of ``color``.
        words: what stands at each box; "" for nothing.
        is_ignored: bool (H, W), pixels that are not scored: hatched.
        width: of the result; a larger picture is left as it is.

    Returns:
        uint8 (height, width, 3), of the picture's own shape.

    Raises:
        PictureError: shapes that do not fit.
    """
    from PIL import Image, ImageDraw

    color, ids, boxes = as_picture(color), np.asarray(ids), np.asarray(boxes, np.float64).reshape(-1, 4)
    if ids.shape != color.shape[:2] or len(words) != len(boxes) or int(ids.max(initial=0)) > len(boxes):
        raise PictureError(f"object ids {color.shape[:2]} of {len(boxes)} boxes with a word each",
                           f"ids {ids.shape} up to {int(ids.max(initial=0))}, {len(words)} words",
                           "Pass the objects of this picture.")
    size = enlarged_size(color.shape[:2], width)
    rows, columns = (nearest_indices(old, new) for old, new in zip(color.shape[:2], size))
    boxes = boxes * ([size[1] / color.shape[1], size[0] / color.shape[0]] * 2)
    colors, large = object_colors(len(boxes)), ids[rows][:, columns]
    image = resize_smooth(color, size).astype(np.float32)
    if is_ignored is not None:
        pale = np.asarray(is_ignored)[rows][:, columns]
        image[pale] = 0.5 * image[pale] + 0.5 * hatching(size, style.HOLE_COLORS)[pale]
    if len(boxes):
        inside = large > 0
        image[inside] = (1 - TINT) * image[inside] + TINT * colors[large[inside] - 1]
        edge = _edges(large) & inside
        image[edge] = colors[large[edge] - 1]
    drawn = Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8))
    draw, font, taken = ImageDraw.Draw(drawn), style.font(14, bold=True), []
    for box, hue in zip(boxes, colors.tolist()):
        draw.rectangle((*box[:2], *np.maximum(box[2:] - 1, box[:2])), outline=tuple(hue), width=2)
    for box, word, hue in zip(boxes, words, colors.tolist()):
        if word:
            place = _place(box, round(font.getlength(word)) + 8, 19, size, taken)
            taken.append(place)
            draw.rectangle(place, fill=tuple(hue))
            ink = (255, 255, 255) if np.dot(hue, (0.3, 0.59, 0.11)) < 140 else (16, 16, 16)
            draw.text((place[0] + 4, (place[1] + place[3]) / 2), word, font=font, fill=ink, anchor="lm")
    return np.asarray(drawn)


def outlined(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """A picture with a line of one pixel around an object, light inside and dark outside: seen on any colours.

    Args:
        image: uint8 (H, W, 3).
        pixels: of the object, bool (H, W).

    Raises:
        PictureError: sizes that do not fit.
    """
    drawn, pixels = image.copy(), np.asarray(pixels)
    if hasattr(image, "marks"):  # what is hatched in it stays so
        drawn.marks = image.marks
    if pixels.shape != image.shape[:2]:
        raise PictureError(f"an object's pixels of the picture's size {image.shape[:2]}", str(pixels.shape), "Resize one.")
    around = np.pad(pixels, 1, mode="edge")
    beside = [around[1 + dy:1 + dy + pixels.shape[0], 1 + dx:1 + dx + pixels.shape[1]]
              for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    drawn[pixels & ~np.logical_and.reduce(beside)] = OUTLINE[0]
    drawn[~pixels & np.logical_or.reduce(beside)] = OUTLINE[1]
    return drawn


def enlarged_size(size: tuple[int, int], width: int = WIDTH) -> tuple[int, int]:
    """(height, width) of a picture that is at least ``width`` pixels wide."""
    scale = max(1.0, width / size[1])
    return round(size[0] * scale), round(size[1] * scale)


def _edges(ids: np.ndarray) -> np.ndarray:
    """Bool (H, W): pixels with another object among their neighbours two pixels away."""
    found = np.zeros(ids.shape, bool)
    for axis in (0, 1):
        for step in (-2, 2):
            moved = np.roll(ids, step, axis)
            rim = [slice(None), slice(None)]
            rim[axis] = slice(0, 2) if step > 0 else slice(-2, None)
            moved[tuple(rim)] = 0  # what lies beyond the picture is no object
            found |= moved != ids
    return found


def _place(box: np.ndarray, wide: int, high: int, size: tuple[int, int], taken: list[tuple[int, int, int, int]]
           ) -> tuple[int, int, int, int]:
    """Where a label goes: above the box, inside its top, below it, or further down, at its left or its right; the first place
    that is free."""
    tops = [box[1] - high, box[1], box[3], box[3] - high, *(box[1] + k * high for k in range(1, 12))]
    corners = [(int(np.clip(left, 0, max(0, size[1] - wide - 1))), int(np.clip(top, 0, max(0, size[0] - high - 1))))
               for left in (box[0], box[2] - wide, box[0] - wide, box[2]) for top in tops]
    places = [(left, top, left + wide, top + high) for left, top in corners]
    free = [p for p in places if not any(p[0] < t[2] and t[0] < p[2] and p[1] < t[3] and t[1] < p[3] for t in taken)]
    return (free or places)[0]


def name_of(class_names: Sequence[str], label: int) -> str:
    """A class by name, or its number where the names do not reach."""
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def results_image(color: np.ndarray, results: Sequence[dict[str, Any]], class_names: Sequence[str], *, least: float = SHOWN,
                  width: int = WIDTH) -> tuple[np.ndarray, str]:
    """COCO results over their picture, and a caption.

    Args:
        color: uint8 (H, W, 3).
        results: of this picture, best first; see ``evaluation.detection.coco_results``.
        least: lowest score that is drawn.
    """
    from mask3d_core.objects import decode_mask

    kept = [one for one in results if one["score"] >= least]
    ids = np.zeros(color.shape[:2], np.int32)
    for number in reversed(range(len(kept))):  # the best on top
        ids[decode_mask(kept[number]["segmentation"])] = number + 1
    boxes = np.array([[*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]] for one in kept])
    words = [f"{name_of(class_names, one['category_id'])} {one['score']:.2f}" for one in kept]
    return objects_image(color, ids, boxes, words, width=width), caption(len(kept), len(results) - len(kept), least)


def caption(drawn: int, left_out: int, least: float) -> str:
    """How many objects are drawn and how many are not."""
    more = f"; {left_out} of a lower score not drawn" if left_out else ""
    return f"{drawn} object{'' if drawn == 1 else 's'} of score {least:g} or more{more}"


def detect_sheet(arrays: dict[str, np.ndarray], class_names: Sequence[str] = (), *, least: float = SHOWN, theme: str = "light"
                 ) -> np.ndarray:
    """Previewed frames in rows: colour, what was found, the truth; pixels that are not scored hatched in the truth.

    Args:
        arrays: as ``tasks.detect.Detect.preview`` gives them.
        least: lowest score that is drawn.
    """
    color = np.moveaxis(arrays["color"], 1, -1)
    images, captions = [], []
    for i in range(len(color)):
        is_there = arrays["object_labels"][i] >= 0
        kept = is_there & (arrays["object_scores"][i] >= least)  # scores fall, so the kept ones come first
        ids = np.where(arrays["object_ids"][i] <= kept.sum(), arrays["object_ids"][i], 0)
        words = [f"{name_of(class_names, k)} {score:.2f}" for k, score in
                 zip(arrays["object_labels"][i][kept].tolist(), arrays["object_scores"][i][kept].tolist())]
        true = arrays["truth_labels"][i] >= 0
        images += [resize_smooth(color[i], enlarged_size(color.shape[1:3])),
                   objects_image(color[i], ids, arrays["object_boxes"][i][kept], words),
                   objects_image(color[i], arrays["truth_ids"][i], arrays["truth_boxes"][i][true],
                                 [name_of(class_names, k) for k in arrays["truth_labels"][i][true].tolist()],
                                 is_ignored=arrays["is_ignored"][i])]
        captions += ["RGB", caption(int(kept.sum()), int(is_there.sum() - kept.sum()), least),
                     f"truth: {int(true.sum())} object{'' if int(true.sum()) == 1 else 's'}"
                     + (" (hatched: not scored)" if arrays["is_ignored"][i].any() else "")]
    return contact_sheet(images, captions, 3, theme=theme)

"""The trivial answer to detection: the same objects for every picture, those that the training data has most often.

A detector that looks at nothing. Boxes are chosen greedily, each time the training object's box that overlaps most of the
objects not yet covered; the score of a box is the share of training frames in which it hits one. Its mask is the whole box (the
mean of the masks that it hits was no better: mask AP50 0.05 beside 0.07 on the frames that it was made from).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mask3d_core.objects import encode_mask
from mask3d_core.tasks.detect import batch_objects
from mask3d_core.training.held_out import HeldOut

HIT = 0.5  # overlap (intersection over union) from which on a box hits an object
BOXES = 20  # per class
FRAMES, OBJECTS = 512, 2000  # training frames, and objects of a class, that are looked at, evenly spaced


def box_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (a, 4) and (b, 4), left, top, right, bottom: float64 (a, b)."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    inner = np.clip(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0, None).prod(-1)
    area = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return inner / np.maximum(area[0] + area[1] - inner, 1e-9)


def favourites(boxes: np.ndarray, most: int = BOXES) -> list[int]:
    """Which boxes to answer with.

    Args:
        boxes: (n, 4) of one class.
        most: at most so many.

    Returns:
        Their numbers, the one that covers most objects first; every next one covers most of what is left.
    """
    hits = box_overlap(boxes, boxes) >= HIT
    is_left, chosen = np.ones(len(boxes), bool), []
    while is_left.any() and len(chosen) < most:
        chosen.append(int((hits & is_left[None]).sum(axis=1).argmax()))
        is_left &= ~hits[chosen[-1]]
    return chosen


def fixed_objects(frames: HeldOut, things: Sequence[int], smallest: int) -> list[dict[str, Any]]:
    """The answer, from labelled training frames.

    Args:
        frames: read with "semantic" and "instance" labels.
        things, smallest: see :func:`mask3d_core.objects.frame_objects`.

    Returns:
        COCO results at the frames' size, best first.
    """
    boxes: dict[int, list[np.ndarray]] = {label: [] for label in things}  # (k, 4) of each frame that has any
    for batch, _ in frames:
        for one in batch_objects(batch, things, smallest):
            for label in set(one.labels.tolist()):
                boxes[label].append(one.boxes[one.labels == label].cpu().numpy())
    results = []
    for label, found in boxes.items():
        if not found:
            continue
        every = np.concatenate(found)
        some = every[np.unique(np.linspace(0, len(every) - 1, min(OBJECTS, len(every))).astype(int))]
        for box in some[favourites(some)]:
            hits = sum(bool((box_overlap(box[None], here) >= HIT).any()) for here in found)
            left, top, right, bottom = (int(v) for v in box)
            mask = np.zeros(frames.size, bool)
            mask[top:bottom, left:right] = True
            results.append({"category_id": int(label), "bbox": [float(v) for v in (left, top, right - left, bottom - top)],
                            "score": hits / len(frames), "segmentation": encode_mask(mask)})
    return sorted(results, key=lambda one: -one["score"])

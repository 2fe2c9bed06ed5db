"""Objects of a frame: from class and instance labels to boxes and masks, and masks as COCO's run lengths.

What is an object: one instance id other than 0, whose class is the most frequent one among its labelled pixels, if that class
is countable (a "thing"). Pixels without a class (``IGNORE_LABEL``) belong to no object: the truth does not know whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.frames import CROWD, IGNORE_LABEL, NO_INSTANCE
from mask3d_core.shapes import Bool, Int

STUFF = ("wall", "floor", "ceiling", "road", "sidewalk", "building", "fence", "pole", "traffic light", "traffic sign",
         "vegetation", "terrain", "sky")
"""Classes that are never objects unless they are asked for by name: what NYUv2, ScanNet and the rooms do not count, and what
Cityscapes gives no instances."""


def thing_classes(names: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """The class ids that are objects.

    Args:
        names: the classes that are asked for; empty: all but ``STUFF``.
        class_names: of the data set, by class id.

    Returns:
        Ascending ids.

    Raises:
        ConfigError: names that the data set does not have, or no class left.
    """
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise ConfigError(f"detect.things names {', '.join(unknown)}, and the classes are {', '.join(class_names)}")
    found = tuple(k for k, name in enumerate(class_names) if (name in names if names else name not in STUFF))
    if not found:
        raise ConfigError(f"none of the classes is countable ({', '.join(class_names)}); name those that are in detect.things")
    return found


@dataclass(frozen=True)
class FrameObjects:
    """The objects of one frame.

    Args:
        boxes: Float (k, 4), left, top, right, bottom in pixels, on the pixels' outer edges (a single pixel has area 1).
        labels: Long (k,), class ids.
        masks: Bool (k, h, w).
        is_ignored: Bool (h, w), pixels that are neither scored nor held against a detection: those without a class, objects below
            the smallest size, and objects that the truth does not tell apart (``CROWD``).
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    is_ignored: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def as_target(self) -> dict[str, Tensor]:
        """For a detector in training."""
        return {"boxes": self.boxes, "labels": self.labels, "masks": self.masks.to(torch.uint8)}


def frame_objects(semantic: Int[Tensor, "h w"], instance: Int[Tensor, "h w"], things: Sequence[int], smallest: int = 1
                  ) -> FrameObjects:
    """The objects of one frame from its labels.

    Args:
        semantic: class ids, ``IGNORE_LABEL`` where there is none.
        instance: ids, each of one object of this frame; 0 = none, ``CROWD`` = several, not told apart.
        things: class ids that are objects.
        smallest: objects of fewer labelled pixels are left out and ignored.
    """
    is_labelled = semantic != IGNORE_LABEL
    is_counted = is_labelled & (instance != NO_INSTANCE) & (instance != CROWD)
    ids, place = torch.unique(instance[is_counted], return_inverse=True)
    classes = IGNORE_LABEL + 1
    votes = torch.bincount(place * classes + semantic[is_counted], minlength=len(ids) * classes).view(len(ids), classes)
    labels, pixels = votes.argmax(dim=1), votes.sum(dim=1)
    countable = torch.as_tensor(list(things), device=labels.device)
    is_thing = torch.isin(labels, countable)
    is_small = is_thing & (pixels < smallest)
    kept = ids[is_thing & ~is_small]
    masks = (instance[None] == kept[:, None, None]) & is_labelled
    too_small = torch.isin(instance, ids[is_small]) & is_labelled
    is_crowd = torch.isin(semantic, countable) & (instance == CROWD)
    return FrameObjects(mask_boxes(masks), labels[is_thing & ~is_small], masks, ~is_labelled | too_small | is_crowd)


def mask_boxes(masks: Bool[Tensor, "k h w"]) -> Tensor:
    """Float (k, 4): left, top, right, bottom on the pixels' outer edges; no mask may be empty."""
    spans = []
    for has in (masks.any(dim=1), masks.any(dim=2)):  # columns, rows
        length = has.shape[1]
        spans.append((has.int().argmax(dim=1), length - has.flip(1).int().argmax(dim=1)))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1).float()


def mask_tools() -> Any:
    """pycocotools' module of run-length masks.

    Raises:
        Mask3DError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise Mask3DError("pycocotools, the standard evaluator of detections and the writer of COCO's masks", str(error),
                          "pip install pycocotools") from error
    return mask


def encode_mask(mask: Bool[Tensor, "h w"] | np.ndarray) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, ready for JSON: {"size": [h, w], "counts": text}."""
    pixels = mask.cpu().numpy() if isinstance(mask, Tensor) else mask
    found = mask_tools().encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def decode_mask(encoded: dict[str, Any]) -> np.ndarray:
    """The inverse of :func:`encode_mask`: bool (h, w)."""
    return mask_tools().decode(encoded).astype(bool)

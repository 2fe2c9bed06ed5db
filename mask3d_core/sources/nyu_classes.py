"""The class lists that NYUv2 and ScanNet share, and the tables between them. Facts; nothing here reads a file.

Ids count from 1, as in the data sets' own files; 0 is unlabelled there. Our class ids count from 0, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mask3d_core.frames import IGNORE_LABEL

NYU40_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop")
"""Gupta et al., CVPR 2013. Ids 1..40."""

NYU13_NAMES = ("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv",
               "wall", "window")
"""Couprie et al., ICLR 2013. Ids 1..13; the same order as the classes of the rooms."""

NYU40_TO_13 = (12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7,
               7, 7, 7, 7, 7, 6, 7)
"""For each of the ids 1..40 its id among the 13; as in class13Mapping.mat, published with the 13-class labels."""

SCANNET20_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""The 20 of the 40 that ScanNet's benchmark scores, in its order."""

STUFF_IDS = (1, 2, 22)
"""Wall, floor, ceiling: of the 40, those of which there is no first and second one. They have no instances."""


def class_table(ids: Sequence[int], count: int) -> np.ndarray:
    """A look-up from stored ids to our classes.

    Args:
        ids: the stored id of each class, in the order of the classes.
        count: largest stored id.

    Returns:
        uint8 (count + 1,): the class of every stored id, ``IGNORE_LABEL`` for 0 and for those that no class has.
    """
    table = np.full(count + 1, IGNORE_LABEL, np.uint8)
    table[list(ids)] = np.arange(len(ids))
    return table


def instance_table(classes: np.ndarray) -> np.ndarray:
    """Which of the ids 0..40 have instances: those that are scored and countable.

    Args:
        classes: uint8 (41,), as :func:`class_table` gave it for the 40 ids.

    Returns:
        bool (41,).
    """
    is_counted = classes != IGNORE_LABEL
    is_counted[list(STUFF_IDS)] = False
    return is_counted

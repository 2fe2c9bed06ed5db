"""Compare a picture with the one stored in ``references/``. ``UPDATE_REFERENCES=1`` writes them anew: then look."""

import os
from pathlib import Path

import numpy as np

from mask3d_viz.pixels import save_png

FOLDER = Path(__file__).parent / "references"


def assert_same(image: np.ndarray, name: str, most: int = 0) -> None:
    """Every pixel is equal, or differs by ``most`` levels (of 255) where an exponential is involved."""
    from PIL import Image

    path = FOLDER / f"{name}.png"
    if os.environ.get("UPDATE_REFERENCES"):
        save_png(image, path)
    assert path.is_file(), f"no reference {path.name}; make it with UPDATE_REFERENCES=1 and look at it"
    stored = np.asarray(Image.open(path).convert("RGB"))
    assert stored.shape == image.shape, f"{name}: stored {stored.shape}, drawn {image.shape}"
    differs = (np.abs(stored.astype(int) - image) > most).any(axis=2)
    first = np.argwhere(differs)[:1].tolist()
    assert not first, f"{name}: {int(differs.sum())} of {differs.size} pixels differ, first at {first}"

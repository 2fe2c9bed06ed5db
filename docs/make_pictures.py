"""Makes the README's picture from the shipped checkpoint and a rendered room that it never saw: python docs/make_pictures.py"""

from pathlib import Path

import numpy as np

from mask3d_core.reconstruct import reconstruct
from mask3d_core.sources import open_source
from mask3d_core.training.checkpoint import load_model
from mask3d_viz.images import save_png
from mask3d_viz.reconstruction import cloud_stills, panel

HERE = Path(__file__).resolve().parent
ROOM = 3  # a desk with things on it; not chosen by its score


def main() -> None:
    """Write ``docs/reconstruction.png``."""
    model, _ = load_model(HERE.parent / "data" / "checkpoints" / "tiny")
    frame = open_source("rooms", count=ROOM + 1, seed=99, pool="test", views_per_room=1).read(ROOM)
    result = reconstruct(model, frame, (0.8, 0.8), seed=4)
    parts = [panel(result, width=1600), cloud_stills(result, size=(460, 790))]
    width = max(part.shape[1] for part in parts)
    background = parts[0][0, 0]
    padded = [np.concatenate([p, np.broadcast_to(background, (p.shape[0], width - p.shape[1], 3))], axis=1)
              if p.shape[1] < width else p for p in parts]
    save_png(np.concatenate(padded).astype(np.uint8), HERE / "reconstruction.png")
    print(result.scores)


if __name__ == "__main__":
    main()

"""A store in memory with the attributes that batches read, for tests of everything downstream of the disk."""

from types import SimpleNamespace

import numpy as np


class MemoryStore:
    """Boxes before a slanted wall: depth follows the picture, so that a model can learn it."""

    def __init__(self, frames: int = 24, height: int = 72, width: int = 88, holes: float = 0.1, seed: int = 0):
        generator = np.random.default_rng(seed)
        rows, columns = np.mgrid[0:height, 0:width]
        self.color = np.zeros((frames, height, width, 3), np.uint8)
        self.depth = np.zeros((frames, height, width), np.uint16)
        for i in range(frames):
            slope = generator.uniform(-0.01, 0.01, 2)
            depth = 2.5 + slope[0] * rows + slope[1] * columns
            top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
            box = (slice(top, top + height // 3), slice(left, left + width // 3))
            depth[box] = generator.uniform(0.8, 1.5)
            self.color[i] = np.clip(60 * depth[..., None] + generator.normal(0, 5, (height, width, 3)), 0, 255)
            is_hole = generator.random((height, width)) < holes
            self.depth[i] = np.where(is_hole, 0, np.rint(depth * 4000))
        if holes:
            self.depth[:, :16, :16] = 0  # one wholly empty patch
        self.intrinsics = np.tile(np.array([80, 80, (width - 1) / 2, (height - 1) / 2], np.float32), (frames, 1))
        self.header = SimpleNamespace(height=height, width=width, depth_units_per_metre=4000.0, has_holes=holes > 0,
                                      source={"source": "memory"})
        self.fingerprint = "memory"

    def indices(self, split: str) -> np.ndarray:
        count = len(self.color)
        return {"train": np.arange(count * 3 // 4), "val": np.arange(count * 3 // 4, count)}[split]

    def sequence_keys(self, indices) -> list[str]:
        return ["memory"]

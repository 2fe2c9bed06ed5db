"""Shared fixtures. Tests that use real frames skip, with the reason, where they are absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real frames beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real frames (../shared/data beside the project) are not on this machine")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)


def make_frame(height: int = 48, width: int = 64, seed: int = 0, holes: float = 0.1) -> RGBDFrame:
    """A small frame: a slanted plane with random colour and random holes."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    depth = (1.0 + 0.01 * rows + 0.005 * columns).astype(np.float32)
    is_valid = generator.random((height, width)) >= holes
    color = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return RGBDFrame(color, depth, is_valid, Intrinsics(float(width), float(width), (width - 1) / 2, (height - 1) / 2),
                     origin=FrameOrigin("memory", "plane", str(seed)))

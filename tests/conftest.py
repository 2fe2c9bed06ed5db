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


def random_model(config=None, seed: int = 0):
    """A small model in evaluation mode whose every weight says something: freshly initialised ones are nearly silent.

    Args:
        config: a ``ModelConfig``; None: test_training's, which sees 64 x 80 pixels in 4 x 5 patches.
        seed: of the weights.
    """
    from test_training import MODEL

    from mask3d_core.models import Mask3D

    torch.manual_seed(seed)
    model = Mask3D(MODEL if config is None else config).eval()
    model.set_depth_statistics(0.5, 0.3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="session")
def frames() -> list[RGBDFrame]:
    """Three small rooms through a sensor that leaves holes; rendered once, changed by nobody."""
    from mask3d_core.sources import open_source

    source = open_source("rooms", count=3, seed=4, views_per_room=1, height=72, width=96, sensor=1.0)
    return [source.read(i) for i in range(3)]


@pytest.fixture
def session(frames):
    """A session of these rooms with one small model, "shipped"."""
    from mask3d_viz.session import Session

    return Session(frames, {"shipped": random_model()})


def make_frame(height: int = 48, width: int = 64, seed: int = 0, holes: float = 0.1) -> RGBDFrame:
    """A small frame: a slanted plane with random colour and random holes."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    depth = (1.0 + 0.01 * rows + 0.005 * columns).astype(np.float32)
    is_valid = generator.random((height, width)) >= holes
    color = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return RGBDFrame(color, depth, is_valid, Intrinsics(float(width), float(width), (width - 1) / 2, (height - 1) / 2),
                     origin=FrameOrigin("memory", "plane", str(seed)))

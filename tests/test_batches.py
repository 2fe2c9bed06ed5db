"""Batches: a function of their number; augmentation keeps geometry, depth values and holes intact."""

import dataclasses

import numpy as np
import pytest
import torch
from memory_store import MemoryStore

from mask3d_core.batches import AugmentConfig, Batch, StoreBatches, augment, from_frames
from mask3d_core.errors import ConfigError
from mask3d_core.frames import nearest_indices
from mask3d_core.geometry import unproject
from tests.conftest import make_frame


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, n), getattr(second, n))
               for n in ("color", "depth", "is_valid", "intrinsics", "frame_ids", "epochs"))


def test_a_batch_is_a_function_of_its_number():
    store = MemoryStore()
    batches = StoreBatches(store, store.indices("train"), 5, (64, 80), seed=3)
    again = StoreBatches(store, store.indices("train"), 5, (64, 80), seed=3)
    iterator = again.iterate(2)
    for number in (2, 3, 4):
        assert same(batches.batch(number), next(iterator))
    iterator.close()
    assert not same(batches.batch(0), batches.batch(4))


def test_every_frame_comes_once_per_epoch():
    store = MemoryStore()
    indices = store.indices("train")
    batches = StoreBatches(store, indices, 6, (64, 80))
    seen = np.concatenate([batches.frames_of(step)[0] for step in range(3)])
    assert sorted(seen) == sorted(indices)
    assert (np.concatenate([batches.frames_of(step)[1] for step in range(3, 6)]) == 1).all()
    assert seen.tolist() != np.concatenate([batches.frames_of(step)[0] for step in range(3, 6)]).tolist()


def test_two_ranks_share_one_global_batch():
    store = MemoryStore()
    whole = StoreBatches(store, store.indices("train"), 6, (64, 80)).batch(1)
    parts = [StoreBatches(store, store.indices("train"), 3, (64, 80), rank=r, world=2).batch(1) for r in (0, 1)]
    assert torch.equal(whole.depth, torch.cat([p.depth for p in parts]))
    assert torch.equal(whole.color, torch.cat([p.color for p in parts]))


def test_augmentation_keeps_planes_planes_and_distances_distances():
    """A crop that zooms and flips changes the picture, not the distance, and the camera moves along."""
    frame = make_frame(96, 128, holes=0.0)
    rows, columns = np.mgrid[0:96, 0:128].astype(np.float32)
    k = frame.intrinsics
    # the plane z = 2 + 0.3 x + 0.2 y  =>  z = 2 / (1 - 0.3 (c - cx)/fx - 0.2 (r - cy)/fy)
    depth = 2 / (1 - 0.3 * (columns - k.cx) / k.fx - 0.2 * (rows - k.cy) / k.fy)
    frames = [dataclasses.replace(frame, depth=depth.astype(np.float32))] * 16
    batch = augment(from_frames(frames, (96, 128)), (64, 80), AugmentConfig(), seed=1)
    points = unproject(batch.depth, batch.intrinsics)
    flipped = batch.intrinsics[:, 0] > 0
    assert flipped.all() and len(batch.intrinsics[:, 0].unique()) > 8, "zooms differ"
    mirrored = 0
    for cloud in points:
        x, y, z = cloud.reshape(-1, 3).double().unbind(1)
        solution = torch.linalg.lstsq(torch.stack([torch.ones_like(x), x, y], 1), z[:, None]).solution[:, 0]
        residual = (torch.stack([torch.ones_like(x), x, y], 1) @ solution - z).abs()
        assert residual.max() < 0.03, "nearest sampling moves a pixel by half at most"
        assert abs(solution[0] - 2) < 0.02 and abs(solution[2] - 0.2) < 0.02
        assert abs(abs(solution[1]) - 0.3) < 0.02
        mirrored += int(solution[1] < 0)
    assert 2 <= mirrored <= 14
    assert batch.depth.min() >= frames[0].depth.min() and batch.depth.max() <= frames[0].depth.max()


def test_without_augmentation_the_crop_is_the_centre():
    store = MemoryStore(holes=0.0)
    batch = StoreBatches(store, np.arange(4), 4, (64, 80), AugmentConfig.none()).batch(0)
    order = batch.frame_ids.numpy()
    expected = store.depth[order][:, 4:68, 4:84].astype(np.float32) / 4000
    torch.testing.assert_close(batch.depth, torch.from_numpy(expected))
    expected = store.color[order][:, 4:68, 4:84].astype(np.float32) / 255
    torch.testing.assert_close(batch.color, torch.from_numpy(expected).permute(0, 3, 1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.intrinsics[0], torch.tensor([80, 80, 43.5 - 4, 35.5 - 4]))


def test_a_centre_crop_with_half_a_pixel_to_spare_takes_every_row_once():
    store = MemoryStore(holes=0.0)
    batch = StoreBatches(store, np.arange(4), 4, (63, 79), AugmentConfig.none()).frames(np.arange(4))
    expected = store.depth[:4, 5:68, 5:84].astype(np.float32) / 4000
    torch.testing.assert_close(batch.depth, torch.from_numpy(expected))


def test_whole_frames_are_made_smaller_and_nothing_is_cut_off():
    store = MemoryStore(holes=0.0)
    frames, none = np.arange(4), AugmentConfig.none()
    batch = StoreBatches(store, frames, 4, (48, 64), none, is_whole=True).frames(frames)
    rows, columns = nearest_indices(72, 48), nearest_indices(88, 64)
    expected = store.depth[frames][:, rows][:, :, columns].astype(np.float32) / 4000
    torch.testing.assert_close(batch.depth, torch.from_numpy(expected))
    torch.testing.assert_close(batch.intrinsics[0], torch.tensor([80 * 64 / 88, 80 * 48 / 72, 44 * 64 / 88 - 0.5, 36 * 48 / 72 - 0.5]))
    whole = torch.from_numpy(store.color[frames]).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(batch.color.mean(dim=(2, 3)), whole.mean(dim=(2, 3)), atol=0.01, rtol=0)
    same = StoreBatches(store, frames, 4, (72, 88), none, is_whole=True).frames(frames)
    torch.testing.assert_close(same.color, whole)
    with pytest.raises(ConfigError, match="not augmented"):
        StoreBatches(store, frames, 4, (48, 64), is_whole=True)


def test_holes_stay_holes():
    store = MemoryStore(holes=0.3)
    batch = StoreBatches(store, np.arange(8), 8, (64, 80)).batch(0)
    assert torch.equal(batch.is_valid, batch.depth > 0) and batch.may_have_holes
    values = set(np.unique(store.depth).tolist())
    found = (batch.depth[batch.is_valid] * 4000).round().int().unique().tolist()
    assert set(found) <= values, "depth is never averaged"


def test_impossible_requests_are_refused():
    store = MemoryStore()
    with pytest.raises(ConfigError, match="smaller than"):
        StoreBatches(store, np.arange(3), 2, (128, 160))
    with pytest.raises(ConfigError, match="no frames"):
        StoreBatches(store, np.array([], dtype=int), 2, (64, 80))
    with pytest.raises(ConfigError, match="at least one"):
        from_frames([], (48, 64))

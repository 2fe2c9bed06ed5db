"""Batches from a store, or live from rooms on the device; augmentation on the device.

A batch is a pure function of its number: which frames, which crop, which colours follow from (seed, frame id, epoch)
alone. That gives exact resume, equal runs on any number of ranks, and no state to save.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.errors import ConfigError
from mask3d_core.frames import RGBDFrame, nearest_indices
from mask3d_core.randomness import random_bits, stream, uniform


@dataclass(frozen=True)
class Batch:
    """Frames as tensors on one device.

    Args:
        color: Float (b, 3, h, w), 0..1.
        depth: Float (b, h, w), metres, 0 in holes.
        is_valid: Bool (b, h, w).
        intrinsics: Float (b, 4), fx fy cx cy in pixels of this picture.
        frame_ids, epochs: Long (b,), the keys of everything random.
        may_have_holes: False promises that every pixel is valid.
        semantic: Long (b, h, w) or None.
        instance: Long (b, h, w) or None.
    """

    color: Tensor
    depth: Tensor
    is_valid: Tensor
    intrinsics: Tensor
    frame_ids: Tensor
    epochs: Tensor
    may_have_holes: bool = True
    semantic: Tensor | None = None
    instance: Tensor | None = None

    def __len__(self) -> int:
        return self.color.shape[0]

    def _each(self, move) -> Batch:
        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)
                                if isinstance(getattr(self, f.name), Tensor)})

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device (asynchronously towards a GPU, from pinned memory)."""
        towards_gpu = torch.device(device).type != "cpu"
        return self._each(lambda tensor: tensor.to(device, non_blocking=towards_gpu))

    def pin(self) -> Batch:
        """In page-locked memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def __getitem__(self, rows: slice) -> Batch:
        return self._each(lambda tensor: tensor[rows])


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation. All of it is ours (paper value not known). A zoom changes the picture, not the distance.

    Args:
        flip: chance of mirroring left to right.
        zoom: smallest share of the picture's side that a crop may take; 1 = only the fixed-size crop.
        brightness, contrast, saturation: largest relative change.
        tint: largest relative change of one colour channel.
    """

    flip: float = 0.5
    zoom: float = 0.7
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    tint: float = 0.05

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        is_right = 0 < self.zoom <= 1 and 0 <= self.flip <= 1
        return [] if is_right else [f"augment.zoom must lie in 0..1 above 0 and augment.flip in 0..1; got {self.zoom} and {self.flip}"]

    @staticmethod
    def none() -> AugmentConfig:
        """No augmentation: the centre crop."""
        return AugmentConfig(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)


def from_frames(frames: list[RGBDFrame], size: tuple[int, int], frame_ids: list[int] | None = None) -> Batch:
    """A batch from single frames, each fitted (cover and centre crop) to ``size``.

    Raises:
        ConfigError: no frame.
    """
    if not frames:
        raise ConfigError("a batch needs at least one frame")
    frames = [frame.fit(*size) for frame in frames]
    ids = torch.arange(len(frames)) if frame_ids is None else torch.as_tensor(frame_ids, dtype=torch.int64)

    def labels(name: str) -> Tensor | None:
        pictures = [getattr(frame, name) for frame in frames]
        return None if any(p is None for p in pictures) else torch.from_numpy(np.stack(pictures)).long()

    return Batch(
        torch.from_numpy(np.stack([frame.color for frame in frames])).permute(0, 3, 1, 2).float() / 255,
        torch.from_numpy(np.stack([frame.depth for frame in frames])),
        torch.from_numpy(np.stack([frame.is_valid for frame in frames])),
        torch.from_numpy(np.stack([frame.intrinsics.as_array() for frame in frames])),
        ids, torch.zeros_like(ids), not all(frame.is_valid.all() for frame in frames),
        labels("semantic"), labels("instance"))


def crop_scale(stored: tuple[int, int], size: tuple[int, int]) -> float:
    """Stored pixels per pixel of a crop without zoom: 1, or what the picture is made smaller by where a crop would lose much."""
    largest = min(stored[0] / size[0], stored[1] / size[1])
    return 1.0 if 1.0 <= largest <= 1.25 else largest


def resize_whole(batch: Batch, size: tuple[int, int]) -> Batch:
    """The whole pictures brought to ``size``, each side by its own factor; nothing is cut off.

    Colour is sampled bilinearly (antialiased), depth, validity and labels with nearest neighbour; the intrinsics move along
    under c' = (c + 0.5) s - 0.5.
    """
    height, width = batch.depth.shape[1:]
    if (height, width) == tuple(size):
        return batch
    rows, columns = (torch.from_numpy(nearest_indices(old, new)).to(batch.depth.device)
                     for old, new in ((height, size[0]), (width, size[1])))

    def nearest(picture: Tensor | None) -> Tensor | None:
        return None if picture is None else picture[:, rows][:, :, columns]

    color = F.interpolate(batch.color, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
    k, down, across = batch.intrinsics, size[0] / height, size[1] / width
    intrinsics = torch.stack([k[:, 0] * across, k[:, 1] * down, (k[:, 2] + 0.5) * across - 0.5, (k[:, 3] + 0.5) * down - 0.5], dim=1)
    return replace(batch, color=color, depth=nearest(batch.depth), is_valid=nearest(batch.is_valid), intrinsics=intrinsics,
                   semantic=nearest(batch.semantic), instance=nearest(batch.instance))


def _choose(config: AugmentConfig, batch: Batch, size: tuple[int, int], seed: int) -> tuple[Tensor, ...]:
    """Scale (pixels of the source per pixel of the crop), top, left and flip of each frame."""
    height, width = batch.depth.shape[1:]
    base = random_bits(seed, stream("crop"), batch.frame_ids, batch.epochs)
    draw = lambda number: uniform(base, number)  # noqa: E731
    largest = min(height / size[0], width / size[1])
    share = config.zoom + (1 - config.zoom) * draw(0) if config.zoom < 1 else torch.ones_like(draw(0))
    scale = largest * share if config.zoom < 1 else torch.full_like(draw(0), crop_scale((height, width), size))
    spare_y, spare_x = height - scale * size[0], width - scale * size[1]
    centre = config.zoom >= 1 and config.flip == 0
    top = spare_y * (0.5 if centre else draw(1))
    left = spare_x * (0.5 if centre else draw(2))
    return scale, top, left, draw(3) < config.flip


def augment(batch: Batch, size: tuple[int, int], config: AugmentConfig, seed: int) -> Batch:
    """Crop (with zoom), flip and recolour a batch to ``size``, on the batch's device.

    Colour is sampled bilinearly, depth, validity and labels with nearest neighbour; the intrinsics move along.
    """
    height, width = batch.depth.shape[1:]
    scale, top, left, is_flipped = _choose(config, batch, size, seed)
    rows = top[:, None] + (torch.arange(size[0], device=top.device) + 0.5) * scale[:, None] - 0.5
    columns = torch.arange(size[1], device=top.device).expand(len(batch), -1)
    columns = torch.where(is_flipped[:, None], size[1] - 1 - columns, columns)
    columns = left[:, None] + (columns + 0.5) * scale[:, None] - 0.5
    near_row = (rows + 0.5).floor().long().clamp(0, height - 1)  # round() would take halves to even: every second row twice
    near_column = (columns + 0.5).floor().long().clamp(0, width - 1)
    place = (near_row[:, :, None] * width + near_column[:, None, :]).flatten(1)

    def nearest(picture: Tensor | None) -> Tensor | None:
        return None if picture is None else picture.flatten(1).gather(1, place).view(len(batch), *size)

    grid = torch.stack([(columns * 2 + 1)[:, None, :].expand(-1, size[0], -1) / width - 1,
                        (rows * 2 + 1)[:, :, None].expand(-1, -1, size[1]) / height - 1], dim=-1)
    color = F.grid_sample(batch.color, grid, mode="bilinear", padding_mode="border", align_corners=False)
    k = batch.intrinsics
    cx, cy = (k[:, 2] - left + 0.5) / scale - 0.5, (k[:, 3] - top + 0.5) / scale - 0.5
    cx = torch.where(is_flipped, size[1] - 1 - cx, cx)
    intrinsics = torch.stack([k[:, 0] / scale, k[:, 1] / scale, cx, cy], dim=1)
    return replace(batch, color=_recolor(color, batch, config, seed), depth=nearest(batch.depth),
                   is_valid=nearest(batch.is_valid), intrinsics=intrinsics, semantic=nearest(batch.semantic),
                   instance=nearest(batch.instance))


def _recolor(color: Tensor, batch: Batch, config: AugmentConfig, seed: int) -> Tensor:
    if not (config.brightness or config.contrast or config.saturation or config.tint):
        return color
    base = random_bits(seed, stream("color"), batch.frame_ids, batch.epochs)[:, None, None, None]
    change = lambda number, size: 1 + (uniform(base, number) * 2 - 1) * size  # noqa: E731
    grey = color.mean(dim=1, keepdim=True)
    color = grey + (color - grey) * change(0, config.saturation)
    middle = grey.mean(dim=(2, 3), keepdim=True)
    color = middle + (color - middle) * change(1, config.contrast)
    channel = torch.arange(3, device=color.device).view(1, 3, 1, 1)
    return (color * change(2, config.brightness) * change(3 + channel, config.tint)).clamp(0, 1)


def _whole(values: Tensor) -> Tensor:
    """uint16, which has few operations of its own, as int32; anything else as it is."""
    return values.view(torch.int16).to(torch.int32) & 0xFFFF if values.dtype == torch.uint16 else values


class StoreBatches:
    """Endless batches from a prepared store: number ``step`` always holds the same frames with the same crops.

    Args:
        store: a ``mask3d_core.store.Store``.
        indices: frames to draw from (``store.indices("train")``).
        batch_size: frames per rank and micro-batch.
        size: (height, width) of the crops.
        augment, seed: augmentation and the seed of order and augmentation.
        device: where augmentation runs and batches live.
        rank, world: this process and how many there are; ranks take consecutive slices of one global batch.
        labels: which of "semantic" and "instance" are read too.
        is_whole: the whole stored frame brought to ``size`` in place of a crop; there is no augmentation then.

    Raises:
        ConfigError: no frame, frames smaller than ``size``, augmentation of whole frames, or labels that the store does not hold.
    """

    def __init__(self, store, indices: np.ndarray, batch_size: int, size: tuple[int, int],
                 augment: AugmentConfig | None = None, seed: int = 0, device: torch.device | str = "cpu",
                 rank: int = 0, world: int = 1, labels: tuple[str, ...] = (), is_whole: bool = False):
        if is_whole and augment != AugmentConfig.none():
            raise ConfigError("whole frames are not augmented; give augment=AugmentConfig.none()")
        missing = [name for name in labels if getattr(store, name, None) is None]
        if missing:
            raise ConfigError(f"the store {store.path} holds no {' and no '.join(missing)} labels; prepare it from a labelled source")
        if len(indices) == 0:
            raise ConfigError("no frames to train on: this split of the store is empty")
        if store.header.height < size[0] or store.header.width < size[1]:
            raise ConfigError(f"the store's frames ({store.header.height}x{store.header.width}) are smaller than "
                              f"the training size {size[0]}x{size[1]}; prepare it again with a larger size")
        self.store, self.indices, self.size = store, np.asarray(indices), size
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.augment, self.device = augment or AugmentConfig(), torch.device(device)
        self.labels, self.is_whole = labels, is_whole
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                bits = random_bits(self.seed, stream("order"), epoch, torch.from_numpy(self.indices).long())
                self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
                self._orders[epoch] = self.indices[torch.argsort(bits, stable=True).numpy()]
            return self._orders[epoch]

    def frames_of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame indices and epochs of this rank's part of batch ``step``."""
        start = (step * self.world + self.rank) * self.batch_size
        places = np.arange(start, start + self.batch_size)
        epochs = places // len(self.indices)
        frames = np.array([self._order(int(e))[p % len(self.indices)] for e, p in zip(epochs, places, strict=True)])
        return frames, epochs

    def read(self, step: int) -> tuple[Tensor, ...]:
        """Raw pictures of batch ``step`` from the memory map, on the CPU, as stored: colour, depth, intrinsics, keys, labels."""
        return self._raw(*self.frames_of(step))

    def _raw(self, frames: np.ndarray, epochs: np.ndarray) -> tuple[Tensor, ...]:
        order = np.argsort(frames, kind="stable")  # ascending reads are kind to the disk
        back = np.argsort(order, kind="stable")
        take = lambda column: torch.from_numpy(np.ascontiguousarray(column[frames[order]][back]))  # noqa: E731
        return (take(self.store.color), take(self.store.depth), take(self.store.intrinsics),
                torch.from_numpy(frames.astype(np.int64)), torch.from_numpy(epochs.astype(np.int64)),
                *(take(getattr(self.store, name)) for name in self.labels))

    def finish(self, raw: tuple[Tensor, ...]) -> Batch:
        """Raw pictures to an augmented batch on the device."""
        color, depth, intrinsics, frames, epochs, *labels = (t.to(self.device, non_blocking=True) for t in raw)
        units = _whole(depth)
        metres = units.float() / self.store.header.depth_units_per_metre
        batch = Batch(color.permute(0, 3, 1, 2).float() / 255, metres, units > 0, intrinsics, frames, epochs,
                      self.store.header.has_holes, **{name: _whole(t).long() for name, t in zip(self.labels, labels, strict=True)})
        return resize_whole(batch, self.size) if self.is_whole else augment(batch, self.size, self.augment, self.seed)

    def batch(self, step: int) -> Batch:
        """Batch number ``step``."""
        return self.finish(self.read(step))

    def frames(self, indices: np.ndarray) -> Batch:
        """These frames in this order, with this object's augmentation at epoch 0."""
        indices = np.asarray(indices, np.int64)
        return self.finish(self._raw(indices, np.zeros_like(indices)))

    def iterate(self, step: int = 0, ahead: int = 2) -> Iterator[Batch]:
        """Batches from number ``step`` on, the next ones read from disk in a background thread."""
        pin = self.device.type == "cuda"

        def read(number: int) -> tuple[Tensor, ...]:
            raw = self.read(number)
            return tuple(t.pin_memory() for t in raw) if pin else raw

        with ThreadPoolExecutor(max_workers=min(4, ahead)) as pool:
            waiting = [pool.submit(read, step + k) for k in range(ahead)]
            while True:
                step += 1
                waiting.append(pool.submit(read, step + ahead - 1))
                yield self.finish(waiting.pop(0).result())


class RoomsBatches:
    """Endless batches rendered live: a run on a GPU never sees a frame twice.

    Args:
        config: a ``RoomsConfig``; its size is a little larger than ``size``.
        batch_size, size, augment, seed, device, rank, world: as in :class:`StoreBatches`.
    """

    def __init__(self, config, batch_size: int, size: tuple[int, int], augment: AugmentConfig | None = None,
                 seed: int = 0, device: torch.device | str = "cpu", rank: int = 0, world: int = 1):
        self.config, self.batch_size, self.size = config, batch_size, size
        self.augment, self.seed, self.device = augment or AugmentConfig(), seed, torch.device(device)
        self.rank, self.world = rank, world

    def batch(self, step: int) -> Batch:
        """Batch number ``step``: one view of each of ``batch_size`` new rooms."""
        from mask3d_core.sources.rooms import render_rooms

        start = (step * self.world + self.rank) * self.batch_size
        rooms = torch.arange(start, start + self.batch_size, device=self.device)
        made = render_rooms(rooms, torch.zeros_like(rooms), self.config, self.device)
        batch = Batch(made.color.permute(0, 3, 1, 2).float() / 255, made.depth, made.is_valid, made.intrinsics, rooms,
                      torch.zeros_like(rooms), self.config.sensor > 0, made.semantic.long(), made.instance.long())
        return augment(batch, self.size, self.augment, self.seed)

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """Batches from number ``step`` on."""
        while True:
            yield self.batch(step)
            step += 1

"""Is depth in the colours of the rendered rooms? A plain convolutional network learns depth from colour alone.

    python -m benchmarks.colors [--frames 3200] [--steps 400] [--quick] [--out results/colors_cpu.json]

No transformer, no mask: a small network of convolutions (batch norm, skip connections, one global term) is trained with
L1 on log depth, once on rooms where any material covers anything, once on rooms painted as most homes are
(``RoomsConfig.plain``, and few frames that bend over a table), and scored on other rooms of the same kind beside the training
frames' mean map. Where even it hardly beats that map, no pre-training towards depth can teach an encoder of colours much in
so many frames.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import write
from mask3d_core.batches import AugmentConfig, Batch, StoreBatches
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.rooms import Rooms
from mask3d_core.store import Store
from mask3d_core.study.config import RoomsData

SIZE, SPARE, BATCH, FOCAL = (96, 128), 16, 32, 104.0
STUDY = RoomsData()
WORLDS = {"any material on anything": {}, "as most homes": {"plain": STUDY.plain, "desk": STUDY.desk}}


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Convolutions(nn.Module):
    """Colour (b, 3, h, w) in 0..1 to log depth (b, h, w): down to 1/32 and up to 1/8, then bilinear."""

    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(block(3, 24, 2), block(24, 48, 2), block(48, 96, 2), block(96, 96))
        self.middle = nn.Sequential(block(96, 128, 2), block(128, 128))
        self.far = nn.Sequential(block(128, 192, 2), block(192, 192))
        self.all = nn.Linear(192, 192)
        self.up1, self.up2, self.head = block(192 + 128, 96), block(96 + 96, 64), nn.Conv2d(64, 1, 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, color: Tensor) -> Tensor:
        """Log metres, as if the focal length were :data:`FOCAL`."""
        near = self.near((color - self.mean) / self.std)
        middle = self.middle(near)
        far = self.far(middle)
        far = far + self.all(far.mean((2, 3)))[:, :, None, None]
        up = self.up1(torch.cat([F.interpolate(far, size=middle.shape[-2:], mode="bilinear"), middle], 1))
        up = self.up2(torch.cat([F.interpolate(up, size=near.shape[-2:], mode="bilinear"), near], 1))
        return F.interpolate(self.head(up), size=color.shape[-2:], mode="bilinear")[:, 0]


def log_depth(batch: Batch) -> Tensor:
    """Log metres as if every camera had the same focal length; holes give a finite number."""
    focal = (batch.intrinsics[:, 0] * batch.intrinsics[:, 1]).sqrt()[:, None, None]
    return (batch.depth.clamp(min=0.05) * (FOCAL / focal)).log()


def render(place: Path, options: dict, count: int, seed: int) -> Store:
    """Rooms of one kind as a store."""
    height, width = SIZE[0] + SPARE, SIZE[1] + SPARE
    source = Rooms(count=count, seed=seed, views_per_room=4, height=height, width=width, sensor=STUDY.sensor, **options)
    return prepare(source, place, PrepareConfig(height, width, split="train"), progress=False)


def train(store: Store, steps: int, rate: float = 2e-3) -> tuple[Convolutions, Tensor]:
    """The trained network, and the mean map of log depth over the frames it saw."""
    torch.manual_seed(0)
    batches = StoreBatches(store, store.indices("train"), BATCH, SIZE, AugmentConfig(), 0)
    net = Convolutions()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    total, count = torch.zeros(SIZE), torch.zeros(SIZE)
    for step, batch in zip(range(steps), batches.iterate(), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        target = log_depth(batch)
        loss = ((net(batch.color) - target).abs() * batch.is_valid).sum() / batch.is_valid.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += torch.where(batch.is_valid, target, 0.0).sum(0)
        count += batch.is_valid.sum(0)
    return net.eval(), total / count.clamp(min=1)


@torch.no_grad()
def score(net: Convolutions, mean_map: Tensor, store: Store) -> dict[str, float]:
    """Mean over frames of |log error|: the network's, the mean map's, and both with each frame's own offset taken out."""
    batches = StoreBatches(store, store.indices("train"), len(store), SIZE, AugmentConfig.none(), 0)
    batch = batches.frames(store.indices("train"))
    target, valid = log_depth(batch), batch.is_valid
    share = valid / valid.sum((1, 2), keepdim=True).clamp(min=1)
    found, guesses = {}, torch.cat([net(part) for part in batch.color.split(BATCH)])
    for name, guess in (("network", guesses), ("mean map", mean_map.expand_as(target))):
        error = torch.where(valid, guess - target, 0.0)
        shape = torch.where(valid, error - (error * share).sum((1, 2), keepdim=True), 0.0)
        found[name] = (error.abs() * share).sum((1, 2)).mean().item()
        found[f"{name}, shape alone"] = (shape.abs() * share).sum((1, 2)).mean().item()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3200, help="rendered for training; 400 more rooms' frames are scored")
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH} frames")
    parser.add_argument("--quick", action="store_true", help="a few frames and steps")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.quick:
        options.frames, options.steps = 64, 3
    began, found, summary = time.perf_counter(), {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, settings) in enumerate(WORLDS.items()):
            store = render(Path(scratch) / f"train{number}", settings, options.frames, 700)
            others = render(Path(scratch) / f"others{number}", settings, max(16, options.frames // 8), 701)
            found[name] = score(*train(store, options.steps), others)
            summary[name] = ", ".join(f"{key} {value:.3f}" for key, value in found[name].items())
            print(f"{name}: {summary[name]}", flush=True)
    settings = {"frames": options.frames, "steps": options.steps, "batch": BATCH, "seconds": round(time.perf_counter() - began)}
    write(options.out, "colors", "cpu", {f"|log error|, {name}": words for name, words in summary.items()}, found=found,
          settings=settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A source of frames in memory, some of them unreadable, for tests of preparing and examining."""

import dataclasses
import time

import numpy as np

from mask3d_core.errors import FrameError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame


class ListSource:
    """Frames that know their number: colour is the number, depth 1 m plus a centimetre per number."""

    name = "list"

    def __init__(self, count=20, sequences=1, bad=(), labels=False, height=40, width=56, delay=0.0, holes=0.1):
        self.count, self.sequences, self.bad, self.delay = count, sequences, set(bad), delay
        self.labels = frozenset({"semantic", "instance"} if labels else ())
        self.height, self.width, self.holes = height, width, holes
        self.class_names = ("even", "odd") if labels else ()
        self.reads = []

    def __len__(self):
        return self.count

    def sequence(self, index):
        return f"room{index * self.sequences // self.count}"

    def frame_name(self, index):
        return f"frame{index:04d}"

    def describe(self):
        return {"source": self.name, "path": "somewhere", "count": self.count}

    def read(self, index):
        time.sleep(self.delay)
        self.reads.append(index)
        if index in self.bad:
            raise FrameError("a frame", "none", "Remove it.", f"{self.frame_name(index)}.png")
        generator = np.random.default_rng(index)
        shape = (self.height, self.width)
        is_valid = generator.random(shape) >= self.holes
        frame = RGBDFrame(
            np.full((*shape, 3), index % 256, np.uint8), np.full(shape, 1 + index / 100, np.float32), is_valid,
            Intrinsics(50.0, 50.0, (self.width - 1) / 2, (self.height - 1) / 2),
            pose=np.eye(4) if index % 2 else None,
            origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index), index / 10))
        if self.labels and index % 3:
            frame = dataclasses.replace(frame, semantic=np.full(shape, index % 2, np.uint8),
                                        instance=np.full(shape, index, np.int32))
        return frame

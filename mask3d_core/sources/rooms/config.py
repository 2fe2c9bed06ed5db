"""What a room source renders: the configuration, the classes and the order in which furniture joins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mask3d_core.errors import ConfigError

CLASS_NAMES = ("bed", "books", "ceiling", "chair", "floor", "furniture", "objects",
               "picture", "sofa", "table", "tv", "wall", "window")  # NYUv2's 13 classes, in their usual order
BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS, PICTURE, SOFA, TABLE, TV, WALL, WINDOW = range(13)

FURNITURE_LEVELS = ("boxes", "tables", "chairs", "shelves", "sofas and beds", "screens", "decoration")
"""What each level of ``RoomsConfig.furniture`` adds. Level 0 is walls, openings, pillars and boxes; 1 adds tables with
clutter on them; 2 chairs; 3 shelves with books, and cabinets; 4 sofas and beds with cushions; 5 televisions, monitors
and keyboards; 6 pictures, lamps, plants and curtains. A level holds everything below it."""

POOLS = ("train", "test")


@dataclass(frozen=True)
class RoomsConfig:
    """How rooms are made and seen. Every number of a frame follows from this, the room id and the view.

    Args:
        seed: another seed, other rooms.
        height, width: pixels of a frame.
        views_per_room: how many frames one room counts for.
        furniture: how much of ``FURNITURE_LEVELS`` is used, 0..6.
        sensor: share of the frames, 0..1, whose depth passes through a Kinect-like sensor (range, quantisation,
            holes); True is all, False none.
        pool: "train" or "test": which furniture models, patterns and palettes are drawn. The two share none
            (but crates and the kinds of clutter, and the keys of a keyboard).
        plain: share of the rooms, 0..1, that are done up as most homes are: hardly any pattern, ceilings white, walls pale,
            floors darker, woodwork white. Elsewhere any material covers anything, so that its colour says next to nothing
            of what a thing is or how far away.
        desk: share of the frames, 0..1, that bend over a table, where there is one; in the others a person looks about the room.
    """

    seed: int = 0
    height: int = 240
    width: int = 320
    views_per_room: int = 4
    furniture: int = len(FURNITURE_LEVELS) - 1
    sensor: bool | float = False
    pool: str = "train"
    plain: float = 0.0
    desk: float = 0.5

    def __post_init__(self):
        problems = []
        for name in ("height", "width"):
            if not 16 <= getattr(self, name) <= 4096:
                problems.append(f"{name} must be 16..4096 pixels, got {getattr(self, name)}")
        if self.views_per_room < 1:
            problems.append(f"views_per_room must be at least 1, got {self.views_per_room}")
        if not 0 <= self.furniture < len(FURNITURE_LEVELS):
            problems.append(f"furniture must be 0..{len(FURNITURE_LEVELS) - 1}, got {self.furniture}")
        if not 0 <= self.sensor <= 1:
            problems.append(f"sensor must be True, False or a share 0..1, got {self.sensor}")
        for name in ("plain", "desk"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} is a share 0..1, got {getattr(self, name)}")
        if self.pool not in POOLS:
            problems.append(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if problems:
            raise ConfigError(problems, "RoomsConfig")

    def describe(self) -> dict[str, Any]:
        """As plain values; ``plain`` and ``desk`` only where they are not the default, so that what was rendered before they
        came is still recognised."""
        return {key: value for key, value in asdict(self).items() if key not in ("plain", "desk") or value != getattr(RoomsConfig, key)}

    @property
    def is_held_out(self) -> bool:
        """True for the pool of held-out furniture models and materials."""
        return self.pool == "test"

"""Things that lie about: on tables, cabinets and the floor. A grid of cells, one thing in a cell at most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mask3d_core.sources.rooms.config import BOOKS, OBJECTS
from mask3d_core.sources.rooms.draws import Draws
from mask3d_core.sources.rooms.parts import Parts, Place

THINGS = ("box", "book", "bottle", "cup", "ball", "sheet", "bowl", "stack")


def scatter_things(parts: Parts, draw: Draws, place: Place, half_x: Tensor, half_y: Tensor, columns: int, rows: int,
                   density: Tensor, active: Tensor, keep_free: Sequence[Tensor] = ()) -> Tensor:
    """Strew things over rectangles.

    Args:
        parts: where they go.
        draw: of n * rows * columns slots, n the number of rectangles.
        place: (r, n), the middle of each rectangle, at its height.
        half_x, half_y: (r, n) half sizes of the rectangles, metres.
        columns, rows: cells per rectangle.
        density: (r, n) share of cells that hold a thing.
        active: bool (r, n).
        keep_free: local rectangles (r, n, 4) where something stands already.

    Returns:
        bool (r, n * rows * columns), which cells hold a thing.
    """
    count = rows * columns
    column = torch.arange(count, device=half_x.device) % columns
    row = torch.arange(count, device=half_x.device) // columns
    cell_x, cell_y = (half_x / columns)[..., None], (half_y / rows)[..., None]
    shape = (*half_x.shape, count)
    x = (2 * column + 1 - columns) * cell_x + draw(-0.3, 0.3).reshape(shape) * cell_x
    y = (2 * row + 1 - rows) * cell_y + draw(-0.3, 0.3).reshape(shape) * cell_y
    inner = place.inner(x, y, torch.zeros_like(x), draw().reshape(shape))
    room = torch.minimum(cell_x, cell_y).expand(shape).flatten(1)
    is_there = active[..., None].expand(shape).flatten(1) & (draw() < density[..., None].expand(shape).flatten(1))
    margin = torch.minimum(cell_x, cell_y) * 0.5
    for box in keep_free:
        x_low, y_low, x_high, y_high = (box[..., i, None] for i in range(4))
        is_over = (x > x_low - margin) & (x < x_high + margin) & (y > y_low - margin) & (y < y_high + margin)
        is_there = is_there & ~is_over.flatten(1)
    add_things(parts, draw, inner, room, is_there)
    return is_there


def add_things(parts: Parts, draw: Draws, place: Place, room: Tensor, active: Tensor) -> None:
    """One thing per place, at most about ``room`` metres in half size."""
    count = place.x.shape[1]
    kind = draw.weighted([0.27, 0.14, 0.13, 0.14, 0.06, 0.12, 0.06, 0.08])
    material, second = parts.materials(count), parts.materials(count)
    printed = parts.materials(count, "print")
    material = torch.where(draw.chance(0.4), printed, material)
    instance = parts.instances(count)
    labels = {"semantic": OBJECTS, "instance": instance}

    def on(*names: str) -> Tensor:
        return active & torch.stack([kind == THINGS.index(name) for name in names]).any(0)

    slim = torch.minimum(room * 0.9, draw(0.04, 0.16))
    tall, deep = draw(0.02, 0.17), slim * draw(0.4, 1.0)
    parts.add("box", place, (0, 0, tall), (slim, deep, tall), material=material, active=on("box"), **labels)

    book_x, book_y, thick = torch.minimum(room, draw(0.075, 0.11)), torch.minimum(room * 1.3, draw(0.1, 0.15)), draw(0.005, 0.022)
    labels["semantic"] = BOOKS
    parts.add("box", place, (0, 0, thick), (book_x, book_y, thick), material=printed, active=on("book", "stack"), **labels)
    for level in (1, 2):
        lift = 2 * thick * level + 0.01 * level
        parts.add("box", place, (draw(-0.02, 0.02), draw(-0.02, 0.02), lift), (book_x * draw(0.8, 1.0), book_y * draw(0.8, 1.0), thick + 0.004),
                  material=second, active=on("stack"), turns=draw(-0.06, 0.06), **labels)
    labels["semantic"] = OBJECTS
    sheet_x, sheet_y = torch.minimum(room * 1.2, draw(0.09, 0.11)), torch.minimum(room * 1.4, draw(0.13, 0.16))
    parts.add("box", place, (0, 0, 0.001), (sheet_x, sheet_y, 0.0015), material=printed, active=on("sheet"), **labels)

    radius, high = torch.minimum(room * 0.7, draw(0.025, 0.05)), draw(0.03, 0.065)
    parts.add("cylinder", place, (0, 0, high), (radius, radius, high), material=material, active=on("cup"), **labels)
    parts.add("box", place, (radius, 0, high), (0.022, 0.006, high * 0.6), material=material, active=on("cup") & draw.chance(0.5), **labels)
    parts.add("cylinder", place, (0, 0, 2 * high + 0.001), (radius * 0.86, radius * 0.86, 0.002), material=second, active=on("cup"), **labels)
    neck = radius * draw(0.3, 0.5)
    body, top = draw(0.06, 0.11), draw(0.02, 0.05)
    parts.add("cylinder", place, (0, 0, body), (radius * 0.8, radius * 0.8, body), material=material, active=on("bottle"), **labels)
    parts.add("ellipsoid", place, (0, 0, 2 * body), (radius * 0.8, radius * 0.8, radius * 0.8), material=material, active=on("bottle"), **labels)
    parts.add("cylinder", place, (0, 0, 2 * body + top + radius * 0.5), (neck, neck, top), material=second, active=on("bottle"), **labels)
    ball = torch.minimum(room * 0.8, draw(0.03, 0.09))
    parts.add("ellipsoid", place, (0, 0, ball * 0.95), (ball, ball, ball * draw(0.8, 1.0)), material=material, active=on("ball"), **labels)
    bowl = torch.minimum(room * 0.9, draw(0.05, 0.11))
    parts.add("cylinder", place, (0, 0, bowl * 0.35), (bowl, bowl * draw(0.85, 1.0), bowl * 0.35), material=material, active=on("bowl"), **labels)
    parts.add("ellipsoid", place, (0, 0, bowl * 0.7), (bowl * 0.75, bowl * 0.75, bowl * 0.3), material=second, active=on("bowl"), **labels)

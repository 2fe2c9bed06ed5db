"""The procedural patterns themselves: tileable pictures of two weights, drawn from the seedless hash. No classes here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mask3d_core.randomness import stream, uniform

SIZE = 128


def _noise(cells: int, key: int) -> Tensor:
    """Smooth value noise (SIZE, SIZE) in 0..1 that tiles, with ``cells`` lattice cells per side."""
    lattice = uniform(stream("rooms/texture"), key, torch.arange(cells)[:, None], torch.arange(cells))
    position = (torch.arange(SIZE) + 0.5) * (cells / SIZE)
    low = position.floor().long()
    share = position - low
    share = share * share * (3 - 2 * share)
    high = (low + 1) % cells
    rows = lattice[low] + (lattice[high] - lattice[low]) * share[:, None]
    return rows[:, low] + (rows[:, high] - rows[:, low]) * share


def _fractal(cells: int, key: int, octaves: int = 4) -> Tensor:
    total, weight = torch.zeros(SIZE, SIZE), 0.0
    for octave in range(octaves):
        scale = 0.5 ** octave
        if cells << octave <= SIZE:
            total, weight = total + scale * _noise(cells << octave, key * 16 + octave), weight + scale
    return total / weight


def _grid() -> tuple[Tensor, Tensor]:
    line = (torch.arange(SIZE) + 0.5) / SIZE
    return line[:, None].expand(SIZE, SIZE), line.expand(SIZE, SIZE)


def _smooth(low: float, high: float, value: Tensor) -> Tensor:
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _cells(rows: int, columns: int, key: int, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """A running bond: random value per cell, and the distances to the nearest cell edge, in tile units."""
    y, x = _grid()
    row = (y * rows).floor()
    moved = x * columns + shift * row
    column = moved.floor() % columns
    value = uniform(stream("rooms/cells"), key, row.long(), column.long())
    across = (moved - moved.floor() - 0.5).abs()
    along = (y * rows - row - 0.5).abs()
    return value, (0.5 - across) / columns, (0.5 - along) / rows


def _voronoi(cells: int, key: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest and second distance to one random point per cell, and that point's value; tiles."""
    y, x = _grid()
    best = torch.full((SIZE, SIZE), 9.0)
    second, value = best.clone(), torch.zeros(SIZE, SIZE)
    row, column = (y * cells).floor().long(), (x * cells).floor().long()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r, c = row + dy, column + dx
            keys = (stream("rooms/voronoi"), key, r % cells, c % cells)
            distance = torch.hypot(y * cells - r - uniform(*keys, 0), x * cells - c - uniform(*keys, 1))
            nearer = distance < best
            second = torch.where(nearer, best, torch.minimum(second, distance))
            value = torch.where(nearer, uniform(*keys, 2), value)
            best = torch.minimum(best, distance)
    return best, second, value


def _spread(key: int, count: int) -> list[list[float]]:
    return uniform(stream("rooms/spread"), key, torch.arange(count)[:, None], torch.arange(6)).tolist()


def _text(key: int, lines: int, columns: int = 1) -> Tensor:
    """Lines of words, as on a printed page."""
    y, x = _grid()
    line = (y * lines).floor()
    inside = ((y * lines - line - 0.45).abs() < 0.27).float()
    within = (x * columns) % 1.0
    length = uniform(stream("rooms/line"), key, line.long(), (x * columns).floor().long())
    words = uniform(stream("rooms/word"), key, line.long(), (x * 26 * columns + 13 * length).floor().long())
    is_empty_line = uniform(stream("rooms/empty"), key, line.long()) < 0.15
    end = torch.where(length < 0.25, 0.35 + 2 * length, torch.full_like(length, 0.92))
    mask = (within > 0.08) & (within < end) & (words > 0.2) & ~is_empty_line & (y > 0.06) & (y < 0.94)
    return inside * mask.float()


def _blocks(key: int, count: int) -> tuple[Tensor, Tensor]:
    """A printed cover: blocks of colour, a disc, a title in bars."""
    y, x = _grid()
    second, third = torch.zeros(SIZE, SIZE), torch.zeros(SIZE, SIZE)
    for index, (a, b, c, d, e, _) in enumerate(_spread(key, count)):
        inside = ((x - a).abs() < 0.08 + 0.35 * c) & ((y - b).abs() < 0.03 + 0.2 * d)
        if index % 3 == 2:
            inside = torch.hypot(x - a, y - b) < 0.08 + 0.2 * c
        layer = third if e > 0.5 else second
        other = second if e > 0.5 else third
        layer[inside], other[inside] = 1.0, 0.0
    return torch.maximum(second, _text(key + 7, 11) * (y > 0.55)), third


def _photo(key: int) -> tuple[Tensor, Tensor]:
    """Something like a photograph: a horizon, hills, blobs of light."""
    y, _ = _grid()
    hills = _smooth(-0.04, 0.04, y - 0.35 - 0.4 * _fractal(3, key))
    light = _fractal(4, key + 1, 5)
    return (hills * (0.5 + light)).clamp(0, 1), (_smooth(0.5, 0.75, light) * (1 - 0.6 * hills)).clamp(0, 1)


def train_patterns() -> list[tuple[Tensor, Tensor]]:
    """The patterns of the training rooms: for each, the weights of its second and its third colour, (SIZE, SIZE) in 0..1."""
    y, x = _grid()
    zero = torch.zeros(SIZE, SIZE)
    made = [(0.25 * _fractal(4, 1), zero), (0.12 * _fractal(16, 2, 3), zero), (0.4 * _fractal(2, 3, 5), zero)]
    made.append(((((x * 8).floor() + (y * 8).floor()) % 2), 0.2 * _fractal(4, 4)))
    made.append(((((x * 4).floor() + (y * 4).floor()) % 2), 0.3 * _fractal(8, 5)))
    made.append((_smooth(-0.1, 0.1, torch.sin(x * 16 * math.pi)), 0.1 * _fractal(8, 6)))
    made.append((_smooth(-0.1, 0.1, torch.sin(y * 12 * math.pi) - 0.5), _smooth(0.9, 1.0, torch.sin(y * 24 * math.pi))))
    for key, rows, columns in ((7, 8, 2), (8, 6, 1), (9, 10, 2)):  # planks
        value, across, along = _cells(rows, columns, key, 0.37 if columns > 1 else 0.0)
        grain = _noise(32, key + 40)[:, :1] * 0.3 + 0.5 * _fractal(8, key)[:, torch.arange(SIZE) // 8 % SIZE]
        seam = 1 - _smooth(0.002, 0.008, torch.minimum(across, along))
        made.append(((0.55 * value + 0.45 * grain).clamp(0, 1), 0.8 * seam))
    for key, rings in ((10, 5), (11, 9)):  # wood
        bend = _fractal(2, key, 3)
        made.append((0.5 + 0.5 * torch.sin(2 * math.pi * (y * rings + 2.5 * bend)), 0.5 * _fractal(32, key, 2)))
    for key, count in ((12, 3), (13, 6)):  # tiles
        value, across, along = _cells(count, count, key)
        made.append((0.35 * value + 0.1 * _fractal(8, key), 1 - _smooth(0.008, 0.016, torch.minimum(across, along))))
    value, across, along = _cells(8, 4, 14, 0.5)
    made.append((0.7 * value + 0.2 * _fractal(16, 14), 1 - _smooth(0.006, 0.014, torch.minimum(across, along))))
    made.append((_fractal(3, 15, 5), _smooth(0.55, 0.7, _fractal(4, 16, 5))))
    made.append((_noise(64, 17), 0.5 * _noise(32, 18)))
    made.append((0.5 * (torch.sin(x * 64 * math.pi) * torch.sin(y * 64 * math.pi) + 1), 0.3 * _fractal(4, 19)))
    for count, radius in ((5, 0.25), (10, 0.3)):  # dots
        made.append((1 - _smooth(radius - 0.05, radius + 0.05, torch.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5)),
                     0.15 * _fractal(4, 20)))
    made.append((1 - _smooth(0.0, 0.06, (_fractal(3, 21, 5) - 0.5).abs()), 0.3 * _fractal(4, 22)))  # marble
    plaid = 0.5 * ((x * 6) % 1 < 0.4).float() + 0.5 * ((y * 6) % 1 < 0.4).float()
    made.append((plaid, ((x * 6 + 0.8) % 1 < 0.06).float()))
    lattice = torch.minimum(((x + y) * 5 % 1 - 0.5).abs(), ((x - y) * 5 % 1 - 0.5).abs())
    made.append((1 - _smooth(0.05, 0.1, lattice), 0.2 * _fractal(4, 23)))
    made.append((_text(24, 24), zero))
    made.append((_text(25, 14), zero))
    made += [_blocks(30 + 3 * index, 5 + index % 3) for index in range(6)]
    made += [_photo(60 + 3 * index) for index in range(4)]
    return made


def test_patterns() -> list[tuple[Tensor, Tensor]]:
    """The patterns of the held-out rooms, none of them among :func:`train_patterns`; as there."""
    y, x = _grid()
    zero = torch.zeros(SIZE, SIZE)
    made = [(0.3 * _fractal(8, 101, 2), zero), (0.3 * _fractal(3, 102, 2), zero)]
    for cells, key in ((6, 103), (12, 104)):  # terrazzo and pebbles
        nearest, second, value = _voronoi(cells, key)
        made.append((_smooth(0.03, 0.12, second - nearest) * value, (value > 0.7).float() * _smooth(0.05, 0.1, second - nearest)))
    zigzag = (x * 6 % 1 - 0.5).abs()
    made.append((_smooth(0.2, 0.3, ((y * 8 + 1.5 * zigzag) % 1 - 0.5).abs()), 0.2 * _fractal(4, 105)))
    made.append((_smooth(-0.2, 0.2, torch.sin(2 * math.pi * (y * 6 + 0.4 * torch.sin(4 * math.pi * x)))), 0.2 * _noise(16, 106)))
    rings = torch.hypot(x * 3 % 1 - 0.5, y * 3 % 1 - 0.5)
    made.append((_smooth(-0.2, 0.2, torch.sin(rings * 30)), 0.2 * _fractal(4, 107)))
    made.append((((x * 7 % 1) + (y * 7 % 1) > 1).float(), 0.25 * _fractal(8, 108)))
    diagonal = (x + y) * 4 % 1
    made.append(((diagonal > 0.5).float(), (diagonal < 0.1).float()))
    value, across, along = _cells(3, 9, 109, 0.33)
    made.append((value, 1 - _smooth(0.003, 0.01, torch.minimum(across, along))))
    made.append((_smooth(0.45, 0.55, _fractal(8, 110, 2)), _smooth(0.6, 0.65, _fractal(6, 111, 2))))
    made.append((0.5 + 0.5 * torch.sin(2 * math.pi * (12 * y + 4 * _fractal(3, 112, 4))), zero))
    made.append((_text(113, 30, 2), zero))
    made.append((_text(114, 18, 3), ((y * 18).floor() % 6 == 0).float() * 0.3))
    made += [_blocks(130 + 3 * index, 8 + index) for index in range(3)]
    nearest, second, value = _voronoi(4, 150)
    made.append((value, 1 - _smooth(0.0, 0.1, second - nearest)))
    made += [(_smooth(0.3, 0.7, _fractal(2, 151 + index)), _smooth(0.5, 0.8, _fractal(3, 155 + index))) for index in range(2)]
    return made


def spines(key: int) -> tuple[Tensor, Tensor]:
    """A row of book backs: uneven stripes, each with a band for its title."""
    y, x = _grid()
    edges = torch.tensor([0.0] + [s[0] for s in _spread(key, 14)]).sort().values
    index = torch.searchsorted(edges, x.contiguous(), right=True) - 1
    shade = uniform(stream("rooms/spine"), key, index)
    kind = uniform(stream("rooms/spine"), key, index, 1)
    gap = (x[..., None] - edges).abs().amin(-1) < 0.006
    band = ((y - 0.2 - 0.4 * kind).abs() < 0.1) & (kind > 0.3)
    return torch.where(gap, torch.zeros_like(shade), shade), torch.where(gap, 1.0, band.float() * 0.8)


def keys() -> tuple[Tensor, Tensor]:
    """The keys of a keyboard."""
    _, across, along = _cells(5, 15, 160)
    gap = 1 - _smooth(0.008, 0.02, torch.minimum(across, 2 * along))
    y, x = _grid()
    bar = ((y > 0.82) & ((x - 0.45).abs() < 0.2)).float()
    return torch.maximum(1 - gap, bar), torch.zeros_like(y)


def outside(key: int) -> tuple[Tensor, Tensor]:
    """What a window shows: sky above, something below."""
    y, _ = _grid()
    land = _smooth(-0.02, 0.02, (1 - y) * -1 + 0.35 + 0.5 * _fractal(4, key, 5) * 0.8)
    return land * (0.4 + 0.6 * _fractal(16, key + 1, 3)), (1 - land) * _smooth(0.5, 0.7, _fractal(3, key + 2))

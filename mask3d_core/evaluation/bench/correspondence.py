"""Do two views' features name the same place? Nearest patches across views, without any training, against true geometry.

A patch stands for its middle pixel. The true match of a patch in the other view follows from its depth and both poses, and
counts only where the other view sees that point: inside its picture, and not behind something nearer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.batches import Batch
from mask3d_core.evaluation.bench.config import BenchConfig
from mask3d_core.geometry import project, relative_pose, transform_points, unproject
from mask3d_core.shapes import Float

SAME_SURFACE = (0.02, 0.02)  # metres, and metres per metre of depth, that a seen point may lie off the other view's surface
NEAR_CM = 25.0
ANGLE_BINS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0), (90.0, 180.0))  # degrees between the two views


@dataclass(frozen=True)
class ViewPair:
    """The true matches from one view to another.

    Args:
        first, second: numbers of the views in their batch.
        angle: degrees by which the camera turned, 0..180.
        query: Long (q,), cells of the first view that the second sees too.
        place: Float (q, 2), row and column in pixels where they are seen in the second.
        point: Float (q, 3), metres in the second camera's frame.
        cell_place: Float (n, 2), the middle pixels of the second view's cells.
        cell_point: Float (n, 3), what they see, metres; infinitely far where nothing was measured.
        patch: side of a cell in pixels.
    """

    first: int
    second: int
    angle: float
    query: Tensor
    place: Tensor
    point: Tensor
    cell_place: Tensor
    cell_point: Tensor
    patch: int


def view_pairs(batch: Batch, poses: Float[Tensor, "b 4 4"], config: BenchConfig) -> list[ViewPair]:
    """All ordered pairs of views of one room that see enough of the same.

    Args:
        batch: views of one sequence.
        poses: camera-to-world; views without one (NaN) are left out.
        config: the cell, and the fewest matches of a pair.
    """
    rows, columns = config.grid
    row = torch.arange(rows) * config.cell + config.cell // 2
    column = torch.arange(columns) * config.cell + config.cell // 2
    middle = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).reshape(-1, 2)  # (n, 2)
    points = unproject(batch.depth, batch.intrinsics)[:, middle[:, 0], middle[:, 1]]  # (b, n, 3)
    is_measured = batch.is_valid[:, middle[:, 0], middle[:, 1]]
    is_known = torch.isfinite(poses).flatten(1).all(dim=1)
    height, width = batch.depth.shape[1:]
    found = []
    for a in range(len(batch)):
        for b in range(len(batch)):
            if a == b or not (is_known[a] and is_known[b]):
                continue
            motion = relative_pose(poses[a], poses[b])
            moved = transform_points(points[a:a + 1], motion[None])
            u, v, z = (value[0] for value in project(moved, batch.intrinsics[b:b + 1]))
            i, j = v.round().long(), u.round().long()
            is_inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (z > 0)
            i, j = i.clamp(0, height - 1), j.clamp(0, width - 1)
            off = (batch.depth[b, i, j] - z).abs()
            is_same = off <= SAME_SURFACE[0] + SAME_SURFACE[1] * z
            is_seen = is_inside & is_measured[a] & batch.is_valid[b, i, j] & is_same
            if int(is_seen.sum()) < config.least_matches:
                continue
            cosine = (motion[:3, :3].diagonal().sum() - 1) / 2
            cell_point = torch.where(is_measured[b][:, None], points[b], torch.inf)
            angle = float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))))
            found.append(ViewPair(a, b, angle, is_seen.nonzero()[:, 0], torch.stack([v, u], dim=-1)[is_seen], moved[0][is_seen],
                                  middle.float(), cell_point, config.cell))
    return found


def _scores(pixels: Tensor, metres: Tensor, patch: int) -> dict[str, float]:
    """From distances in the picture and in space, of any shape, to the metrics."""
    return {"recall_1": float((pixels <= patch).float().mean()), "recall_2": float((pixels <= 2 * patch).float().mean()),
            "recall_25cm": float((100 * metres <= NEAR_CM).float().mean()),
            "median_cm": 100 * float(metres.clamp(max=100.0).median())}


def match_scores(features: Float[Tensor, "b n d"], pair: ViewPair) -> dict[str, float]:
    """How well the nearest features (cosine) find the true places.

    Args:
        features: standardised, one per cell of each view.
        pair: of the same views.

    Returns:
        The metrics of "correspondence"; recall counts distances in pixels of the picture, in patches of the protocol's size.
    """
    query = F.normalize(features[pair.first][pair.query], dim=1)
    match = (query @ F.normalize(features[pair.second], dim=1).T).argmax(dim=1)
    pixels, metres = (pair.cell_place[match] - pair.place).norm(dim=1), (pair.cell_point[match] - pair.point).norm(dim=1)
    return _scores(pixels, metres, pair.patch)


def chance_scores(pair: ViewPair) -> dict[str, float]:
    """What a patch drawn at random scores, exactly: the mean over all patches."""
    pixels, metres = torch.cdist(pair.place, pair.cell_place), (pair.point[:, None] - pair.cell_point[None]).norm(dim=-1)
    return _scores(pixels, metres, pair.patch)

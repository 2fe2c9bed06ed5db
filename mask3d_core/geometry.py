"""From depth to points and back: pinhole cameras, normals, poses, and point clouds in PLY files.

Camera frame: x right, y down, z forward, metres. Depth is z, not the length of the ray. Pixel centres lie on
integers. Everything is batched and differentiable except the files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mask3d_core.ply import read_ply, write_ply
from mask3d_core.shapes import Bool, Float

__all__ = ["invert_pose", "normals_from_depth", "project", "read_ply", "relative_pose", "transform_points",
           "unproject", "write_ply"]


def _rays(height: int, width: int, intrinsics: Float[Tensor, "b 4"]) -> tuple[Float[Tensor, "b 1 w"],
                                                                           Float[Tensor, "b h 1"]]:
    """x / z for every column and y / z for every row."""
    fx, fy, cx, cy = intrinsics[:, :, None, None].unbind(1)
    columns = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype)[None, None, :]
    rows = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype)[None, :, None]
    return (columns - cx) / fx, (rows - cy) / fy


def unproject(depth: Float[Tensor, "b h w"], intrinsics: Float[Tensor, "b 4"]) -> Float[Tensor, "b h w 3"]:
    """The point that each pixel sees.

    Args:
        depth: (b, h, w) metres along the optical axis; a hole (0) gives the origin.
        intrinsics: (b, 4) fx fy cx cy in pixels of this image.

    Returns:
        (b, h, w, 3) metres in the camera frame.

    >>> unproject(torch.full((1, 1, 3), 2.0), torch.tensor([[1.0, 1.0, 1.0, 0.0]]))[0, 0].tolist()
    [[-2.0, 0.0, 2.0], [0.0, 0.0, 2.0], [2.0, 0.0, 2.0]]
    """
    x_over_z, y_over_z = _rays(depth.shape[1], depth.shape[2], intrinsics)
    return torch.stack((x_over_z * depth, y_over_z * depth, depth), dim=-1)


def project(points: Float[Tensor, "b *n 3"], intrinsics: Float[Tensor, "b 4"]
            ) -> tuple[Float[Tensor, "b *n"], Float[Tensor, "b *n"], Float[Tensor, "b *n"]]:
    """Where points fall in the image.

    Args:
        points: (b, ..., 3) metres in the camera frame.
        intrinsics: (b, 4) fx fy cx cy in pixels.

    Returns:
        columns, rows (pixels, not rounded, also outside of the image) and z (metres), each (b, ...).
        Columns and rows mean something only where z > 0; they are finite where z = 0.
    """
    fx, fy, cx, cy = intrinsics.reshape(intrinsics.shape[0], 4, *[1] * (points.ndim - 2)).unbind(1)
    x, y, z = points.unbind(-1)
    divisor = torch.where(z == 0, torch.ones_like(z), z)
    return x / divisor * fx + cx, y / divisor * fy + cy, z


def transform_points(points: Float[Tensor, "b *n 3"], pose: Float[Tensor, "b 4 4"]) -> Float[Tensor, "b *n 3"]:
    """Move points by a rigid motion; with a camera-to-world pose: from the camera frame to the world.

    Args:
        points: (b, ..., 3) metres.
        pose: (b, 4, 4).

    Returns:
        (b, ..., 3) metres.
    """
    flat = points.reshape(points.shape[0], -1, 3)
    return (flat @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]).reshape(points.shape)


def invert_pose(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The inverse of a rigid motion: the rotation transposed, the translation turned back.

    Args:
        pose: (..., 4, 4), rotation and translation.

    Returns:
        (..., 4, 4).
    """
    rotation = pose[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def relative_pose(source_pose: Float[Tensor, "*b 4 4"], target_pose: Float[Tensor, "*b 4 4"]
                  ) -> Float[Tensor, "*b 4 4"]:
    """The motion that takes points of the source camera into the frame of the target camera.

    Args:
        source_pose, target_pose: (..., 4, 4) camera-to-world.

    Returns:
        (..., 4, 4): ``transform_points(points_in_source, relative_pose(a, b))`` are points in the target camera.
    """
    return invert_pose(target_pose) @ source_pose


def normals_from_depth(depth: Float[Tensor, "b h w"], is_valid: Bool[Tensor, "b h w"],
                       intrinsics: Float[Tensor, "b 4"], max_relative_jump: float = 0.05
                       ) -> tuple[Float[Tensor, "b h w 3"], Bool[Tensor, "b h w"]]:
    """Surface normals by central differences of the unprojected points.

    A normal is defined where the pixel and its four neighbours are valid and neither pair of opposite neighbours
    differs by more than ``max_relative_jump`` of the depth (a silhouette has no normal); never on the border.

    Args:
        depth: (b, h, w) metres.
        is_valid: (b, h, w), True where depth may be used.
        intrinsics: (b, 4) fx fy cx cy in pixels.
        max_relative_jump: metres per metre over two pixels; ``float("inf")`` accepts every jump.

    Returns:
        normals (b, h, w, 3): unit length, facing the camera (n . p < 0), zero where not defined; and
        is_defined (b, h, w). Gradients are finite everywhere.
    """
    safe = torch.where(is_valid, depth, torch.ones_like(depth))  # keeps NaN of holes out of value and gradient
    points = unproject(safe, intrinsics)
    along_columns = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    along_rows = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    # rows x columns faces the camera for all positive depths: with r the pixel's ray, the triple product
    # (r, columns, rows) = (z1 + z0)(w1 + w0) r_z / (fx fy) > 0, whatever the slopes.
    inner = F.normalize(torch.linalg.cross(along_rows, along_columns), dim=-1, eps=1e-20)

    centre = safe[:, 1:-1, 1:-1] * max_relative_jump
    is_smooth = (along_columns[..., 2].abs() <= centre) & (along_rows[..., 2].abs() <= centre)
    is_defined = (is_smooth & is_valid[:, 1:-1, 1:-1] & is_valid[:, 1:-1, 2:] & is_valid[:, 1:-1, :-2]
                  & is_valid[:, 2:, 1:-1] & is_valid[:, :-2, 1:-1])
    inner = torch.where(is_defined[..., None], inner, torch.zeros_like(inner))
    return F.pad(inner, (0, 0, 1, 1, 1, 1)), F.pad(is_defined, (1, 1, 1, 1))

"""Points, normals, poses and PLY files: known answers."""

import numpy as np
import pytest
import torch

from mask3d_core.errors import FrameError
from mask3d_core.frames import Intrinsics, RGBDFrame
from mask3d_core.geometry import (
    invert_pose,
    normals_from_depth,
    project,
    read_ply,
    relative_pose,
    transform_points,
    unproject,
    write_ply,
)

CAMERA = torch.tensor([[260.0, 255.0, 161.3, 118.2]])


def plane_depth(normal, distance, height, width, intrinsics):
    """Depth of the plane n . p = distance: z = distance / (n . ray)."""
    rays = unproject(torch.ones(1, height, width, dtype=intrinsics.dtype), intrinsics)
    return distance / (rays @ torch.as_tensor(normal, dtype=intrinsics.dtype))


def random_pose(seed):
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation * torch.sign(torch.linalg.det(rotation))
    pose[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    return pose[None]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_unproject_then_project_returns_the_pixel(dtype, tolerance):
    depth = torch.rand(1, 240, 320, dtype=dtype) * 8 + 0.3
    columns, rows, z = project(unproject(depth, CAMERA.to(dtype)), CAMERA.to(dtype))
    assert (columns[0] - torch.arange(320, dtype=dtype)).abs().max() < tolerance
    assert (rows[0] - torch.arange(240, dtype=dtype)[:, None]).abs().max() < tolerance
    assert torch.equal(z, depth)


def test_points_at_depth_zero_project_to_finite_pixels_with_finite_gradients():
    points = torch.zeros(1, 5, 3, requires_grad=True)
    columns, rows, _ = project(points, CAMERA)
    (columns + rows).sum().backward()
    assert columns.isfinite().all() and points.grad.isfinite().all()


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0, -0.8), (0, -0.8, -0.6), (0.3, -0.4, -0.866)])
def test_normals_of_a_plane_are_the_plane_s(normal):
    normal = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    camera = CAMERA.double()
    depth = plane_depth(normal, -1.0, 240, 320, camera)
    is_valid = (depth > 0) & (depth < 5)
    normals, is_defined = normals_from_depth(depth, is_valid, camera)
    assert is_defined.float().mean() > 0.5
    assert not is_defined[:, 0].any() and not is_defined[:, :, -1].any()
    assert (normals[is_defined] - torch.as_tensor(normal)).abs().max() < 1e-9
    assert not normals[~is_defined].any()


def test_normals_always_face_the_camera_and_gradients_stay_finite():
    depth = (torch.rand(2, 20, 24) * 5 + 0.2).requires_grad_()
    is_valid = torch.rand(2, 20, 24) > 0.2
    with torch.no_grad():
        depth[~is_valid] = float("nan")
    intrinsics = torch.tensor([[20.0, 20.0, 11.5, 9.5]]).expand(2, 4)
    normals, is_defined = normals_from_depth(depth, is_valid, intrinsics, max_relative_jump=float("inf"))
    assert is_defined.any()
    facing = (normals * unproject(depth, intrinsics)).sum(-1)[is_defined]
    assert (facing < 0).all()
    assert (normals[is_defined].norm(dim=-1) - 1).abs().max() < 1e-5
    normals.square().sum().backward()
    assert depth.grad[is_valid].isfinite().all() and not depth.grad[~is_valid].nan_to_num().any()


def test_no_normal_at_a_hole_or_a_silhouette():
    depth = torch.full((1, 9, 9), 2.0)
    depth[:, :, 5:] = 3.0
    is_valid = torch.ones(1, 9, 9, dtype=torch.bool)
    is_valid[0, 4, 2] = False
    _, is_defined = normals_from_depth(depth, is_valid, torch.tensor([[9.0, 9.0, 4.0, 4.0]]))
    assert not is_defined[0, :, 4:6].any()  # both columns beside the jump
    for row, column in ((4, 2), (3, 2), (5, 2), (4, 1), (4, 3)):
        assert not is_defined[0, row, column]
    assert is_defined[0, 3, 1] and is_defined[0, 2, 7]


def test_poses_invert_compose_and_move_points():
    a, b = random_pose(1), random_pose(2)
    points = torch.randn(1, 7, 5, 3, dtype=torch.float64)
    assert torch.allclose(invert_pose(a) @ a, torch.eye(4, dtype=torch.float64)[None], atol=1e-12)
    world = transform_points(points, a)
    assert torch.allclose(transform_points(points, relative_pose(a, b)), transform_points(world, invert_pose(b)))
    quarter = torch.tensor([[[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]])
    assert transform_points(torch.tensor([[[1.0, 0, 0]]]), quarter).tolist() == [[[1, 3, 3]]]


def fitted_plane(frame):
    """Least squares z = a x + b y + c through the frame's points, as (a, b, c)."""
    points = unproject(torch.from_numpy(frame.depth)[None].double(),
                       torch.from_numpy(frame.intrinsics.as_array())[None].double())[0]
    points = points[torch.from_numpy(frame.is_valid)]
    design = torch.cat((points[:, :2], torch.ones(len(points), 1, dtype=points.dtype)), dim=1)
    return torch.linalg.lstsq(design, points[:, 2:]).solution[:, 0]


def plane_frame():
    camera = Intrinsics(525.0, 520.0, 310.2, 244.7)
    depth = plane_depth((0.25, -0.35, 0.9), 1.8, 480, 640, torch.from_numpy(camera.as_array())[None].double())
    depth = depth[0].numpy().astype(np.float32)
    is_valid = np.random.default_rng(0).random(depth.shape) > 0.1
    return RGBDFrame(np.zeros((480, 640, 3), np.uint8), depth, is_valid, camera)


@pytest.mark.parametrize("move, mirror", [
    (lambda f: f.resize(240, 320), 1), (lambda f: f.resize(171, 433), 1), (lambda f: f.resize(700, 900), 1),
    (lambda f: f.crop(33, 71, 200, 301), 1), (lambda f: f.flip(), -1), (lambda f: f.fit(256, 336), 1),
    (lambda f: f.fit(240, 320).flip().crop(5, 9, 224, 224), -1)])
def test_a_plane_survives_resize_crop_and_flip(move, mirror):
    """The plane fitted after the move, compared where the frame's corners see it: less than 1 mm apart."""
    frame = plane_frame()
    a, b, c = fitted_plane(frame)
    moved = fitted_plane(move(frame))
    corners = torch.tensor([[x, y, 1.0] for x in (-1.2, 1.2) for y in (-0.9, 0.9)], dtype=torch.float64)
    gap = corners @ moved - corners @ torch.stack((a * mirror, b, c))
    assert gap.abs().max() < 1e-3


def test_ply_round_trip(tmp_path):
    points = torch.randn(100, 3)
    colors = np.random.default_rng(0).integers(0, 256, (100, 3), dtype=np.uint8)
    error = np.arange(100, dtype=np.float32)
    path = write_ply(tmp_path / "a.ply", points, colors, error=error)
    assert path.read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 100\nproperty float x\n")
    got_points, got_colors, columns = read_ply(path)
    assert np.array_equal(got_points, points.numpy()) and np.array_equal(got_colors, colors)
    assert list(columns) == ["error"] and np.array_equal(columns["error"], error)
    bare = read_ply(write_ply(tmp_path / "b.ply", points.double()))
    assert bare[1] is None and bare[2] == {} and np.allclose(bare[0], points.numpy())
    assert read_ply(write_ply(tmp_path / "c.ply", points, np.ones((100, 3))))[1].min() == 255


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b"x" + b,
                                    lambda b: b.replace(b"little", b"big")])
def test_a_damaged_ply_is_one_clear_line(tmp_path, damage):
    path = write_ply(tmp_path / "a.ply", torch.randn(10, 3))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FrameError, match="a.ply.*expected.*got"):
        read_ply(path)


def test_ply_refuses_shapes_that_do_not_fit(tmp_path):
    with pytest.raises(FrameError, match="points as"):
        write_ply(tmp_path / "a.ply", torch.zeros(4, 2))
    with pytest.raises(FrameError, match="colours"):
        write_ply(tmp_path / "a.ply", torch.zeros(4, 3), np.zeros((3, 3)))
    with pytest.raises(FrameError, match="error"):
        write_ply(tmp_path / "a.ply", torch.zeros(4, 3), error=np.zeros(5))

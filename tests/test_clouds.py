"""Clouds: known projections, occlusion, the flying-pixel filter, views, colours, one stored reference, real frames."""

import math

import numpy as np
import pytest
import torch
from conftest import make_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pictures import assert_same

from mask3d_core.errors import Mask3DError
from mask3d_core.frames import Intrinsics, RGBDFrame
from mask3d_viz import style
from mask3d_viz.clouds import (Camera, Cloud, cloud_colors, cloud_from_depth, linked_stills, look_at, orbit_camera,
                               provenance, splat, view_camera)

EYE = Camera(np.eye(4), Intrinsics(50.0, 40.0, 32.0, 24.0))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def dots(*pairs):
    """Points and colours from (x, y, z), colour pairs."""
    return np.array([p for p, _ in pairs], np.float32), np.array([c for _, c in pairs], np.uint8)


def cube_corner(count=30):
    """Three faces of a unit cube that meet in the corner nearest to the camera."""
    a, b = (v.ravel() for v in np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, count)))
    zero = np.zeros_like(a)
    faces = [np.stack(v, -1) for v in ((a, b, zero), (a, zero, b), (zero, a, b))]
    turn = look_at((-1.6, -1.3, -2.2), (0.35, 0.35, 0.35))
    points = (np.concatenate(faces) - turn[:3, 3]) @ turn[:3, :3]
    return points.astype(np.float32), np.repeat(np.array([RED, GREEN, BLUE], np.uint8), count * count, axis=0), turn


def test_points_fall_on_the_pixels_that_the_camera_equation_says():
    points, colors = dots(((0, 0, 2), RED), ((0.5, 0, 2.5), GREEN), ((0, 0.5, 2.0), BLUE))
    image = splat(points, colors, EYE, (48, 64), point_size=1)
    assert np.argwhere((image != 255).any(2)).tolist() == [[24, 32], [24, 42], [34, 32]]
    assert [tuple(image[p]) for p in ((24, 32), (24, 42), (34, 32))] == [RED, GREEN, BLUE]


def test_a_moved_camera_sees_the_point_elsewhere():
    points, colors = dots(((0, 0, 2), RED))
    pose = np.eye(4)
    pose[:3, 3] = (0.4, 0, 0)  # to the right: the point moves 50 * 0.4 / 2 = 10 pixels to the left
    image = splat(points, colors, Camera(pose, EYE.intrinsics), (48, 64), point_size=1)
    assert np.argwhere((image != 255).any(2)).tolist() == [[24, 22]]


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearest_wins_whatever_the_order(order):
    points, colors = dots(((0, 0, 3), RED), ((0, 0, 2), GREEN), ((0, 0, 2.5), BLUE))
    assert tuple(splat(points[::order], colors[::order], EYE, (48, 64), point_size=1)[24, 32]) == GREEN


def test_equal_depth_goes_to_the_first():
    points, colors = dots(((0, 0, 2), RED), ((0, 0, 2), GREEN))
    assert tuple(splat(points, colors, EYE, (48, 64))[24, 32]) == RED


def test_behind_the_camera_is_nothing():
    points, colors = dots(((0, 0, -2), RED), ((0, 0, 0), RED), ((9, 0, 1), RED))
    assert (splat(points, colors, EYE, (48, 64)) == 255).all()


@pytest.mark.parametrize("point_size, rows, columns", [(1, (24, 24), (32, 32)), (2, (24, 25), (32, 33)),
                                                       (3, (23, 25), (31, 33)), (4, (23, 26), (31, 34))])
def test_squares_have_their_size(point_size, rows, columns):
    points, colors = dots(((0, 0, 2), RED))
    drawn = np.argwhere((splat(points, colors, EYE, (48, 64), point_size=point_size) != 255).any(2))
    assert (drawn.min(0).tolist(), drawn.max(0).tolist()) == ([rows[0], columns[0]], [rows[1], columns[1]])
    assert len(drawn) == point_size ** 2


def test_squares_reach_in_from_outside():
    points, colors = dots(((-1.32, 0, 2), RED))  # column 32 - 33 = -1
    drawn = np.argwhere((splat(points, colors, EYE, (48, 64), point_size=3) != 255).any(2))
    assert drawn.tolist() == [[23, 0], [24, 0], [25, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9), st.integers(1, 12))
def test_splat_equals_the_plain_loop(seed, point_size, height, width):
    generator = np.random.default_rng(seed)
    points = (generator.random((40, 3)) * (2, 2, 2) + (-1, -1, 0.5)).astype(np.float32)
    colors = generator.integers(0, 255, (40, 3), dtype=np.uint8)
    camera = Camera(np.eye(4), Intrinsics(float(width), float(width), width / 2, height / 2))
    want, nearest = np.full((height, width, 3), 255, np.uint8), np.full((height, width), np.inf)
    for (x, y, z), color in zip(points, colors):
        inverse = np.float32(1) / z
        column = int(np.rint(x * inverse * np.float32(width) + np.float32(width / 2)))
        row = int(np.rint(y * inverse * np.float32(width) + np.float32(height / 2)))
        for r in range(row - (point_size - 1) // 2, row + point_size // 2 + 1):
            for c in range(column - (point_size - 1) // 2, column + point_size // 2 + 1):
                if 0 <= r < height and 0 <= c < width and z < nearest[r, c]:
                    want[r, c], nearest[r, c] = color, z
    assert np.array_equal(splat(points, colors, camera, (height, width), point_size=point_size), want)


def test_cube_corner_matches_reference():
    points, colors, _ = cube_corner()
    camera = Camera(np.eye(4), Intrinsics(90.0, 90.0, 40.0, 30.0))
    image = splat(points, colors, camera, (60, 80), point_size=3)
    corner = points[0]  # where the three faces meet
    row, column = (round(float(90 * v / corner[2] + c)) for v, c in ((corner[1], 30), (corner[0], 40)))
    near = {tuple(c) for c in image[row - 3:row + 4, column - 3:column + 4].reshape(-1, 3)}
    assert near == {RED, GREEN, BLUE}
    assert_same(image, "cube_corner")
    assert_same(splat(points, colors, camera, (60, 80), point_size=3, shading=0.8), "cube_corner_shaded", most=1)


def test_from_its_own_camera_a_cloud_is_the_picture_again():
    frame = make_frame(48, 64)
    cloud = cloud_from_depth(frame.depth, frame.is_valid, frame.intrinsics, frame.color, max_grazing=None)
    assert len(cloud.points) == frame.is_valid.sum() and cloud.points.dtype == np.float32
    assert np.array_equal(cloud.points[:, 2], frame.depth.ravel()[cloud.pixels])
    image = splat(cloud.points, cloud.colors, view_camera("camera", cloud.points, intrinsics=frame.intrinsics),
                  (48, 64), point_size=1, background=(1, 2, 3))
    assert np.array_equal(image, np.where(frame.is_valid[..., None], frame.color, np.uint8((1, 2, 3))))


@pytest.mark.parametrize("max_grazing, kept", [(70.0, False), (80.0, True), (None, True)])
@pytest.mark.parametrize("scale", [1, 2])
def test_grazing_is_an_angle_at_every_resolution(max_grazing, kept, scale):
    width, focal = 100 * scale, 100.0 * scale
    tangent = (np.arange(width) - (width - 1) / 2) / focal
    depth = np.tile(2 / (1 - tangent * math.tan(math.radians(75))), (4, 1)).astype(np.float32)  # a plane at 75 degrees
    is_valid = (np.abs(tangent) < 0.05)[None].repeat(4, 0)
    cloud = cloud_from_depth(depth, is_valid, Intrinsics(focal, focal, (width - 1) / 2, 1.5), np.zeros((4, width, 3)),
                             max_grazing=max_grazing)
    assert (len(cloud.points) > 0.9 * is_valid.sum()) == kept


def test_flying_pixels_go_and_thin_things_in_front_stay():
    depth = np.full((9, 20), 3.0, np.float32)
    depth[:, 8:10] = 1.0  # a leg, two pixels wide
    depth[:, 10] = 1.9  # half leg, half wall
    cloud = cloud_from_depth(depth, None, Intrinsics(200.0, 200.0, 9.5, 4.0), np.zeros((9, 20, 3), np.uint8))
    kept = set((cloud.pixels % 20).tolist())
    assert {8, 9} <= kept and 10 not in kept
    assert set(range(20)) - kept == {7, 10, 11}


def test_holes_make_no_points_and_no_steps():
    depth = np.full((6, 6), 2.0, np.float32)
    is_valid = np.ones((6, 6), bool)
    is_valid[2:4, 2:4] = False
    depth[2, 2] = np.nan
    cloud = cloud_from_depth(depth, is_valid, Intrinsics(6.0, 6.0, 2.5, 2.5), np.zeros((6, 6, 3), np.uint8))
    assert len(cloud.points) == 32 and np.isfinite(cloud.points).all()


def test_tensors_and_odd_sizes():
    depth = torch.rand(37, 21) + 1
    color = torch.rand(37, 21, 3)
    cloud = cloud_from_depth(depth, torch.ones(37, 21, dtype=torch.bool), Intrinsics(21.0, 21.0, 10.0, 18.0), color,
                             max_grazing=None)
    assert len(cloud.points) == 777
    assert splat(torch.from_numpy(cloud.points), cloud.colors, view_camera("front", cloud.points, (5, 3)), (5, 3)
                 ).shape == (5, 3, 3)


def test_an_empty_cloud_is_the_background():
    frame = make_frame(24, 32, holes=1.0)
    cloud = cloud_from_depth(frame.depth, frame.is_valid, frame.intrinsics, frame.color)
    assert cloud.points.shape == (0, 3) and cloud.colors.shape == (0, 3)
    for view in ("front", "three-quarter", "top"):
        image = splat(cloud.points, cloud.colors, view_camera(view, cloud.points), (24, 32), background=(9, 9, 9),
                      shading=1.0)
        assert (image == 9).all()


@pytest.mark.parametrize("view", ["front", "three-quarter", "top"])
@pytest.mark.parametrize("size", [(480, 640), (300, 200)])
def test_views_hold_the_points_and_fill_the_picture(view, size):
    points = np.random.default_rng(0).random((5000, 3)).astype(np.float32) * (4, 2, 3) + (-1, -1, 2)
    camera = view_camera(view, points, size)
    local = (points - camera.pose[:3, 3]) @ camera.pose[:3, :3]
    k = camera.intrinsics
    column, row = local[:, 0] / local[:, 2] * k.fx + k.cx, local[:, 1] / local[:, 2] * k.fy + k.cy
    inside = (local[:, 2] > 0) & (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    assert inside.mean() > 0.98
    assert max(np.ptp(column) / size[1], np.ptp(row) / size[0]) > 0.85
    assert abs(column.min() + column.max() - size[1]) < 0.1 * size[1]  # in the middle
    assert np.allclose(camera.pose[:3, :3] @ camera.pose[:3, :3].T, np.eye(3)) and np.linalg.det(camera.pose) > 0


def test_views_look_from_where_they_say():
    points = np.random.default_rng(0).random((1000, 3)).astype(np.float32) + (0, 0, 2)
    front, quarter, top = (view_camera(v, points).pose for v in ("front", "three-quarter", "top"))
    assert np.allclose(front[:3, :3], np.eye(3))
    middle = points.mean(0)
    assert quarter[0, 3] > middle[0] and quarter[1, 3] < middle[1]  # from the right and from above (y is down)
    assert np.allclose(top[:3, 2], (0, 1, 0), atol=1e-9) and np.allclose(top[:3, 1], (0, 0, -1), atol=1e-9)
    assert np.allclose(view_camera("top", points, up=(0, 0, 1), forward=(0, 1, 0)).pose[:3, 2], (0, 0, -1), atol=1e-9)
    assert orbit_camera(points, 0, 0, zoom=2).intrinsics.fx == 2 * orbit_camera(points, 0, 0).intrinsics.fx


def test_provenance_and_its_colors():
    is_valid = np.ones((4, 4), bool)
    is_valid[0, 0] = is_valid[0, 3] = False
    classes = provenance(is_valid, np.array([[False, True], [False, True]]))
    assert classes.tolist() == [[2, 0, 1, 2], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    colors = cloud_colors("provenance", classes, np.arange(16))
    assert tuple(colors[0]) == tuple(style.PROVENANCE_COLORS[style.NEVER_MEASURED])
    assert len({tuple(c) for c in colors.tolist()}) == 3


def test_colors_by_depth_and_error():
    values, pixels = np.array([[1.0, 2.0, 3.0, np.nan]], np.float32), np.array([2, 0])
    depth = cloud_colors("depth", values, pixels, limits=(1.0, 3.0), colormap="viridis")
    assert depth.tolist() == style.colormap("viridis")[[255, 0]].tolist()
    error = cloud_colors("error", np.array([[-0.2, 0.0, 0.2, np.nan]]), np.arange(4), limits=(-0.2, 0.2),
                         is_valid=np.array([[True, True, True, False]]))
    assert error[0, 2] > error[0, 0] and error[2, 0] > error[2, 2] and error[1].min() > 240
    assert tuple(error[3]) == style.NO_ERROR_COLOR
    color = make_frame(2, 3).color
    assert np.array_equal(cloud_colors("rgb", color, np.array([4])), color.reshape(-1, 3)[[4]])


def test_linked_stills_share_one_camera():
    frame = make_frame(48, 64)
    cloud = cloud_from_depth(frame.depth, frame.is_valid, frame.intrinsics, frame.color)
    sheet = linked_stills(cloud, cloud, size=(90, 120))
    assert np.array_equal(sheet[12:102, 12:132], sheet[12:102, 144:264])
    nothing = Cloud(cloud.points[:0], cloud.colors[:0], cloud.pixels[:0])
    alone = linked_stills(nothing, cloud, size=(90, 120), theme="dark")
    ground = style.rgb(style.theme("dark")["ground"])
    assert (alone[12:102, 12:132] == ground).all() and not (alone[12:102, 144:264] == ground).all()


@pytest.mark.parametrize("call", [
    lambda f, c: splat(c.points[:, :2], c.colors, EYE), lambda f, c: splat(c.points, c.colors[1:], EYE),
    lambda f, c: splat(c.points, c.colors / 255, EYE), lambda f, c: splat(c.points * np.nan, c.colors, EYE),
    lambda f, c: splat(c.points, c.colors, EYE, point_size=0), lambda f, c: view_camera("side", c.points),
    lambda f, c: view_camera("camera", c.points), lambda f, c: cloud_colors("heat", f.color, c.pixels),
    lambda f, c: cloud_colors("depth", f.depth, c.pixels),
    lambda f, c: cloud_colors("error", f.depth, c.pixels, limits=(-1.0, 2.0)),
    lambda f, c: cloud_from_depth(f.depth, f.is_valid, f.intrinsics, f.color[1:]),
    lambda f, c: cloud_from_depth(f.depth, f.is_valid, f.intrinsics, f.color, max_grazing=90.0),
    lambda f, c: look_at((0, 0, 0), (0, 1, 0)),
])
def test_wrong_input_gives_one_clear_line(call):
    frame = make_frame(12, 16)
    cloud = cloud_from_depth(frame.depth, frame.is_valid, frame.intrinsics, frame.color)
    with pytest.raises(Mask3DError, match=r"expected .+; got .+\. \w"):
        call(frame, cloud)


def test_a_real_frame_is_a_room_and_not_a_fan(shared_data):
    """ICL's living room: the right wall is a plane and stays one; nothing flies between chair and wall."""
    from PIL import Image

    folder = shared_data / "icl_livingroom1"
    color = np.asarray(Image.open(next(iter(sorted((folder / "image").iterdir())))))
    depth = np.asarray(Image.open(next(iter(sorted((folder / "depth").iterdir()))))).astype(np.float32) / 1000
    frame = RGBDFrame(color, depth, depth > 0, Intrinsics(525.0, 525.0, 319.5, 239.5)).resize(240, 320)
    cloud = cloud_from_depth(frame.depth, frame.is_valid, frame.intrinsics, frame.color)
    assert 0.9 < len(cloud.points) / frame.is_valid.sum() < 1.0
    wall = cloud.points[(cloud.pixels // 320 < 50) & (cloud.pixels % 320 > 200)]
    centred = wall - wall.mean(0)
    thin = np.linalg.svd(centred, full_matrices=False)[1] / math.sqrt(len(wall))
    assert thin[2] < 0.01 < 0.1 < thin[1], thin  # metres: a wall is thin and wide
    image = splat(cloud.points, cloud.colors, view_camera("three-quarter", cloud.points), point_size=3)
    drawn = (image != 255).any(2).mean()
    assert 0.2 < drawn < 0.95

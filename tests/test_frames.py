"""RGBDFrame: what it refuses, and that every picture and the camera move together."""

import pickle

import numpy as np
import pytest

from mask3d_core.errors import ConfigError, FrameError
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.geometry import project, unproject

from conftest import make_frame


def labelled_frame(height=30, width=40):
    """Every picture holds the pixel's own number, so that any misplacement shows."""
    number = np.arange(height * width).reshape(height, width)
    color = np.stack([number % 256, number // 256, number * 0], axis=2).astype(np.uint8)
    return RGBDFrame(color, (number + 1).astype(np.float32), np.ones((height, width), bool),
                     Intrinsics(40.0, 41.0, 19.0, 14.0), np.eye(4), (number % 250).astype(np.uint8),
                     number.astype(np.int32), FrameOrigin("test", "s", "f"))


@pytest.mark.parametrize("change, message", [
    (dict(color=np.zeros((30, 40, 3), np.float32)), "8-bit RGB"),
    (dict(color=np.zeros((30, 40), np.uint8)), r"uint8 \(H, W, 3\)"),
    (dict(depth=np.ones((30, 40))), "depth as float32"),
    (dict(depth=np.ones((15, 20), np.float32)), "register"),
    (dict(depth=np.full((30, 40), np.nan, np.float32)), "NaN"),
    (dict(depth=np.full((30, 40), -1, np.float32)), "above 0 m"),
    (dict(is_valid=np.ones((30, 40))), "is_valid as bool"),
    (dict(semantic=np.ones((30, 40), np.int64)), "semantic"),
    (dict(instance=np.ones((30, 41), np.int32)), "instance"),
    (dict(pose=np.eye(3)), "4x4"),
    (dict(pose=np.full((4, 4), np.nan)), "4x4")])
def test_a_wrong_frame_is_refused_with_its_name(change, message):
    good = labelled_frame()
    parts = dict(color=good.color, depth=good.depth, is_valid=good.is_valid, intrinsics=good.intrinsics,
                 origin=good.origin)
    with pytest.raises(FrameError, match="test/s/f.*expected") as caught:
        RGBDFrame(**{**parts, **change})
    assert caught.match(message)


def test_depth_is_zero_where_it_is_not_valid():
    is_valid = np.zeros((4, 4), bool)
    frame = RGBDFrame(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), np.nan, np.float32), is_valid,
                      Intrinsics(4.0, 4.0, 1.5, 1.5))
    assert not frame.has_depth and not frame.depth.any()


@pytest.mark.parametrize("move", [lambda f: f.flip(), lambda f: f.crop(3, 7, 12, 20), lambda f: f.resize(60, 80),
                                  lambda f: f.resize(15, 20), lambda f: f.fit(16, 32)])
def test_pictures_move_together(move):
    moved = move(labelled_frame())
    number = moved.instance
    assert np.array_equal(moved.depth, number + 1) and np.array_equal(moved.semantic, number % 250)
    assert moved.is_valid.all() and moved.color.shape[:2] == moved.depth.shape == moved.is_valid.shape


@pytest.mark.parametrize("move", [lambda f: f.crop(3, 7, 12, 20), lambda f: f.flip(), lambda f: f.flip().flip()])
def test_the_camera_moves_with_the_picture(move):
    """The ray of each pixel is the ray that this very pixel (known by its number) had before."""
    torch = pytest.importorskip("torch")
    frame = labelled_frame()
    moved = move(frame)
    mirror = -1 if moved.pose is None and moved.instance[0, 0] > moved.instance[0, 1] else 1

    def rays(f):
        return unproject(torch.ones(1, f.height, f.width), torch.from_numpy(f.intrinsics.as_array())[None])[0].numpy()

    expected = rays(frame).reshape(-1, 3)[moved.instance] * [mirror, 1, 1]
    assert np.abs(rays(moved) - expected).max() < 1e-5


def test_resize_keeps_the_corners_of_the_image_on_the_same_rays():
    """Image borders lie half a pixel outside of the first and last centres, before and after."""
    camera = Intrinsics(40.0, 41.0, 19.0, 14.0)
    small = camera.resized(0.5, 0.25)
    assert (-0.5 - camera.cx) / camera.fx == pytest.approx((-0.5 - small.cx) / small.fx)
    assert (39.5 - camera.cx) / camera.fx == pytest.approx((9.5 - small.cx) / small.fx)
    assert (29.5 - camera.cy) / camera.fy == pytest.approx((14.5 - small.cy) / small.fy)


def test_flip_drops_the_pose_and_twice_is_the_same_picture():
    frame = labelled_frame()
    assert frame.flip().pose is None and frame.crop(0, 0, 5, 5).pose is not None
    assert np.array_equal(frame.flip().flip().color, frame.color)
    assert frame.flip().flip().intrinsics == frame.intrinsics


def test_color_is_averaged_and_depth_is_not():
    color = np.zeros((4, 4, 3), np.uint8)
    color[:, ::2] = 200
    depth = np.where(np.arange(4) % 2, 1.0, 3.0)[None].repeat(4, 0).astype(np.float32)
    small = RGBDFrame(color, depth, depth > 0, Intrinsics(4.0, 4.0, 1.5, 1.5)).resize(2, 2)
    assert (small.color == 100).all()
    assert set(np.unique(small.depth)) <= {1.0, 3.0}


@pytest.mark.parametrize("height, width", [(240, 320), (256, 336), (99, 10), (30, 40), (16, 16)])
def test_fit_gives_the_size_and_covers_it(height, width):
    frame = make_frame(48, 64)
    fitted = frame.fit(height, width)
    assert (fitted.height, fitted.width) == (height, width)
    assert fitted.intrinsics.fx / fitted.intrinsics.fy == pytest.approx(1, rel=0.05)
    assert fitted.has_depth


def test_a_crop_outside_of_the_image_is_refused():
    with pytest.raises(FrameError, match="crop inside 48x64"):
        make_frame(48, 64).crop(40, 0, 10, 10)


@pytest.mark.parametrize("camera, word", [
    (Intrinsics(525.0, 525.0, 319.5, 239.5), "principal point"), (Intrinsics(-30.0, 30.0, 15.0, 10.0), "positive"),
    (Intrinsics(float("nan"), 30.0, 15.0, 10.0), "finite"), (Intrinsics(2.0, 2.0, 15.0, 10.0), "field of view"),
    (Intrinsics(32.0, 8.0, 15.0, 10.0), "factor of two")])
def test_impossible_cameras_are_named(camera, word):
    assert word in " ".join(camera.problems(24, 32))
    assert not Intrinsics(30.0, 30.0, 15.0, 11.0).problems(24, 32)


def test_the_principal_ray_hits_the_principal_point():
    torch = pytest.importorskip("torch")
    columns, rows, _ = project(torch.tensor([[[0.0, 0, 2]]]), torch.tensor([[30.0, 30, 15.25, 11.5]]))
    assert (columns.item(), rows.item()) == (15.25, 11.5)


def test_errors_survive_a_trip_between_processes():
    error = pickle.loads(pickle.dumps(FrameError("a", "b", "Do c.", "file.png")))
    assert str(error) == "file.png: expected a; got b. Do c."
    assert pickle.loads(pickle.dumps(ConfigError(["x", "y"]))).problems == ["x", "y"]


@pytest.mark.parametrize("height, width", [(12, 15), (7, 40), (60, 80), (31, 39)])
def test_color_resize_is_the_mean_over_each_pixel_s_area(height, width):
    """Against the definition, written as one dense matrix per axis."""
    from mask3d_core.frames import _area_weights, resize_color

    color = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    expected = np.einsum("uh,hwc,vw->uvc", _area_weights(30, height).astype(np.float64), color,
                         _area_weights(40, width).astype(np.float64))
    assert np.abs(resize_color(color, height, width) - expected).max() < 0.5 + 1e-3
    assert (resize_color(np.full((30, 40, 3), 77, np.uint8), height, width) == 77).all()

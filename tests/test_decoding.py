"""Decoding: each depth encoding against numbers worked out by hand, and everything that must be refused."""

import numpy as np
import pytest
from PIL import Image

from mask3d_core.errors import ConfigError, FrameError
from mask3d_core.sources.images import DepthEncoding, map_labels, read_color, read_depth, read_labels

RAW = np.array([[0, 500, 1000], [65535, 2500, 40000]], np.uint16)


def save(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.npy", "a.npz"])
def test_linear_depth_in_every_container(tmp_path, name):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, RAW)
    elif name.endswith("npz"):
        np.savez(path, depth=RAW, confidence=RAW)
    else:
        save(path, RAW)
    depth, is_valid = read_depth(path, DepthEncoding(units_per_metre=5000.0))
    assert depth.dtype == np.float32
    assert np.allclose(depth, [[0, 0.1, 0.2], [0, 0.5, 8.0]])
    assert np.array_equal(is_valid, [[False, True, True], [False, True, True]])
    assert read_depth(path, DepthEncoding(missing=(0.0,)))[1].sum() == 5


def test_sun_bits_are_rotated_back(tmp_path):
    millimetres = np.array([[0, 1234, 8000, 7]], np.uint16)
    stored = (millimetres << 3) | (millimetres >> 13)
    depth, is_valid = read_depth(save(tmp_path / "d.png", stored), DepthEncoding("sun"))
    assert np.allclose(depth, millimetres / 1000.0) and is_valid.tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_kinect_disparity_in_either_byte_order(tmp_path, order):
    disparity = np.array([[600, 1000, 2047], [1092, 1093, 800]], np.uint16)
    path = tmp_path / "d.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + disparity.astype(order).tobytes())
    depth, is_valid = read_depth(path, DepthEncoding("kinect"))
    assert is_valid.tolist() == [[True, True, False], [True, False, True]]
    assert np.allclose(depth[is_valid], [351.3 / 492.5, 351.3 / 92.5, 351.3 / 0.5, 351.3 / 292.5])


@pytest.mark.parametrize("name", ["d.npy", "d.npz", "d.tiff"])
def test_float_metres_with_holes(tmp_path, name):
    metres = np.array([[np.nan, np.inf, -1.0], [0.0, 1.5, 2.25]], np.float32)
    path = tmp_path / name
    if name == "d.npy":
        np.save(path, metres)
    elif name == "d.npz":
        np.savez(path, metres)
    else:
        save(path, metres)
    depth, is_valid = read_depth(path, DepthEncoding("metres", missing=(2.25,)))
    assert is_valid.tolist() == [[False] * 3, [False, True, False]] and depth[1, 1] == 1.5
    assert np.isfinite(depth).all()


def test_exr_depth_or_the_name_of_what_is_needed(tmp_path):
    path = tmp_path / "d.exr"
    try:
        import OpenEXR
    except ImportError:
        path.write_bytes(b"")
        with pytest.raises(FrameError, match="pip install OpenEXR"):
            read_depth(path, DepthEncoding("metres"))
        return
    metres = np.array([[1.0, np.inf], [2.5, 0.0]], np.float32)
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": metres}).write(str(path))
    depth, is_valid = read_depth(path, DepthEncoding("metres"))
    assert depth.tolist() == [[1.0, 0.0], [2.5, 0.0]] and is_valid.sum() == 2
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FrameError, match="OpenEXR"):
        read_depth(path, DepthEncoding("metres"))


def test_eight_bit_depth_is_refused_with_the_remedy(tmp_path):
    path = save(tmp_path / "cut.png", np.full((4, 4), 80, np.uint8))
    with pytest.raises(FrameError, match="cut.png.*8-bit.*export it again as 16-bit PNG"):
        read_depth(path)


@pytest.mark.parametrize("values, encoding, message", [
    (np.zeros((2, 2, 3), np.uint8), DepthEncoding(), "one channel"),
    (np.ones((2, 2), np.float32), DepthEncoding("sun"), "16-bit integers"),
    (np.full((2, 2), 30000, np.uint16), DepthEncoding("kinect"), "not raw disparity"),
    (np.ones((2, 2), np.uint16), DepthEncoding("metres"), "linear")])
def test_values_that_an_encoding_cannot_hold(tmp_path, values, encoding, message):
    path = tmp_path / "d.tiff"
    save(path, values)
    with pytest.raises(FrameError, match=message):
        read_depth(path, encoding)


def test_bad_encodings_are_refused():
    with pytest.raises(ConfigError, match="'inches'.*-1"):
        DepthEncoding("inches", -1.0)


def test_arrays_that_are_no_picture(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5)))
    np.save(tmp_path / "b.npy", np.array([["text"]]))
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=RAW, y=RAW)
    np.save(tmp_path / "e.npy", np.zeros((0, 4)))
    for name, message in (("a.npy", "(H, W)"), ("b.npy", "numbers"), ("c.npy", "readable"), ("d.npz", "x, y"),
                          ("e.npy", "numbers"), ("none.npy", "missing")):
        with pytest.raises(FrameError) as caught:
            read_depth(tmp_path / name)
        assert message in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name, options", [("c.jpg", {"quality": 100, "subsampling": 0}), ("c.png", {}), ("c.ppm", {})])
def test_color_in_every_container(tmp_path, name, options):
    color = np.zeros((16, 24, 3), np.uint8)
    color[..., 0], color[8:, :, 1] = 200, 100
    got = read_color(save(tmp_path / name, color, **options))
    assert got.dtype == np.uint8 and got.shape == (16, 24, 3) and np.abs(got.astype(int) - color).max() <= 2


def test_grey_and_palette_become_rgb_and_alpha_is_dropped(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(read_color(save(tmp_path / "g.png", grey)), np.repeat(grey[..., None], 3, 2))
    palette = Image.fromarray(np.repeat(grey[..., None], 3, 2)).convert("P")
    palette.save(tmp_path / "p.png")
    assert read_color(tmp_path / "p.png").shape == (3, 4, 3)
    rgba = np.dstack([grey] * 3 + [np.full_like(grey, 7)])
    assert np.array_equal(read_color(save(tmp_path / "a.png", rgba)), rgba[..., :3])


def test_exif_orientation_is_ignored_unless_asked_for(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "c.jpg", exif=exif)
    assert read_color(tmp_path / "c.jpg").shape == (16, 24, 3)
    Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[:, None], 24, 1)).save(tmp_path / "c.png", exif=exif)
    turned = read_color(tmp_path / "c.png", is_turned=True)  # clockwise: the lowest row comes to the left
    assert turned.shape == (24, 16, 3) and turned[0, :, 0].tolist() == list(range(15, -1, -1))


def test_depth_given_as_color_is_named(tmp_path):
    with pytest.raises(FrameError, match="looks like a depth image"):
        read_color(save(tmp_path / "d.png", RAW))


def test_a_claimed_size_is_not_believed(tmp_path):
    (tmp_path / "huge.pgm").write_bytes(b"P5 60000 60000 255\n" + bytes(100))
    with pytest.raises(FrameError, match="huge.pgm"):
        read_color(tmp_path / "huge.pgm")


@pytest.mark.parametrize("name", ["c.png", "c.jpg", "c.ppm"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_images_name_the_file(tmp_path, name, share):
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    with pytest.raises(FrameError, match=f"{name}.*readable image"):
        read_color(path)


def test_labels_and_their_map(tmp_path):
    labels = read_labels(save(tmp_path / "l.png", np.array([[0, 1, 9, 10, 35, 99]], np.uint8)))
    assert labels.dtype == np.int32
    assert map_labels(labels, [(1, 9, 0), (10, 98, 1)], 255).tolist() == [[255, 0, 0, 1, 1, 255]]
    assert map_labels(labels, [(9, 9, 3), (0, 99, 1)], 255).tolist() == [[1, 1, 3, 1, 1, 1]]
    with pytest.raises(FrameError, match="integer"):
        read_labels(save(tmp_path / "l.tiff", np.zeros((2, 2), np.float32)))


def test_real_files_of_four_encodings(shared_data):
    folder = shared_data / "open3d_rgbd_samples" / "RGBD" / "other_formats"
    for prefix, suffix, encoding, median in (("TUM", "png", DepthEncoding(units_per_metre=5000.0), (1.5, 4)),
                                             ("SUN", "png", DepthEncoding("sun"), (1, 4)),
                                             ("NYU", "pgm", DepthEncoding("kinect"), (1, 5))):
        depth, is_valid = read_depth(folder / f"{prefix}_depth.{suffix}", encoding)
        assert depth.shape == (480, 640) and 0.5 < is_valid.mean() < 1
        assert median[0] < np.median(depth[is_valid]) < median[1], prefix
        assert depth.max() < 15, prefix
    assert read_color(folder / "NYU_color.ppm").shape == (480, 640, 3)

"""Damaged files of every kind: always one clear Mask3DError or a sound frame, never another exception, and never
silence where a checksum stands guard."""

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from list_source import ListSource
from mask3d_core.errors import Mask3DError, StoreError
from mask3d_core.frames import RGBDFrame
from mask3d_core.geometry import read_ply, write_ply
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.cameras import read_frame_camera, read_intrinsics
from mask3d_core.sources.folder import FolderSource
from mask3d_core.sources.folder_config import FolderConfig
from mask3d_core.sources.images import DepthEncoding, read_color, read_depth, read_labels
from mask3d_core.sources.poses import read_pose, read_trajectory
from mask3d_core.sources.tum import TumSequence
from mask3d_core.store import Store

ROUNDS = settings(max_examples=40, deadline=None, derandomize=True,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGE = st.tuples(st.sampled_from(["flip", "cut", "insert", "zero", "repeat"]), st.floats(0, 1, exclude_max=True),
                   st.integers(1, 255), st.integers(1, 16))


def damaged(content: bytes, damage) -> bytes:
    """The content with one thing done to it; never the content itself (unless it is empty)."""
    kind, place, value, length = damage
    at = int(place * len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ value]) + content[at + 1:] if content else content
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + bytes([value] * length) + content[at:]
    if kind == "zero":
        changed = content[:at] + bytes(len(content[at:at + length])) + content[at + length:]
        return changed if changed != content else content[:at] + b"\x01" + content[at + 1:]
    return content + content[:at + 1]


def encoded(values, form, **options) -> bytes:
    buffer = io.BytesIO()
    if form in ("npy", "npz"):
        (np.save if form == "npy" else np.savez)(buffer, values)
    else:
        Image.fromarray(values).save(buffer, form, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(0)
COLOR = NOISE.integers(0, 256, (24, 32, 3), dtype=np.uint8)
DEPTH = NOISE.integers(0, 9000, (24, 32), dtype=np.uint16)
COLORS = {"a.png": encoded(COLOR, "PNG"), "a.jpg": encoded(COLOR, "JPEG"), "a.ppm": encoded(COLOR, "PPM"),
          "a.bmp": encoded(COLOR, "BMP"), "a.tiff": encoded(COLOR, "TIFF")}
DEPTHS = {"d.png": encoded(DEPTH, "PNG"), "d.tiff": encoded(DEPTH, "TIFF"), "d.npy": encoded(DEPTH, "npy"),
          "d.npz": encoded(DEPTH, "npz"), "d.pgm": b"P5\n32 24\n65535\n" + DEPTH.astype(">u2").tobytes(),
          "f.npy": encoded(DEPTH / np.float32(1000), "npy")}


@pytest.mark.parametrize("name", COLORS)
@ROUNDS
@given(damage=DAMAGE)
def test_colour_files(tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(damaged(COLORS[name], damage))
    try:
        color = read_color(path)
    except Mask3DError as error:
        assert str(path) in str(error) and "expected" in str(error)
    else:
        assert color.dtype == np.uint8 and color.ndim == 3 and color.shape[2] == 3


@pytest.mark.parametrize("name", DEPTHS)
@ROUNDS
@given(damage=DAMAGE, kind=st.sampled_from(["linear", "sun", "kinect", "metres"]))
@example(damage=("zero", 0.9660836540569161, 1, 7), kind="linear")  # an .npz whose member lost its name
def test_depth_and_label_files(tmp_path, name, damage, kind):
    path = tmp_path / name
    path.write_bytes(damaged(DEPTHS[name], damage))
    try:
        depth, is_valid = read_depth(path, DepthEncoding(kind))
    except Mask3DError as error:
        assert str(path) in str(error)
    else:
        assert depth.dtype == np.float32 and depth.shape == is_valid.shape and depth.ndim == 2
        assert np.isfinite(depth).all() and (depth[is_valid] > 0).all() and not depth[~is_valid].any()
    try:
        assert read_labels(path).dtype == np.int32
    except Mask3DError as error:
        assert str(path) in str(error)


@settings(ROUNDS, max_examples=300)
@given(damage=DAMAGE)
def test_no_damaged_pixel_of_a_png_passes_in_silence(tmp_path, damage):
    """16-bit depth comes as PNG: damage must be an error, or change nothing. Pillow alone lets some through."""
    path = tmp_path / "d.png"
    path.write_bytes(damaged(DEPTHS["d.png"], damage))
    try:
        depth, _ = read_depth(path)
    except Mask3DError:
        return
    assert np.array_equal(depth, DEPTH.astype(np.float32) / 1000)


TEXTS = {
    "t.txt": (b"# t\n1.0 0 0 0 0 0 0 1\n2.0 1 2 3 0.5 0.5 0.5 0.5\n", read_trajectory),
    "t.log": (b"0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n1 1 2\n0 1 0 5\n-1 0 0 6\n0 0 1 7\n0 0 0 1\n",
              read_trajectory),
    "p.txt": (b"1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n", read_pose),
    "k.txt": (b"525 0 319.5\n0 525 239.5\n0 0 1\n", read_intrinsics),
    "k.json": (b'{"width": 640, "height": 480, "intrinsic_matrix": [525, 0, 0, 0, 525, 0, 319.5, 239.5, 1]}',
               read_intrinsics),
    "c.json": (json.dumps({"fx": 9, "fy": 9, "cx": 4, "cy": 3, **{f"t_{r}{c}": 0.5 for r in range(3)
                                                                  for c in range(4)}}).encode(), read_frame_camera),
    "mask3d_folder.json": (json.dumps({"color": "c/*.png", "depth": "d/*", "intrinsics": [1, 2, 3, 4],
                                       "semantic_map": [[0, 3, 1]], "sequence": "(a)", "notes": ["x"]}).encode(),
                           FolderConfig.load)}


@pytest.mark.parametrize("name", TEXTS)
@ROUNDS
@given(damage=DAMAGE)
def test_text_files(tmp_path, name, damage):
    content, read = TEXTS[name]
    path = tmp_path / name
    path.write_bytes(damaged(content, damage))
    try:
        read(path)
    except Mask3DError as error:
        assert str(path) in str(error)


@ROUNDS
@given(damage=DAMAGE)
def test_point_clouds(tmp_path, damage):
    path = write_ply(tmp_path / "a.ply", NOISE.normal(size=(20, 3)), np.zeros((20, 3), np.uint8), error=np.zeros(20))
    path.write_bytes(damaged(path.read_bytes(), damage))
    try:
        points, _, _ = read_ply(path)
    except Mask3DError as error:
        assert str(path) in str(error)
    else:
        assert points.shape[1] == 3


def check_source(open_source):
    """Opening and reading either works or is one clear error."""
    try:
        source = open_source()
    except Mask3DError:
        return
    for index in range(len(source)):
        try:
            assert isinstance(source.read(index), RGBDFrame)
        except Mask3DError:
            continue


@ROUNDS
@given(damage=DAMAGE, name=st.sampled_from(["associations.txt", "groundtruth.txt", "rgb.txt", "depth.txt"]))
def test_tum_lists(tmp_path, damage, name):
    folder = tmp_path / "s"
    shutil.rmtree(folder, ignore_errors=True)
    for kind, content in (("rgb", COLORS["a.png"]), ("depth", DEPTHS["d.png"])):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "1.0.png").write_bytes(content)
        (folder / f"{kind}.txt").write_text(f"# {kind}\n1.0 {kind}/1.0.png\n")
    (folder / "groundtruth.txt").write_text("1.0 0 0 0 0 0 0 1\n")
    if name == "associations.txt":
        (folder / name).write_text("1.0 rgb/1.0.png 1.0 depth/1.0.png 0 0 0 0 0 0 1\n")
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), damage))
    check_source(lambda: TumSequence(folder))


@ROUNDS
@given(damage=DAMAGE, name=st.sampled_from(["color/0.png", "depth/0.png", "mask3d_folder.json", "poses.txt"]))
def test_folders(tmp_path, damage, name):
    files = {"color/0.png": COLORS["a.png"], "depth/0.png": DEPTHS["d.png"], "poses.txt": b"0 1 2 3 0 0 0 1\n",
             "mask3d_folder.json": json.dumps({"color": "color/*.png", "depth": "depth/*.png", "trajectory": "poses.txt",
                                               "intrinsics": [30, 30, 15.5, 11.5]}).encode()}
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(damaged(content, damage) if file == name else content)
    check_source(lambda: FolderSource(tmp_path))


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "s"
    prepare(ListSource(6, labels=True), path, PrepareConfig(height=16, width=24, chunk_frames=4, workers=1), False)
    return path


STORE_FILES = ["header.json", "checksums.json", "color.u8", "depth.u16", "semantic.u8", "instance.u16",
               "intrinsics.npy", "pose.npy", "sequence_index.npy", "split.npy", "timestamp.npy", "source_index.npy",
               "missing_pixels.npy", "frame_name.npy", "sequence_names.npy"]


@pytest.mark.parametrize("name", STORE_FILES)
@settings(ROUNDS, max_examples=25)
@given(damage=DAMAGE)
def test_no_change_of_a_store_passes_in_silence(store_path, name, damage):
    """Every change is refused on opening or found by the checksums; reading gives a frame or a Mask3DError."""
    content = (store_path / name).read_bytes()
    try:
        (store_path / name).write_bytes(damaged(content, damage))
        try:
            store = Store(store_path)
        except StoreError as error:
            assert "expected" in str(error)
            return
        assert store.verify() or is_same_json(name, content, (store_path / name).read_bytes())
        check_source(lambda: store)
        for split in ("train", "val", "test", "all"):
            assert (store.indices(split) < 6).all()
    finally:
        (store_path / name).write_bytes(content)


def is_same_json(name: str, before: bytes, after: bytes) -> bool:
    """White space in a JSON file is no damage."""
    return name.endswith(".json") and json.loads(before) == json.loads(after)


@settings(ROUNDS, max_examples=12)
@given(damage=DAMAGE, name=st.sampled_from(["plan.json", "journal.jsonl", "columns.part", "depth.u16"]))
def test_an_interrupted_store_with_damaged_files_is_refused_or_becomes_whole(tmp_path, damage, name):
    """Whatever a crash left behind, going on ends in the right store or in a clear refusal."""
    out, config = tmp_path / "s", PrepareConfig(height=16, width=24, chunk_frames=2, workers=1)
    shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(StoreError):
        prepare(ListSource(6, bad=(4, 5)), out, config, False)
    (out / name).write_bytes(damaged((out / name).read_bytes(), damage))
    try:
        store = prepare(ListSource(6), out, config, False)
    except StoreError as error:
        assert name == "plan.json" and "plan" in str(error)
        return
    assert [int(store.read(i).color[0, 0, 0]) for i in range(6)] == list(range(6))
    if name in ("plan.json", "journal.jsonl"):
        assert store.verify() == []

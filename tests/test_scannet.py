"""ScanNet: .sens files, exported scans and the benchmark's frames, written here in the exact formats."""

import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL, Intrinsics, RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source, open_source, scannet_sens
from mask3d_core.sources.nyu_classes import NYU40_NAMES, SCANNET20_IDS
from mask3d_core.sources.opening import kind_of, open_path
from mask3d_core.sources.registration import color_positions, sample_color, sample_nearest, seen_pixels
from mask3d_core.sources.scannet import HOW_TO_GET, ScanNet
from write_scannet import (COLOR_K, COLOR_SIZE, DEPTH_K, DEPTH_SIZE, millimetres, picture, sens_bytes, write_export,
                           write_lists, write_sens)

SMALL = PrepareConfig(height=32, width=48, chunk_frames=2, workers=2)


def label_of(number):
    """nyu40 ids: wall above, then chair, then a class (20) that the benchmark does not score, then unlabelled."""
    ids = np.zeros(COLOR_SIZE, np.uint8)
    ids[:24], ids[24:48], ids[48:72] = 1, 5, 20
    ids[24:48, 64:] = 39
    return ids


def instance_of(number):
    """label * 1000 + number: wall 1001, two chairs, one of class 39, class 20; unlabelled 1, as the conversion leaves it."""
    full = label_of(number).astype(np.uint16) * 1000 + 1
    full[24:48, 20:40] += 1
    return full


# ---- .sens

def test_a_sens_file_frame_by_frame(tmp_path):
    source = ScanNet(write_sens(tmp_path / "scene0000_01.sens", count=8), every=1)
    assert isinstance(source, Source) and len(source) == 8 and source.labels == frozenset() and source.class_names == ()
    for i in (0, 3, 6, 7):
        frame = source.read(i)
        assert frame.depth.shape == DEPTH_SIZE and frame.color.shape == (*DEPTH_SIZE, 3)
        assert np.allclose(frame.depth[1:], (1000 + 10 * i) / 1000) and frame.is_valid[1:].all()
        assert not frame.is_valid[0, :5].any() and frame.is_valid[0, 5:].all()
        assert frame.pose is None if i == 6 else frame.pose[0, 3] == i
        assert str(frame.origin) == f"scannet/scene0000/01/{i:06d}"
        assert frame.origin.timestamp == pytest.approx(1.0005 + 0.033333 * i)
        assert np.allclose(frame.intrinsics.as_array(), DEPTH_K)
    assert (source.sequence(2), source.frame_name(2), source.official_split(2)) == ("scene0000", "01/000002", None)


def test_every_25th_frame_and_scans_in_folders(tmp_path):
    tiny = {"colors": [picture(i, (24, 32)) for i in range(51)], "depths": [millimetres(i, (24, 32)) for i in range(51)],
            "color_k": (29, 29, 16, 12), "depth_k": (29, 29, 16, 12)}
    for scan in ("scene0001_00", "scene0000_00", "scene0000_01"):
        write_sens(tmp_path / f"scans/{scan}/{scan}.sens", **tiny)
    source = ScanNet(tmp_path)
    assert [f"{source.sequence(i)}/{source.frame_name(i)}" for i in range(len(source))] == [
        f"{scene}/{number}" for scene in ("scene0000/00", "scene0000/01", "scene0001/00")
        for number in ("000000", "000025", "000050")]
    assert np.allclose(source.read(4).depth[1:], 1.25) and "9 of 153" in " ".join(source.describe()["notes"])
    assert kind_of(tmp_path) == "scannet" and len(open_path(tmp_path / "scans/scene0000_00/scene0000_00.sens")) == 3
    assert len(open_source("scannet", tmp_path / "scans", every=50)) == 6
    assert len(pickle.loads(pickle.dumps(source)).read(8).color) == 24


def test_the_index_is_made_without_reading_pictures(tmp_path, monkeypatch):
    """Nothing but the 96 bytes that describe each frame, and only when a frame of that scan is first asked for."""
    source = ScanNet(write_sens(tmp_path / "scene0000_00.sens", count=5), every=1)
    read = []
    real = open

    def counting(*arguments, **options):
        file = real(*arguments, **options)

        class Counted:
            def __enter__(self):
                return self

            def __exit__(self, *what):
                file.close()

            def seek(self, *where):
                return file.seek(*where)

            def read(self, count):
                read.append(count)
                return file.read(count)

        return Counted()

    monkeypatch.setattr(scannet_sens, "open", counting, raising=False)
    assert source._scans[0]._offsets is None
    offsets = scannet_sens.index_frames(source._scans[0].header)
    assert read == [96] * 5 and len(offsets) == 5
    source.read(3)
    assert len(source._scans[0]._offsets) == 5


@pytest.mark.parametrize("color_type, depth_type", [(0, 0), (1, 1), (2, 0)])
def test_all_readable_compressions(tmp_path, color_type, depth_type):
    frame = ScanNet(write_sens(tmp_path / "scene0000_00.sens", color_type=color_type, depth_type=depth_type), every=1).read(2)
    assert np.allclose(frame.depth[1:], 1.02)
    rows, columns = color_positions(frame.depth, Intrinsics(*DEPTH_K), Intrinsics(*COLOR_K))
    expected = np.broadcast_to(rows * 200 / COLOR_SIZE[0], DEPTH_SIZE)
    assert np.abs(frame.color[2:-2, :, 0] - expected[2:-2]).max() < (4 if color_type == 2 else 2)


@pytest.mark.parametrize("options, message", [
    ({"version": 3}, "version 4; got version 3"),
    ({"color_type": 7}, "colour stored as raw or png or jpeg; got compression type 7"),
    ({"depth_type": 2}, "depth stored as raw or zlib.*SensReader"), ({"depth_type": -1}, "compression type -1"),
    ({"count": 0}, "frames; got 0. Leave this scan out"), ({"claimed": 1 << 60}, r"1\.\.1000000 frames"),
    ({"units": 0.0}, "units per metre"), ({"color_k": (1170, 1170, 640, 480)}, "colour camera that fits its 96x128"),
    ({"depth_k": (0, 57, 31, 23)}, "depth camera"), ({"sensor": b"x" * 5000}, "sensor's name"),
    ({"depth_extrinsic": np.diag([2.0, 1, 1, 1])}, "rigid motion"), ({"color_extrinsic": np.full((4, 4), np.nan)}, "rigid")])
def test_headers_that_cannot_be_right(tmp_path, options, message):
    path = write_sens(tmp_path / "scene0000_00.sens", **options)
    with pytest.raises(FrameError, match=f"scene0000_00.sens.*{message}"):
        ScanNet(path)


def test_one_bad_scan_is_named_and_the_others_counted(tmp_path):
    for scan, options in (("scene0000_00", {}), ("scene0001_00", {"count": 0}), ("scene0002_00", {"version": 5})):
        write_sens(tmp_path / f"{scan}/{scan}.sens", **options)
    with pytest.raises(Mask3DError, match="scene0001_00.sens.*and 1 more scans cannot be opened"):
        ScanNet(tmp_path)


def test_a_sens_file_that_was_cut_short_keeps_its_whole_frames(tmp_path):
    whole = sens_bytes(count=5)
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(whole)
    offsets = scannet_sens.index_frames(scannet_sens.read_header(path))
    for cut, kept in ((offsets[3] + 200, 3), (offsets[3] + 50, 3), (offsets[4], 4), (offsets[0] + 10, 0)):
        path.write_bytes(whole[:cut])
        source = ScanNet(path, every=1)
        assert len(source) == 5
        for i in range(kept):
            assert np.allclose(source.read(i).depth[1:], 1 + i / 100)
        for i in range(kept, 5):
            with pytest.raises(FrameError, match=f"scene0000_00.sens, frame {i}: expected 5 frames; got a file that ends inside "
                                                 f"frame {kept}. It was cut short"):
                source.read(i)
    path.write_bytes(whole[:100])
    with pytest.raises(FrameError, match="whole header; got one that ends after 100 bytes"):
        ScanNet(path)


@pytest.mark.parametrize("damage, message", [
    (lambda at, content: content[:at + 150] + bytes(40) + content[at + 190:], "jpeg|colour"),
    (lambda at, content: content[:at + 80] + struct.pack("<Q", 4) + content[at + 88:], "jpeg"),
    (lambda at, content: content[:at] + struct.pack("<16f", *range(16)) + content[at + 64:], "camera-to-world")])
def test_a_damaged_frame_is_named(tmp_path, damage, message):
    content = sens_bytes(count=2)
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(content)
    at = int(scannet_sens.index_frames(scannet_sens.read_header(path))[1])
    path.write_bytes(damage(at, content))
    source = ScanNet(path, every=1)
    assert source.read(0).has_depth
    with pytest.raises(FrameError, match=f"frame 1: expected.*({message})"):
        source.read(1)


def test_depth_of_another_size_or_damaged_is_refused(tmp_path):
    depths = [millimetres(0), millimetres(1)[:-1], millimetres(2, (96, 128))]
    source = ScanNet(write_sens(tmp_path / "scene0000_00.sens", colors=[picture(i) for i in range(3)], depths=depths), every=1)
    assert source.read(0).has_depth
    for i in (1, 2):
        with pytest.raises(FrameError, match=f"frame {i}.*6144 bytes"):
            source.read(i)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["cut", "flip", "zero"]), place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255),
       in_header=st.booleans())
def test_damage_is_a_clear_error_or_a_sound_frame(tmp_path, kind, place, value, in_header):
    whole = sens_bytes(count=3)
    at = int(place * (400 if in_header else len(whole)))
    content = {"cut": whole[:at], "flip": whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1:],
               "zero": whole[:at] + bytes(len(whole[at:at + 8])) + whole[at + 8:]}[kind]
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(content)
    try:
        source = ScanNet(path, every=1)
    except Mask3DError as error:
        assert str(path) in str(error)
        return
    for i in range(min(len(source), 4)):
        try:
            assert isinstance(source.read(i), RGBDFrame)
        except FrameError as error:
            assert "scene0000" in str(error)


# ---- two cameras

def colour_of(x, y):
    """A smooth paint on the plane, by where a point lies in the colour camera's frame."""
    return np.stack([110 + 40 * x, 120 + 40 * y, 100 + 20 * x - 20 * y], -1)


def see_plane(camera, size, motion):
    """Depth and points (in the colour camera's frame) of the plane z = 2 + 0.3 x - 0.2 y of the colour camera's frame, seen by a
    camera from which ``motion`` leads to that frame."""
    columns, rows = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    rays = np.stack([(columns - camera[2]) / camera[0], (rows - camera[3]) / camera[1], np.ones(size)], -1) @ motion[:3, :3].T
    normal = np.array([-0.3, 0.2, 1.0])
    depth = (2 - normal @ motion[:3, 3]) / (rays @ normal)
    return depth, rays * depth[..., None] + motion[:3, 3]


def turned(degrees, shift):
    angle = np.radians(degrees)
    motion = np.eye(4)
    motion[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    motion[:3, 3] = shift
    return motion


@pytest.mark.parametrize("depth_extrinsic, color_extrinsic", [
    (None, None), (turned(2, (0.05, -0.02, 0.01)), None), (turned(5, (0.1, 0, 0)), turned(3, (0.04, 0.02, 0)))])
def test_a_plane_seen_through_both_cameras_keeps_its_paint(tmp_path, depth_extrinsic, color_extrinsic):
    """The colour of each depth pixel is that of the point which it measures, wherever the two cameras stand."""
    e_depth, e_color = (np.eye(4) if e is None else e for e in (depth_extrinsic, color_extrinsic))
    motion = np.linalg.inv(e_color) @ e_depth
    _, points = see_plane(COLOR_K, COLOR_SIZE, np.eye(4))
    color = np.rint(colour_of(points[..., 0], points[..., 1])).astype(np.uint8)
    depth, points = see_plane(DEPTH_K, DEPTH_SIZE, motion)
    source = ScanNet(write_sens(tmp_path / "scene0000_00.sens", colors=[color], depths=[np.rint(1000 * depth).astype(np.uint16)],
                                color_type=0, depth_extrinsic=depth_extrinsic, color_extrinsic=color_extrinsic), every=1)
    frame = source.read(0)
    columns = points[..., 0] / points[..., 2] * COLOR_K[0] + COLOR_K[2]
    rows = points[..., 1] / points[..., 2] * COLOR_K[1] + COLOR_K[3]
    is_inside = (columns > 1) & (columns < COLOR_SIZE[1] - 2) & (rows > 1) & (rows < COLOR_SIZE[0] - 2)
    is_outside = (columns < -2) | (columns > COLOR_SIZE[1] + 1)
    assert is_inside.mean() > 0.8 and frame.is_valid[is_inside].all()
    error = np.abs(frame.color - colour_of(points[..., 0], points[..., 1]))[is_inside]
    assert error.max() < 1.6
    shifted = np.abs(np.roll(frame.color, 2, 1) - colour_of(points[..., 0], points[..., 1]))[is_inside]
    assert shifted.mean() > 3 * error.mean()  # so two pixels beside it would have been noticed
    assert not frame.is_valid[is_outside].any() and not frame.color[is_outside].any()
    if depth_extrinsic is not None:
        assert is_outside.any()


def test_holes_take_the_colour_at_the_median_distance():
    depth = np.full((10, 12), 2.0, np.float32)
    camera, motion = Intrinsics(20.0, 20.0, 5.5, 4.5), turned(0, (0.3, 0, 0))
    with_hole = depth.copy()
    with_hole[3, 4] = 0
    for one, two in zip(color_positions(depth, camera, camera, motion), color_positions(with_hole, camera, camera, motion)):
        assert np.allclose(one, two)
    rows, columns = color_positions(np.zeros((10, 12), np.float32), camera, camera, motion)
    assert np.allclose(np.broadcast_to(columns, (10, 12))[3], np.arange(12))  # nothing measured: as if at infinity
    behind = color_positions(depth, camera, camera, turned(0, (0, 0, -5)))
    assert np.isnan(behind[0]).all() and not seen_pixels(*behind, (10, 12), 1.0).any()
    assert sample_nearest(np.ones((10, 12), np.uint8), *behind).shape == (10, 12)


@pytest.mark.parametrize("step", [0.5, 1.0, 2.02, 3.3])
def test_both_ways_of_sampling_agree_and_a_ramp_stays_a_ramp(step):
    size = (int(40 * step) + 1, int(50 * step) + 1)
    rows, columns = np.mgrid[:size[0], :size[1]]
    ramp = np.stack([rows * 250 // size[0], columns * 250 // size[1], np.full(size, 9)], -1).astype(np.uint8)
    place = (np.arange(40)[:, None] * step + 0.3, np.arange(50)[None, :] * step + 0.2)
    quick = sample_color(ramp, *place, step)
    full = sample_color(ramp, *np.broadcast_arrays(*place), step)
    assert np.abs(quick.astype(int) - full).max() <= 1 and (quick[..., 2] == 9).all()
    assert np.abs(quick[1:-1, 1:-1, 0] - place[0][1:-1] * 250 / size[0]).max() < 250 / size[0] + 1


def test_pixels_that_the_colour_camera_does_not_see_become_holes(tmp_path):
    narrow = (COLOR_K[0] * 1.5, COLOR_K[1] * 1.5, *COLOR_K[2:])
    folder = write_export(tmp_path / "scene0000_00", color_k=narrow, labels=label_of, instances=instance_of)
    frame = ScanNet(folder).read(0)
    seen = ~(frame.color == 0).all(-1)
    assert 0.3 < seen.mean() < 0.6 and not frame.is_valid[~seen].any() and frame.is_valid[seen].all()
    assert (frame.semantic[~seen] == IGNORE_LABEL).all() and not frame.instance[~seen].any()


# ---- exported scans and the benchmark's frames

def test_the_benchmarks_frames_with_labels_and_instances(tmp_path):
    for scan in ("scene0000_00", "scene0000_01", "scene0010_00"):
        write_export(tmp_path / "scannet_frames_25k" / scan, labels=label_of, instances=instance_of)
    source = ScanNet(tmp_path / "scannet_frames_25k")
    assert len(source) == 9 and source.labels == {"semantic", "instance"}
    assert len(source.class_names) == 20 and source.class_names[0] == "wall" and source.class_names[-1] == "otherfurniture"
    assert list(source.class_names) == [NYU40_NAMES[k - 1] for k in SCANNET20_IDS]
    frame = source.read(1)
    assert frame.origin.name == "00/000100" and frame.pose[0, 3] == 100 and np.isnan(frame.origin.timestamp)
    quarters = [frame.semantic[row, column] for row, column in ((4, 8), (18, 8), (18, 50), (30, 8), (44, 8))]
    assert quarters == [0, 4, 19, IGNORE_LABEL, IGNORE_LABEL]  # wall, chair, otherfurniture, floor mat, unlabelled
    objects = [frame.instance[row, column] for row, column in ((4, 8), (18, 4), (18, 15), (18, 50), (30, 8), (44, 8))]
    assert objects == [0, 5001, 5002, 39001, 0, 0]  # no wall, nothing that is ignored
    every_class = ScanNet(tmp_path, classes="nyu40")
    assert len(every_class) == 9 and len(every_class.class_names) == 40
    assert every_class.read(1).semantic[30, 8] == 19 and every_class.read(1).instance[30, 8] == 20001
    assert {source.sequence(i) for i in range(9)} == {"scene0000", "scene0010"}


def test_plain_8_bit_instances_lean_on_the_labels(tmp_path):
    folder = write_export(tmp_path / "scene0000_00", labels=label_of,
                          instances=lambda number: (label_of(number) > 0).astype(np.uint8) * 7)
    frame = ScanNet(folder).read(0)
    assert frame.instance[18, 8] == 7 and frame.instance[4, 8] == 0 and frame.instance[30, 8] == 0


def test_an_export_of_the_senses_reader(tmp_path):
    folder = write_export(tmp_path / "scans/scene0003_00/exported", numbers=range(0, 60, 5), benchmark=False)
    assert len(ScanNet(folder)) == 3 and kind_of(folder) == "scannet" and ScanNet(folder).labels == frozenset()
    source = ScanNet(folder, every=5)
    assert len(source) == 12 and source.frame_name(2) == "00/000010" and source.sequence(0) == "scene0003"
    before = source.read(0).color
    (folder / "intrinsic/extrinsic_depth.txt").write_text("1 0 0 0.2\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    assert not np.array_equal(ScanNet(folder).read(0).color, before)
    (folder / "intrinsic/extrinsic_depth.txt").write_text("-inf " * 16)
    with pytest.raises(FrameError, match="extrinsic_depth.txt.*finite"):
        ScanNet(folder).read(0)


def test_exported_colour_that_was_made_smaller(tmp_path):
    large = tuple(4 * v for v in COLOR_K)
    folder = write_export(tmp_path / "scene0000_00", color_k=large)
    with pytest.raises(FrameError, match="colour: .*color_intrinsics_size"):
        ScanNet(folder).read(0)
    smaller = ScanNet(folder, color_intrinsics_size=[4 * side for side in COLOR_SIZE]).read(0)
    assert smaller.is_valid[1:].all()


def test_labels_of_another_size_than_the_colour(tmp_path):
    folder = write_export(tmp_path / "scene0000_00", labels=label_of)
    whole = ScanNet(folder).read(0).semantic
    for number in (0, 100, 200):
        Image.fromarray(label_of(number)[::2, ::2]).save(folder / f"label/{number:06d}.png")
    assert (ScanNet(folder).read(0).semantic == whole).mean() > 0.95


def spoil_label(folder):
    Image.fromarray(np.full(COLOR_SIZE, 41, np.uint8)).save(folder / "label/000000.png")


def spoil_label_raw(folder):
    Image.fromarray(np.full(COLOR_SIZE, 5, np.uint16)).save(folder / "label/000000.png")


def spoil_instance(folder):
    Image.fromarray(np.full(COLOR_SIZE, 60000, np.uint16)).save(folder / "instance/000000.png")


@pytest.mark.parametrize("spoil, message", [
    (spoil_label, "label/000000.png.*nyu40 ids.*ids up to 41"), (spoil_label_raw, "label/000000.png.*16 bits.*convert_scannet"),
    (spoil_instance, "instance/000000.png.*60000"), (lambda f: (f / "color/000000.jpg").write_bytes(b"no"), "color/000000.jpg"),
    (lambda f: (f / "pose/000000.txt").write_text("1 2"), "pose/000000.txt"),
    (lambda f: (f / "intrinsics_depth.txt").write_text("x"), "intrinsics_depth.txt"),
    (lambda f: Image.fromarray(np.zeros(DEPTH_SIZE, np.uint8)).save(f / "depth/000000.png"), "depth/000000.png.*8-bit")])
def test_bad_files_of_a_frame_are_named(tmp_path, spoil, message):
    folder = write_export(tmp_path / "scene0000_00", labels=label_of, instances=instance_of)
    spoil(folder)
    with pytest.raises(FrameError, match=message):
        ScanNet(folder).read(0)


@pytest.mark.parametrize("spoil, message", [
    (lambda f: os.remove(f / "depth/000100.png"), "100 .no depth"),
    (lambda f: os.remove(f / "color/000200.jpg"), "200 .no colour"),
    (lambda f: os.remove(f / "intrinsics_depth.txt"), "depth camera's intrinsics"),
    (lambda f: (f / "color/000100.jpg").rename(f / "color/left.jpg"), "frame's number"),
    (lambda f: [os.remove(file) for kind in ("color", "depth") for file in (f / kind).iterdir()], "no pictures")])
def test_scans_that_lack_something_are_named_when_opened(tmp_path, spoil, message):
    folder = write_export(tmp_path / "scene0000_00")
    spoil(folder)
    with pytest.raises(Mask3DError, match=f"scene0000_00.*{message}"):
        ScanNet(tmp_path)


def test_nothing_there_says_how_to_get_it(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Mask3DError) as caught:
            ScanNet(path)
        assert HOW_TO_GET in str(caught.value) and "scannet@googlegroups.com" in HOW_TO_GET and "\n" not in str(caught.value)


def test_impossible_options_are_told_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        ScanNet(tmp_path, every=0, classes="13", split="all", color_intrinsics_size=[0, 1])
    assert len(caught.value.problems) == 4


# ---- official splits, end to end

def three_scans(folder):
    for scan in ("scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00"):
        write_export(folder / "scannet_frames_25k" / scan, labels=label_of, instances=instance_of)
    return folder / "scannet_frames_25k"


def test_official_lists_choose_frames_and_reach_the_store(tmp_path):
    root = three_scans(tmp_path)
    write_lists(tmp_path, train=["scene0000_00", "scene0000_01", "scene0500_00"], val=["scene0001_00"], test=["scene0002_00"])
    source = ScanNet(root)
    assert [source.official_split(i) for i in range(12)] == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    assert "scannetv2_train.txt: 2 of its 3 scans are here" in source.describe()["notes"]
    only = ScanNet(root, split="val")
    assert len(only) == 3 and only.sequence(0) == "scene0001" and only.describe()["split"] == "val"
    store = prepare(source, tmp_path / "store", SMALL, progress=False)
    assert store.header.split_kind == "official" and store.header.split_counts == {"train": 6, "val": 3, "test": 3, "unused": 0}
    assert store.class_names == source.class_names and set(store.labels) == {"semantic", "instance"} and store.verify() == []
    assert set(np.unique(store.semantic)) == {0, 4, 19, IGNORE_LABEL}
    assert set(np.unique(store.instance)) == {0, 5001, 5002, 39001}
    assert store.sequence(3) == "scene0000" and store.frame_name(3) == "01/000000"
    frame = store.read(1)
    assert frame.intrinsics.problems(32, 48) == [] and frame.pose[0, 3] == 100


def test_a_missing_list_is_one_line_that_says_which(tmp_path):
    root = three_scans(tmp_path)
    write_lists(root, train=["scene0000_00"])
    with pytest.raises(Mask3DError, match="scannetv2_val.txt.*Tasks/Benchmark of github.com/ScanNet/ScanNet") as caught:
        ScanNet(root, split="val")
    assert "\n" not in str(caught.value)
    with pytest.raises(Mask3DError, match="split 'test'.*none in 0 of 4 scans"):
        write_lists(root, test=["scene0700_00"])
        ScanNet(root, split="test")
    with pytest.raises(Mask3DError, match="scannetv2_val.txt.*one scan a line"):
        write_lists(root, val=["<html>"])
        ScanNet(root)
    with pytest.raises(Mask3DError, match="scene0000_00 in train and val"):
        write_lists(root, val=["scene0000_00"])
        ScanNet(root)


def test_lists_in_a_folder_of_their_own(tmp_path):
    root = three_scans(tmp_path / "data")
    (tmp_path / "lists").mkdir()
    write_lists(tmp_path / "lists", val=["scene0002_00"])
    assert len(ScanNet(root, split="val", lists=tmp_path / "lists")) == 3
    with pytest.raises(Mask3DError, match="scannetv2_train.txt or .*none in .*nowhere"):
        ScanNet(root, lists=tmp_path / "nowhere")


def test_a_store_names_the_frames_that_a_cut_file_lacks(tmp_path):
    content = sens_bytes(count=6)
    path = tmp_path / "scene0000_00.sens"
    path.write_bytes(content)
    end = int(scannet_sens.index_frames(scannet_sens.read_header(path))[4])
    path.write_bytes(content[:end + 9])
    config = PrepareConfig(height=32, width=48, max_bad_frames=2.0)
    store = prepare(ScanNet(path, every=1), tmp_path / "store", config, progress=False)
    assert len(store) == 4
    assert [bad["frame"] for bad in store.header.bad_frames] == ["scene0000/00/000004", "scene0000/00/000005"]
    assert all("ends inside frame 4" in bad["reason"] for bad in store.header.bad_frames)


def test_preparing_goes_on_after_a_cut_and_says_what_it_left_out(tmp_path):
    root = three_scans(tmp_path)
    whole = prepare(ScanNet(root), tmp_path / "whole", SMALL, progress=False)
    content = (root / "scene0002_00/color/000200.jpg").read_bytes()
    (root / "scene0002_00/color/000200.jpg").write_bytes(content[:80])
    with pytest.raises(Mask3DError, match="000200.jpg"):
        prepare(ScanNet(root), tmp_path / "store", PrepareConfig(height=32, width=48, chunk_frames=2, max_bad_frames=0.0),
                progress=False)
    (root / "scene0002_00/color/000200.jpg").write_bytes(content)
    again = ScanNet(root)
    seen, real = [], again.read
    again.read = lambda index: seen.append(index) or real(index)
    assert prepare(again, tmp_path / "store", SMALL, progress=False).fingerprint == whole.fingerprint
    assert min(seen[1:]) == 10  # the five chunks before were kept

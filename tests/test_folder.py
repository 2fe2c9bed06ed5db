"""Folders: patterns, pairing, labels, poses, cameras, layouts; and all the real ones."""

import json

import numpy as np
import pytest
from PIL import Image

from mask3d_core.cli import main
from mask3d_core.doctor import examine
from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.sources import Source
from mask3d_core.sources.folder import FolderSource
from mask3d_core.sources.folder_config import FolderConfig
from mask3d_core.sources.opening import kind_of, open_path
from mask3d_core.sources.patterns import find_files

CAMERA = {"intrinsics": (30.0, 30.0, 15.5, 11.5)}
PLAIN = FolderConfig(color="color/*.png", depth="depth/*.png", **CAMERA)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_frames(folder, names=("0", "1", "2"), color="color/{}.png", depth="depth/{}.png", size=(24, 32),
                 depth_size=(24, 32), units=1000):
    """Grey value and metres are the frame's number (depth plus one)."""
    for i, name in enumerate(names):
        save(folder / color.format(name), np.full((*size, 3), i, np.uint8))
        save(folder / depth.format(name), np.full(depth_size, units * (i + 1), np.uint16))
    return folder


def check_numbers(source):
    for i in range(len(source)):
        frame = source.read(i)
        assert (frame.color == i).all() and np.allclose(frame.depth, i + 1) and frame.is_valid.all()


def test_patterns_pair_by_what_the_wildcards_stand_for(tmp_path):
    for name in ("a/x/7.png", "a/x/10.jpg", "b/x/7.png", "b/y/7.png", "a/x/notes.txt", "a/z.png"):
        save(tmp_path / name, np.zeros((2, 2), np.uint8)) if name[-3:] != "txt" else (tmp_path / name).touch()
    assert find_files(tmp_path, "*/x/*.{png,jpg}") == [(("a", 7), "a/x/7.png"), (("a", 10), "a/x/10.jpg"),
                                                       (("b", 7), "b/x/7.png")]
    assert [p for _, p in find_files(tmp_path, "**/*.png")] == ["a/z.png", "a/x/7.png", "b/x/7.png", "b/y/7.png"]
    assert find_files(tmp_path, "a/z.png") == [((), "a/z.png")] and find_files(tmp_path, "none/*") == []
    with pytest.raises(ConfigError, match="brace"):
        find_files(tmp_path, "{a")
    with pytest.raises(ConfigError, match="inside"):
        find_files(tmp_path, "../*")
    save(tmp_path / "a/x/7.jpg", np.zeros((2, 2), np.uint8))
    with pytest.raises(ConfigError, match="both a/x/7.jpg and a/x/7.png"):
        find_files(tmp_path, "a/x/*.{png,jpg}")


def test_names_pair_as_numbers_and_texts(tmp_path):
    write_frames(tmp_path, ("a2", "a10"))
    source = FolderSource(tmp_path, PLAIN)
    assert isinstance(source, Source) and [source.frame_name(i) for i in range(2)] == ["color/a10", "color/a2"]
    for i in (0, 1):  # 007 and 7 are one frame
        save(tmp_path / f"n/c/00{i}.png", np.full((24, 32, 3), i, np.uint8))
        save(tmp_path / f"n/d/{i}.png", np.full((24, 32), 1000 * (i + 1), np.uint16))
    check_numbers(FolderSource(tmp_path / "n", FolderConfig(color="c/*.png", depth="d/*.png", **CAMERA)))


def test_a_missing_partner_is_named_and_may_be_left_out(tmp_path):
    write_frames(tmp_path)
    (tmp_path / "depth/1.png").unlink()
    save(tmp_path / "depth/9.png", np.ones((24, 32), np.uint16))
    with pytest.raises(Mask3DError, match=r"2 without a partner: color/1.png \(no depth\), depth/9.png \(no colour\)"):
        FolderSource(tmp_path, PLAIN)
    source = FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", allow_unpaired=True,
                                                 **CAMERA))
    assert [source.frame_name(i) for i in range(len(source))] == ["color/0", "color/2"]


def test_pairing_in_order(tmp_path):
    write_frames(tmp_path, depth="depth/d{}0.png")
    config = FolderConfig(color="color/*.png", depth="depth/*.png", pairing="order", **CAMERA)
    check_numbers(FolderSource(tmp_path, config))
    (tmp_path / "depth/d00.png").unlink()
    with pytest.raises(Mask3DError, match="3 colour and 2 depth files"):
        FolderSource(tmp_path, config)


def test_depth_of_another_size_comes_to_the_named_grid(tmp_path):
    write_frames(tmp_path, size=(48, 64))
    source = FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png",
                                                 intrinsics=(60.0, 60.0, 31.5, 23.5)))
    check_numbers(source)
    assert source.read(0).depth.shape == (48, 64) and source.read(0).intrinsics.fx == 60
    assert "enlarged" in source.describe()["grid"]
    source = FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", grid="depth",
                                                 intrinsics=(60.0, 60.0, 31.5, 23.5)))
    check_numbers(source)
    frame = source.read(0)
    assert frame.color.shape == (24, 32, 3) and frame.intrinsics.fx == 30 and frame.intrinsics.cx == 15.5
    assert "reduced" in source.describe()["grid"]


def test_another_aspect_is_refused(tmp_path):
    write_frames(tmp_path, depth_size=(24, 24))
    with pytest.raises(FrameError, match="depth/0.png.*aspect.*24x24"):
        FolderSource(tmp_path, PLAIN).read(0)


def test_intrinsics_of_another_size_are_scaled_and_absurd_ones_refused(tmp_path):
    write_frames(tmp_path)
    config = FolderConfig(color="color/*.png", depth="depth/*.png", intrinsics=(60.0, 60.0, 31.5, 23.5),
                          intrinsics_size=(48, 64))
    assert FolderSource(tmp_path, config).read(0).intrinsics.cx == 15.5
    with pytest.raises(ConfigError, match="principal point.*another resolution"):
        FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png",
                                            intrinsics=(525.0, 525.0, 319.5, 239.5)))
    with pytest.raises(ConfigError, match="depth needs a camera"):
        FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png"))
    assumed = FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", field_of_view=90.0))
    assert assumed.read(0).intrinsics.fx == pytest.approx(16) and assumed.read(0).intrinsics.cx == 15.5


@pytest.mark.parametrize("name, text", [
    ("k.txt", "60 0 31.5 0\n0 61 23.5 0\n0 0 1 0\n0 0 0 1"), ("k.csv", "60,0,31.5\n0,61,23.5\n0,0,1"),
    ("k.txt", "60 61 31.5 23.5"),
    ("k.json", '{"width": 64, "height": 48, "intrinsic_matrix": [60, 0, 0, 0, 61, 0, 31.5, 23.5, 1]}'),
    ("k.json", '{"fx": 60, "fy": 61, "cx": 31.5, "cy": 23.5}')])
def test_camera_files(tmp_path, name, text):
    write_frames(tmp_path, size=(48, 64), depth_size=(48, 64))
    (tmp_path / name).write_text(text)
    source = FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", intrinsics_file=name))
    assert source.read(0).intrinsics.as_array().tolist() == [60, 61, 31.5, 23.5]
    for bad in ("1 2 3", "nan 1 2 3", "{", '{"fx": "x"}', "[]"):
        (tmp_path / name).write_text(bad)
        with pytest.raises(FrameError, match=name):
            FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", intrinsics_file=name))


def pose_text(x):
    return f"1 0 0 {x}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"


def test_poses_per_frame_by_number_and_in_order(tmp_path):
    write_frames(tmp_path, ("3", "6", "9"))
    for name, x in (("3", 3), ("9", 9)):
        (tmp_path / f"color/{name}.txt").write_text(pose_text(x))
    (tmp_path / "all.log").write_text("".join(f"{i} {i} {i + 1}\n" + pose_text(i) for i in range(20)))
    (tmp_path / "three.txt").write_text("".join(f"{t} {t} 0 0 0 0 0 1\n" for t in (100.5, 101.5, 102.5)))
    base = dict(color="color/*.png", depth="depth/*.png", **CAMERA)
    source = FolderSource(tmp_path, FolderConfig(pose="color/*.txt", **base))
    assert source.read(1).pose is None and source.read(2).pose[0, 3] == 9
    source = FolderSource(tmp_path, FolderConfig(trajectory="all.log", **base))
    assert [source.read(i).pose[0, 3] for i in range(3)] == [3, 6, 9] and "number" in source.describe()["poses"]
    source = FolderSource(tmp_path, FolderConfig(trajectory="three.txt", **base))
    assert source.read(0).pose[0, 3] == 100.5 and "order" in source.describe()["poses"]
    (tmp_path / "three.txt").write_text("100.5 0 0 0 0 0 0 1\n")
    with pytest.raises(Mask3DError, match="three.txt.*1 poses for 3 frames"):
        FolderSource(tmp_path, FolderConfig(trajectory="three.txt", **base))


def test_other_axes_are_turned_and_stay_rotations(tmp_path):
    write_frames(tmp_path, ("0",))
    (tmp_path / "p.txt").write_text("0 1 2 3 0 0 0 1\n")
    base = dict(color="color/*.png", depth="depth/*.png", trajectory="p.txt")
    opengl = FolderSource(tmp_path, FolderConfig(pose_axes="opengl", **base, **CAMERA)).read(0).pose
    assert np.allclose(opengl @ [0, 0, 1, 1], [1, 2, 2, 1])  # our forward is OpenGL's -z
    upward = FolderSource(tmp_path, FolderConfig(intrinsics=(30.0, -30.0, 15.5, 11.5), **base)).read(0)
    assert upward.intrinsics.fy == 30 and upward.pose[:3, 3].tolist() == [1, -2, 3]
    assert np.linalg.det(upward.pose[:3, :3]) == pytest.approx(1)


def test_labels_become_classes_and_instances(tmp_path):
    write_frames(tmp_path, ("0", "1"))
    labels = np.zeros((24, 32), np.uint8)
    labels[:, 8:], labels[:, 16:], labels[:12, 24:] = 3, 25, 31
    save(tmp_path / "label/1.png", labels)
    source = FolderSource(tmp_path, FolderConfig(
        color="color/*.png", depth="depth/*.png", label="label/*.png", semantic_map=((1, 9, 0), (10, 99, 1)),
        instance_divisor=10, class_names=("table", "object"), **CAMERA))
    assert source.read(0).semantic is None and source.class_names == ("table", "object")
    frame = source.read(1)
    assert frame.semantic[0, ::8].tolist() == [IGNORE_LABEL, 0, 1, 1] and frame.semantic.dtype == np.uint8
    assert frame.instance[0, ::8].tolist() == [0, 0, 2, 3] and frame.instance.dtype == np.int32
    with pytest.raises(Mask3DError, match="none belongs"):
        FolderSource(tmp_path, FolderConfig(color="color/*.png", depth="depth/*.png", label="label/1*.png",
                                            instance_divisor=1, **CAMERA))


def test_a_class_map_that_does_not_fit_the_names_is_refused():
    ask = {"label": "label/*.png", "semantic_map": ((0, 2, 0), (3, 3, 2), (9, 9, IGNORE_LABEL)), **CAMERA}
    problems = FolderConfig(class_names=("wall", "floor"), **ask).problems()
    assert len(problems) == 1 and "[3, 3, 2] makes class 2, and class_names has 2 (0..1" in problems[0]
    assert not FolderConfig(class_names=("wall", "floor", "box"), **ask).problems() and not FolderConfig(**ask).problems()


def labelled_beyond(folder):
    """Three frames of columns 0..8, the class map for 0..2."""
    write_frames(folder, size=(24, 36), depth_size=(24, 36))
    for name in "012":
        save(folder / f"label/{name}.png", np.repeat(np.arange(9, dtype=np.uint8), 4)[None].repeat(24, 0))
    FolderConfig(color="color/*.png", depth="depth/*.png", label="label/*.png", class_names=("a", "b", "c"),
                 semantic_map=((0, 0, 0), (1, 1, 1), (2, 2, 2)), **CAMERA).save(folder / "mask3d_folder.json")
    return folder


SAID = "labels 3, 4, 5, 6, 7 and 1 more are in no class: treated as ignore, 66.7 % of pixels (3 label pictures)"


def test_label_ids_without_a_class_are_counted_once_and_named(tmp_path, capsys):
    source = FolderSource(labelled_beyond(tmp_path / "set"))
    for index in (0, 1, 2, 0):  # a frame that is read again counts once
        source.read(index)
    counts, pixels, pictures = source.unmapped_labels()
    assert counts == dict.fromkeys(range(3, 9), 3 * 24 * 4) and (pixels, pictures) == (3 * 24 * 36, 3)
    report = examine(str(tmp_path / "set"))
    assert [(f.severity, f.text) for f in report.of("class map")] == [("warn", SAID)]
    assert main(["prepare", "folder", str(tmp_path / "set"), "--out", str(tmp_path / "store"), "--height", "24", "--width", "32"]) == 0
    assert capsys.readouterr().out.count(SAID) == 1


def test_sequences_from_folders_expressions_and_ranges(tmp_path):
    for room in ("room_a", "room_b"):
        write_frames(tmp_path / room)
    source = FolderSource(tmp_path, FolderConfig(color="*/color/*.png", depth="*/depth/*.png", **CAMERA))
    assert [source.sequence(i) for i in range(6)] == ["room_a"] * 3 + ["room_b"] * 3
    source = FolderSource(tmp_path, FolderConfig(color="*/color/*.png", depth="*/depth/*.png", sequence=r"(\d)\.png",
                                                 **CAMERA))
    assert source.sequence(1) == "1"
    with pytest.raises(ConfigError, match="does not fit room_a/color/0.png"):
        FolderSource(tmp_path, FolderConfig(color="*/color/*.png", depth="*/depth/*.png", sequence="(x)", **CAMERA))
    source = FolderSource(tmp_path / "room_a", FolderConfig(
        color="color/*.png", depth="depth/*.png", sequence_ranges=(("first", 0, 1), ("rest", 2, 99)), **CAMERA))
    assert [source.sequence(i) for i in range(3)] == ["first", "first", "rest"] and len(source) == 3
    assert FolderSource(tmp_path / "room_a", PLAIN).sequence(0) == "room_a"


def test_the_config_file_is_read_and_written(tmp_path):
    write_frames(tmp_path, color="c/{}.png", units=5000)
    config = FolderConfig(color="c/*.png", depth="depth/*.png", depth_units_per_metre=5000.0,
                          semantic_map=((0, 3, 1),), sequence_ranges=(("a", 0, 1),), **CAMERA)
    config.save(tmp_path / "mask3d_folder.json")
    assert FolderConfig.load(tmp_path) == config == FolderConfig.detect(tmp_path)
    check_numbers(FolderSource(tmp_path))
    (tmp_path / "other.json").write_text(json.dumps({**config.changed(), "depth_units_per_metre": 2500}))
    assert FolderSource(tmp_path, tmp_path / "other.json").read(0).depth[0, 0] == 2


def test_a_bad_config_lists_all_problems(tmp_path):
    path = tmp_path / "mask3d_folder.json"
    path.write_text('{"colour": 1, "grid": 7, "depth_missing": [0, "x"], "intrinsics": [1, 2]}')
    with pytest.raises(ConfigError) as caught:
        FolderConfig.load(path)
    assert len(caught.value.problems) == 4 and str(path) in str(caught.value)
    for text in ("", "[]", "{", "null"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="JSON"):
            FolderConfig.load(path)
    bad = FolderConfig(pairing="x", grid="y", pose_axes="z", depth_kind="w", depth_units_per_metre=0.0, depth="d/*",
                       field_of_view=500.0, semantic_map=((3, 1, 0),), label="l/*", instance_divisor=0, sequence="(",
                       intrinsics_size=(0, 3))
    assert len(bad.problems()) == 10
    assert len(FolderConfig(label="l/*", sequence="x", intrinsics=(-1.0, 0.0, 1.0, 1.0), depth="d").problems()) == 3


def test_a_folder_without_depth_is_allowed(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}.jpg", np.full((24, 32, 3), 9, np.uint8))
    source = FolderSource(tmp_path)
    assert len(source) == 2 and not source.read(0).has_depth and "colour only" in source.describe()["notes"][0]


def test_seven_scenes_is_recognised(tmp_path):
    for name in ("frame-000000", "frame-000001"):
        write_frames(tmp_path / "seq-01", (name,), "{}.color.png", "{}.depth.png", (480, 640), (480, 640))
        (tmp_path / f"seq-01/{name}.pose.txt").write_text(pose_text(1))
    save(tmp_path / "seq-01/frame-000000.depth.png", np.full((480, 640), 65535, np.uint16))
    source = FolderSource(tmp_path)
    assert source.sequence(0) == "seq-01" and not source.read(0).has_depth and source.read(1).pose[0, 3] == 1
    assert source.read(0).intrinsics.fx == 585 and "not registered" in " ".join(source.config.notes)


def test_scannet_export_is_recognised(tmp_path):
    for scene in ("scene0000_00", "scene0001_00"):
        write_frames(tmp_path / scene, ("0", "20"), size=(96, 129), depth_size=(48, 64))
        for name in ("0", "20"):
            (tmp_path / scene / "pose").mkdir(exist_ok=True)
            (tmp_path / scene / f"pose/{name}.txt").write_text("-inf " * 16 if name == "20" else pose_text(4))
        (tmp_path / scene / "intrinsics_color.txt").write_text("117 0 64 0\n0 117 47.5 0\n0 0 1 0\n0 0 0 1\n")
    source = FolderSource(tmp_path)
    assert [source.sequence(i) for i in range(4)] == ["scene0000_00"] * 2 + ["scene0001_00"] * 2
    frame = source.read(0)
    assert frame.pose[0, 3] == 4 and source.read(1).pose is None and frame.depth.shape == (96, 129)
    assert frame.intrinsics.fx == 117


def test_phone_exports_are_recognised(tmp_path):
    polycam = write_frames(tmp_path / "p", ("11", "12"), "keyframes/images/{}.jpg", "keyframes/depth/{}.png", (96, 128))
    (polycam / "keyframes/cameras").mkdir()
    for name, x in (("11", 1), ("12", 2)):
        camera = {"fx": 100, "fy": 100, "cx": 63.5, "cy": 47.5, "width": 128, "height": 96}
        camera |= {f"t_{r}{c}": float(r == c) + (x if (r, c) == (0, 3) else 0) for r in range(3) for c in range(4)}
        (polycam / f"keyframes/cameras/{name}.json").write_text(json.dumps(camera))
    frame = FolderSource(polycam).read(1)
    assert frame.intrinsics.fx == 100 and frame.pose[0, 3] == 2 and frame.pose[2, 2] == -1 and frame.depth[0, 0] == 2
    stray = write_frames(tmp_path / "s", color="rgb/{}.jpg", size=(96, 128))
    (stray / "camera_matrix.csv").write_text("100,0,63.5\n0,100,47.5\n0,0,1\n")
    assert FolderSource(stray).read(0).intrinsics.fx == 100
    (stray / "rgb").rename(stray / "elsewhere")
    with pytest.raises(Mask3DError, match="ffmpeg"):
        FolderSource(stray)


def test_units_and_missing_cameras_are_said(tmp_path):
    millimetres = write_frames(tmp_path / "a", ("0",), size=(480, 640), depth_size=(480, 640), units=11500)
    source = FolderSource(millimetres)
    assert source.read(0).depth[0, 0] == pytest.approx(2.3) and "5000" in " ".join(source.config.notes)
    odd = write_frames(tmp_path / "b")
    with pytest.raises(Mask3DError, match='no camera file.*24x32.*"intrinsics"'):
        FolderSource(odd)
    cut = tmp_path / "c"
    save(cut / "color/0.png", np.zeros((480, 640, 3), np.uint8))
    save(cut / "depth/0.png", np.full((480, 640), 9, np.uint8))
    with pytest.raises(FrameError, match="8-bit"):
        FolderSource(cut)


def test_nothing_there(tmp_path):
    with pytest.raises(Mask3DError, match="an empty folder.*mask3d_folder.json"):
        FolderSource(tmp_path)
    with pytest.raises(Mask3DError, match="no such folder"):
        FolderSource(tmp_path / "x")
    with pytest.raises(Mask3DError, match="no such folder"):
        open_path(tmp_path / "x")
    with pytest.raises(Mask3DError, match="colour files"):
        FolderSource(tmp_path, PLAIN)


@pytest.mark.parametrize("name, count, median, labelled", [
    ("mosd_learn", 45, (0.6, 1.3), True), ("icl_livingroom1", 71, (1, 3), False),
    ("open3d_rgbd_samples/RGBD", 5, (1, 3), False)])
def test_real_folders(shared_data, name, count, median, labelled):
    source = open_path(shared_data / name)
    assert source.name == "folder" and len(source) == count
    frame = source.read(count // 2)
    assert frame.depth.shape == (480, 640) and median[0] < np.median(frame.depth[frame.is_valid]) < median[1]
    assert (frame.semantic is not None) == labelled and (frame.pose is None) == labelled
    if labelled:
        assert len({source.sequence(i) for i in range(count)}) == 45
        assert set(np.unique(frame.semantic)) == {0, 1, IGNORE_LABEL} and not frame.instance[frame.semantic == 0].any()
        assert (frame.instance[frame.semantic == 1] >= 2).all()


@pytest.mark.parametrize("prefix, config", [
    ("SUN", FolderConfig(color="SUN_color.jpg", depth="SUN_depth.png", depth_kind="sun", field_of_view=63.0)),
    ("NYU", FolderConfig(color="NYU_color.ppm", depth="NYU_depth.pgm", depth_kind="kinect", field_of_view=63.0)),
    ("TUM", FolderConfig(color="TUM_color.png", depth="TUM_depth.png", depth_units_per_metre=5000.0,
                         field_of_view=63.0))])
def test_real_frames_of_other_formats(shared_data, prefix, config):
    folder = shared_data / "open3d_rgbd_samples/RGBD/other_formats"
    source = FolderSource(folder, config)
    frame = source.read(0)
    assert len(source) == 1 and frame.is_valid.mean() > 0.5 and 1 < np.median(frame.depth[frame.is_valid]) < 4


def test_mixed_formats_and_tum_are_told_apart(shared_data):
    with pytest.raises(Mask3DError, match="several: kinect, linear, sun"):
        FolderSource(shared_data / "open3d_rgbd_samples/RGBD/other_formats")
    with pytest.raises(Mask3DError, match="time stamp"):
        FolderSource(shared_data / "tum_fr1_rpy")
    assert kind_of(shared_data / "tum_fr1_rpy") == "tum" and len(open_path(shared_data / "tum_fr1_rpy")) == 80

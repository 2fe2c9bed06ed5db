"""Cityscapes: disparity, 19 of 34 ids, instances, splits by folder, missing parts, damage, and a store of it."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import CROWD, IGNORE_LABEL, NO_INSTANCE, RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source
from mask3d_core.sources.cityscapes import CLASSES, Cityscapes, depth_from_disparity
from mask3d_core.sources.opening import kind_of, open_path
from test_fuzz_readers import DAMAGE, ROUNDS, damaged
from write_cityscapes import BASELINE, FOCAL, FRAMES, SIZE, depth_of, labels_of, save, write_frame, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("cityscapes"))


def test_frames_depth_labels_and_instances(tree):
    source = Cityscapes(tree)
    assert isinstance(source, Source) and source.frames == list(FRAMES) and kind_of(tree) == "cityscapes"
    assert source.labels == {"semantic", "instance"} and len(source.class_names) == 19
    for i in range(4):
        frame = source.read(i)
        truth = depth_of()
        assert (frame.is_valid == np.isfinite(truth)).all() and not frame.is_valid.all()
        disparity = BASELINE * frame.intrinsics.fx / truth[frame.is_valid]
        assert (np.abs(BASELINE * frame.intrinsics.fx / frame.depth[frame.is_valid] - disparity) < 0.5 / 256 + 1e-4).all()
        assert (frame.color == 20 * i).all() and frame.intrinsics.cx == 31.5
        assert frame.semantic[0, ::16].tolist() == [IGNORE_LABEL, *map(CLASSES.index, ("road", "car", "person"))]
        assert frame.instance[0, ::16].tolist() == [NO_INSTANCE, NO_INSTANCE, 26003, CROWD], "people who were not told apart"
    assert str(source.read(0).origin) == "cityscapes/aachen/aachen_000000_000019"


def test_the_official_split_is_the_folder_and_no_city_is_in_two(tree):
    source = Cityscapes(tree)
    assert [source.official_split(i) for i in range(5)] == ["train"] * 3 + ["val", "test"]
    assert [source.sequence(i) for i in range(5)] == ["aachen", "aachen", "bochum", "lindau", "berlin"]
    assert (source.read(4).semantic == IGNORE_LABEL).all() and not source.read(4).instance.any()
    assert any("withheld" in note for note in source.describe()["notes"])
    assert len(Cityscapes(tree, splits=["val"])) == 1 and len(Cityscapes(tree, splits="train")) == 3
    with pytest.raises(ConfigError, match="splits are train, val, test; got 'train_extra'"):
        Cityscapes(tree, splits=["train_extra"])


def test_disparity_of_zero_and_one_means_nothing_measured():
    depth, is_valid = depth_from_disparity(np.array([[0, 1, 2, 257, 25601]], np.uint16), 200.0)
    assert is_valid.tolist() == [[False, False, True, True, True]] and np.isfinite(depth).all() and depth.dtype == np.float32
    assert depth[0].tolist() == [0, 0, 200 * 256, 200, 2]
    for wrong in (np.zeros((2, 2), np.uint8), np.zeros((2, 2)), np.full((2, 2), 70000)):
        with pytest.raises(FrameError, match="16-bit disparity"):
            depth_from_disparity(wrong, 200.0)


def test_all_34_ids(tmp_path):
    """The published table, id by id."""
    write_frame(tmp_path, *FRAMES[0], size=(32, 64))
    ids = np.zeros((32, 64), np.uint8)
    ids[0, :34] = np.arange(34)
    save(tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", ids)
    instances = ids.astype(np.uint16)
    instances[1, :34] = 1000 * np.arange(34) + 7
    instances[1, 0] = 0
    save(tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png", instances)
    frame = Cityscapes(tmp_path).read(0)
    scored = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
              20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
              28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
    for number in range(34):
        value = frame.semantic[0, number]
        assert (CLASSES[value] == scored[number]) if number in scored else value == IGNORE_LABEL, number
        thing = scored.get(number) in ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
        assert frame.instance[1, number] == (1000 * number + 7 if thing else NO_INSTANCE), number
    assert set(frame.instance[0].tolist()) == {NO_INSTANCE, CROWD} and list(CLASSES) == list(scored.values())


def test_missing_parts(tmp_path):
    for missing in ("disparity", "label", "instance", "camera"):
        parts = {"disparity", "camera", "label", "instance"} - {missing}
        root = write_tree(tmp_path / missing, FRAMES[:2], parts=parts)
        if missing == "camera":
            with pytest.raises(Mask3DError, match="baseline and focal length.*camera_trainvaltest.zip.*depth=false"):
                Cityscapes(root)
            frame = Cityscapes(root, depth=False).read(0)
            assert not frame.has_depth and 45 < 2 * np.degrees(np.arctan(32 / frame.intrinsics.fx)) < 55
            assert any("assumed field of view" in note for note in Cityscapes(root, depth=False).describe()["notes"])
            continue
        source = Cityscapes(root)
        frame = source.read(0)
        assert any(note.startswith("missing: 2 of 2 frames have no") for note in source.describe()["notes"])
        assert frame.has_depth == (missing != "disparity")
        assert (frame.semantic is None) == (missing == "label") == ("semantic" not in source.labels)
        assert (frame.instance is None) == (missing == "instance") == ("instance" not in source.labels)
    assert Cityscapes(tmp_path / "label").class_names == ()


def test_single_missing_files(tmp_path):
    root = write_tree(tmp_path, FRAMES[:3])
    (root / "disparity/train/aachen/aachen_000000_000019_disparity.png").unlink()
    (root / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png").unlink()
    (root / "camera/train/bochum/bochum_000000_000313_camera.json").unlink()
    source = Cityscapes(root)
    assert {note.split(" frames")[0] for note in source.describe()["notes"]} >= {"missing: 1 of 3"}
    with pytest.raises(FrameError, match="aachen_000000_000019_disparity.png"):
        source.read(0)
    assert source.read(1).semantic is None and source.read(1).instance is not None
    with pytest.raises(FrameError, match="bochum_000000_000313_camera.json"):
        source.read(2)


def test_nothing_there(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Mask3DError, match="How to get Cityscapes.*registering at www.cityscapes-dataset.com"):
            Cityscapes(path)
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(Mask3DError, match=r"leftImg8bit/train\|val\|test/CITY.*got none"):
        Cityscapes(tmp_path)


CAMERA = {"extrinsic": {"baseline": BASELINE}, "intrinsic": {"fx": 70.0, "fy": 70.0, "u0": 31.5, "v0": 15.5}}


@pytest.mark.parametrize("file, content, message", [
    ("gtFine/*_labelIds.png", np.full(SIZE, 255, np.uint8), "label ids 0..33; got 255..255.*labelTrainIds"),
    ("gtFine/*_labelIds.png", np.zeros((16, 32), np.uint8), "colour's size"),
    ("gtFine/*_instanceIds.png", np.full(SIZE, 34000, np.uint16), "1000 times one"),
    ("gtFine/*_instanceIds.png", np.full(SIZE, 500, np.uint16), "label ids"),
    ("disparity/*.png", np.full(SIZE, 40, np.uint8), "16-bit disparity"),
    ("disparity/*.png", np.zeros((16, 32), np.uint16), "colour's size"),
    ("camera/*.json", "{}", "extrinsic baseline"), ("camera/*.json", "[1]", "JSON object"), ("camera/*.json", "{", "JSON"),
    ("camera/*.json", json.dumps({**CAMERA, "extrinsic": {"baseline": 0.0}}), "baseline of 0.0 m"),
    ("camera/*.json", json.dumps({**CAMERA, "extrinsic": {"baseline": float("nan")}}), "baseline of nan m"),
    ("camera/*.json", json.dumps({**CAMERA, "intrinsic": {"fx": 226, "fy": 226, "u0": 1024, "v0": 512}}), "another resolution"),
    ("camera/*.json", json.dumps({**CAMERA, "intrinsic": "x"}), "intrinsic fx")])
def test_bad_files(tmp_path, file, content, message):
    write_frame(tmp_path, *FRAMES[0])
    folder, _, ending = file.partition("/")
    path = next((tmp_path / folder).rglob(ending))
    save(path, content) if isinstance(content, np.ndarray) else path.write_text(content)
    with pytest.raises(FrameError, match=f"{path.name}.*{message}"):
        Cityscapes(tmp_path).read(0)


def test_the_protocol_of_180_by_360_crops_nothing(tmp_path):
    """2048 x 1024 is twice as wide as high, as 360 x 180: a pure resize, labels and depth by nearest neighbour, camera along."""
    root = write_tree(tmp_path / "c", FRAMES[:1], size=(1024, 2048))
    config = PrepareConfig(height=180, width=360, max_depth=120.0, depth_units_per_metre=500.0, workers=1)
    store = prepare(Cityscapes(root), tmp_path / "s", config, progress=False)
    frame, (labels, instances), depth = store.read(0), labels_of((1024, 2048)), depth_of((1024, 2048))
    rows, columns = ((np.arange(new) + 0.5) * old // new for new, old in ((180, 1024), (360, 2048)))
    at = np.ix_(rows.astype(int), columns.astype(int))
    table = {0: IGNORE_LABEL, 7: 0, 26: 13, 24: 11}
    assert (frame.semantic == np.vectorize(table.get)(labels[at])).all() and set(np.unique(frame.semantic)) == {0, 11, 13, 255}
    assert (frame.instance == np.select([instances[at] == 26003, instances[at] == 24], [26003, CROWD], 0)).all()
    assert (frame.is_valid == np.isfinite(depth[at])).all()
    assert np.allclose(frame.depth[frame.is_valid], depth[at][frame.is_valid], rtol=0.01)
    assert frame.depth.max() > 75 and store.header.clipped_share == 0
    assert frame.intrinsics.fx == pytest.approx(FOCAL * 360 / 2048) and frame.intrinsics.cx == pytest.approx(179.5)
    near = prepare(Cityscapes(root), tmp_path / "near", PrepareConfig(height=180, width=360, workers=1), progress=False)
    assert near.header.clipped_share > 0.3  # the default of 16 m is for rooms


def test_prepared_with_labels_and_the_official_split(tree, tmp_path):
    config = PrepareConfig(height=32, width=64, max_depth=120.0, depth_units_per_metre=500.0, workers=1)
    store = prepare(open_path(tree), tmp_path / "s", config, progress=False)
    assert store.class_names == CLASSES and store.labels == {"semantic", "instance"}
    assert [len(store.indices(split)) for split in ("train", "val", "test")] == [3, 1, 1]
    source = Cityscapes(tree)
    for row, i in enumerate(store.source_index):
        truth, frame = source.read(int(i)), store.read(row)
        assert (frame.semantic == truth.semantic).all() and (frame.instance == truth.instance).all()
        assert np.allclose(frame.depth, truth.depth, atol=2e-3)


def test_the_doctor_knows_a_street_from_a_room(tree, tmp_path):
    from mask3d_core.doctor import examine

    def depth_of_report(path):
        return next(finding for finding in examine(path).findings if finding.check == "depth")

    assert depth_of_report(tree).severity == "ok" and "median 20" in depth_of_report(tree).text
    config = PrepareConfig(height=32, width=64, max_depth=120.0, depth_units_per_metre=500.0, workers=1)
    prepare(Cityscapes(tree), tmp_path / "s", config, progress=False)
    assert depth_of_report(tmp_path / "s").severity == "ok"
    for camera in tree.rglob("*_camera.json"):
        target = tmp_path / "wrong" / camera.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(camera.read_text().replace('"baseline": 0.2', '"baseline": 0.02'))
    for name in ("leftImg8bit", "disparity"):
        shutil.copytree(tree / name, tmp_path / "wrong" / name)
    assert depth_of_report(tmp_path / "wrong").severity == "error"


@settings(ROUNDS, max_examples=60)
@given(damage=DAMAGE, name=st.sampled_from([
    "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", "disparity/train/aachen/aachen_000000_000019_disparity.png",
    "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", "camera/train/aachen/aachen_000000_000019_camera.json",
    "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png"]))
def test_damaged_files_give_a_frame_or_one_clear_error(tmp_path, damage, name):
    root = tmp_path / "c"
    if not root.is_dir():
        write_frame(root, *FRAMES[0])
    content = (root / name).read_bytes()
    try:
        (root / name).write_bytes(damaged(content, damage))
        assert isinstance(Cityscapes(root).read(0), RGBDFrame)
    except Mask3DError as error:
        assert "expected" in str(error)
    finally:
        (root / name).write_bytes(content)

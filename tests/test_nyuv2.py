"""NYUv2's labelled file: transposed arrays, class maps, the official split, and what can be wrong with any of them."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from mask3d_core.errors import ConfigError, FrameError, Mask3DError
from mask3d_core.frames import IGNORE_LABEL, RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.nyu_classes import NYU13_NAMES, NYU40_NAMES, NYU40_TO_13, SCANNET20_IDS
from mask3d_core.sources.nyuv2 import HOW_TO_GET, NYUv2
from mask3d_core.sources.opening import kind_of, open_path
from write_nyuv2 import MAP_40, contents, write_beside, write_labeled, write_nyuv2

SMALL = PrepareConfig(height=32, width=48, chunk_frames=2, workers=2)
BOOK, WALL, CHAIR, FLOOR, TV = ((8, 0), (8, 0), (25, 12), (40, 5), (12, 42))  # where the writer puts them


def test_frames_are_turned_back_and_depth_is_as_measured(tmp_path):
    source = NYUv2(write_nyuv2(tmp_path))
    made = contents()
    assert isinstance(source, Source) and len(source) == 6
    for i in (0, 5):
        frame = source.read(i)
        assert np.array_equal(frame.color, made["images"][..., i])
        assert np.allclose(frame.depth, made["rawDepths"][..., i])
        assert np.array_equal(frame.is_valid, made["rawDepths"][..., i] > 0)
        assert frame.pose is None and np.allclose(frame.intrinsics.as_array(), (518.86, 519.47, 325.58, 253.74), atol=0.01)
    assert str(source.read(2).origin) == "nyuv2/office_0002/0003"
    filled = NYUv2(tmp_path / "nyu_depth_v2_labeled.mat", depth="filled").read(1)
    assert filled.is_valid.all() and np.allclose(filled.depth, made["depths"][..., 1])
    assert "not all of it was measured" in " ".join(NYUv2(tmp_path, depth="filled").describe()["notes"])
    assert kind_of(tmp_path) == "nyuv2" and len(open_path(tmp_path / "nyu_depth_v2_labeled.mat")) == 6
    assert open_source("nyuv2", tmp_path, classes=None).labels == frozenset()


def test_13_and_40_classes_are_never_mixed_up(tmp_path):
    write_nyuv2(tmp_path)
    few, many = NYUv2(tmp_path, classes=13), NYUv2(tmp_path, classes=40)
    assert few.class_names == NYU13_NAMES and many.class_names == NYU40_NAMES
    a, b = few.read(0).semantic, many.read(0).semantic
    for place, name_13, name_40 in ((WALL, "wall", "wall"), (CHAIR, "chair", "chair"), (FLOOR, "floor", "floor"),
                                    (TV, "tv", "television")):
        assert few.class_names[a[place]] == name_13 and many.class_names[b[place]] == name_40
    assert a[0, 0] == b[0, 0] == IGNORE_LABEL and set(np.unique(a)) == {11, 3, 4, 10, 255}
    assert few.describe()["classes"] == 13 and few.describe() != many.describe()


def test_the_tables_between_the_class_lists():
    assert len(NYU40_TO_13) == len(NYU40_NAMES) == 40 and len(NYU13_NAMES) == 13 and set(NYU40_TO_13) == set(range(1, 14))
    same = {name: name for name in ("wall", "floor", "bed", "chair", "sofa", "table", "window", "picture", "ceiling", "books")}
    for name_40, name_13 in {**same, "television": "tv", "blinds": "window", "desk": "table", "door": "wall",
                             "bookshelf": "furniture", "night stand": "furniture", "lamp": "objects", "curtain": "window",
                             "floor mat": "floor", "otherprop": "objects"}.items():
        assert NYU13_NAMES[NYU40_TO_13[NYU40_NAMES.index(name_40)] - 1] == name_13
    assert [NYU40_NAMES[k - 1] for k in SCANNET20_IDS] == [
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk",
        "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "otherfurniture"]


def test_objects_are_numbered_within_a_frame_and_walls_are_none(tmp_path):
    frame = NYUv2(write_nyuv2(tmp_path)).read(0)
    assert frame.instance[WALL] == frame.instance[FLOOR] == frame.instance[0, 0] == 0
    chairs = frame.instance[25, 12], frame.instance[25, 35]
    assert sorted([*chairs, frame.instance[TV]]) == [1, 2, 3] and frame.instance.max() == 3


def test_instances_without_any_object(tmp_path):
    made = contents()
    write_labeled(tmp_path / "nyu_depth_v2_labeled.mat", instances=np.zeros_like(made["instances"]))
    assert not NYUv2(write_beside(tmp_path)).read(0).instance.any()


def test_the_white_border_can_be_cut(tmp_path):
    write_nyuv2(tmp_path)
    whole, cut = NYUv2(tmp_path).read(0), NYUv2(tmp_path, border=8).read(0)
    assert cut.depth.shape == (32, 48) and np.array_equal(cut.color, whole.color[8:-8, 8:-8])
    assert cut.intrinsics.cx == whole.intrinsics.cx - 8 and np.array_equal(cut.semantic, whole.semantic[8:-8, 8:-8])
    with pytest.raises(Mask3DError, match="arrays of"):
        NYUv2(tmp_path, border=30)


def test_one_frame_is_read_and_the_handle_belongs_to_its_process(tmp_path):
    source = NYUv2(write_nyuv2(tmp_path))
    source.read(1)
    asked = []

    class Watched:
        def __init__(self, array):
            self.array = array

        def __getitem__(self, key):
            asked.append(key)
            return self.array[key]

    real = source._open()
    source._handle = {name: Watched(real[name]) for name in ("images", "rawDepths", "labels", "instances")}
    source.read(4)
    assert asked == [4, 4, 4, 4]
    source._owner = -1  # as after a fork
    assert source.read(4).has_depth and not isinstance(source._handle, dict) and source._owner == os.getpid()
    again = pickle.loads(pickle.dumps(source))
    assert again._handle is None and np.array_equal(again.read(3).color, source.read(3).color)


def test_the_official_split_chooses_frames_and_reaches_the_store(tmp_path):
    source = NYUv2(write_nyuv2(tmp_path))
    assert [source.official_split(i) for i in range(6)] == ["train", "train", "test", "test", "train", "train"]
    only = NYUv2(tmp_path, split="test")
    assert [only.frame_name(i) for i in range(len(only))] == ["0003", "0004"] and only.read(0).has_depth
    assert only.official_split(1) == "test"
    assert "not the official 795/654: 2 test, 4 train" in " ".join(source.describe()["notes"])
    store = prepare(source, tmp_path / "store", SMALL, progress=False)
    assert store.header.split_kind == "official" and store.header.split_counts == {"train": 4, "val": 0, "test": 2, "unused": 0}
    assert store.class_names == NYU13_NAMES and set(store.labels) == {"semantic", "instance"} and store.verify() == []
    assert set(np.unique(store.semantic)) == {3, 4, 10, 11, IGNORE_LABEL} and store.sequence(2) == "office_0002"
    with_val = prepare(source, tmp_path / "val", PrepareConfig(height=32, width=48, official_val_share=0.5), progress=False)
    assert with_val.header.split_counts == {"train": 2, "val": 2, "test": 2, "unused": 0}
    assert "made such" in with_val.header.split_rule
    assert len(set(with_val.sequence_index[with_val.indices("val")].tolist())) == 1


def test_preparing_goes_on_where_it_stopped(tmp_path):
    source = NYUv2(write_nyuv2(tmp_path))
    whole = prepare(source, tmp_path / "whole", SMALL, progress=False)
    real, asked = source.read, []

    def dying(index):
        if index >= 4:
            raise KeyboardInterrupt
        return real(index)

    source.read = dying
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "store", SMALL, progress=False)
    source.read = lambda index: asked.append(index) or real(index)
    assert prepare(source, tmp_path / "store", SMALL, progress=False).fingerprint == whole.fingerprint
    assert min(asked[1:]) == 4


@pytest.mark.parametrize("name, options, message", [
    ("nyu_depth_v2_labeled", {}, "nyu_depth_v2_labeled.mat.*no such file.*How to get NYUv2"),
    ("splits", {"split": "train"}, "splits.mat; got no such file.*How to get"),
    ("classMapping40", {}, "classMapping40.mat.*no such file.*nyuv2-meta-data.*classes=null")])
def test_a_missing_file_is_one_line_that_says_where_it_is_published(tmp_path, name, options, message):
    write_nyuv2(tmp_path)
    (tmp_path / f"{name}.mat").unlink()
    with pytest.raises(Mask3DError, match=message) as caught:
        NYUv2(tmp_path, **options)
    assert "\n" not in str(caught.value) and "horatio" not in HOW_TO_GET


def test_what_is_not_needed_may_be_missing(tmp_path):
    write_labeled(tmp_path / "nyu_depth_v2_labeled.mat", leave_out=("labels", "instances", "depths"))
    source = NYUv2(tmp_path, classes=None)
    assert source.read(0).semantic is None and source.class_names == () and source.official_split(0) is None
    assert "no official split" in " ".join(source.describe()["notes"])
    write_beside(tmp_path, leave_out=("class13Mapping", "splits"))
    with pytest.raises(Mask3DError, match="no labels, instances"):
        NYUv2(tmp_path)


@pytest.mark.parametrize("options, message", [
    ({"map_40": MAP_40[:-1]}, "classMapping40.mat.*each of the 6 label names.*another file"),
    ({"map_40": (*MAP_40[:-1], 41)}, "from 1 to 41"),
    ({"map_13": (*reversed(range(1, 14)), *[7] * 27)}, "class13Mapping.mat.*another one"),
    ({"train": (1, 2, 7)}, "splits.mat.*numbers 1..6 in trainNdxs"), ({"test": (0,)}, "testNdxs"),
    ({"train": (1, 2), "test": (2, 3)}, "splits.mat.*frame 2 in both")])
def test_maps_and_splits_that_do_not_fit(tmp_path, options, message):
    write_nyuv2(tmp_path)
    write_beside(tmp_path, **options)
    with pytest.raises(Mask3DError, match=message):
        NYUv2(tmp_path)


def test_files_of_the_wrong_matlab_version(tmp_path):
    write_nyuv2(tmp_path)
    labeled, split = tmp_path / "nyu_depth_v2_labeled.mat", tmp_path / "splits.mat"
    content = labeled.read_bytes()
    savemat(labeled, {"images": np.zeros((3, 3), np.uint8)})
    with pytest.raises(Mask3DError, match="labeled.mat.*version 7.3.*got version 5"):
        NYUv2(tmp_path)
    labeled.write_bytes(content)
    split.write_bytes(content)
    with pytest.raises(Mask3DError, match="splits.mat.*version 5; got version 7.3"):
        NYUv2(tmp_path)


@pytest.mark.parametrize("options, message", [
    ({"leave_out": ("rawDepths",)}, "no rawDepths"), ({"leave_out": ("scenes",)}, "no scenes"),
    ({"images": np.zeros((48, 60, 3, 6), np.uint8)}, "images u1"), ({"labels": np.zeros((48, 64, 6))}, "labels f8"),
    ({"rawDepths": np.zeros((48, 64, 6), np.uint16)}, "rawDepths u2")])
def test_arrays_that_do_not_fit_each_other(tmp_path, options, message):
    write_labeled(tmp_path / "nyu_depth_v2_labeled.mat", **options)
    with pytest.raises(Mask3DError, match=f"labeled.mat.*{message}"):
        NYUv2(write_beside(tmp_path))


def test_labels_out_of_range_are_named_with_their_frame(tmp_path):
    labels = contents()["labels"]
    labels[0, 0, 3] = 7
    write_labeled(tmp_path / "nyu_depth_v2_labeled.mat", labels=labels)
    source = NYUv2(write_beside(tmp_path))
    assert source.read(2).semantic is not None
    with pytest.raises(FrameError, match="labeled.mat, frame 4: expected labels 0..6; got up to 7"):
        source.read(3)


def test_an_interrupted_download(tmp_path):
    path = write_labeled(tmp_path / "nyu_depth_v2_labeled.mat")
    content = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9):
        path.write_bytes(content[:int(share * len(content))])
        with pytest.raises(Mask3DError, match="labeled.mat.*(cut short|damaged)"):
            NYUv2(write_beside(tmp_path))


def test_impossible_options_are_told_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        NYUv2(tmp_path, depth="both", classes=20, split="val", border=-1)
    assert len(caught.value.problems) == 4


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["nyu_depth_v2_labeled", "nyu_depth_v2_labeled", "splits", "classMapping40", "class13Mapping"]),
       kind=st.sampled_from(["cut", "flip", "zero"]), place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_damage_is_a_clear_error_or_a_sound_frame(tmp_path, name, kind, place, value):
    if not (tmp_path / "kept").is_dir():
        write_nyuv2(tmp_path / "kept")
        write_nyuv2(tmp_path / "used")
    whole = (tmp_path / f"kept/{name}.mat").read_bytes()
    for file in (tmp_path / "kept").iterdir():
        (tmp_path / "used" / file.name).write_bytes(file.read_bytes())
    at = int(place * len(whole))
    (tmp_path / f"used/{name}.mat").write_bytes({
        "cut": whole[:at], "flip": whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1:],
        "zero": whole[:at] + bytes(len(whole[at:at + 16])) + whole[at + 16:]}[kind])
    try:
        source = NYUv2(tmp_path / "used")
    except Mask3DError as error:
        assert ".mat" in str(error)
        return
    for i in range(min(len(source), 6)):
        try:
            assert isinstance(source.read(i), RGBDFrame)
        except FrameError as error:
            assert ".mat, frame" in str(error) or "nyuv2" in str(error)

"""SUN RGB-D: rotated depth, labels by toolbox and by name, places, the official split, damage, and a store of it."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mask3d_core.errors import ConfigError, FrameError, Mask3DError, StoreError
from mask3d_core.frames import IGNORE_LABEL, RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source
from mask3d_core.sources.images import DepthEncoding, read_depth
from mask3d_core.sources.opening import kind_of, open_path
from mask3d_core.sources.sunrgbd import SUNRGBD, place_of
from mask3d_core.sources.sunrgbd_toolbox import CLASSES, frame_key
from test_fuzz_readers import DAMAGE, ROUNDS, damaged
from write_sunrgbd import FRAMES, LAB, SIZE, THE_37, depth_of, rotated, write_frame, write_labels, write_split, write_tree

h5py = pytest.importorskip("h5py", reason="h5py reads the toolbox's labels")
scipy_io = pytest.importorskip("scipy.io", reason="SciPy writes the MATLAB files that our reader has to read")
SMALL = PrepareConfig(height=24, width=32, chunk_frames=4, workers=2)


def toolbox_labels(count=len(FRAMES)):
    """For each frame its number + 1 as class, with a band of unlabelled pixels."""
    pictures = [np.full(SIZE, i + 1) for i in range(count)]
    for picture in pictures:
        picture[-3:] = 0
    pictures[0][0, 0] = 37
    return pictures


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The nine frames with seg.mat, without a toolbox."""
    return write_tree(tmp_path_factory.mktemp("sun"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The nine frames with the toolbox; its order is not the folders' order, and it knows a frame more than there are."""
    root = write_tree(tmp_path_factory.mktemp("sun"))
    order = [*reversed(range(len(FRAMES)))]
    labels = toolbox_labels()
    write_labels(root, ["kv1/NYUdata/NYU9999", *(FRAMES[i] for i in order)], [np.zeros(SIZE), *(labels[i] for i in order)])
    write_split(root, [FRAMES[i] for i in (0, 2, 3, 6, 7)], [FRAMES[i] for i in (1, 4, 5, 8)], val=[FRAMES[3]])
    return root


def test_every_frame_is_found_and_decoded(tree):
    source = SUNRGBD(tree)
    assert isinstance(source, Source) and sorted(source.keys) == sorted(FRAMES) and source.path == tree
    for i, key in enumerate(source.keys):
        number = FRAMES.index(key)
        frame = source.read(i)
        truth = depth_of(number) / 1000
        assert np.allclose(frame.depth, truth, atol=1e-6) and (frame.is_valid == (truth > 0)).all() and not frame.is_valid.all()
        assert (frame.color == 10 * number).all() and frame.pose is None
        assert frame.intrinsics.as_array().tolist() == [48.0, 48.5, 23.5, 17.5]
    filled = SUNRGBD(tree, depth="filled").read(0)
    assert filled.is_valid.all() and filled.depth[0, 0] == 1.5


def test_depth_beyond_eight_metres_uses_the_lowest_three_bits(tmp_path):
    """A careless decoder that only shifts loses what was rotated to the other end."""
    metres = np.array([[0.5, 8.191, 8.192, 9.001, 65.5, 0.0]])
    path = tmp_path / "d.png"
    Image.fromarray(rotated(np.rint(metres * 1000))).save(path)
    depth, is_valid = read_depth(path, DepthEncoding("sun", 1000.0))
    assert np.allclose(depth, metres, atol=1e-5) and is_valid.tolist() == [[True] * 5 + [False]]


def test_places_keep_frames_of_one_room_together():
    assert place_of(FRAMES[0]) == ("kv1/NYUdata", "NYU0001")
    assert place_of(FRAMES[2]) == ("kv1/b3dodata", "img_0063")
    assert place_of(FRAMES[3]) == ("kv2/kinect2data/2014-05-26", FRAMES[3].split("/")[-1])
    assert place_of(FRAMES[5]) == ("realsense/lg/2014-10-21", "2014_10_21-18_18_34-1311000073")
    assert place_of(FRAMES[6]) == ("xtion/sun3ddata/brown_bm_1", "brown_bm_1/0000103-000003418565")
    assert place_of("xtion/sun3ddata/odd") == ("xtion/sun3ddata", "odd")
    for text in ("SUNRGBD/kv1/a/b", "/n/fs/sun3d/data/SUNRGBD/kv1/a/b/", "/n/SUNRGBD//kv1/a//b", r"C:\x\SUNRGBD\kv1\a\b",
                 "kv1/a/b"):
        assert frame_key(text) == "kv1/a/b"


def test_the_37_classes_are_the_benchmarks():
    assert list(CLASSES) == THE_37 and len(set(CLASSES)) == 37


def test_labels_by_name_where_there_is_no_toolbox(tree):
    source = SUNRGBD(tree)
    assert source.labels == {"semantic"} and source.class_names == CLASSES and source.describe()["labels"] == "names"
    assert any("numbers do not compare with the benchmark" in note for note in source.describe()["notes"])
    frame = source.read(0)
    assert frame.semantic[0, ::12].tolist() == [IGNORE_LABEL, THE_37.index("wall"), THE_37.index("night_stand"), IGNORE_LABEL]
    assert frame.instance is None
    assert SUNRGBD(tree, labels="none").read(0).semantic is None and SUNRGBD(tree, labels="none").class_names == ()
    with pytest.raises(Mask3DError, match="SUNRGBD2Dseg.mat.*How to get SUN"):
        SUNRGBD(tree, labels="toolbox")


def test_labels_of_the_toolbox_in_its_own_order(whole):
    source = SUNRGBD(whole)
    assert source.describe()["labels"] == "toolbox"
    for i, key in enumerate(source.keys):
        frame, number = source.read(i), FRAMES.index(key)
        assert frame.semantic[5, 5] == number and (frame.semantic[-3:] == IGNORE_LABEL).all()
        assert frame.semantic[0, 0] == (36 if number == 0 else number)
    assert SUNRGBD(whole, labels="names").read(0).semantic[0, 12] == THE_37.index("wall")


def test_a_frame_that_the_toolbox_does_not_know_is_unlabelled_and_said(tmp_path):
    root = write_tree(tmp_path, FRAMES[:2])
    write_labels(root, FRAMES[:1], toolbox_labels(1))
    source = SUNRGBD(root)
    assert source.read(0).semantic is not None and source.read(1).semantic is None
    assert "missing: the toolbox has no labels for 1 of 2 frames" in source.describe()["notes"]


def test_the_official_split_and_that_no_sequence_is_torn(whole):
    source = SUNRGBD(whole)
    splits = {key: source.official_split(i) for i, key in enumerate(source.keys)}
    assert [splits[key] for key in FRAMES] == ["train", "test", "train", "train", "test", "test", "train", "train", "test"]
    torn = {}
    for i in range(len(source)):
        torn.setdefault(source.sequence(i), set()).add(source.official_split(i))
    assert all(len(found) == 1 for found in torn.values())
    assert {"kv1/NYUdata/train", "kv1/NYUdata/test", "kv1/b3dodata", "xtion/sun3ddata/brown_bm_1"} <= set(torn)
    assert source.describe()["official_split"] == {"train": 5, "test": 4}
    assert any("5 of 5285 training and 4 of 5050 test" in note for note in source.describe()["notes"])
    halved = SUNRGBD(whole, validation=True)
    assert [halved.official_split(halved.keys.index(FRAMES[i])) for i in (3, 0, 1)] == ["val", "train", "test"]


def test_without_split_or_toolbox_it_says_so(tree, tmp_path):
    source = SUNRGBD(tree)
    assert source.official_split(0) is None and source.sequence(source.keys.index(FRAMES[0])) == "kv1/NYUdata"
    assert any(note.startswith("missing: SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat") for note in source.describe()["notes"])
    with pytest.raises(Mask3DError, match="allsplit.mat.*no such file"):
        SUNRGBD(tree, validation=True)
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Mask3DError, match="How to get SUN RGB-D: rgbd.cs.princeton.edu.*mask3d prepare sunrgbd"):
            SUNRGBD(path)
    with pytest.raises(ConfigError) as caught:
        SUNRGBD(tree, depth="best", labels="some", sensors=("kv1", "kv9"))
    assert len(caught.value.problems) == 3
    assert {key.split("/")[0] for key in SUNRGBD(tree, sensors="xtion").keys} == {"xtion"}


def test_it_is_recognised_from_either_folder(tree, tmp_path):
    assert kind_of(tree) == kind_of(tree / "SUNRGBD") == "sunrgbd"
    assert len(open_path(tree / "SUNRGBD")) == len(FRAMES)


def test_missing_parts_are_counted_and_named(tmp_path):
    root = write_tree(tmp_path, FRAMES[:4], seg=False)
    frames = root / "SUNRGBD"
    shutil.rmtree(frames / FRAMES[0] / "depth")
    (frames / FRAMES[1] / "intrinsics.txt").unlink()
    shutil.copy(frames / FRAMES[2] / "image/0000002.png", frames / FRAMES[2] / "image/second.png")
    Image.fromarray(np.zeros((10, 10), np.uint16)).save(frames / FRAMES[3] / "depth/0000003.png")
    source = SUNRGBD(root)
    notes = source.describe()["notes"]
    assert "labels: none" in notes and "missing: 1 of 4 frames have no depth and cannot be read" in notes
    assert "missing: 1 of 4 frames have no intrinsics.txt and cannot be read" in notes
    for key, message in zip(FRAMES, ("depth: expected a folder with one picture", "intrinsics.txt", "2: 0000002.png, second.png",
                                     r"depth.*expected depth of the colour's size \(36, 48\)")):
        with pytest.raises(FrameError, match=message):
            source.read(source.keys.index(key))


TWO = np.array(["wall", "bed"], object)


def save_seg(path, **values):
    scipy_io.savemat(path, values)


@pytest.mark.parametrize("damage, message", [
    (lambda p: save_seg(p, seglabel=np.full(SIZE, 3, np.uint16), names=TWO), "one for each of the names"),
    (lambda p: save_seg(p, seglabel=np.ones((5, 5), np.uint16), names=TWO), "another frame"),
    (lambda p: save_seg(p, seglabel=np.ones(SIZE, np.uint16)), "no names"),
    (lambda p: save_seg(p, seglabel="text", names=TWO), "seglabel as numbers"),
    (lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file"), "damaged or cut short"),
    (lambda p: p.write_bytes(b""), "something else"),
    (lambda p: h5py.File(p, "w").close(), "of version 5; got version 7.3")])
def test_bad_seg_files(tmp_path, damage, message):
    root = write_tree(tmp_path, FRAMES[:1])
    damage(root / "SUNRGBD" / FRAMES[0] / "seg.mat")
    source = SUNRGBD(root)
    with pytest.raises(FrameError, match=f"seg.mat.*{message}"):
        source.read(0)


def test_a_single_name_and_a_single_frame_are_not_lost(tmp_path):
    """MATLAB has no vectors of length one: SciPy hands out the element itself."""
    root = write_tree(tmp_path, FRAMES[:1])
    save_seg(root / "SUNRGBD" / FRAMES[0] / "seg.mat", seglabel=np.ones(SIZE, np.uint16), names=np.array(["sofa"], object))
    write_split(root, FRAMES[:1], [])
    source = SUNRGBD(root)
    assert (source.read(0).semantic == THE_37.index("sofa")).all() and source.official_split(0) == "train"


def test_a_toolbox_that_does_not_fit_is_refused(tmp_path):
    root = write_tree(tmp_path, FRAMES[:2])
    write_labels(root, FRAMES[:2], toolbox_labels(2), names=[*reversed(THE_37)])
    with pytest.raises(FrameError, match="SUNRGBD2Dseg.mat.*37 classes"):
        SUNRGBD(root)
    write_labels(root, FRAMES[:2], toolbox_labels(2))
    kept = (root / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat").read_bytes()
    write_labels(root, FRAMES[:1], toolbox_labels(1))
    (root / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat").write_bytes(kept)
    with pytest.raises(FrameError, match="labels of the 1 frames.*labels of 2"):
        SUNRGBD(root)
    write_labels(root, FRAMES[:2], [np.full(SIZE, 38), np.full((7, 9), 3)])
    source = SUNRGBD(root)
    with pytest.raises(FrameError, match=f"label ids 0..37 for {FRAMES[0]}; got 38..38"):
        source.read(0)
    with pytest.raises(FrameError, match="another frame"):
        source.read(1)
    metadata = root / "SUNRGBDtoolbox/Metadata"
    (metadata / "SUNRGBD2Dseg.mat").write_bytes((metadata / "SUNRGBDMeta.mat").read_bytes())
    with pytest.raises(FrameError, match="of version 7.3.*got version 5"):
        SUNRGBD(root)


def test_a_split_that_contradicts_itself_is_refused(tmp_path):
    root = write_tree(tmp_path, FRAMES[:2])
    write_split(root, FRAMES[:2], FRAMES[1:2])
    with pytest.raises(FrameError, match=f"allsplit.mat.*{FRAMES[1]} in train and test"):
        SUNRGBD(root)
    scipy_io.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltrain": np.zeros(3)})
    with pytest.raises(FrameError, match="allsplit.mat.*no alltest"):
        SUNRGBD(root)
    scipy_io.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltrain": np.zeros(3), "alltest": LAB})
    with pytest.raises(FrameError, match="a list of float"):
        SUNRGBD(root)


def test_without_h5py_one_line_says_what_to_install(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FrameError, match="pip install h5py"):
        SUNRGBD(whole)


def test_prepared_with_labels_and_the_official_split(whole, tmp_path, capsys):
    from mask3d_core import cli

    arguments = ["prepare", "sunrgbd", str(whole), "--out", str(tmp_path / "s"), "--height", "24", "--width", "32"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "note: labels: the benchmark's 37 classes" in printed and "official split" in printed
    source, store = SUNRGBD(whole), open_path(tmp_path / "s")
    assert store.class_names == CLASSES and store.labels == {"semantic"}
    for split in ("train", "test"):
        assert {source.official_split(int(i)) for i in store.source_index[store.indices(split)]} == {split}
    assert len(store.indices("train")) == 5 and len(store.indices("test")) == 4
    for row, i in enumerate(store.source_index):
        truth = source.read(int(i)).fit(24, 32)
        frame = store.read(row)
        assert (frame.semantic == truth.semantic).all() and np.allclose(frame.depth, truth.depth, atol=2e-4)
    assert not store.is_seen(store.indices("test"), store.sequence_keys(store.indices("train"))).any()


@settings(ROUNDS, max_examples=60)
@given(damage=DAMAGE, name=st.sampled_from([
    f"SUNRGBD/{FRAMES[0]}/seg.mat", f"SUNRGBD/{FRAMES[0]}/intrinsics.txt", f"SUNRGBD/{FRAMES[0]}/depth/0000000.png",
    f"SUNRGBD/{FRAMES[0]}/image/0000000.png", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat",
    "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"]),
    labels=st.sampled_from(["auto", "names"]))
def test_damaged_files_give_a_frame_or_one_clear_error(tmp_path, damage, name, labels):
    root = tmp_path / "sun"
    if not root.is_dir():
        write_frame(root, FRAMES[0], 0)
        write_frame(root, FRAMES[1], 1)
        write_split(root, FRAMES[:1], FRAMES[1:2])
        write_labels(root, FRAMES[:2], toolbox_labels(2))
    content = (root / name).read_bytes()
    try:
        (root / name).write_bytes(damaged(content, damage))
        try:
            source = SUNRGBD(root, labels=labels)
        except Mask3DError as error:
            assert "expected" in str(error)
            return
        for i in range(len(source)):
            try:
                assert isinstance(source.read(i), RGBDFrame)
            except Mask3DError as error:
                assert "expected" in str(error)
    finally:
        (root / name).write_bytes(content)


def test_goes_on_once_what_was_missing_is_there(whole, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(whole, root)
    broken = root / "SUNRGBD" / FRAMES[8] / "depth"
    (broken).rename(broken.with_name("elsewhere"))
    config = dataclasses.replace(SMALL, max_bad_frames=0.0)
    with pytest.raises(StoreError, match="a folder with one picture"):
        prepare(SUNRGBD(root), tmp_path / "s", config, progress=False)
    broken.with_name("elsewhere").rename(broken)
    store = prepare(SUNRGBD(root), tmp_path / "s", config, progress=False)
    assert store.fingerprint == prepare(SUNRGBD(root), tmp_path / "fresh", config, progress=False).fingerprint
    assert len(store) == len(FRAMES)


def test_the_decoders_on_the_real_frames(shared_data):
    """SUN's rotated bits and raw NYU's big-endian disparity, decoded here by other means than the reader's."""
    folder = shared_data / "open3d_rgbd_samples/RGBD/other_formats"
    raw = np.array(Image.open(folder / "SUN_depth.png")).astype(np.int64)
    truth = (raw // 8 + raw % 8 * 8192) / 1000
    depth, is_valid = read_depth(folder / "SUN_depth.png", DepthEncoding("sun", 1000.0))
    assert (is_valid == (raw > 0)).all() and 0.5 < is_valid.mean() < 1 and np.allclose(depth, truth, atol=1e-4)
    assert 0.3 < depth[is_valid].min() and 1 < np.median(depth[is_valid]) < 5

    content = (folder / "NYU_depth.pgm").read_bytes()
    magic, width, height, largest = content.split(maxsplit=4)[:4]
    assert (magic, int(largest)) == (b"P5", 65535)
    stored = np.frombuffer(content[-2 * int(width) * int(height):], "<u2").reshape(int(height), int(width)).astype(np.float64)
    depth, is_valid = read_depth(folder / "NYU_depth.pgm", DepthEncoding("kinect"))
    assert stored.max() == 2047 and ((stored == 2047) <= ~is_valid).all() and 0.5 < is_valid.mean() < 1
    truth = 351.3 / (1092.5 - stored)
    assert np.allclose(depth[is_valid], truth[is_valid], rtol=1e-5) and (is_valid == ((stored != 2047) & (truth > 0))).all()
    assert 0.4 < depth[is_valid].min() and 1 < np.median(depth[is_valid]) < 5

"""The table-top set: labels, instances and scene types through the folder source and through a store, at two frame sizes."""

import json

import numpy as np
import pytest
from PIL import Image

from mask3d_core.errors import ConfigError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.folder import FolderSource
from mask3d_core.sources.folder_config import FolderConfig
from mask3d_core.sources.opening import open_path
from mask3d_core.sources.patterns import natural_key
from test_folder import save

# numbers of frames, from the set's own list: learn 0-16, 17-24, 25-32, 33-44; test 0-15, 16-23, 24-30, 31-42, 43-54, 55-65
LISTED = {"learn": {"boxes": range(0, 17), "stacked": range(17, 25), "occluded": range(25, 33), "cylindric": range(33, 45)},
          "test": {"boxes": range(0, 16), "stacked": range(16, 24), "occluded": range(24, 31), "cylindric": range(31, 43),
                   "mixed": range(43, 55), "complex": range(55, 66)}}


def parts(size):
    """Stored ids and depth: no depth, two parts of the table (1, 3), two parts of object 1 (20, 21), object 4 (50)."""
    labels = np.zeros(size, np.uint8)
    for i, value in enumerate((0, 1, 3, 20, 21, 50)):
        labels[:, i * size[1] // 6:] = value
    return labels, np.where(labels > 0, 900, 0).astype(np.uint16)


def write_tabletops(folder, names, size=(480, 640)):
    labels, depth = parts(size)
    for name in names:
        save(folder / f"color/{name}.png", np.zeros((*size, 3), np.uint8))
        save(folder / f"depth/{name}.png", depth)
        save(folder / f"label/{name}.png", labels)
    return folder


def test_scene_types_by_the_frames_numbers(tmp_path):
    """Also where frames are missing: the rows name numbers, not places in the list."""
    wanted = {f"{kind}{number:02d}": f"{scene}/{kind}{number:02d}" for kind, rows in LISTED.items()
              for scene, row in rows.items() for number in row}
    names = [name for name in wanted if not name.endswith(("3", "8"))]
    source = FolderSource(write_tabletops(tmp_path, names, (48, 64)), intrinsics_size=(480, 640))
    found = {source.frame_name(i).split("/")[-1]: source.sequence(i) for i in range(len(source))}
    assert found == {name: wanted[name] for name in names} and source.describe()["sequences"] == len(names)
    assert str(source.read(0).origin).startswith("folder/boxes/learn00/")


def test_scene_types_are_a_key_of_any_folder(tmp_path):
    write_tabletops(tmp_path, ("a9", "a10", "b1"), (24, 32))
    config = {"color": "color/*.png", "depth": "depth/*.png", "intrinsics": [30, 30, 15.5, 11.5], "sequence": r"([^/]+)\.png$",
              "scene_types": [["kitchen", "a2", "a9"], ["attic", "a10", "a99"]]}
    (tmp_path / "mask3d_folder.json").write_text(json.dumps(config))
    source = FolderSource(tmp_path)
    assert [source.sequence(i) for i in range(3)] == ["attic/a10", "kitchen/a9", "b1"]
    assert natural_key("a9") < natural_key("a10") < natural_key("b")
    for row in (["x/y", "a", "b"], ["", "a", "b"], ["kitchen", "a10", "a9"]):
        with pytest.raises(ConfigError, match="scene_types rows are"):
            FolderConfig(intrinsics=(30.0, 30.0, 15.5, 11.5), scene_types=(tuple(row),)).validate()
    (tmp_path / "mask3d_folder.json").write_text(json.dumps({**config, "scene_types": [["kitchen", 1, 2]]}))
    with pytest.raises(ConfigError, match="scene_types"):
        FolderSource(tmp_path)


def test_trajectory_and_camera_files_go_by_the_sequence_without_its_type(tmp_path):
    for room in ("room1", "room2"):
        save(tmp_path / room / "color/0.png", np.zeros((24, 32, 3), np.uint8))
        save(tmp_path / room / "depth/0.png", np.full((24, 32), 900, np.uint16))
        (tmp_path / room / "k.txt").write_text("30 30 15.5 11.5")
        (tmp_path / room / "t.txt").write_text("0 1 2 3 0 0 0 1\n")
    source = FolderSource(tmp_path, FolderConfig(
        color="*/color/*.png", depth="*/depth/*.png", intrinsics_file="{sequence}/k.txt", trajectory="{sequence}/t.txt",
        scene_types=(("flat", "room1", "room1"),)))
    assert [source.sequence(i) for i in range(2)] == ["flat/room1", "room2"]
    assert source.read(0).pose[0, 3] == 1 and source.read(0).intrinsics.fx == 30


@pytest.mark.parametrize("size, stored", [((480, 640), (480, 640)), ((480, 640), (240, 320)), ((480, 640), (360, 540)),
                                          ((360, 540), (360, 540)), ((360, 540), (240, 320))])
def test_labels_and_instances_through_a_store(tmp_path, size, stored):
    """No patch size divides 540, and its aspect is another: what is cut off is cut off everywhere alike."""
    write_tabletops(tmp_path / "f", ("learn00", "learn30"), size)
    source = open_path(tmp_path / "f")
    store = prepare(source, tmp_path / "s", PrepareConfig(height=stored[0], width=stored[1], workers=1), progress=False)
    assert store.class_names == ("table", "object") and store.labels == {"semantic", "instance"}
    assert {store.sequence(i) for i in range(2)} == {"boxes/learn00", "occluded/learn30"}
    scale = max(stored[0] / size[0], stored[1] / size[1])
    rows, columns = round(size[0] * scale), round(size[1] * scale)
    left, at = (columns - stored[1]) // 2, (np.arange(columns) + 0.5) * size[1] // columns
    ids = parts(size)[0][0, at.astype(int)][left:left + stored[1]]
    frame = store.read(0)
    assert frame.color.shape[:2] == stored and rows >= stored[0]
    assert (frame.semantic == np.where(ids == 0, IGNORE_LABEL, ids >= 10)).all()
    assert (frame.instance == ids // 10).all() and (frame.is_valid == (ids > 0)).all()


def test_the_real_set(shared_data, tmp_path):
    """Every pixel of every frame beside the files themselves, which are decoded here without the reader."""
    folder = shared_data / "mosd_learn"
    source = open_path(folder)
    types = [source.sequence(i).split("/")[0] for i in range(len(source))]
    assert {name: types.count(name) for name in types} == {"boxes": 17, "stacked": 8, "occluded": 8, "cylindric": 12}
    store = prepare(source, tmp_path / "s", PrepareConfig(height=480, width=640, workers=1), progress=False)
    pixels = {"ignore": 0, "table": 0, "object": 0}
    objects = 0
    for row in range(len(store)):
        name = store.frame_name(row).split("/")[-1]
        ids = np.array(Image.open(folder / f"label/{name}.png")).astype(int)
        frame = store.read(row)
        assert (frame.semantic == np.where(ids == 0, IGNORE_LABEL, np.where(ids < 10, 0, 1))).all(), name
        assert (frame.instance == np.where(ids < 10, 0, ids // 10)).all() and store.sequence(row).endswith("/" + name)
        assert not frame.is_valid[ids == 0].any() and not np.isin(ids, range(10, 20)).any(), name
        pixels["ignore"] += (ids == 0).sum()
        pixels["table"] += ((ids > 0) & (ids < 10)).sum()
        pixels["object"] += (ids >= 10).sum()
        objects += len(np.unique(frame.instance)) - 1
    shares = {name: round(100 * count / (len(store) * 480 * 640)) for name, count in pixels.items()}
    assert shares == {"ignore": 37, "table": 54, "object": 9} and objects == 112  # as the set's description says
    smaller = prepare(source, tmp_path / "t", PrepareConfig(height=360, width=540, workers=1), progress=False)
    scored = np.array(smaller.semantic) != IGNORE_LABEL
    assert abs((np.array(smaller.semantic)[scored] == 0).mean() - pixels["table"] / (pixels["table"] + pixels["object"])) < 0.02
    assert (np.array(smaller.depth)[~scored] == 0).all() and set(np.unique(smaller.semantic)) == {0, 1, IGNORE_LABEL}

"""Stores: opening, splits, refusals, checksums, and a million frames in little memory."""

import dataclasses
import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from list_source import ListSource
from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.opening import open_path
from mask3d_core.store import COLUMNS, FORMAT_VERSION, NAMES, Store, StoreHeader, header_text

ROOT = Path(__file__).resolve().parents[1]
SMALL = PrepareConfig(height=32, width=48, chunk_frames=4, workers=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s"
    prepare(ListSource(20, labels=True), path, SMALL, progress=False)
    return path


@pytest.fixture
def path(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "s"))


def test_a_store_is_a_source_with_maps_of_its_files(path):
    store = open_path(path)
    assert isinstance(store, Source) and isinstance(store, Store) and open_source("store", path).name == "store"
    assert store.color.shape == (20, 32, 48, 3) and store.color.dtype == np.uint8
    assert store.depth.shape == (20, 32, 48) and store.depth.dtype == np.uint16
    assert store.semantic.dtype == np.uint8 and store.instance.dtype == np.uint16
    assert store.intrinsics.shape == (20, 4) and store.pose.shape == (20, 4, 4)
    assert not store.color.flags.writeable and np.isnan(store.pose[0]).all() and store.pose[1, 0, 0] == 1
    assert json.loads(json.dumps(store.describe()))["prepared_from"]["source"] == "list"
    again = pickle.loads(pickle.dumps(store))
    assert again.fingerprint == store.fingerprint and np.array_equal(again.color, store.color)


def test_indices_of_the_splits_are_ascending_and_disjoint(path):
    store = Store(path)
    parts = {name: store.indices(name) for name in ("train", "val", "test")}
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts.values())
    assert len(np.unique(np.concatenate(list(parts.values())))) == sum(map(len, parts.values())) < 20
    assert {name: len(part) for name, part in parts.items()}.items() <= store.header.split_counts.items()
    assert store.indices("all").tolist() == list(range(20)) and store.header.split_kind.endswith("(same room)")
    with pytest.raises(ConfigError, match="'valid'"):
        store.indices("valid")


def test_frames_that_a_run_saw_are_known_again(path, tmp_path):
    store = Store(path)
    keys = store.sequence_keys(store.indices("train"))
    assert keys == ["list/room0[0..13]"]
    assert store.is_seen(store.indices("train"), keys).all() and not store.is_seen(store.indices("val"), keys).any()
    rooms = prepare(ListSource(20, sequences=5), tmp_path / "rooms", SMALL, progress=False)
    keys = rooms.sequence_keys(rooms.indices("train"))
    assert all(key.startswith("list/room") and "[" not in key for key in keys)
    assert rooms.is_seen(rooms.indices("train"), keys).all() and not rooms.is_seen(rooms.indices("test"), keys).any()
    assert store.is_seen(np.arange(20), ["list/room0"]).all() and not store.is_seen(np.arange(20), ["list/x"]).any()


@pytest.mark.parametrize("name", ["color.u8", "depth.u16", "semantic.u8", "instance.u16", "checksums.json",
                                  *(f"{column}.npy" for column in (*COLUMNS, *NAMES))])
def test_every_flipped_byte_is_found(path, name):
    content = bytearray((path / name).read_bytes())
    content[-3] ^= 0x10
    (path / name).write_bytes(content)
    try:
        problems = Store(path).verify()
    except StoreError as error:
        problems = [str(error)]
    assert len(problems) == 1 and name in problems[0]
    if name == "depth.u16":
        assert "frames 16..19" in problems[0]


@pytest.mark.parametrize("name", ["color.u8", "depth.u16", "semantic.u8", "intrinsics.npy", "split.npy",
                                  "frame_name.npy", "header.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "gone"])
def test_files_cut_short_are_refused_by_name(path, name, damage):
    content = (path / name).read_bytes()
    if damage == "gone":
        (path / name).unlink()
    else:
        (path / name).write_bytes({"cut": content[:-5], "longer": content + b"12345", "empty": b""}[damage])
    if damage == "longer" and name.endswith(".npy"):
        assert Store(path).verify()  # numpy reads no further than its header says; the checksum does
        return
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert damage == "gone" and name == "header.json" or name in str(caught.value)


def test_a_newer_version_an_edited_header_and_no_store(path, tmp_path):
    header = path / "header.json"
    values = json.loads(header.read_text())
    header.write_text(json.dumps({**values, "format_version": FORMAT_VERSION + 1, "new": 1}))
    with pytest.raises(StoreError, match=f"format {FORMAT_VERSION + 1}. Update"):
        Store(path)
    for change in ({"depth_units_per_metre": 5000.0}, {"extra": 1}):
        header.write_text(json.dumps({**values, **change}))
        with pytest.raises(StoreError, match="checksum"):
            Store(path)
    header.write_text(json.dumps({k: v for k, v in values.items() if k != "count"}))
    with pytest.raises(StoreError, match="count"):
        Store(path)
    header.unlink()
    with pytest.raises(StoreError, match="still being prepared"):
        Store(path)
    with pytest.raises(StoreError, match="no such folder"):
        Store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="without header.json"):
        Store(tmp_path / "empty")


def test_a_damaged_sequence_number_is_an_error_and_not_another_name(path):
    numbers = np.load(path / "sequence_index.npy")
    numbers[:] = 7
    np.save(path / "sequence_index.npy", numbers)
    with pytest.raises(StoreError, match="sequence_index.npy.*got 7"):
        Store(path).read(0)


def benchmark_module():
    """benchmarks/data.py, which is no package of the distribution."""
    spec = importlib.util.spec_from_file_location("benchmark_data", ROOT / "benchmarks" / "data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_million_frames_open_at_once_in_little_memory(tmp_path):
    data = benchmark_module()
    try:
        path = data.make_sparse_store(tmp_path / "s", 1_000_000)
    except OSError as error:
        pytest.skip(f"this disk holds no sparse file of 258 GB: {error}")
    if sum(file.stat().st_blocks * 512 for file in path.iterdir()) > 1e9:
        pytest.skip("this disk does not store sparse files sparsely")
    numbers = data.measure_opening(path)
    assert numbers["seconds"] < 1 and numbers["megabytes"] < 100, numbers
    store = Store(path)
    assert len(store.indices("train")) == 1_000_000 and store.color[[5, 999_999]].shape == (2, 256, 336, 3)


def test_the_header_reads_as_it_was_written(path):
    header = Store(path).header
    assert json.loads(header_text(header)) == json.loads((path / "header.json").read_text())
    assert set(json.loads(header_text(header))) == {f.name for f in dataclasses.fields(StoreHeader)} | {"checksum"}


class Named(ListSource):
    """Frames of one sequence of a data set."""

    def __init__(self, name, sequence):
        super().__init__(6, 1)
        self.name, self.only = name, sequence

    def sequence(self, index):
        return self.only


@pytest.mark.parametrize(("first", "second", "is_same"), [
    (("nyuv2", "kitchen_0004"), ("sunrgbd", "kv1/NYUdata/test"), True), (("sunrgbd", "kv1/NYUdata"), ("nyuv2", "office_0001"), True),
    (("nyuv2", "kitchen_0004"), ("sunrgbd", "kv1/b3dodata"), False), (("scannet", "scene0000_00"), ("sunrgbd", "kv1/NYUdata"), False)])
def test_frames_that_two_data_sets_share_are_recognised(tmp_path, first, second, is_same):
    trained, tested = (prepare(Named(*names), tmp_path / str(k), PrepareConfig(40, 56, split="train"), progress=False)
                       for k, names in enumerate((first, second)))
    assert tested.is_seen(np.arange(6), trained.sequence_keys(np.arange(6))).all() == is_same

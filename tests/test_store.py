"""Stores: opening, splits, refusals, checksums, and a million frames in little memory."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from list_source import ListSource
from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.opening import open_path
from mask3d_core.store import COLUMNS, FORMAT_VERSION, NAMES, Store, StoreHeader, header_text

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


MEASURE = """
import sys, time
sys.path.insert(0, {root!r})
from mask3d_core.store import Store
import numpy as np
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
before = resident()
start = time.perf_counter()
store = Store({path!r})
opened = time.perf_counter() - start
frame = store.read(999_999)
batch = store.color[np.sort(np.random.default_rng(0).integers(0, 10**6, 16))]
indices = store.indices("train")
print(opened, (resident() - before) / 1024, len(indices), frame.origin)
"""


def make_sparse_store(path: Path, count: int, height: int = 256, width: int = 336) -> Path:
    """A store of empty frames that takes no room on a disk with sparse files."""
    path.mkdir()
    for name, size in (("color.u8", 3), ("depth.u16", 2)):
        with open(path / name, "wb") as file:
            file.truncate(count * height * width * size)
    shapes = {**{name: (kind, (count, *shape)) for name, (kind, shape) in COLUMNS.items()},
              "frame_name": ("S12", (count,)), "sequence_names": ("S8", (1000,))}
    for name, (kind, shape) in shapes.items():
        np.lib.format.open_memmap(path / f"{name}.npy", "w+", kind, shape).flush()
    header = StoreHeader(FORMAT_VERSION, height, width, count, 4000.0, {"source": "sparse"}, (), ("color", "depth"),
                         "sequences", "all", {"train": count, "val": 0, "test": 0, "unused": 0}, 1000, True, 0.0, 0.0,
                         (), "0" * 16)
    (path / "header.json").write_text(header_text(header))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_million_frames_open_at_once_in_little_memory(tmp_path):
    try:
        path = make_sparse_store(tmp_path / "s", 1_000_000)
    except OSError as error:
        pytest.skip(f"this disk holds no sparse file of 258 GB: {error}")
    if sum(file.stat().st_blocks * 512 for file in path.iterdir()) > 1e9:
        pytest.skip("this disk does not store sparse files sparsely")
    script = MEASURE.format(root=str(Path(__file__).parents[1]), path=str(path))
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}).stdout.split()
    seconds, megabytes, frames = float(output[0]), float(output[1]), int(output[2])
    print(f"opened in {seconds:.3f} s, {megabytes:.0f} MB more memory")
    assert seconds < 1 and megabytes < 100 and frames == 1_000_000


def test_the_header_reads_as_it_was_written(path):
    header = Store(path).header
    assert json.loads(header_text(header)) == json.loads((path / "header.json").read_text())
    assert set(json.loads(header_text(header))) == {f.name for f in dataclasses.fields(StoreHeader)} | {"checksum"}

"""Preparing: what is written, splits, unreadable frames, full disks, and a kill at any moment."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from list_source import ListSource
from mask3d_core import store_writer
from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.opening import open_path
from mask3d_core.splits import assign_splits
from mask3d_core.store import Store

SMALL = PrepareConfig(height=32, width=48, chunk_frames=4, workers=2)

PROBED = 1  # frames read beforehand


def replaced(**changes):
    return dataclasses.replace(SMALL, **changes)


def test_what_is_read_is_what_was_prepared(tmp_path):
    source = ListSource(20, sequences=4, labels=True)
    store = prepare(source, tmp_path / "s", SMALL, progress=False)
    assert len(store) == 20 and store.header.pictures == ("color", "depth", "semantic", "instance")
    for i in range(20):
        wanted, got = source.read(i).fit(32, 48), store.read(i)
        assert np.array_equal(got.color, wanted.color) and np.array_equal(got.is_valid, wanted.is_valid)
        assert np.abs(got.depth - wanted.depth).max() <= 0.5 / 4000 + 1e-6
        assert np.allclose(got.intrinsics.as_array(), wanted.intrinsics.as_array())
        assert (got.pose is None) == (wanted.pose is None)
        assert store.sequence(i) == source.sequence(i) and store.frame_name(i) == source.frame_name(i)
        assert got.origin.timestamp == i / 10
        if i % 3:
            assert (got.semantic == i % 2).all() and (got.instance == i).all()
        else:
            assert (got.semantic == 255).all() and not got.instance.any()
    assert store.class_names == ("even", "odd") and store.header.has_holes
    assert store.header.valid_share == pytest.approx((store.depth > 0).mean(), abs=1e-6)
    assert np.array_equal(store.missing_pixels, (store.depth == 0).sum((1, 2)))
    assert store.verify() == []


def test_no_holes_is_a_promise(tmp_path):
    store = prepare(ListSource(4, holes=0.0), tmp_path / "s", SMALL, progress=False)
    assert store.header.has_holes is False and (store.depth > 0).all()


def test_depth_beyond_the_range_becomes_a_hole_and_is_counted(tmp_path):
    store = prepare(ListSource(10, holes=0.0), tmp_path / "s", replaced(max_depth=1.045), progress=False)
    assert [bool(store.read(i).has_depth) for i in range(10)] == [True] * 5 + [False] * 5
    assert store.header.clipped_share == 0.5 and store.header.has_holes


def test_equal_frames_give_equal_fingerprints_whatever_the_chunks(tmp_path):
    stores = [prepare(ListSource(10), tmp_path / name, replaced(workers=workers), progress=False)
              for name, workers in (("a", 1), ("b", 3))]
    assert stores[0].fingerprint == stores[1].fingerprint
    other = prepare(ListSource(9), tmp_path / "c", SMALL, progress=False)
    assert other.fingerprint != stores[0].fingerprint


def test_a_finished_store_is_opened_and_another_plan_refused(tmp_path):
    source = ListSource(8)
    first = prepare(source, tmp_path / "s", SMALL, progress=False)
    source.reads.clear()
    again = prepare(source, tmp_path / "s", SMALL, progress=False)
    assert again.fingerprint == first.fingerprint and len(source.reads) == PROBED
    for other, config, word in ((ListSource(9), SMALL, "frames"), (source, replaced(height=30), "config")):
        with pytest.raises(StoreError, match=f"same source and options.*{word}"):
            prepare(other, tmp_path / "s", config, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="something else"):
        prepare(source, tmp_path / "full", SMALL, progress=False)


def test_sources_that_read_in_batches_are_read_in_batches(tmp_path):
    class Batched(ListSource):
        batches = []

        def read_batch(self, indices):
            self.batches.append(list(indices))
            return [self.read(i) for i in indices]

    source = Batched(10, bad=(6,))
    store = prepare(source, tmp_path / "s", replaced(max_bad_frames=1.0), progress=False)
    assert source.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(store) == 9 and store.header.bad_frames[0]["frame"] == "room0/frame0006"


def test_bad_frames_are_left_out_under_the_limit_and_listed(tmp_path, capfd):
    store = prepare(ListSource(20, bad=(0, 7)), tmp_path / "s", replaced(max_bad_frames=0.1), progress=False)
    assert len(store) == 18 and [bad["frame"] for bad in store.header.bad_frames] == ["room0/frame0000",
                                                                                    "room0/frame0007"]
    assert "frame0007.png" in store.header.bad_frames[1]["reason"] and "frame0007.png" in capfd.readouterr().err
    assert store.source_index.tolist() == [i for i in range(20) if i not in (0, 7)]
    assert store.frame_name(6) == "frame0008" and (store.read(6).color == 8).all() and store.verify() == []


def test_too_many_bad_frames_stop_and_keep_what_was_written(tmp_path):
    source = ListSource(20, bad=(9, 10))
    with pytest.raises(StoreError, match="at most 1 unreadable frames of 20; got 2.*frame0010.png.*kept"):
        prepare(source, tmp_path / "s", replaced(max_bad_frames=1.0), progress=False)
    with pytest.raises(StoreError, match="still being prepared.*again"):
        Store(tmp_path / "s")
    source.reads.clear()
    store = prepare(source, tmp_path / "s", replaced(max_bad_frames=2.0), progress=False)
    assert len(store) == 18 and min(i for i in source.reads[PROBED:]) == 8  # two chunks of four were kept
    with pytest.raises(StoreError, match="none of the first"):
        prepare(ListSource(3, bad=(0, 1, 2)), tmp_path / "t", SMALL, progress=False)
    with pytest.raises(StoreError, match="at least one frame"):
        prepare(ListSource(0), tmp_path / "v", SMALL, progress=False)


def test_a_source_that_dies_after_the_first_look(tmp_path):
    source = ListSource(3)
    read = source.read

    def read_at_first(index):
        source.bad = {0, 1, 2} if len(source.reads) >= PROBED else set()
        return read(index)

    source.read = read_at_first
    with pytest.raises(StoreError, match="at least one readable frame"):
        prepare(source, tmp_path / "u", replaced(max_bad_frames=3.0), progress=False)


def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(tmp_path, monkeypatch):
    whole = prepare(ListSource(20), tmp_path / "whole", SMALL, progress=False)
    written, real = [0], os.write

    def write(handle, content):
        written[0] += len(content)
        if written[0] > 65_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, content)

    monkeypatch.setattr(store_writer.os, "write", write)
    with pytest.raises(StoreError, match="room on the disk; got a full disk.*8 frames are safe"):
        prepare(ListSource(20), tmp_path / "s", SMALL, progress=False)
    monkeypatch.undo()
    source = ListSource(20)
    assert prepare(source, tmp_path / "s", SMALL, progress=False).fingerprint == whole.fingerprint
    assert min(source.reads[PROBED:]) == 8
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(store_writer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="GB of free disk for 20 frames"):
        prepare(ListSource(20), tmp_path / "t", SMALL, progress=False)


def test_half_a_journal_line_and_lost_bytes_are_written_again(tmp_path, monkeypatch):
    whole = prepare(ListSource(20), tmp_path / "whole", SMALL, progress=False)
    for damage in ("half", "garbage", "lost", "none"):
        out = tmp_path / damage
        with pytest.raises(StoreError):
            prepare(ListSource(20, bad=range(14, 20)), out, SMALL, progress=False)
        journal = out / store_writer.JOURNAL
        lines = journal.read_bytes()
        assert lines.count(b"\n") == 3
        if damage == "half":
            journal.write_bytes(lines[:-20])
        elif damage == "garbage":
            journal.write_bytes(lines.replace(b'"stop": 8', b'"stop": 7'))
        elif damage == "lost":
            os.truncate(out / "depth.u16", 9 * 32 * 48 * 2)
        source = ListSource(20)
        assert prepare(source, out, SMALL, progress=False).fingerprint == whole.fingerprint
        assert min(source.reads[PROBED:]) == {"half": 8, "garbage": 4, "lost": 8, "none": 12}[damage]


KILLED = """
import sys
sys.path[:0] = {paths!r}
from list_source import ListSource
from mask3d_core.prepare import PrepareConfig, prepare
prepare(ListSource(60, delay=0.004), {out!r}, PrepareConfig(height=32, width=48, chunk_frames=4, workers=2), False)
"""


def test_a_kill_at_any_moment_costs_at_most_a_chunk(tmp_path):
    """SIGKILL again and again until the store is whole; it must equal the one that nobody disturbed."""
    whole = prepare(ListSource(60), tmp_path / "whole", SMALL, progress=False)
    out, kills, generator = tmp_path / "s", 0, np.random.default_rng(0)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = KILLED.format(paths=paths, out=str(out))
    while not (out / "header.json").exists():
        process = subprocess.Popen([sys.executable, "-c", script])
        before = _journaled(out)
        while _journaled(out) <= before and process.poll() is None:  # let it get somewhere, so that the test ends
            time.sleep(0.002)
        time.sleep(float(generator.uniform(0, 0.06)))
        if process.poll() is None and kills < 8:
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait(60) in (0, -signal.SIGKILL)
        assert kills <= 8
    assert kills >= 2
    store = Store(out)
    assert store.fingerprint == whole.fingerprint and store.verify() == []
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def _journaled(out):
    journal = out / store_writer.JOURNAL
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_two_processes_do_not_write_one_store(tmp_path):
    pytest.importorskip("fcntl")
    plan = {"config": {"height": 32, "width": 48}, "pictures": ["color", "depth"]}
    with store_writer.StoreWriter(tmp_path / "s", plan):
        with pytest.raises(StoreError, match="another process"):
            store_writer.StoreWriter(tmp_path / "s", plan)
    store_writer.StoreWriter(tmp_path / "s", plan).__exit__()


def test_a_bad_config_lists_all_problems():
    with pytest.raises(ConfigError) as caught:
        PrepareConfig(height=1, width=99999, max_depth=99.0, split="x", val_share=0.6, test_share=0.6, gap=-1,
                      max_bad_frames=-1.0, workers=0)
    assert len(caught.value.problems) == 8
    assert [PrepareConfig(max_bad_frames=share).bad_frame_limit(250) for share in (0.0, 0.01, 7.0)] == [0, 3, 7]


def test_sequences_are_never_torn_apart():
    generator = np.random.default_rng(0)
    for count in (2, 3, 4, 10, 57):
        index = np.sort(np.concatenate([np.arange(count), generator.integers(0, count, 40 * count)]))
        names = [f"scene{k}" for k in range(count)]
        split, kind, rule = assign_splits(index, names, 0.1, 0.2)
        assert all(len(set(split[index == k])) == 1 for k in range(count))
        assert kind == "sequences" and {0, 1} <= set(split.tolist()) and (2 in split) == (count > 2)
        if count >= 10:
            assert abs((split == 1).mean() - 0.1) < 0.06 and abs((split == 2).mean() - 0.2) < 0.08
        renamed = np.random.default_rng(1).permutation(count)  # the order in which they come does not matter
        again, *_ = assign_splits(renamed[index], [names[k] for k in np.argsort(renamed)], 0.1, 0.2)
        assert count < 10 or np.array_equal(again, split)
    assert set(assign_splits(np.array([0, 1, 2]), ["a", "b", "c"], 0.0, 0.0)[0]) == {0}


def test_every_split_gets_labelled_frames_where_few_sequences_have_them():
    """A recording is often labelled here and there; dealt out regardless, one split would have none."""
    generator = np.random.default_rng(0)
    for count, labelled in ((40, 3), (40, 4), (57, 9), (12, 12)):
        index = np.sort(generator.integers(0, count, 50 * count))
        names = [f"scene{k}" for k in range(count)]
        has_labels = np.isin(index, generator.permutation(count)[:labelled]) & (generator.random(len(index)) < 0.2)
        split, _, rule = assign_splits(index, names, 0.1, 0.2, has_labels=has_labels)
        assert all(len(set(split[index == k])) == 1 for k in range(count))
        assert set(split[has_labels].tolist()) == {0, 1, 2}
        assert all(f"{(split[has_labels] == value).sum()} {words}" in rule
                   for value, words in enumerate(("labelled frames train", "val", "test")))
        if labelled > 8:
            assert abs((split[has_labels] == 1).mean() - 0.1) < 0.1 and abs((split[has_labels] == 2).mean() - 0.2) < 0.1
        if count > 20:
            assert abs((split == 1).mean() - 0.1) < 0.06 and abs((split == 2).mean() - 0.2) < 0.08
    plain = assign_splits(index, names)
    for alike in (np.ones(len(index), bool), np.zeros(len(index), bool)):
        again = assign_splits(index, names, has_labels=alike)
        assert np.array_equal(plain[0], again[0]) and plain[2] == again[2] and "labelled" not in plain[2]
    split, _, _ = assign_splits(np.arange(5), [*"abcde"], has_labels=np.arange(5) == 3)
    assert set(split.tolist()) == {0, 1, 2} and split[3] == 0, "what one sequence teaches is for training"


class FewLabels(ListSource):
    """Two in twenty sequences labelled, whichever the hash of their names would put together."""

    def read(self, index):
        frame = super().read(index)
        return frame if self.sequence(index) in ("room4", "room13") else dataclasses.replace(frame, semantic=None, instance=None)


def test_preparing_looks_at_which_frames_have_labels(tmp_path):
    source = FewLabels(60, sequences=20, labels=True)
    store = prepare(source, tmp_path / "s", replaced(test_share=0.0), progress=False)
    has_label = (store.semantic != 255).any(axis=(1, 2))
    assert has_label.sum() == 4 and set(np.asarray(store.split)[has_label].tolist()) == {0, 1}
    assert "the labelled ones first (2 labelled frames train, 2 val, 0 test)" in store.header.split_rule
    assert store.verify() == []
    index = np.asarray(store.sequence_index)
    regardless, *_ = assign_splits(index, [f"room{k}" for k in range(20)], 0.1, 0.0)
    assert len(set(regardless[has_label].tolist())) == 1, "else this shows nothing"


def test_one_sequence_is_cut_into_blocks_with_gaps():
    split, kind, rule = assign_splits(np.zeros(100, int), ["a"], 0.1, 0.2, gap=3)
    assert split.tolist() == [0] * 64 + [255] * 3 + [1] * 10 + [255] * 3 + [2] * 20
    assert kind == "time blocks (same room)" and "same room" in rule and "gap of 3" in rule
    assert (assign_splits(np.zeros(80, int), ["a"])[0] == 255).sum() == 4
    split, kind, rule = assign_splits(np.zeros(4, int), ["a"])
    assert not split.any() and "too short" in rule


def test_a_split_can_be_asked_for(tmp_path):
    store = prepare(ListSource(6), tmp_path / "s", replaced(split="test"), progress=False)
    assert len(store.indices("test")) == 6 and store.header.split_counts["train"] == 0


def test_progress_says_rate_and_what_is_left(tmp_path, capfd):
    prepare(ListSource(8), tmp_path / "s", SMALL, progress=True)
    assert "preparing s" in capfd.readouterr().err


@pytest.mark.parametrize("name, kind", [("tum_fr1_rpy", "time blocks (same room)"), ("mosd_learn", "sequences"),
                                        ("open3d_rgbd_samples/RGBD", "time blocks (same room)")])
def test_real_recordings(shared_data, tmp_path, name, kind):
    source = open_path(shared_data / name)
    if len(source) > 12:  # the whole sets take a while on a busy machine; the first frames show the same
        source = First(source, 12)
    store = prepare(source, tmp_path / "s", PrepareConfig(height=96, width=128), progress=False)
    assert store.header.split_kind == kind and store.verify() == [] and store.header.clipped_share < 0.01
    assert 0.4 < store.header.valid_share < 1 and json.dumps(store.describe())
    frame = store.read(0)
    assert 0.4 < np.median(frame.depth[frame.is_valid]) < 3
    assert frame.intrinsics.problems(96, 128) == []


class First:
    """The first frames of a source."""

    def __init__(self, source, count):
        self.source, self.count = source, count

    def __len__(self):
        return self.count

    def __getattr__(self, name):
        return getattr(self.source, name)

"""The splits that data sets come with, on their way into a store."""

import numpy as np
import pytest

from list_source import ListSource
from mask3d_core.cli import main
from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.splits import official_splits
from write_scannet import write_lists, write_sens

SIZE = {"height": 32, "width": 48, "chunk_frames": 4, "workers": 1}


class Official(ListSource):
    """Frames with a split of their own."""

    def __init__(self, given, **options):
        super().__init__(len(given), **options)
        self.given = given

    def official_split(self, index):
        return self.given[index]


GIVEN = ["train"] * 5 + ["val"] * 2 + ["test"] * 3


@pytest.mark.parametrize("asked", ["auto", "official"])
def test_a_split_for_every_frame_is_used(tmp_path, asked):
    store = prepare(Official(GIVEN, sequences=5), tmp_path / "s", PrepareConfig(split=asked, **SIZE), progress=False)
    assert [{0: "train", 1: "val", 2: "test"}[value] for value in store.split.tolist()] == GIVEN
    assert store.header.split_kind == "official"
    assert store.header.split_rule == ("official split: 5 train, 2 val, 3 test frames; 2 sequences lie in several parts of it")


def test_frames_that_cannot_be_read_do_not_shift_the_others(tmp_path):
    source = Official(GIVEN, sequences=5, bad=(2, 6))
    store = prepare(source, tmp_path / "s", PrepareConfig(max_bad_frames=2.0, **SIZE), progress=False)
    assert store.header.split_counts == {"train": 4, "val": 1, "test": 3, "unused": 0}
    assert [GIVEN[i] for i in store.source_index] == [{0: "train", 1: "val", 2: "test"}[v] for v in store.split.tolist()]


def test_some_frames_without_one(tmp_path):
    given = [*GIVEN[:-1], None]
    store = prepare(Official(given, sequences=5), tmp_path / "s", PrepareConfig(**SIZE), progress=False)
    assert store.header.split_kind == "sequences" and "left aside, as 1 of 10 frames have none" in store.header.split_rule
    source = Official(given, sequences=5)
    with pytest.raises(ConfigError, match="1 of 10 frames have none"):
        prepare(source, tmp_path / "t", PrepareConfig(split="official", **SIZE), progress=False)
    assert not source.reads and not (tmp_path / "t").exists()  # known before anything was read or written
    with pytest.raises(ConfigError, match="10 of 10"):
        prepare(ListSource(10), tmp_path / "t", PrepareConfig(split="official", **SIZE), progress=False)


def test_without_one_everything_is_as_before(tmp_path):
    store = prepare(Official([None] * 10, sequences=5), tmp_path / "a", PrepareConfig(**SIZE), progress=False)
    plain = prepare(ListSource(10, sequences=5), tmp_path / "b", PrepareConfig(**SIZE), progress=False)
    assert store.fingerprint == plain.fingerprint and "left aside" not in store.header.split_rule
    one = prepare(Official(GIVEN), tmp_path / "c", PrepareConfig(split="val", **SIZE), progress=False)
    assert one.header.split_counts["val"] == 10


def test_another_official_split_is_another_store(tmp_path):
    with pytest.raises(StoreError, match="at most 0 unreadable"):
        prepare(Official(GIVEN, bad=(9,)), tmp_path / "s", PrepareConfig(max_bad_frames=0.0, **SIZE), progress=False)
    with pytest.raises(StoreError, match="others"):
        prepare(Official(["train"] * 10), tmp_path / "s", PrepareConfig(**SIZE), progress=False)


def test_validation_out_of_the_training_frames_only_where_there_is_none():
    index = np.repeat(np.arange(10), 4)
    names = [f"room{k}" for k in range(10)]
    given = ["train"] * 32 + ["test"] * 8
    split, kind, rule = official_splits(given, index, names, 0.25)
    assert kind == "official" and (split == 1).sum() == 8 and (split[32:] == 2).all() and "8 of the training frames" in rule
    assert all(len(set(split[index == k])) == 1 for k in range(10))
    assert (official_splits(given, index, names)[0] == 1).sum() == 0
    has_one = ["val"] * 4 + given[4:]
    assert np.array_equal(official_splits(has_one, index, names, 0.25)[0], official_splits(has_one, index, names)[0])
    alone = official_splits(["train"] * 4 + ["test"] * 4, index[:8], names, 0.5)
    assert set(alone[0].tolist()) == {0, 2} and "so 0 of the training frames" in alone[2]
    with pytest.raises(ConfigError, match="official_val_share"):
        PrepareConfig(official_val_share=1.0)


def test_the_command_line_prepares_scannet(tmp_path, capsys):
    for scan in ("scene0000_00", "scene0001_00"):
        write_sens(tmp_path / f"scans/{scan}/{scan}.sens")
    write_lists(tmp_path, train=["scene0000_00"], test=["scene0001_00"])
    command = ["prepare", "scannet", str(tmp_path), "--out", str(tmp_path / "store"), "--height", "32", "--width", "48",
               "--option", "every=1"]
    assert main([*command, "--split", "official"]) == 0
    said = capsys.readouterr().out
    assert "official split: 3 train, 0 val, 3 test frames" in said and "scannetv2_train.txt: 1 of its 1 scans" in said
    assert main(["prepare", "nyuv2", str(tmp_path), "--out", str(tmp_path / "t")]) == 2
    assert "How to get NYUv2" in capsys.readouterr().err
    assert main(["prepare", "scannet"]) == 2
    assert "scannet@googlegroups.com" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path)]) in (0, 1)
    assert "opened as scannet" in capsys.readouterr().out

"""Continued pre-training on somebody's own frames: a folder as data, the probe before and after."""

import json

import pytest

from mask3d_core.cli import main
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.bench import BenchConfig, store_frames
from mask3d_core.evaluation.bench.continued import AFTER, BEFORE, before_and_after, difference_text
from mask3d_core.evaluation.bench.config import DEPTH, LINEAR
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.rooms import Rooms
from mask3d_core.store import Store
from mask3d_viz.run_plans import command_of
from mask3d_core.training.config import pretrain_config

TINY = ["--set", "model.image_size=[48,64]", 'model.rgb={"timm":"","width":32,"depth":2,"heads":2}', "fit.batch_size=2", "preview=0",
        'model.depth={"timm":"","width":32,"depth":1,"heads":2}', "model.decoder_width=32", "model.decoder_depth=1",
        "model.decoder_heads=2", "eval_frames=2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run from scratch, a store of rooms, and a run that continues the first on them."""
    folder = tmp_path_factory.mktemp("continued")
    store = prepare(Rooms(count=48, seed=31, height=64, width=80, views_per_room=2), folder / "store",
                    PrepareConfig(64, 80, val_share=0.2, test_share=0.3), progress=False)
    first = ["pretrain", str(folder / "first"), "--data", str(store.path), "--steps", "1", "--device", "cpu", *TINY]
    again = ["pretrain", str(folder / "again"), "--data", str(store.path), "--init", str(folder / "first"), "--no-probe", "--steps", "2",
             "--device", "cpu", *TINY]
    assert main(first) == 0 and main(again) == 0
    return folder


def test_before_and_after_stand_beside_the_opponents(runs):
    config = BenchConfig(size=(48, 64))
    result = before_and_after(str(runs / "first"), runs / "again", store_frames(runs / "store", config), config)
    assert {BEFORE, AFTER} < set(result.rows) and "untrained, same shape" in result.rows and "raw pixels + position" in result.rows
    text = difference_text(result)
    assert text.startswith("after minus before, paired:") and "depth, linear: AbsRel" in text and "(lower is better)" in text
    assert result.difference(AFTER, BEFORE, DEPTH, LINEAR).mean == pytest.approx(
        result.estimate(AFTER, DEPTH, LINEAR).mean - result.estimate(BEFORE, DEPTH, LINEAR).mean, abs=1e-9)
    assert all(row.seen == 0 for row in result.rows.values()), "test frames were trained on by neither"


def test_a_run_from_noise_has_no_before(runs):
    with pytest.raises(ConfigError, match="began from random weights"):
        before_and_after("random", runs / "first", store_frames(runs / "store", BenchConfig(size=(48, 64))))


def test_a_recording_is_prepared_first(shared_data, tmp_path):
    """A folder of frames as data: the store lies in the run folder, and the same command goes on with it."""
    command = ["pretrain", str(tmp_path / "run"), "--data", str(shared_data / "tum_fr1_rpy"), "--steps", "1", "--device", "cpu", *TINY]
    assert main(command) == 0
    store = Store(tmp_path / "run" / "store")
    assert len(store) == 80 and json.loads((tmp_path / "run" / "config.json").read_text())["data"] == str(store.path)
    assert main(command) == 0, "done: nothing is trained again"


def test_the_lab_does_not_probe_behind_the_readers_back(tmp_path):
    assert "--no-probe" in command_of(tmp_path, pretrain_config("tiny", init="data/checkpoints/tiny"))
    assert "--no-probe" not in command_of(tmp_path, pretrain_config("tiny"))

"""The plan: real steps are measured, the arithmetic is exact, warnings come where they should, nothing is left behind."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
import torch
from list_source import ListSource

from mask3d_core import plan_measurements
from mask3d_core.batches import RoomsBatches, StoreBatches
from mask3d_core.errors import ConfigError, Mask3DError, StoreError
from mask3d_core.masking import MaskConfig
from mask3d_core.models import DepthTarget, EncoderConfig, Mask3D, ModelConfig, parameter_count
from mask3d_core.plan import make_plan
from mask3d_core.plan_advice import IMAGENET, MAE_EPOCHS, PARAMETERS_PER_FRAME, advice, reference_runs
from mask3d_core.plan_measurements import Steps, expected_seconds, frame_cost, measure_steps, peak_memory
from mask3d_core.plan_report import duration, flops, share, size
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.store import Store
from mask3d_core.tasks.pretrain import Pretrain
from mask3d_core.training.config import FitConfig, PretrainConfig
from mask3d_core.training.log import Progress
from mask3d_core.training.engine import Engine
from mask3d_core.training.pretraining import pretrain

MODEL = ModelConfig(image_size=(32, 48), rgb=EncoderConfig(width=32, depth=2, heads=2),
                    depth=EncoderConfig(width=24, depth=1, heads=2), decoder_width=32, decoder_depth=1, decoder_heads=2,
                    target=DepthTarget(reference_focal=48.0))
FIT = FitConfig(steps=40, batch_size=4, learning_rate=0.05, precision="float32", ema=0.9, save_every=20, eval_every=15)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "store"
    prepare(ListSource(count=30, sequences=6), path, PrepareConfig(height=40, width=56, workers=1), progress=False)
    return path


@pytest.fixture(scope="module")
def config(store) -> PretrainConfig:
    return PretrainConfig(data=str(store), model=MODEL, mask=MaskConfig(ratios=((0.5, 0.5), (0.0, 1.0))), fit=FIT,
                          eval_frames=4, preview=2)


@pytest.fixture(scope="module")
def plan(config):
    return make_plan(config, steps=3, device="cpu", show=False)


def test_it_says_what_the_run_will_be(plan, config, store):
    frames = len(Store(store).indices("train"))
    assert (plan.steps, plan.frames_per_step, plan.frames_seen) == (40, 4, 160)
    assert plan.distinct_frames == frames and plan.epochs == pytest.approx(160 / frames)
    assert plan.parameters == parameter_count(Mask3D(MODEL)) > plan.kept_parameters > 0
    assert plan.evaluations == 1 + 3 and plan.saves == 2  # before step 1, at 15, 30 and the end; at 20 and the end
    assert plan.measured_steps == 3 and plan.measured_batch == 4 and plan.precision == "float32"
    assert plan.total_seconds == pytest.approx(plan.start_seconds + 40 * plan.step_seconds + 4 * plan.evaluation_seconds
                                               + 2 * plan.save_seconds)
    assert plan.frames_per_second == pytest.approx(4 / plan.step_seconds) and 0 <= plan.waited <= 1
    assert plan.memory_bytes is None or plan.memory_bytes > 10e6


def test_words_and_json_say_the_same(plan):
    values = json.loads(plan.to_json())
    assert values["frames_seen"] == 160 and values["parameters"] == plan.parameters
    assert values["references"][-1]["frames_seen"] == MAE_EPOCHS * IMAGENET
    text = plan.text()
    for words in ("40 steps of 4 frames", "160 seen", "frames/s", "MAE on ImageNet", duration(plan.total_seconds),
                  size(plan.disk_free)):
        assert words in text
    assert all(warning in text for warning in plan.warnings)


def test_the_disk_it_names_is_what_the_run_takes(plan, config, tmp_path):
    pretrain(config, tmp_path / "run", "cpu", show=False)
    found = {"states": tmp_path / "run" / "state", "previews": tmp_path / "run" / "previews"}
    for name, folder in found.items():
        taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert plan.disk[name] == pytest.approx(taken, rel=0.25), name  # safetensors' headers weigh in at this size
    taken = sum(file.stat().st_size for file in (tmp_path / "run").glob("latest.safetensors"))
    assert plan.disk["latest"] == pytest.approx(taken, rel=0.2)
    assert 0.3 < plan.disk["log"] / (tmp_path / "run" / "log.jsonl").stat().st_size < 3
    assert len(list((tmp_path / "run" / "previews").glob("step-*.npz"))) == plan.evaluations
    assert len(list((tmp_path / "run" / "state").iterdir())) == FIT.keep


def test_nothing_is_left_behind(config, tmp_path, monkeypatch):
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    for folder in (work, scratch):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    make_plan(config, steps=1, device="cpu", run=tmp_path / "not" / "yet", show=False)
    assert not list(work.iterdir()) and not list(scratch.iterdir()) and not (tmp_path / "not").exists()


def test_wrong_input_is_one_clear_line(config, tmp_path):
    with pytest.raises(StoreError, match="mask3d prepare"):
        make_plan(dataclasses.replace(config, data=str(tmp_path / "none")), device="cpu", show=False)
    with pytest.raises(ConfigError, match="fit.steps"):
        make_plan(dataclasses.replace(config, fit=dataclasses.replace(FIT, steps=0)), device="cpu", show=False)
    with pytest.raises(Mask3DError, match="at least one step"):
        make_plan(config, steps=0, device="cpu", show=False)
    with pytest.raises(Mask3DError, match="frames_seen"):
        make_plan(config, device="cpu", reference=tmp_path, show=False)


def test_what_memory_or_patience_do_not_allow_is_measured_in_smaller_batches(config, monkeypatch):
    monkeypatch.setattr("mask3d_core.plan.memory_limit", lambda device: 1)
    small = make_plan(config, steps=1, device="cpu", show=False)
    assert small.measured_batch == 1 and small.frames_per_step == 4
    assert any("does not fit into memory" in words and "fit.accumulate=4" in words for words in small.warnings)
    assert any("batches of 1 instead of 4" in words for words in small.warnings)


def test_live_rooms_never_repeat(config, monkeypatch):
    class Few(RoomsBatches):
        """Few frames for the statistics, so that this test is short."""

        def __init__(self, rooms, batch_size, *rest):
            super().__init__(rooms, min(batch_size, 2), *rest)

    monkeypatch.setattr("mask3d_core.training.pretraining.RoomsBatches", Few)
    rooms = dataclasses.replace(config, data="rooms", eval_frames=1, preview=1)
    plan = make_plan(dataclasses.replace(rooms, fit=dataclasses.replace(FIT, batch_size=2)), 1, "cpu", show=False)
    assert plan.distinct_frames is None and plan.epochs is None and plan.store_bytes is None
    assert "each a new one" in plan.text() and not any("too little data" in words for words in plan.warnings)


class TestAdvice:
    """Each warning comes when its number says so, and only then."""

    def warnings(self, plan, config, validation=4, valid_share=0.9, **changes):
        return " | ".join(advice(config, dataclasses.replace(plan, **changes), validation, valid_share))

    def test_too_little_data(self, plan, config):
        needed = 10_000_000 // PARAMETERS_PER_FRAME
        few = self.warnings(plan, config, parameters=10_000_000, distinct_frames=needed - 1)
        assert "too little data for this preset" in few and f"{needed:,}" in few
        assert "too little data" not in self.warnings(plan, config, parameters=10_000_000, distinct_frames=needed)

    def test_repeats(self, plan, config):
        assert "more than MAE's 1600" in self.warnings(plan, config, steps=500, distinct_frames=1)
        assert "only 50 % of the training frames" in self.warnings(plan, config, distinct_frames=320)
        assert "recording(s)" in self.warnings(plan, config, recordings=1)
        assert "recording(s)" not in self.warnings(plan, config, recordings=50)
        assert "no validation frames" in self.warnings(plan, config, validation=0)
        assert "hold a depth" in self.warnings(plan, config, valid_share=0.3)

    def test_resources(self, plan, config):
        assert "does not fit on the disk" in self.warnings(plan, config, disk_free=1)
        assert "waits for its batch" in self.warnings(plan, config, waited=0.6)
        assert "busy" in self.warnings(plan, config, load_average=9.0, cores=2)
        assert "busy" not in self.warnings(plan, config, load_average=1.0, cores=2)
        assert "power cut" in self.warnings(plan, config, step_seconds=400.0)
        assert "does not fit into memory" in self.warnings(plan, config, memory_bytes=9, memory_limit=8)

    def test_recipe(self, plan, config):
        wild = dataclasses.replace(config, fit=dataclasses.replace(FIT, learning_rate=10.0))
        assert "unusual learning rate" in self.warnings(plan, wild)
        assert "unusual batch: 4 frames" in self.warnings(plan, config)
        usual = self.warnings(plan, dataclasses.replace(config, fit=dataclasses.replace(FIT, learning_rate=1.5e-4)),
                              frames_per_step=256)
        assert "unusual" not in usual
        blind = dataclasses.replace(config, mask=MaskConfig(ratios=((0.0, 1.0),)))
        assert "depth encoder never sees anything" in self.warnings(plan, blind)
        assert "never sees" not in self.warnings(plan, config)
        sparse = dataclasses.replace(config, mask=MaskConfig(ratios=((0.5, 0.7),)))
        assert "fewer than 4 of 6 depth patches" in self.warnings(plan, sparse)


def test_references(tmp_path):
    def write(name: str, **record):
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "mask3d", **record}))

    write("other", frames_seen=500, training={"name": "base/mask3d"})
    write("short", frames_seen=10, training={"name": "tiny/mask3d"})
    write("long", frames_seen=90, training={"name": "tiny/mask3d"})
    (tmp_path / "export.json").write_text('{"kind": "timm"}')
    (tmp_path / "torn.json").write_text('{"kind"')
    ours, published = reference_runs(tmp_path, "tiny/mask3d")
    assert (ours.frames_seen, ours.source) == (90, "long.json") and published.frames_seen == 2_049_867_200
    assert reference_runs(tmp_path / "other.json", "tiny/mask3d")[0].frames_seen == 500
    with pytest.raises(Mask3DError, match="torn.json"):
        reference_runs(tmp_path / "torn.json", "tiny/mask3d")
    with pytest.raises(Mask3DError, match="no such file"):
        reference_runs(tmp_path / "absent", "tiny/mask3d")


def test_expected_seconds_corrects_for_the_ratios_that_were_drawn():
    cheap, dear = (0.8, 0.8), (0.0, 0.0)
    work = {cheap: 1.0, dear: 5.0}
    steps = Steps((0.1, 0.1, 0.5), 0.0, (cheap, cheap, dear), 0.0)
    mean, half = expected_seconds(steps, work, 2.0)  # 0.1 s per unit of work
    assert mean == pytest.approx(0.2) and half == pytest.approx(0, abs=1e-9)
    mean, half = expected_seconds(Steps((0.2, 0.4), 0.0, (cheap, cheap), 0.0), work, 2.0)
    assert mean == pytest.approx(0.3) and half == pytest.approx(1.96 * 0.1)
    assert expected_seconds(Steps((0.2,), 0.0, (cheap,), 0.0), work, 2.0) == (0.2, 0.0)


def test_work_is_counted_by_pair(config, store):
    batches = StoreBatches(Store(store), Store(store).indices("train"), 2, MODEL.image_size)
    task = Pretrain(config, Mask3D(MODEL), None, {})
    cost = frame_cost(task, batches.batch(0), "float32")
    both, rgb_only = cost.flops[(0.5, 0.5)], cost.flops[(0.0, 1.0)]
    # the decoder alone, by hand: 12 width^2 per token of a block's matrices, twice that in FLOP, three passes
    decoder = 3 * 2 * 12 * MODEL.decoder_width**2 * 6
    assert decoder < both < 40 * decoder and rgb_only != both and cost.saved_bytes > 4 * 6 * 32
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_a_compiler_that_fails_is_named(config, store, monkeypatch):
    from torch._inductor.exc import InductorError

    opened = Store(store)
    batches = StoreBatches(opened, opened.indices("train"), 2, MODEL.image_size)
    engine = Engine(Pretrain(config, Mask3D(MODEL), None, {}), FIT, Path("."), torch.device("cpu"), 2)

    def fail(problem):
        def train_step(source):
            raise problem
        return train_step

    progress = Progress(2, 0, 2, "plan", False)
    engine.config = dataclasses.replace(FIT, compile=True)
    monkeypatch.setattr(engine, "train_step", fail(InductorError(RuntimeError("no g++ here"), None)))
    with pytest.raises(Mask3DError, match="fit.compile=false"):
        measure_steps(engine, batches, 1, 1, progress)
    monkeypatch.setattr(engine, "train_step", fail(KeyError("a fault of ours")))
    with pytest.raises(KeyError):
        measure_steps(engine, batches, 1, 1, progress)


def test_words_for_numbers():
    assert [duration(s) for s in (2.34, 59, 61, 7380, 3600 * 26)] == ["2.3 s", "59 s", "1 min 1 s", "2 h 3 min", "1 d 2 h"]
    assert [size(b) for b in (4321, 2.5e6, 7.25e9, 3e12)] == ["4 kB", "2.5 MB", "7.25 GB", "3 TB"]
    assert share(0.5) == "50 %" and share(0.00123) == "0.12 %" and flops(5.5e9) == "5.5 GFLOP"
    assert peak_memory(torch.device("cpu")) is None or peak_memory(torch.device("cpu")) > 1e7
    assert plan_measurements.disk_speed(None, 1) > 0

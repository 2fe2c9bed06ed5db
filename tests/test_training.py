"""The engine: learns, resumes bit-equal after a kill, adds micro-batches and ranks exactly, stops cleanly, guards NaN."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_store import MemoryStore
from safetensors.torch import load_file

from mask3d_core.batches import AugmentConfig, StoreBatches
from mask3d_core.errors import CheckpointError, ConfigError, Mask3DError
from mask3d_core.losses import LossConfig
from mask3d_core.masking import MaskConfig
from mask3d_core.models import CONTROLS, DepthTarget, EncoderConfig, Mask3D, ModelConfig
from mask3d_core.tasks.pretrain import Pretrain, pretrain_loss
from mask3d_core.training.checkpoint import load_model, save_model
from mask3d_core.training.config import (
    CONTROL_RATIOS, FitConfig, PretrainConfig, from_dict, pretrain_config, to_dict)
from mask3d_core.training.engine import Engine
from mask3d_core.training.log import read_log
from mask3d_core.training.loop import fit
from mask3d_core.training.pretraining import check_same_run, fixed_batch
from mask3d_core.training.schedule import learning_rate, parameter_groups
from mask3d_core.training.statistics import gather_statistics

ROOT = Path(__file__).resolve().parents[1]
MODEL = ModelConfig(image_size=(64, 80), rgb=EncoderConfig(width=32, depth=2, heads=2),
                    depth=EncoderConfig(width=24, depth=2, heads=2), decoder_width=32, decoder_depth=2, decoder_heads=2,
                    target=DepthTarget(representation="inverse", reference_focal=80.0))
CONFIG = PretrainConfig(
    model=MODEL, mask=MaskConfig(ratios=((0.6, 0.6), (0.5, 1.0), (1.0, 0.5))), preview=2,
    loss=LossConfig(kind="l1", counted="all", gradient=0.2, normal=0.1, multi_scale=0.1),
    fit=FitConfig(steps=6, batch_size=4, learning_rate=0.05, log_every=1, precision="float32", ema=0.9, save_every=2,
                  eval_every=3))


def make_task(config: PretrainConfig = CONFIG, store: MemoryStore | None = None) -> tuple[Pretrain, StoreBatches]:
    store = store or MemoryStore()
    batches = StoreBatches(store, store.indices("train"), config.fit.batch_size, config.model.image_size,
                           AugmentConfig(), config.fit.seed)
    torch.manual_seed(config.fit.seed)
    model = Mask3D(config.model)
    model.set_depth_statistics(0.45, 0.2)
    validation = fixed_batch(store, store.indices("val"), config.model.image_size)
    return Pretrain(config, model, validation, {"fingerprint": store.fingerprint}), batches


def run_fit(run: Path, config: PretrainConfig = CONFIG, **options):
    task, batches = make_task(config)
    return fit(task, batches, config.fit, run, "cpu", show=False, **options), task


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_log(run / "log.jsonl") if "loss" in record}


def test_a_run_leaves_what_others_watch(tmp_path):
    drawn = []
    result, _ = run_fit(tmp_path, on_preview=lambda run, step: drawn.append(step))
    assert result.is_finished and result.step == 6 and drawn == [0, 3, 6]
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5, 6]
    preview = np.load(tmp_path / "previews" / "step-000000006.npz")
    assert preview["prediction"].shape == (2, 64, 80) and preview["is_masked_depth"].shape == (2, 20)
    model, record = load_model(tmp_path)
    assert record["step"] == 6 and record["frames_seen"] == 24 and record["data"]["fingerprint"] == "memory"
    assert record["metrics"]["abs_rel"] > 0 and record["precision"] == "float32"
    assert from_dict(PretrainConfig, record["training"]) == CONFIG
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["step-000000004", "step-000000006"]


def test_it_learns_and_overfits(tmp_path):
    config = dataclasses.replace(CONFIG, mask=MaskConfig(ratios=((0.5, 0.5),)), loss=LossConfig("l1", "all"),
                                 fit=dataclasses.replace(CONFIG.fit, steps=400, eval_every=0, save_every=0, ema=0.0,
                                                         learning_rate=1.0, log_every=1))
    store = MemoryStore(4, holes=0.0)
    batches = StoreBatches(store, np.arange(4), 4, config.model.image_size, AugmentConfig.none())
    task, _ = make_task(config, store)
    fit(task, batches, config.fit, tmp_path, "cpu", show=False)
    curve = losses(tmp_path)
    assert np.mean([curve[s] for s in range(390, 401)]) < 0.25 * np.mean([curve[s] for s in range(1, 6)])


@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_trains(tmp_path, control):
    model = dataclasses.replace(MODEL, **CONTROLS[control])
    ratios = CONTROL_RATIOS.get(control, ((0.8, 0.8),))
    config = dataclasses.replace(CONFIG, model=model, mask=MaskConfig(ratios=ratios), loss=LossConfig())
    result, _ = run_fit(tmp_path, config)
    assert result.is_finished and all(np.isfinite(v) for v in losses(tmp_path).values())
    name = "rgb_error" if control == "mae" else "abs_rel"
    assert result.metrics[name] > 0
    load_model(tmp_path)


def test_resume_repeats_the_losses_bit_for_bit(tmp_path):
    run_fit(tmp_path / "whole")

    def stop_at_four(step, record):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    first, _ = run_fit(tmp_path / "cut", on_step=stop_at_four)
    assert not first.is_finished and first.step == 4
    second, _ = run_fit(tmp_path / "cut")
    assert second.is_finished
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    whole, cut = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


KILLED = """
import sys; sys.path[:0] = ["tests", "."]
import os, signal, torch
from pathlib import Path
torch.set_num_threads(1)
from test_training import CONFIG, run_fit
kill_at = int(sys.argv[2])
def step(number, record):
    if number == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
run_fit(Path(sys.argv[1]), on_step=step)
"""


def test_a_killed_run_resumes_bit_equal_from_its_last_save(tmp_path):
    def start(run: str, kill_at: int) -> int:
        return subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / run), str(kill_at)], cwd=ROOT,
                              capture_output=True).returncode

    assert start("whole", -1) == 0
    assert start("cut", 5) == -signal.SIGKILL
    assert start("cut", -1) == 0
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def gradients_after_one_step(accumulate: int, batch_size: int) -> dict[str, torch.Tensor]:
    settings = dataclasses.replace(CONFIG.fit, accumulate=accumulate, batch_size=batch_size, clip=0.0)
    config = dataclasses.replace(CONFIG, fit=settings)
    store = MemoryStore()
    store.depth[:5] = 0  # frames without any depth: the pieces hold different numbers of counted frames
    task, batches = make_task(config, store)
    engine = Engine(task, config.fit, Path("."), torch.device("cpu"), accumulate * batch_size)
    engine.train_step(batches.iterate())
    return {name: p.grad.clone() for name, p in engine.model.named_parameters() if p.grad is not None}


def test_micro_batches_add_up_to_one_batch():
    whole, pieces = gradients_after_one_step(1, 8), gradients_after_one_step(4, 2)
    assert whole.keys() == pieces.keys() and len(whole) > 20
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-3, atol=1e-6)


RANK = """
import sys; sys.path[:0] = ["tests", "."]
import dataclasses, torch
from pathlib import Path
torch.set_num_threads(1)
from mask3d_core.batches import AugmentConfig, StoreBatches
from mask3d_core.training.loop import fit, start_processes
from test_training import CONFIG, make_task
from memory_store import MemoryStore
start_processes("cpu")
world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
rank = torch.distributed.get_rank() if world > 1 else 0
config = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, batch_size=8 // world))
store = MemoryStore(); store.depth[:5] = 0
task, _ = make_task(config, store)
batches = StoreBatches(store, store.indices("train"), 8 // world, (64, 80), AugmentConfig(), 0, "cpu", rank, world)
fit(task, batches, config.fit, Path(sys.argv[1]), "cpu", show=False)
"""


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    subprocess.run([sys.executable, "-c", RANK, str(tmp_path / "one")], cwd=ROOT, check=True, capture_output=True)
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           str(script), str(tmp_path / "two")], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"})
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    for step in one:
        assert one[step] == pytest.approx(two[step], rel=1e-4), step
    first, second = (load_model(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-2, atol=1e-4)


DRAWING = """
import sys; sys.path[:0] = ["tests", "."]
import dataclasses, torch
from pathlib import Path
torch.set_num_threads(1)
from mask3d_core.batches import AugmentConfig, StoreBatches
from mask3d_core.training.loop import fit, start_processes
from test_training import CONFIG, make_task
from memory_store import MemoryStore
start_processes("cpu")
rank, run, drawn = torch.distributed.get_rank(), Path(sys.argv[1]), []
config = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, steps=4, batch_size=2, keep=9))
task, _ = make_task(config)
def leave_out(module, inputs, output):  # as stochastic depth and dropout do
    if not module.training: return output
    kept = torch.rand(output.shape[0], 1, 1) < 0.5
    drawn.append(kept.flatten().tolist())
    return output * kept
task.model.rgb_encoder.blocks[0].register_forward_hook(leave_out)
store = MemoryStore()
batches = StoreBatches(store, store.indices("train"), 2, (64, 80), AugmentConfig(), 0, "cpu", rank, 2)
fit(task, batches, config.fit, run, "cpu", show=False)
(run / f"drawn-{rank}.json").write_text(repr(drawn))
"""


@pytest.mark.slow
def test_two_ranks_draw_apart_and_go_on_exactly(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(DRAWING)

    def train(run: Path) -> list[str]:
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(run)],
                              cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"})
        assert done.returncode == 0, done.stderr[-3000:]
        return [(run / f"drawn-{rank}.json").read_text() for rank in (0, 1)]

    first, second = train(tmp_path / "whole")
    assert first != second, "else both leave the same frames' blocks out"
    states = sorted((tmp_path / "whole" / "state").iterdir())
    assert len(states) >= 2
    begun = tmp_path / "begun"
    shutil.copytree(tmp_path / "whole", begun)
    for state in sorted((begun / "state").iterdir())[1:]:  # as after a kill between the first save and the second
        shutil.rmtree(state)
    again = train(begun)
    for mine, whole in zip(again, (first, second), strict=True):
        assert eval(mine) == eval(whole)[-len(eval(mine)):] != []
    weights, resumed = (load_file(tmp_path / name / "latest.safetensors") for name in ("whole", "begun"))
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_a_non_finite_loss_changes_nothing_and_a_lasting_one_stops_the_run(tmp_path, capsys):
    task, batches = make_task()
    engine = Engine(task, CONFIG.fit, tmp_path, torch.device("cpu"), 4)
    source = batches.iterate()
    engine.train_step(source)
    before = {k: v.clone() for k, v in engine.model.state_dict().items()}
    true_loss = task.loss

    def broken(*arguments):
        loss = true_loss(*arguments)
        return dataclasses.replace(loss, total=loss.total * float("nan"))

    task.loss = broken
    engine.train_step(source)
    assert all(torch.equal(before[k], v) for k, v in engine.model.state_dict().items())
    assert engine.skipped == 1
    task.loss = true_loss
    engine.train_step(source)
    assert engine.skipped == 0
    task.loss = broken
    fit(task, batches, dataclasses.replace(CONFIG.fit, steps=2), tmp_path / "short", "cpu")
    assert "the last 2 step(s) had a non-finite gradient" in "".join(capsys.readouterr())
    with pytest.raises(Mask3DError, match="non-finite"):
        fit(task, batches, dataclasses.replace(CONFIG.fit, steps=9, max_skipped=3), tmp_path / "run", "cpu", show=False)


def test_a_batch_without_depth_leaves_the_run_alive(tmp_path):
    store = MemoryStore()
    store.depth[:] = 0
    task, batches = make_task(CONFIG, MemoryStore())
    batches.store = store
    batch = batches.batch(0)
    masks = task.masks(batch, (0.5, 0.5), 0)
    loss = pretrain_loss(CONFIG, batch, masks, task.model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, masks))
    assert loss.total.item() == 0 and loss.count.item() == 0
    assert fit(task, batches, CONFIG.fit, tmp_path, "cpu", show=False).is_finished


def test_another_configuration_does_not_continue_a_run(tmp_path):
    run_fit(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(CONFIG)))
    check_same_run(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="loss.kind"):
        check_same_run(tmp_path, dataclasses.replace(CONFIG, loss=LossConfig("l2", "all", 0.2, 0.1, 0.1)))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="without its config.json"):
        check_same_run(tmp_path, CONFIG)


def test_another_number_of_frames_per_step_does_not_continue_a_run(tmp_path):
    run_fit(tmp_path)
    other = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, batch_size=2, steps=8))
    with pytest.raises(ConfigError, match="4 frames per step"):
        run_fit(tmp_path, other)


def test_a_save_between_two_log_steps_loses_no_loss(tmp_path):
    config = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, log_every=4, save_every=3))
    run_fit(tmp_path, config)
    found = [loss for r in read_log(tmp_path / "log.jsonl") for loss in r.get("losses", [])]
    assert len(found) == 6


def test_configurations_survive_json_and_name_every_problem():
    for control in CONTROLS:
        config = pretrain_config("tiny", control)
        assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert pretrain_config("base").mask.ratios == ((0.8, 0.8),)
    values = to_dict(CONFIG)
    values["fit"]["stepz"], values["model"]["patch"] = 3, "16"
    with pytest.raises(ConfigError) as caught:
        from_dict(PretrainConfig, values)
    assert len(caught.value.problems) == 2


def test_statistics_of_the_training_data():
    store = MemoryStore()
    batches = StoreBatches(store, store.indices("train"), 6, (64, 80), AugmentConfig.none())
    target = DepthTarget(representation="inverse", reference_focal=80.0)
    statistics = gather_statistics([batches.batch(0), batches.batch(1)], target)
    pictures = torch.cat([batches.batch(0).depth, batches.batch(1).depth])
    inverse = 1 / pictures[pictures > 0]
    assert statistics.mean == pytest.approx(inverse.mean().item(), rel=1e-4)
    assert statistics.std == pytest.approx(inverse.std().item(), rel=1e-3)
    seen = pictures[:, 40, 40]
    torch.testing.assert_close(statistics.mean_map[40, 40], seen[seen > 0].mean())
    with pytest.raises(ConfigError, match="no valid depth"):
        empty = batches.batch(0)
        gather_statistics([dataclasses.replace(empty, is_valid=empty.is_valid & False)], target)


def test_schedule_and_groups():
    config = FitConfig(steps=100, warmup=0.1, learning_rate=1.0, final_rate=0.1)
    rates = [learning_rate(config, step, 256) for step in range(100)]
    assert rates[9] == pytest.approx(1.0) and max(rates) == rates[9] == rates[10]
    assert rates[0] == pytest.approx(0.1) and 0.1 <= rates[-1] < 0.11
    assert learning_rate(config, 10, 512) == pytest.approx(2.0)
    groups = parameter_groups(Mask3D(MODEL), 0.05)
    assert not any("bias" in n or "norm" in n or "pos_embed" in n or "cls_token" in n for n in groups[0]["names"])
    assert sum(len(g["params"]) for g in groups) == len(list(Mask3D(MODEL).parameters()))


class TestCheckpoints:
    """Round trip, half precision, and every way a file can be wrong."""

    @pytest.fixture
    def saved(self, tmp_path):
        torch.manual_seed(0)
        model = Mask3D(MODEL)
        return model, save_model(tmp_path / "model", model, {"step": 3}, extras={"mean_map": torch.ones(64, 80)})

    def test_round_trip(self, saved):
        model, name = saved
        for path in (name, f"{name}.json", f"{name}.safetensors"):
            again, record = load_model(path)
            assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
        assert record["step"] == 3 and record["extras"]["mean_map"].shape == (64, 80)

    def test_half_precision_on_disk(self, saved, tmp_path):
        model, name = saved
        half = save_model(tmp_path / "half", model, {}, half=True)
        ratio = half.with_suffix(".safetensors").stat().st_size / name.with_suffix(".safetensors").stat().st_size
        assert ratio < 0.7
        again, _ = load_model(half)
        assert all(v.dtype == model.state_dict()[k].dtype for k, v in again.state_dict().items())

    @pytest.mark.parametrize("cut", [0, 5, 100, -7])
    def test_cut_short(self, saved, cut):
        path = saved[1].with_suffix(".safetensors")
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(CheckpointError, match="safetensors"):
            load_model(saved[1])

    def test_missing_half(self, saved):
        saved[1].with_suffix(".json").unlink()
        with pytest.raises(CheckpointError, match="belong together"):
            load_model(saved[1])
        with pytest.raises(CheckpointError, match="nothing there"):
            load_model("no/such/checkpoint")

    @pytest.mark.parametrize("change,words", [
        ({"format": 99}, "newer"), ({"kind": "other"}, "something else"), ({"model": {"colour": 1}}, "unknown key"),
        ({"model": None}, "mapping")])
    def test_wrong_json(self, saved, change, words):
        path = saved[1].with_suffix(".json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(Mask3DError, match=words):
            load_model(saved[1])

    def test_wrong_shapes(self, saved):
        path = saved[1].with_suffix(".json")
        values = json.loads(path.read_text())
        values["model"]["decoder_width"] = 64
        path.write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match="other shapes"):
            load_model(saved[1])

    def test_fuzzed_bytes_never_crash(self, saved):
        path = saved[1].with_suffix(".safetensors")
        good = path.read_bytes()
        generator = np.random.default_rng(0)
        started = time.time()
        for _ in range(60):
            bad = bytearray(good)
            for place in generator.integers(0, 400, 4):  # the header: names, shapes, offsets
                bad[place] = generator.integers(0, 256)
            path.write_bytes(bytes(bad))
            try:
                load_model(saved[1])
            except Mask3DError:
                pass
        assert time.time() - started < 600  # it came back at all

"""Whole runs through ``pretrain``: live rooms, a real store, timm weights, overfitting, packaging, the step-0 twin."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from test_training import MODEL

from mask3d_core.batches import RoomsBatches
from mask3d_core.errors import ConfigError
from mask3d_core.masking import MaskConfig
from mask3d_core.models import EncoderConfig
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.opening import open_path
from mask3d_core.sources.rooms import RoomsConfig
from mask3d_core.training import pretraining
from mask3d_core.training.checkpoint import load_model, read_tensors
from mask3d_core.training.config import FitConfig, PretrainConfig, from_dict
from mask3d_core.training.log import read_log, reference_curve
from mask3d_core.training.pretraining import build_model, package, pretrain, step_zero

FIT = FitConfig(steps=2, batch_size=4, learning_rate=0.05, log_every=1, precision="float32", save_every=1)
CONFIG = PretrainConfig(model=MODEL, mask=MaskConfig(((0.6, 0.6), (0.5, 1.0))), fit=FIT, eval_frames=4, preview=1)


@pytest.fixture(scope="module")
def live_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("live")
    pretrain(CONFIG, run, "cpu", show=False)
    return run


def test_live_rooms_never_repeat_and_follow_their_seed():
    rooms = RoomsConfig(height=64, width=80, sensor=0.5)
    batches = RoomsBatches(rooms, 2, (48, 64))
    first, second = batches.batch(0), batches.batch(1)
    assert first.frame_ids.tolist() == [0, 1] and second.frame_ids.tolist() == [2, 3]
    assert torch.equal(first.depth, RoomsBatches(rooms, 2, (48, 64)).batch(0).depth)
    halves = [RoomsBatches(rooms, 1, (48, 64), rank=r, world=2).batch(1).depth for r in (0, 1)]
    torch.testing.assert_close(torch.cat(halves), second.depth)
    assert first.may_have_holes and first.semantic.shape == first.depth.shape


def test_a_live_run_is_recorded(live_run):
    model, record = load_model(live_run)
    assert record["data"]["kind"] == "rooms" and record["data"]["rooms"][0]["sensor"] == 0.35
    assert record["metrics"]["abs_rel"] > 0 and model.depth_std > 0
    assert record["extras"]["mean_map"].shape == (64, 80)


def test_the_step_zero_twin_is_where_the_run_began(live_run):
    _, record = load_model(live_run)
    twin = step_zero(record)
    torch.manual_seed(123)  # whatever the state of the random numbers
    again = step_zero(record)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in twin.state_dict().items())
    trained = load_model(live_run)[0]
    with pytest.raises(ConfigError, match="cannot be remade"):
        step_zero({})
    assert not torch.equal(twin.depth_head.weight, trained.depth_head.weight)
    assert float(twin.depth_mean) == pytest.approx(float(trained.depth_mean))


def test_packaging_halves_a_checkpoint_and_keeps_its_record(live_run, tmp_path):
    name = package(live_run, tmp_path / "small", command="mask3d pretrain ...")
    model, record = load_model(name)
    original, before = load_model(live_run)
    assert record["command"] == "mask3d pretrain ..." and record["step"] == before["step"]
    assert record["extras"]["mean_map"].shape == (16, 20)
    torch.testing.assert_close(model.depth_head.weight, original.depth_head.weight, atol=1e-3, rtol=1e-2)


def test_continuing_keeps_the_space_of_the_weights(live_run, tmp_path):
    config = dataclasses.replace(CONFIG, init=str(live_run), rooms_seed=5)
    pretrain(config, tmp_path, "cpu", show=False)
    first, then = load_model(live_run)[0], load_model(tmp_path)[0]
    assert torch.equal(first.depth_mean, then.depth_mean) and torch.equal(first.depth_std, then.depth_std)


def test_timm_weights_start_the_rgb_encoder(monkeypatch, tmp_path):
    """Stands in for the download: create_model(pretrained=True) gives a model with known weights."""
    true_create = timm.create_model

    def create(name, pretrained=False, **options):
        model = true_create(name, pretrained=False, **options)
        if pretrained:
            torch.nn.init.constant_(model.cls_token, 0.123)
        return model

    monkeypatch.setattr(timm, "create_model", create)
    config = dataclasses.replace(CONFIG, init="timm:vit_tiny_patch16_224")
    config = pretraining.training_model_config(config)
    assert config.model.rgb.timm == "vit_tiny_patch16_224" and config.model.color_mean == (0.5, 0.5, 0.5)
    assert (build_model(config).rgb_encoder.cls_token == 0.123).all()
    with pytest.raises(ConfigError, match="set model.rgb.timm"):
        build_model(dataclasses.replace(config, model=dataclasses.replace(config.model, rgb=EncoderConfig(width=32, heads=2))))


def test_timm_weights_without_a_network_fail_in_one_line(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # at once, not after a minute of retries
    config = dataclasses.replace(CONFIG, init="timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    with pytest.raises(ConfigError, match="network|weights"):
        build_model(pretraining.training_model_config(config))


def test_real_kinect_frames_train(shared_data, tmp_path):
    store = prepare(open_path(shared_data / "tum_fr1_rpy"), tmp_path / "tum",
                    PrepareConfig(height=72, width=96), progress=False)
    config = dataclasses.replace(CONFIG, data=str(store.path), fit=dataclasses.replace(FIT, steps=4))
    result = pretrain(config, tmp_path / "run", "cpu", show=False)
    values = [r["loss"] for r in read_log(tmp_path / "run" / "log.jsonl") if "loss" in r]
    assert result.is_finished and np.isfinite(values).all()
    _, record = load_model(tmp_path / "run")
    assert store.is_seen(store.indices("train"), record["data"]["sequences"]).all()
    assert not store.is_seen(store.indices("test"), record["data"]["sequences"]).any()


def test_overfit_uses_few_frames_without_augmentation(tmp_path, shared_data):
    store = prepare(open_path(shared_data / "icl_livingroom1"), tmp_path / "icl", PrepareConfig(height=72, width=96),
                    progress=False)
    config = dataclasses.replace(CONFIG, data=str(store.path), overfit=2)
    pretrain(config, tmp_path / "run", "cpu", show=False)
    assert load_model(tmp_path / "run")[1]["data"]["frames"] == 2
    assert read_tensors(tmp_path / "run" / "latest.safetensors")


def test_the_recipes_that_ship_are_valid():
    recipes = sorted((Path(__file__).resolve().parents[1] / "data" / "recipes").glob("*.json"))
    assert len(recipes) >= 3
    for path in recipes:
        config = from_dict(PretrainConfig, json.loads(path.read_text()), str(path)).validate()
        assert config.data == "rooms" and not Path(config.init).exists()


SHIPPED = sorted((Path(__file__).resolve().parents[1] / "data" / "checkpoints").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_says_how_it_was_made_and_its_start_can_be_remade(path):
    model, record = load_model(path.with_suffix(""))
    size, control = record["training"]["name"].partition(";")[0].split("/")
    assert path.stem == (size if control == "mask3d" else f"{size}-{control}")
    assert record["command"] and record["hardware"] and record["frames_seen"] == {"tiny": 144_000, "micro": 32_000}[size]
    assert path.with_suffix(".safetensors").stat().st_size <= 16_000_000
    if size == "tiny":
        assert record["metrics"] and reference_curve(f"tiny/{control}")[-1]["step"] == record["step"], "its own curve ships too"
    start = step_zero(record)
    assert start.config == model.config
    trained = dict(model.named_parameters())
    moved = [name for name, weight in start.named_parameters() if weight.requires_grad
             and not torch.allclose(weight, trained[name], atol=1e-2)]
    assert any(name.startswith("rgb") or "rgb" in name for name in moved), "training has moved the RGB encoder"


@pytest.mark.parametrize("size", ("micro", "tiny"))
def test_the_two_starts_of_a_size_are_of_the_same_frames(size):
    """Mask3D and its MAE control differ in nothing but the task: same rooms, same number of frames, same seed."""
    one, other = (json.loads(path.read_text()) for path in SHIPPED if path.stem.partition("-")[0] == size)
    assert one["data"]["fingerprint"] == other["data"]["fingerprint"] and one["frames_seen"] == other["frames_seen"]
    assert one["training"]["fit"]["seed"] == other["training"]["fit"]["seed"] == 0

"""Weights from files as other projects give them away: the same features come out, and what does not fit is refused."""

import argparse
import shutil

import pytest
import timm
import torch
from safetensors.torch import save_file

from mask3d_core.errors import CheckpointError, ConfigError
from mask3d_core.models.encoders import encode_levels
from mask3d_core.models.starts import open_start
from mask3d_core.models.weights_file import digest
from mask3d_core.study.config import label_of
from mask3d_core.study.starts import start_key
from mask3d_core.training.config import pretrain_config
from mask3d_core.training.pretraining import build_model, training_model_config

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(3)
    made = timm.create_model(NAME, num_classes=10).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # nothing stays at its start, where a missing weight would not show
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def dino(weights):
    """A training checkpoint: two networks under a backbone, their heads, an optimiser."""
    other = {f"module.backbone.{k}": torch.zeros_like(v) for k, v in weights.items()}
    return {"student": other, "teacher": {**{f"backbone.{k}": v for k, v in weights.items()}, "head.mlp.0.weight": torch.ones(3, 3)},
            "epoch": 4, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
            "args": argparse.Namespace(arch="vit_tiny")}


LAYOUTS = {
    "plain": lambda weights: weights,
    "mae": lambda weights: {"model": {**weights, "mask_token": torch.ones(1, 1, 8), "decoder_embed.weight": torch.ones(8, 192)},
                            "args": argparse.Namespace(model="mae_vit_tiny"), "epoch": 799},
    "dino": dino,
    "parallel": lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
    "jepa": lambda weights: {"encoder": {f"module.{k}": torch.zeros_like(v) for k, v in weights.items()},
                             "target_encoder": {f"module.{k}": v for k, v in weights.items()}},
    "averaged": lambda weights: {"model": {k: torch.zeros_like(v) for k, v in weights.items()}, "model_ema": weights},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_features(vit, tmp_path, layout):
    weights = dict(vit.state_dict())
    if layout in ("mae", "dino"):
        weights = {k: v for k, v in weights.items() if not k.startswith("head.")}
    file = tmp_path / f"{layout}.pth"
    torch.save(LAYOUTS[layout](weights), file)
    start = open_start(f"timm:{NAME}@{file}", (224, 224))
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        own = encode_levels(start.vit.eval(), picture, (5, 11))
        truth = vit.forward_intermediates(picture, indices=[5, 11], norm=True, intermediates_only=True)
    for mine, theirs in zip(own, truth):
        assert torch.allclose(mine, theirs, atol=1e-5)
    said = start.record["weights"]
    assert start.record["start"].endswith(f"@{layout}.pth") and said["file"] == f"{layout}.pth" and said["sha256"] == digest(str(file))
    assert said["left_out"] == {"plain": ["head"], "parallel": ["head"], "jepa": ["head"], "averaged": ["head"],
                                "mae": ["decoder_embed"], "dino": []}[layout]


def test_safetensors_and_another_size(vit, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in vit.state_dict().items()}, file)
    start = open_start(f"timm:{NAME}@{file}", (96, 128))
    assert start.vit.patch_embed.grid_size == (6, 8) and start.patch == 16
    assert torch.equal(start.vit.blocks[3].mlp.fc1.weight, vit.blocks[3].mlp.fc1.weight)


@pytest.mark.parametrize("spoil, words", [
    (lambda w: {k: v for k, v in w.items() if not k.startswith("norm.")}, "2 missing \\(norm.weight, norm.bias\\)"),
    (lambda w: {**w, "blocks.12.norm1.weight": torch.ones(192)}, "1 more than it has \\(blocks.12.norm1.weight\\)"),
    (lambda w: {**w, "blocks.0.ls1.gamma": torch.ones(192)}, "1 more than it has"),
    (lambda w: {k: v[..., :96] if v.ndim == 1 else v for k, v in w.items()}, "of another shape \\(.*, ...\\)"),
    (lambda w: {"left": w, "right": w}, "expected one encoder; got several \\(left, right\\)"),
    (lambda w: {"epoch": 3}, "missing"),
    (lambda w: [w], "expected weights by name; got a list"),
])
def test_what_does_not_fit_is_one_line(vit, tmp_path, spoil, words):
    file = tmp_path / "wrong.pth"
    torch.save(spoil(dict(vit.state_dict())), file)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_start(f"timm:{NAME}@{file}", (96, 128))
    assert "\n" not in str(caught.value) and "wrong.pth" in str(caught.value)


class Evil:
    def __reduce__(self):
        return print, ("never",)


def test_files_that_cannot_be_read_are_refused_and_nothing_is_run(vit, tmp_path, capsys):
    torch.save({"model": vit.state_dict(), "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        open_start(f"timm:{NAME}@{tmp_path / 'evil.pth'}", (96, 128))
    assert "never" not in capsys.readouterr().out
    torch.save(vit.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "page.pth").write_text("<html>sign in</html>")
    for name in ("cut.pth", "cut.safetensors", "page.pth", "missing.pth", "."):
        with pytest.raises(CheckpointError) as caught:
            open_start(f"timm:{NAME}@{tmp_path / name}", (96, 128))
        assert "\n" not in str(caught.value) and "could run code" not in str(caught.value), caught.value
    with pytest.raises(CheckpointError, match="begins with '<html>sign in"):
        open_start(f"timm:{NAME}@{tmp_path / 'page.pth'}", (96, 128))
    with pytest.raises(ConfigError, match="does not know a model"):
        open_start(f"timm:nonsense_patch16@{tmp_path / 'whole.pth'}", (96, 128))


def test_pretraining_begins_from_a_file_and_studies_know_it_by_its_contents(vit, tmp_path):
    first, second = tmp_path / "a.pth", tmp_path / "elsewhere" / "b.pth"
    second.parent.mkdir()
    torch.save(vit.state_dict(), first)
    shutil.copy(first, second)
    config = training_model_config(pretrain_config("tiny", init=f"timm:{NAME}@{first}"))
    model = build_model(config)
    assert torch.equal(model.rgb_encoder.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight) and config.model.rgb.timm == NAME
    assert start_key(f"timm:{NAME}@{first}") == start_key(f"timm:{NAME}@{second}") != start_key(f"timm:{NAME}")
    assert label_of(f"timm:{NAME}@{second}") == f"timm {NAME}@b.pth"
    torch.save({k: v + 1 for k, v in vit.state_dict().items()}, second)
    assert start_key(f"timm:{NAME}@{first}") != start_key(f"timm:{NAME}@{second}")

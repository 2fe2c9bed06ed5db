"""The exported encoder is the same function in timm alone."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from test_training import MODEL

from mask3d_core.errors import CheckpointError, ConfigError
from mask3d_core.models import CONTROLS, EncoderConfig, Mask3D
from mask3d_core.models.export import encoder_features, export_timm, load_timm
from dataclasses import replace

ALONE = """
import json, sys, timm, torch
from safetensors.torch import load_file
stem, picture, out = sys.argv[1:]
record = json.load(open(stem + ".json"))
model = timm.create_model(**record["create_model"]).eval()
model.load_state_dict(load_file(stem + ".safetensors"), strict=True)
data = timm.data.resolve_model_data_config(model)
color = torch.load(picture, weights_only=True)
mean, std = (torch.tensor(data[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
with torch.no_grad():
    torch.save(model.forward_features((color - mean) / std), out)
assert not any(name.startswith("mask3d") for name in sys.modules)
"""


@pytest.mark.parametrize("encoder", [MODEL.rgb, EncoderConfig(timm="vit_tiny_patch16_224"),
                                     EncoderConfig(timm="vit_small_patch16_dinov3.lvd1689m")])
def test_features_survive_the_round_trip(tmp_path, encoder):
    config = replace(MODEL, rgb=encoder, color_mean=(0.5, 0.4, 0.3), color_std=(0.2, 0.25, 0.3))
    if "dinov3" in encoder.timm:
        with pytest.raises(ConfigError, match="only timm's plain VisionTransformer|cannot be built"):
            Mask3D(config)
        return
    model = Mask3D(config).eval()
    stem = export_timm(model, tmp_path / "encoder", {"step": 7})
    color = torch.rand(2, 3, 64, 80)
    torch.save(color, tmp_path / "color.pt")
    done = subprocess.run([sys.executable, "-c", ALONE, str(stem), str(tmp_path / "color.pt"), str(tmp_path / "out.pt")],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    alone = torch.load(tmp_path / "out.pt", weights_only=True)
    torch.testing.assert_close(alone, encoder_features(model, color), rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "encoder.json").read_text())["record"]["step"] == 7


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no RGB encoder"):
        export_timm(Mask3D(replace(MODEL, **CONTROLS["depth-only"])), tmp_path / "x")
    export_timm(Mask3D(MODEL), tmp_path / "y")
    record = json.loads((tmp_path / "y.json").read_text())
    record["create_model"]["embed_dim"] = 64
    (tmp_path / "y.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="Export again"):
        load_timm(tmp_path / "y")
    assert timm.__version__

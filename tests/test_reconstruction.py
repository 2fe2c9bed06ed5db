"""Pictures of a reconstruction and of a run: what is drawn, and what stands in for what is missing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import MODEL
from tests.conftest import make_frame

from mask3d_core.errors import ConfigError
from mask3d_core.masking import Masks
from mask3d_core.models import CONTROLS, Mask3D
from mask3d_core.reconstruct import reconstruct, write_reconstruction
from mask3d_core.training.log import expected_band, reference_curve
from mask3d_viz.reconstruction import cloud_stills, draw_curve, panel, preview_image, save_pictures
from dataclasses import replace


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Mask3D(MODEL).eval()
    made.set_depth_statistics(0.6, 0.2)
    return made


def test_a_reconstruction_scores_hidden_pixels_only(model):
    result = reconstruct(model, make_frame(72, 96), (0.5, 0.5), seed=3)
    assert result.prediction.shape == (64, 80) and result.is_masked_depth.shape == (4, 5)
    hidden = result.is_valid & ~result.is_visible
    error = np.abs(result.prediction - result.depth)[hidden] / result.depth[hidden]
    assert result.scores["abs_rel"] == pytest.approx(error.mean(), rel=1e-4)
    assert np.array_equal(result.pasted[result.is_visible], result.depth[result.is_visible])
    assert not result.is_scale_assumed


def test_a_frame_without_depth_is_predicted_from_colour_and_says_so(model):
    frame = make_frame(72, 96)
    frame = replace(frame, depth=frame.depth * 0, is_valid=frame.is_valid & False)
    result = reconstruct(model, frame, (0.0, 0.8))
    assert result.is_scale_assumed and result.scores == {} and np.isfinite(result.prediction).all()
    assert panel(result).shape[1] == 1600


def test_painted_masks_are_used(model):
    frame = make_frame(64, 80, holes=0.0)
    rgb, depth = torch.zeros(1, 20, dtype=torch.bool), torch.ones(1, 20, dtype=torch.bool)
    depth[0, 7] = False
    masks = Masks.painted(rgb, depth, torch.ones(1, 64, 80, dtype=torch.bool), 16)
    result = reconstruct(model, frame, masks=masks)
    assert result.is_masked_depth.sum() == 19 and not result.is_masked_depth[1, 2]


def test_pictures_are_written_and_differ(model, tmp_path):
    result = reconstruct(model, make_frame(64, 80), (0.5, 0.5))
    assert [path.name for path in save_pictures(result, tmp_path)] == ["panel.png", "cloud.png", "provenance.png"]
    stills = [cloud_stills(result, mode=mode) for mode in ("rgb", "provenance", "error")]
    assert not np.array_equal(stills[0], stills[1]) and not np.array_equal(stills[0], stills[2])


def test_depth_beyond_the_range_of_a_picture_is_not_written_as_a_hole(model, tmp_path):
    result = reconstruct(model, make_frame(64, 80), (0.5, 0.5))
    write_reconstruction(replace(result, prediction=result.prediction * 0 + 90.0), tmp_path)
    assert (np.asarray(Image.open(tmp_path / "prediction_mm.png")) == 65534).all(), "65535 is read as not measured"


def test_a_model_without_depth_is_refused():
    with pytest.raises(ConfigError, match="predicts no depth"):
        reconstruct(Mask3D(replace(MODEL, **CONTROLS["mae"])), make_frame())


def test_previews_draw_with_and_without_a_depth_target():
    arrays = {"color": np.zeros((2, 3, 64, 80), np.uint8), "depth": np.ones((2, 64, 80), np.float16),
              "is_valid": np.ones((2, 64, 80), bool), "is_masked_rgb": np.ones((2, 20), bool),
              "is_masked_depth": np.zeros((2, 20), bool)}
    three = preview_image(arrays)
    four = preview_image({**arrays, "prediction": np.ones((2, 64, 80), np.float16)})
    assert four.shape[1] > three.shape[1]


def test_the_band_holds_the_curve_it_was_made_from(tmp_path):
    records = [{"step": 10 * k, "loss": 1 / (k + 1)} for k in range(50)]
    steps, low, high = expected_band(records, window=2, spread=3.0)
    inside = [a <= r["loss"] <= b for r, a, b in zip(records, low, high, strict=True)]
    assert steps[-1] == 490 and sum(inside) >= 48
    assert expected_band(records[:2]) is None and reference_curve("no/such") == []
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert draw_curve(tmp_path).is_file()
    assert draw_curve(tmp_path / "nothing") is None

"""Depth, seam and normal errors, and the gathering of scores."""

import json
import math

import pytest
import torch
from jaxtyping import TypeCheckError

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation import (
    METRICS,
    FrameScores,
    counted_pixels,
    depth_metrics,
    normal_error,
    seam_error,
)


def everywhere(depth):
    return torch.ones_like(depth, dtype=torch.bool)


def wall(b=1, height=32, width=48, distance=2.0):
    return torch.full((b, height, width), distance)


def camera(b=1, height=32, width=48):
    return torch.tensor([[float(width), float(width), (width - 1) / 2, (height - 1) / 2]]).expand(b, 4)


def test_known_answers_of_two_pixels():
    depth = torch.tensor([[[1.0, 4.0]]])
    prediction = torch.tensor([[[1.5, 3.0]]])
    scores = depth_metrics(prediction, depth, everywhere(depth))
    assert scores["abs_rel"].item() == pytest.approx((0.5 + 0.25) / 2)
    assert scores["rmse"].item() == pytest.approx(math.sqrt((0.25 + 1) / 2))
    assert scores["mae"].item() == pytest.approx(0.75)
    # the worse of the two ratios: 1.5 and 4/3, against 1.25, 1.5625 and 1.953
    assert [scores[f"delta{k}"].item() for k in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert scores["count"].item() == 2


def test_a_perfect_prediction_scores_zero_and_one():
    depth = torch.rand(3, 8, 8) + 0.5
    scores = depth_metrics(depth, depth, everywhere(depth))
    for name in ("abs_rel", "rmse", "mae"):
        assert torch.equal(scores[name], torch.zeros(3))
    assert torch.equal(scores["delta1"], torch.ones(3))


def test_delta_is_symmetric_in_the_ratio():
    depth = wall()
    for factor, share in ((1.24, 1.0), (1 / 1.24, 1.0), (1.26, 0.0), (1 / 1.26, 0.0)):
        assert depth_metrics(depth * factor, depth, everywhere(depth))["delta1"].item() == share


def test_pixels_not_counted_never_matter():
    depth, prediction = torch.rand(2, 16, 16) + 1, torch.rand(2, 16, 16) + 1
    counted = torch.rand(2, 16, 16) < 0.5
    expected = depth_metrics(prediction, depth, counted)
    spoiled_depth, spoiled = depth.clone(), prediction.clone()
    spoiled_depth[~counted] = torch.nan
    spoiled[~counted] = torch.inf
    for metric, value in depth_metrics(spoiled, spoiled_depth, counted).items():
        assert torch.equal(value, expected[metric]), metric
    seams = seam_error(prediction, depth, counted, 4)
    for metric, value in seam_error(spoiled, spoiled_depth, counted, 4).items():
        assert torch.equal(value, seams[metric]), metric


def test_a_frame_with_nothing_counted_is_nan_and_harms_no_other():
    depth = wall(2)
    counted = everywhere(depth)
    counted[0] = False
    scores = depth_metrics(depth * 1.1, depth, counted) | seam_error(depth * 1.1, depth, counted, 16) | normal_error(
        depth * 1.1, depth, counted, camera(2))
    for name, value in scores.items():
        if name == "count":
            assert value.tolist() == [0.0, 32 * 48]
        else:
            assert math.isnan(value[0]) and math.isfinite(value[1]), name


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_is_infinitely_wrong_not_left_out(bad):
    depth = wall()
    prediction = depth.clone()
    prediction[0, 0, 0] = bad
    scores = depth_metrics(prediction, depth, everywhere(depth))
    assert scores["abs_rel"].item() == scores["rmse"].item() == scores["mae"].item() == math.inf
    assert scores["delta3"].item() < 1.0


def test_negative_predictions_are_clamped_to_a_millimetre():
    depth = wall(distance=1.0)
    scores = depth_metrics(-depth, depth, everywhere(depth))
    assert scores["mae"].item() == pytest.approx(0.999)
    assert scores["delta1"].item() == 0.0


def test_counted_pixels_are_hidden_and_valid_and_within_the_cap():
    depth = torch.tensor([[[1.0, 1.0, 1.0, 12.0]]])
    is_valid = torch.tensor([[[True, False, True, True]]])
    is_hidden = torch.tensor([[[True, True, False, True]]])
    assert counted_pixels(depth, is_valid, is_hidden).tolist() == [[[True, False, False, True]]]
    assert counted_pixels(depth, is_valid, is_hidden, max_depth=10.0).tolist() == [[[True, False, False, False]]]


def test_shapes_are_checked():
    with pytest.raises(TypeCheckError):
        depth_metrics(wall(), wall(height=16), everywhere(wall()))


def test_seams_of_known_height():
    """Each 16-px patch of the prediction stands off by a checkerboard of +-5 mm: 10 mm at every border, 0 inside."""
    depth = torch.rand(1, 48, 64) + 1
    rows, columns = torch.arange(48)[:, None] // 16, torch.arange(64)[None] // 16
    prediction = depth + 0.005 * (1 - 2 * ((rows + columns) % 2))
    scores = seam_error(prediction, depth, everywhere(depth), 16)
    assert scores["seam_border_mm"].item() == pytest.approx(10.0, rel=1e-3)
    assert scores["seam_inside_mm"].item() == pytest.approx(0.0, abs=1e-3)
    assert scores["seam_excess_mm"].item() == pytest.approx(10.0, rel=1e-3)
    assert scores["seam_ratio"].item() > 1000


def test_errors_that_know_nothing_of_the_grid_are_no_seams():
    depth = torch.rand(4, 96, 128) + 1
    scores = seam_error(depth + 0.01 * torch.randn(4, 96, 128), depth, everywhere(depth), 16)
    assert (scores["seam_ratio"] - 1).abs().max().item() < 0.05
    assert scores["seam_border_mm"].mean().item() == pytest.approx(10 * 2 / math.sqrt(math.pi), rel=0.03)
    perfect = seam_error(depth, depth, everywhere(depth), 16)
    assert torch.equal(perfect["seam_ratio"], torch.ones(4)) and torch.equal(perfect["seam_excess_mm"], torch.zeros(4))


def test_seam_pairs_need_both_pixels():
    """One patch counted: no pair crosses a border, so there is nothing to say."""
    depth = wall(height=32, width=32)
    counted = torch.zeros_like(depth, dtype=torch.bool)
    counted[:, :16, :16] = True
    scores = seam_error(depth + 0.1, depth, counted, 16)
    assert math.isnan(scores["seam_border_mm"]) and scores["seam_inside_mm"].item() == 0.0


@pytest.mark.parametrize("degrees", [0.0, 1.0, 10.0, 30.0])
def test_normal_error_of_a_wall_turned_about_the_vertical(degrees):
    height, width = 32, 48
    fx, _, cx, _ = camera()[0].tolist()
    x = (torch.arange(width) - cx) / fx
    turned = (2.0 / (1 + math.tan(math.radians(degrees)) * x)).expand(1, height, width)
    scores = normal_error(turned.contiguous(), wall(), everywhere(wall()), camera())
    assert scores["normal_mean"].item() == pytest.approx(degrees, abs=0.02)
    assert scores["normal_median"].item() == pytest.approx(degrees, abs=0.02)
    assert scores["normal_within_11"].item() == (1.0 if degrees < 11 else 0.0)


def add(scores, predictor, values, sequences, draw=0, **options):
    names = [f"frame {i}" for i in range(len(values))]
    scores.add(predictor, {"abs_rel": torch.tensor(values)}, names, sequences, draw, **options)


def test_draws_are_averaged_within_a_frame_and_are_no_new_frames():
    scores = FrameScores()
    add(scores, "model", [0.1, math.nan, 0.3], ["a", "a", "b"], draw=0)
    add(scores, "model", [0.3, 0.5, math.nan], ["a", "a", "b"], draw=1)
    assert scores.frame_values("model", "abs_rel") == pytest.approx({"frame 0": 0.2, "frame 1": 0.5, "frame 2": 0.3})
    estimate = scores.estimate("model", "abs_rel")
    assert estimate.mean == pytest.approx((0.2 + 0.5 + 0.3) / 3) and estimate.frames == 3 and estimate.sequences == 2


def test_comparison_is_paired_and_knows_which_way_is_better():
    scores = FrameScores()
    rooms = [f"room {i}" for i in range(20)]
    hard = torch.rand(20)
    for predictor, offset in (("model", 0.0), ("nearest", 0.01)):
        names = rooms
        scores.add(predictor, {"abs_rel": hard + offset, "delta1": 1 - hard - offset}, names, rooms)
    assert scores.difference("model", "nearest", "abs_rel").mean == pytest.approx(-0.01, abs=1e-6)
    assert scores.beats("model", "nearest") and scores.beats("model", "nearest", "delta1")
    assert scores.beats("nearest", "model") is False
    one_room = FrameScores()
    add(one_room, "model", [0.1, 0.2], ["a", "a"])
    add(one_room, "nearest", [0.2, 0.3], ["a", "a"])
    assert one_room.beats("model", "nearest") is None


def test_table_json_and_back(tmp_path):
    scores = FrameScores()
    add(scores, "model", [0.1, 0.2], ["a", "a"])
    add(scores, "nearest", [0.2, math.nan], ["a", "a"], is_fallback=torch.tensor([False, True]))
    table = scores.table(["abs_rel", "rmse"], {"nearest": "nearest fill"})
    assert "AbsRel" in table and "0.1500" in table and "nearest fill (fallback on 1 frames)" in table
    assert "one scene, no interval" in table
    saved = json.loads(scores.save(tmp_path / "scores.json").read_text())
    assert saved["summary"]["model"]["abs_rel"]["mean"] == pytest.approx(0.15)
    again = FrameScores.from_dict(saved)
    assert again.as_dict() == scores.as_dict() and again.fallbacks("nearest") == 1
    with pytest.raises(Mask3DError, match="format"):
        FrameScores.from_dict(saved | {"format": 99})


def test_wrong_scores_are_refused_in_words():
    scores = FrameScores()
    add(scores, "model", [0.1], ["a"])
    with pytest.raises(Mask3DError, match="twice"):
        add(scores, "model", [0.1], ["a"])
    with pytest.raises(Mask3DError, match="infinite"):
        add(scores, "model", [math.inf], ["a"], draw=1)
    with pytest.raises(Mask3DError, match="sequence"):
        add(scores, "other", [0.1], ["b"])
    with pytest.raises(Mask3DError, match="one of model"):
        scores.estimate("nobody", "abs_rel")
    with pytest.raises(Mask3DError, match="metrics abs_rel"):
        scores.estimate("model", "rmse")
    with pytest.raises(Mask3DError, match="1 frames"):
        scores.add("model", {"abs_rel": torch.zeros(2)}, ["x"], ["a"])


def test_every_metric_has_words():
    depth = wall()
    given = depth_metrics(depth, depth, everywhere(depth)) | seam_error(depth, depth, everywhere(depth), 16)
    given |= normal_error(depth, depth, everywhere(depth), camera())
    assert set(given) == set(METRICS)

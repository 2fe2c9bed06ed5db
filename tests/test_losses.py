"""Losses: known answers, holes never count, no pixel gives 0, frames weigh the same."""

import dataclasses

import pytest
import torch

from mask3d_core.errors import ConfigError
from mask3d_core.losses import (
    FLOOR, HUBER, LossConfig, berhu, depth_loss, frame_mean, gradient_loss, multi_scale_loss, normal_loss)
from mask3d_core.masking import to_pixels
from mask3d_core.tasks.pretrain import pretrain_loss

K = torch.tensor([[40.0, 40.0, 15.5, 11.5]]).expand(2, 4)


def plane(slope: float = 0.01, batch: int = 2):
    rows = torch.arange(24.0)[:, None].expand(24, 32)
    return (1.5 + slope * rows).expand(batch, 24, 32).clone()


def test_frame_mean_ignores_what_is_not_counted_even_nan():
    value = torch.tensor([[[1.0, 3.0, float("nan")]], [[float("inf"), 5.0, 6.0]]])
    is_counted = torch.tensor([[[True, True, False]], [[False, False, False]]])
    assert frame_mean(value, is_counted).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("kind,expected", [("l1", 0.5), ("l2", 0.25)])
def test_known_values(kind, expected):
    target = plane()
    counted = torch.ones_like(target, dtype=torch.bool)
    value = depth_loss(kind, target + 0.5, target, target, target, counted)
    torch.testing.assert_close(value, torch.full((2,), expected))


def test_log_is_a_relative_error_in_metres():
    depth = plane()
    counted = torch.ones_like(depth, dtype=torch.bool)
    value = depth_loss("log", depth, depth, depth * 1.1, depth, counted)
    torch.testing.assert_close(value, torch.full((2,), 1.1).log())


def test_berhu_threshold_is_per_frame():
    difference = torch.zeros(2, 2, 2)
    difference[0, 0, 0], difference[1, 0, 0], difference[:, 0, 1] = 10.0, 1.0, 0.5
    value = berhu(difference, torch.ones_like(difference, dtype=torch.bool))
    assert value[0, 0, 1] == 0.5  # below a fifth of frame 0's largest: linear
    torch.testing.assert_close(value[1, 0, 1], torch.tensor((0.25 + 0.04) / 0.4))  # above frame 1's: quadratic


@pytest.mark.parametrize("kind", ["l1", "l2", "berhu", "huber", "log"])
def test_a_batch_without_a_valid_pixel_gives_zero_and_no_nan(kind):
    value = torch.randn(2, 24, 32, requires_grad=True)
    depth = torch.zeros(2, 24, 32)
    nothing = torch.zeros(2, 24, 32, dtype=torch.bool)
    metres = value.exp()
    total = (depth_loss(kind, value, torch.full_like(depth, float("nan")), metres, depth, nothing)
             + gradient_loss(metres, depth, nothing, nothing) + normal_loss(metres, depth, nothing, nothing, K)
             + multi_scale_loss(value, depth, nothing)).sum()
    total.backward()
    assert total.item() == 0 and torch.isfinite(value.grad).all() and value.grad.abs().sum() == 0


def test_gradient_loss_sees_a_seam_between_patches_and_not_a_constant_factor():
    depth = plane()
    valid = torch.ones_like(depth, dtype=torch.bool)
    assert gradient_loss(depth * 1.3, depth, valid, valid).max() < 1e-6
    seam = depth.clone()
    seam[:, :, 16:] *= 1.1
    expected = torch.tensor(1.1).log() / 31  # one of 31 column pairs
    torch.testing.assert_close(gradient_loss(seam, depth, valid, valid), expected.expand(2), rtol=1e-3, atol=1e-6)
    only_left = valid.clone()
    only_left[:, :, 16:] = False
    assert (gradient_loss(seam, depth, valid, only_left) > expected).all(), "the pair across the border counts"


def test_normal_loss_is_zero_for_the_truth_and_for_a_scaled_scene():
    depth = plane()
    valid = torch.ones_like(depth, dtype=torch.bool)
    assert normal_loss(depth, depth, valid, valid, K).abs().max() < 1e-5
    assert normal_loss(depth * 2, depth, valid, valid, K).abs().max() < 1e-5
    assert (normal_loss(plane(0.05), depth, valid, valid, K) > 0.01).all()


def test_multi_scale_ignores_what_averages_out():
    target = plane()
    counted = torch.ones_like(target, dtype=torch.bool)
    checker = ((torch.arange(24)[:, None] + torch.arange(32)) % 2 * 2 - 1).float()
    assert multi_scale_loss(target + checker, target, counted).abs().max() < 1e-5
    torch.testing.assert_close(multi_scale_loss(target + 1, target, counted), torch.ones(2))


def test_problems_are_all_named():
    assert len(LossConfig(kind="square", counted="some", normal=-1.0).problems()) == 3
    with pytest.raises(ValueError, match="expected l1"):
        depth_loss("square", plane(), plane(), plane(), plane(), plane() > 0)


def test_huber_is_square_near_zero_and_straight_beyond():
    target = plane()
    counted = torch.ones_like(target, dtype=torch.bool)
    for difference, expected in ((HUBER / 2, 0.125 * HUBER), (1.0, 1.0 - 0.5 * HUBER)):
        value = depth_loss("huber", target + difference, target, target, target, counted)
        torch.testing.assert_close(value, torch.full((2,), expected), rtol=1e-3, atol=1e-6)


def _anchored(**loss):
    """A batch, its masks and a model's answer that is off by 0.1 where hidden and by 0.02 where visible."""
    from test_model import SMALL, masks_of, scene

    from mask3d_core.batches import Batch
    from mask3d_core.models import Mask3D
    from mask3d_core.training.config import PretrainConfig

    model = Mask3D(dataclasses.replace(SMALL, anchor="spline"))
    color, depth, is_valid, intrinsics = scene()
    masks = masks_of(is_valid)
    batch = Batch(color, depth, is_valid, intrinsics, torch.arange(2), torch.zeros(2, dtype=torch.int64), True)
    hidden = to_pixels(masks.depth, (3, 4), 16)
    output = model(color, depth, is_valid, intrinsics, masks)
    target = output.space.encode(depth)
    value = target + torch.where(hidden, 0.1, 0.02)
    output = dataclasses.replace(output, value=value, depth=output.space.decode(value), anchor=target + 0.3)
    config = PretrainConfig(model=model.config, loss=LossConfig(kind="l1", **loss)).validate()
    return config, batch, masks, output


def test_only_hidden_pixels_count_unless_the_visible_have_a_weight():
    found = pretrain_loss(*_anchored())
    assert found.count == 2 and found.total.item() == pytest.approx(0.2, rel=1e-4)
    found = pretrain_loss(*_anchored(visible=0.5))
    assert found.total.item() == pytest.approx(0.2 + 0.5 * 0.04, rel=1e-4)
    assert found.parts["visible"].item() == pytest.approx(0.04, rel=1e-4)


def test_a_relative_loss_is_measured_in_what_the_anchor_misses():
    found = pretrain_loss(*_anchored(relative=True))
    assert found.total.item() == pytest.approx(2 * 0.1 / (0.3 + FLOOR), rel=1e-4)


def test_a_visible_weight_teaches_also_where_nothing_is_hidden():
    config, batch, masks, output = _anchored(visible=0.5)
    shown = dataclasses.replace(masks, depth=torch.zeros_like(masks.depth))
    found = pretrain_loss(config, batch, shown, output)
    assert found.count == 2 and found.total > 0


def test_a_relative_loss_needs_an_anchor():
    from mask3d_core.training.config import PretrainConfig

    with pytest.raises(ConfigError, match="anchor"):
        PretrainConfig(loss=LossConfig(relative=True)).validate()

"""Masks: nested, seeded, blind to holes, one convention."""

import pytest
import torch

from mask3d_core.errors import ConfigError
from mask3d_core.masking import (
    NEVER, MaskConfig, Masks, keep_ids, mask_from_ranks, patch_ranks, patches_with_valid, to_pixels, visible_count)
from mask3d_core.randomness import random_bits, uniform

IDS = torch.arange(6)


def test_uniform_is_uniform_and_a_function_of_its_keys():
    numbers = uniform(7, torch.arange(20000))
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(numbers.var() - 1 / 12) < 0.005
    assert torch.equal(numbers[5:7], uniform(7, torch.tensor([5, 6])))
    assert not torch.equal(numbers[:10], uniform(8, torch.arange(10)))
    assert random_bits(1, 2) != random_bits(2, 1)


def test_known_values_never_change():
    # recorded once: masks must be the same in every version, or no recorded run could be repeated
    assert random_bits(1, 2, 3).item() == int(random_bits(torch.tensor(1), 2, torch.tensor(3)))
    assert patch_ranks(0, torch.tensor([0]), 0, "rgb", (2, 3)).tolist() == KNOWN_RANKS


KNOWN_RANKS = [[2, 3, 5, 0, 1, 4]]


def test_ranks_are_permutations_and_do_not_depend_on_the_batch():
    ranks = patch_ranks(0, IDS, 2, "depth", (5, 7))
    assert torch.equal(ranks.sort(dim=1).values, torch.arange(35).expand(6, -1))
    assert torch.equal(ranks[3:4], patch_ranks(0, IDS[3:4], 2, "depth", (5, 7)))
    assert not torch.equal(ranks, patch_ranks(0, IDS, 2, "rgb", (5, 7)))
    assert not torch.equal(ranks, patch_ranks(0, IDS, 3, "depth", (5, 7)))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_masks_are_nested(block):
    ranks = patch_ranks(1, IDS, 0, "rgb", (6, 8), block)
    before = mask_from_ranks(ranks, 0.0)
    assert not before.any()
    for ratio in (0.1, 0.3, 0.5, 0.8, 0.95, 1.0):
        now = mask_from_ranks(ranks, ratio)
        assert (now | ~before).all(), "a higher ratio only adds hidden patches"
        before = now
    assert before.all()


def test_blocks_are_hidden_together():
    is_masked = mask_from_ranks(patch_ranks(1, IDS, 0, "rgb", (6, 8), 2), 0.5).view(6, 3, 2, 4, 2)
    whole = is_masked.all(dim=4).all(dim=2) | (~is_masked).all(dim=4).all(dim=2)
    assert whole.float().mean() > 0.9


def test_a_ratio_counts_patches_that_can_be_shown():
    showable = torch.zeros(6, 20, dtype=torch.bool)
    for row in range(6):
        showable[row, : row * 3] = True
    ranks = patch_ranks(0, IDS, 0, "depth", (4, 5), 1, showable)
    assert (ranks[~showable] == NEVER).all()
    for ratio in (0.0, 0.5, 0.8, 1.0):
        is_masked = mask_from_ranks(ranks, ratio)
        assert is_masked[~showable].all(), "an empty patch is never visible"
        for row in range(6):
            assert (~is_masked[row]).sum() == visible_count(ratio, row * 3)


def test_keep_ids_pads_and_says_so():
    is_masked = torch.tensor([[True, False, False, True], [True, True, True, True], [False, False, False, False]])
    ids, padding = keep_ids(is_masked)
    assert ids.shape == (3, 4)
    assert ids[0, :2].tolist() == [1, 2] and padding[0].tolist() == [False, False, True, True]
    assert padding[1].all() and not padding[2].any()
    with pytest.raises(ValueError, match="at most 2"):
        keep_ids(is_masked, 2)


def test_pixels_and_patches_agree():
    is_patch = torch.rand(2, 12) > 0.5
    pixels = to_pixels(is_patch, (3, 4), 8)
    assert pixels.shape == (2, 24, 32)
    assert torch.equal(patches_with_valid(pixels, 8), is_patch)


def test_painted_masks_never_show_an_empty_patch():
    is_valid = torch.ones(2, 32, 32, dtype=torch.bool)
    is_valid[0, :16, :16] = False
    nothing_hidden = torch.zeros(2, 4, dtype=torch.bool)
    masks = Masks.painted(nothing_hidden, nothing_hidden, is_valid, 16)
    assert masks.depth[0].tolist() == [True, False, False, False] and masks.depth_may_pad
    assert masks.rgb_count == 4 and not masks.rgb_may_pad


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_outside_0_to_1_are_refused(ratio):
    with pytest.raises(ConfigError, match=r"0\.\.1"):
        visible_count(ratio, 10)


def test_config_names_every_problem():
    problems = MaskConfig(ratios=((1.0, 1.0), (2.0, 0.0)), weights=(1.0,), block=0).problems()
    assert len(problems) == 4
    assert MaskConfig(ratios=((0.0, 1.0),)).problems(("depth",)) != []
    assert MaskConfig(ratios=((0.8, 0.8), (0.0, 1.0))).problems() == []


def test_draws_follow_the_weights_and_the_seed():
    config = MaskConfig(ratios=((0.8, 0.8), (0.0, 1.0)), weights=(3.0, 1.0))
    drawn = [config.draw(step) for step in range(2000)]
    assert 0.7 < drawn.count((0.8, 0.8)) / 2000 < 0.8
    assert drawn == [config.draw(step) for step in range(2000)]

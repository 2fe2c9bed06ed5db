"""Features of a frozen RGB encoder, their neighbours, their components and the ridge probe, against known answers."""

import numpy as np
import pytest
import timm
import torch
from conftest import make_frame
from test_training import MODEL

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.features import RGBEncoder, feature_function, layer_features, patch_features, raw_patches
from mask3d_core.evaluation.neighbours import (PatchTruth, agreement, cell_mean, nearest_patches, patch_truth,
                                               random_neighbours, same_place)
from mask3d_core.evaluation.probes import (MEAN, ONE_RECORDING, OPPONENTS, PIXELS, UNTRAINED, ProbeConfig, ProbeFrames,
                                           probe_depth)
from mask3d_core.evaluation.ridge import RidgeSums
from mask3d_core.models.export import encoder_features
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.splits import TEST, TRAIN, UNUSED, VAL
from mask3d_viz.features import (SPREAD, Neighbour, aligned, bar_chart, component_picture, likeness, main_components,
                                 neighbour_sheet, patch_crop)

PATCH = 8


# ---- features ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_features_of_any_plain_vit_are_what_timm_gives(name):
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    side = 28 if "patch14" in name else 32
    vit = timm.create_model(name, pretrained=False, img_size=side, num_classes=0)
    encoder, color = RGBEncoder.of_timm(vit, name), torch.rand(3, 3, side, side)
    assert not vit.training
    mean, std = (torch.tensor(vit.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        expected = vit.forward_features((color - mean) / std)
        inner = vit.forward_intermediates((color - mean) / std, indices=[3], norm=True, output_fmt="NLC",
                                          intermediates_only=True)[0]
    last, third = layer_features(encoder, color, (-1, 3), batch_size=2)
    first = vit.num_prefix_tokens
    torch.testing.assert_close(last.patches, expected[:, first:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last.prefix, expected[:, :first], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(third.patches, inner, rtol=1e-4, atol=1e-4)
    assert last.grid == (2, 2) and last.prefix.shape[1] == first
    assert not any(block._forward_hooks for block in vit.blocks), "no hook stays"


def test_features_of_our_models_are_the_exported_ones_and_see_whole_pictures():
    model, color = Mask3D(MODEL).eval(), torch.rand(3, 3, 64, 80)
    encoder, steps = RGBEncoder.of(model, "tiny"), []
    found = patch_features(encoder, color, batch_size=2, progress=lambda *step: steps.append(step))
    torch.testing.assert_close(found.patches, encoder_features(model, color)[:, found.prefix.shape[1]:])
    assert steps == [(2, 3), (3, 3)] and found.grid == (4, 5)
    other = color.clone()
    other[:, :, -1, -1] = 1 - other[:, :, -1, -1]
    assert not torch.equal(patch_features(encoder, other).patches, found.patches), "nothing is hidden from it"
    wide = patch_features(encoder, torch.rand(1, 3, 32, 128))
    assert wide.grid == (2, 8), "any grid"


def test_what_cannot_be_asked_of_an_encoder_is_refused():
    import dataclasses

    encoder = RGBEncoder.of(Mask3D(MODEL))
    with pytest.raises(ConfigError, match="layer must be -2..1"):
        patch_features(encoder, torch.rand(1, 3, 64, 80), 5)
    with pytest.raises(ConfigError, match="multiples of 16"):
        patch_features(encoder, torch.rand(1, 3, 60, 80))
    assert encoder.fitted(torch.rand(1, 3, 60, 90)).shape == (1, 3, 64, 96)
    with pytest.raises(ConfigError, match="no RGB encoder"):
        RGBEncoder.of(Mask3D(dataclasses.replace(MODEL, inputs=("depth",))))
    with pytest.raises(ConfigError, match="plain VisionTransformer"):
        RGBEncoder(torch.nn.Linear(2, 2), (0.0,) * 3, (1.0,) * 3)


# ---- neighbours -------------------------------------------------------------------------------------------------------

def test_the_nearest_patch_is_its_exact_copy_moved_elsewhere():
    color = torch.rand(3, 3, 64, 80)
    color[2, :, 48:64, 16:32] = color[0, :, 16:32, 64:80]  # patch 9 of picture 0 is patch 16 of picture 2
    features = raw_patches(color, 16).flatten(0, 1)
    features, pictures = features - features.mean(dim=0), torch.arange(3).repeat_interleave(20)
    similarity, index = nearest_patches(features[9:10], features, 3, torch.tensor([0]), pictures)
    assert int(index[0, 0]) == 2 * 20 + 16 and float(similarity[0, 0]) == pytest.approx(1, abs=1e-5)
    assert (similarity.diff() <= 0).all() and (pictures[index] != 0).all(), "never of its own picture"
    assert same_place(torch.tensor([9]), index[:, :1], (4, 5)) == 0
    with pytest.raises(ConfigError, match="at least 41 patches in other frames; there are 40"):
        nearest_patches(features[:1], features, 41, torch.tensor([0]), pictures)


def test_agreement_counts_only_what_is_known():
    up, side = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])
    truth = PatchTruth(torch.tensor([1.0, 1.05, 2.0, float("nan")]), torch.stack([up, up, side, up * float("nan")]),
                       torch.tensor([3, 3, 4, -1]))
    found = agreement(truth, torch.tensor([0]), torch.tensor([[1, 2, 3]]))
    assert found == {"depth": 0.5, "normal": 0.5, "label": 0.5}
    assert agreement(truth, torch.tensor([3]), torch.tensor([[0]])) == {}
    drawn = random_neighbours(torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1]), 2)
    assert sorted(drawn[0].tolist()) == [2, 3] and sorted(drawn[1].tolist()) == [0, 1]


def test_patch_truth_is_the_mean_of_what_was_measured():
    batch = from_frames([make_frame(holes=0.0)], (48, 64))
    batch.is_valid[0, :16, :16] = False
    truth = patch_truth(batch, (3, 4))
    assert torch.isnan(truth.depth[0]) and torch.isnan(truth.normal[0]).all() and truth.label is None
    assert float(truth.depth[5]) == pytest.approx(float(batch.depth[0, 16:32, 16:32].mean()), rel=1e-5)
    torch.testing.assert_close(truth.normal[5], truth.normal[6], rtol=0.1, atol=0.1)
    mean, share = cell_mean(batch.depth, batch.is_valid, (3, 4))
    assert float(share[0, 0, 0]) == 0 and float(mean[0, 0, 0]) == 0


# ---- components -------------------------------------------------------------------------------------------------------

def some_features(count=400, width=12):
    generator = torch.Generator().manual_seed(3)
    strength = torch.tensor([5.0, 3.0, 2.0] + [0.2] * (width - 3))
    x = torch.randn(count, width, generator=generator, dtype=torch.float64).pow(3) * strength + 7
    return x, x[:, 0] - 0.5 * x[:, 1] + 0.3 * x[:, 2]


def rotation(width, seed=0):
    q, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return q


def test_components_do_not_depend_on_the_order_of_patches_or_on_how_the_space_is_turned():
    x, light = some_features()
    fit = main_components(x, light)
    score = fit.of(x)
    torch.testing.assert_close(score.std(dim=0, unbiased=False), torch.ones(3), rtol=1e-4, atol=1e-4)
    assert ((score * (light - light.mean())[:, None].float()).mean(dim=0) > 0).all(), "brighter is more"
    order = torch.randperm(len(x))
    torch.testing.assert_close(main_components(x[order], light[order]).of(x), score, rtol=1e-4, atol=1e-4)
    for seed in range(3):
        turned = x @ rotation(12, seed) - 2
        torch.testing.assert_close(main_components(turned, light).of(turned), score, rtol=1e-4, atol=1e-4)
    assert fit.explained[0] > fit.explained[1] > fit.explained[2] > 0 and sum(fit.explained) < 1


def test_alignment_undoes_a_rotation_a_mirror_and_a_scale_of_the_second_space_and_invents_nothing():
    x, light = some_features()
    reference = main_components(x, light).of(x)
    for seed in range(3):
        second = 4 * (x @ rotation(12, seed)) * torch.tensor([-1.0] + [1.0] * 11)
        fit = aligned(main_components(second, torch.randn(len(x))), second, reference)  # signs are chance here
        torch.testing.assert_close(fit.of(second), reference, rtol=1e-3, atol=1e-3)
        assert fit.likeness == pytest.approx(1, abs=1e-4)
    other = torch.randn(len(x), 12)
    assert abs(aligned(main_components(other, light), other, reference).likeness) < 0.2, "noise stays noise"
    with pytest.raises(Mask3DError, match="same patches"):
        aligned(main_components(x, light), x[:-1], reference)


def test_components_of_what_hardly_varies_say_so():
    x, light = some_features()
    assert main_components(x, light).varies > 0.5
    collapsed = main_components(0.01 * x + 100, light)
    assert collapsed.varies < 0.01 and collapsed.explained == pytest.approx(main_components(x, light).explained, abs=1e-6)
    constant = main_components(torch.ones(10, 5), torch.rand(10))
    assert constant.explained == (0, 0, 0) and not constant.of(torch.ones(10, 5)).any()
    assert main_components(torch.rand(10, 2), torch.rand(10)).of(torch.rand(4, 2)).shape == (4, 3), "fewer than three"
    with pytest.raises(Mask3DError, match="finite"):
        main_components(torch.full((4, 4), float("nan")), torch.rand(4))


def test_pictures_of_components_and_crops_and_charts():
    scores = np.zeros((6, 3))
    scores[0], scores[5] = 10, -SPREAD
    picture = component_picture(scores, (2, 3), (20, 30))
    assert picture.shape == (20, 30, 3) and (picture[0, 0] == 255).all() and (picture[-1, -1] == 0).all()
    assert (picture[0, -1] == 128).all()
    with pytest.raises(Mask3DError, match="2 x 3 patches"):
        component_picture(scores[:5], (2, 3), (20, 30))
    color = np.zeros((48, 64, 3), np.uint8)
    color[16:32, 16:32] = (250, 10, 10)
    crop = patch_crop(color, 5, (3, 4))
    assert crop.shape == (96, 96, 3) and (crop[48, 48] == (250, 10, 10)).all() and (crop[4, 4] == 0).all()
    assert (patch_crop(color, 0, (3, 4))[2, 2] == 150).all(), "grey beyond the border"
    for theme in ("light", "dark"):
        sheet = neighbour_sheet([("A", "some words", [Neighbour(crop, "frame 1\ncosine 0.9")])], crop, 700, theme)
        assert sheet.shape[1] == 700 and (sheet[48, 260 + 48] == (250, 10, 10)).all()
        chart = bar_chart([("A", 0.2, 0.1, 0.3, True), ("B", 0.4, None, None, False)], 800, theme=theme)
        assert chart.shape[1] == 800 and len(np.unique(chart.reshape(-1, 3), axis=0)) > 3


# ---- the ridge --------------------------------------------------------------------------------------------------------

def test_the_ridge_is_the_textbook_solution_and_needs_no_more_than_one_batch():
    x, y = 3 + 2 * torch.randn(200, 6), torch.randn(200, 2)
    x[:, 5] = 4.0  # says nothing
    sums = RidgeSums()
    for part in range(0, 200, 33):
        sums.add(x[part:part + 33], y[part:part + 33])
    z = (x[:, :5].double() - x[:, :5].double().mean(0)) / x[:, :5].double().std(0, unbiased=False)
    for strength, answer in zip((1e-3, 1.0), sums.solve((1e-3, 1.0))):
        weight = torch.linalg.solve(z.T @ z / 200 + strength * torch.eye(5), z.T @ (y.double() - y.double().mean(0)) / 200)
        torch.testing.assert_close(answer(x), z @ weight + y.double().mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sums.solve((1e12,))[0](x), y.double().mean(0).expand(200, -1), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="no patch"):
        RidgeSums().solve((1.0,))


# ---- the probe --------------------------------------------------------------------------------------------------------

def world(frames=24, seed=0, size=32):
    """Frames of smooth depth that is written into the colour: blue = log depth; and nothing else says it."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 1, size // PATCH, size // PATCH, generator=generator)
    logarithm = torch.nn.functional.interpolate(coarse, (size, size), mode="nearest")[:, 0]
    color = torch.rand(frames, 3, size, size, generator=generator)
    color[:, 2] = logarithm
    intrinsics = torch.tensor([260.0, 260.0, size / 2, size / 2]).expand(frames, -1)
    return Batch(color, logarithm.exp(), torch.ones(frames, size, size, dtype=torch.bool), intrinsics, torch.arange(frames),
                 torch.zeros(frames, dtype=torch.int64))


def taken(batch, numbers):
    rows = torch.as_tensor(np.asarray(numbers))
    return batch._each(lambda t: t[rows])


def thirds(batch, **options):
    n = len(batch)
    split = np.repeat(np.array([TRAIN, VAL, TEST], np.uint8), [n // 2, n // 4, n - n // 2 - n // 4])
    return ProbeFrames(lambda k: taken(batch, k), split, tuple(f"room {k}" for k in range(n)), **options)


def noise(color):
    return torch.randn(len(color), 16, 20, generator=torch.Generator().manual_seed(int(color.sum() * 1000)))


def test_the_probe_recovers_a_linear_relation_and_noise_does_not_beat_the_mean():
    batch = world()
    told = lambda color: torch.nn.functional.avg_pool2d(color[:, 2:], PATCH).flatten(2).transpose(1, 2) * 3 - 8  # noqa: E731
    steps = []
    result = probe_depth({"told": told}, noise, thirds(batch), PATCH, ProbeConfig(cells=2), lambda *s: steps.append(s))
    assert list(result.scores) == [*OPPONENTS, "told"] and steps[-1][0] == steps[-1][1]
    assert result.estimate("told").mean < 0.01, "the relation is exact but for the ridge"
    mean = result.estimate(MEAN).mean
    assert mean > 0.15 and result.estimate(UNTRAINED).mean > 0.95 * mean, "noise says nothing"
    assert result.difference("told", MEAN).high < 0
    assert result.estimate(PIXELS).mean < 0.05, "the pixels hold it too, and are in the table"
    assert result.scores[MEAN].width == 0 and result.scores["told"].width == 1
    assert "12 frames to fit, 6 to choose the ridge's strength, 6 to test" in result.words


def test_what_is_tested_on_changes_neither_the_fit_nor_the_choice():
    batch = world()
    frames = thirds(batch)
    other = taken(batch, range(24))
    other.depth[18:] *= 3  # test frames alone
    spoiled = ProbeFrames(lambda k: taken(other, k), frames.split, frames.sequences)
    told = lambda color: raw_patches(color, PATCH)[..., :40]  # noqa: E731
    first, second = (probe_depth({"told": told}, noise, f, PATCH) for f in (frames, spoiled))
    assert first.scores["told"].strength == second.scores["told"].strength
    own = batch.depth[:12].clamp(min=1e-3).log().mean().exp()  # the mean depth is the training frames', bit for bit the same
    expected = ((own - batch.depth[18:]).abs() / batch.depth[18:]).mean(dim=(1, 2))
    np.testing.assert_allclose(first.scores[MEAN].frames["abs_rel"], expected, rtol=1e-4)
    expected = ((own - other.depth[18:]).abs() / other.depth[18:]).mean(dim=(1, 2))
    np.testing.assert_allclose(second.scores[MEAN].frames["abs_rel"], expected, rtol=1e-4)


def test_metres_do_not_depend_on_the_camera():
    near, far = world(), world()
    camera = torch.tensor([520.0, 520.0, 16.0, 16.0]).expand(24, -1)
    far = Batch(far.color, far.depth * 2, far.is_valid, camera, far.frame_ids, far.epochs)
    first, second = (probe_depth({}, noise, thirds(b), PATCH).scores[PIXELS].frames for b in (near, far))
    np.testing.assert_allclose(first["abs_rel"], second["abs_rel"], rtol=1e-3)
    np.testing.assert_allclose(2 * first["mae"], second["mae"], rtol=1e-3)


def test_holes_are_neither_fitted_nor_scored_and_a_frame_without_depth_counts_for_nothing():
    batch = world()
    batch.is_valid[:, :, :10] = False
    batch.is_valid[-1] = False
    wrong = taken(batch, range(24))
    wrong.depth[~wrong.is_valid] = 0.0
    first, second = (probe_depth({}, noise, thirds(b), PATCH) for b in (batch, wrong))
    for name in OPPONENTS:
        np.testing.assert_array_equal(first.scores[name].frames["abs_rel"], second.scores[name].frames["abs_rel"])
    assert np.isnan(first.scores[MEAN].frames["abs_rel"][-1]) and first.estimate(MEAN).frames == 5


def test_frames_never_lie_on_both_sides_of_the_split():
    batch = world()
    read = lambda k: taken(batch, k)  # noqa: E731
    split = np.array([TRAIN, TRAIN, VAL, TEST], np.uint8)
    with pytest.raises(ConfigError, match=r"1 sequence\(s\) lie in several parts, 'b'"):
        ProbeFrames(read, split, ("a", "b", "b", "c"))
    with pytest.raises(ConfigError, match="no frame in the val part"):
        ProbeFrames(read, np.array([TRAIN, TEST], np.uint8), ("a", "b"))
    with pytest.raises(ConfigError, match="frames 1 and 2 are neighbours"):
        ProbeFrames(read, split, ("a",) * 4, is_by_time=True)
    ProbeFrames(read, np.array([TRAIN, UNUSED, VAL, UNUSED, TEST], np.uint8), ("a",) * 5, is_by_time=True)
    with pytest.raises(ConfigError, match="cannot be parted"):
        ProbeFrames.of(read, ["one"] * 4)
    by_room = ProbeFrames.of(read, [f"room {k // 2}" for k in range(24)])
    parts = [{by_room.sequences[i] for i in by_room.numbers(p)} for p in (TRAIN, VAL, TEST)]
    assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    by_time = ProbeFrames.of(read, ["one"] * 24)
    edges = by_time.numbers(TRAIN).max(), by_time.numbers(VAL).min(), by_time.numbers(VAL).max(), by_time.numbers(TEST).min()
    assert edges[1] - edges[0] > 1 and edges[3] - edges[2] > 1, "a gap between blocks of time"
    result = probe_depth({}, noise, by_time, PATCH)
    assert result.is_one_recording and result.estimate(MEAN).words == ONE_RECORDING and result.estimate(MEAN).low is not None


def test_an_encoder_through_the_probe_and_what_is_refused():
    batch = world(size=64)
    encoder = RGBEncoder.of(Mask3D(MODEL))
    result = probe_depth({"tiny": feature_function(encoder, -2)}, feature_function(encoder), thirds(batch), 16)
    assert result.scores["tiny"].width == 32 and np.isfinite(result.scores["tiny"].frames["abs_rel"]).all()
    with pytest.raises(ConfigError, match="opponents' names"):
        probe_depth({MEAN: noise}, noise, thirds(batch), 16)
    with pytest.raises(ConfigError, match="gives 16 patches"):
        probe_depth({}, lambda color: noise(color), thirds(world(size=48)), 16)
    with pytest.raises(ConfigError, match="strengths must be positive and rising"):
        ProbeConfig(strengths=(1.0, 0.1), cells=2)
    assert likeness(torch.zeros(5, 3), torch.rand(5, 3)) == 0

"""The model: shapes, every control, the hidden stays hidden, cameras, any grid, gradients."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mask3d_core.errors import ConfigError
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.models import CONTROLS, PRESETS, DepthTarget, EncoderConfig, Mask3D, ModelConfig, preset
from mask3d_core.models.anchor import anchor_features, feature_count, spline_anchor
from mask3d_core.models.encoders import build_vit, check_plain, encode_visible
from mask3d_core.models.patches import gather_visible, patchify, scatter_to_grid, sincos_positions, unpatchify
from mask3d_core.models.targets import depth_space, trimmed_statistics

SMALL = ModelConfig(image_size=(48, 64), rgb=EncoderConfig(width=32, depth=2, heads=2),
                    depth=EncoderConfig(width=24, depth=2, heads=2), decoder_width=32, decoder_depth=2, decoder_heads=2)
FUSIONS = ("add", "concat_channels", "concat_tokens")


def small(**changes) -> Mask3D:
    torch.manual_seed(0)
    model = Mask3D(dataclasses.replace(SMALL, **changes))
    model.set_depth_statistics(0.5, 0.2)
    for parameter in model.parameters():  # away from the small start, so that a leak would show
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def scene(batch: int = 2, height: int = 48, width: int = 64, focal: float = 60.0):
    generator = torch.Generator().manual_seed(1)
    color = torch.rand(batch, 3, height, width, generator=generator)
    depth = 1 + 2 * torch.rand(batch, height, width, generator=generator)
    is_valid = torch.rand(batch, height, width, generator=generator) > 0.2
    is_valid[:, :16, :16] = False
    depth = depth * is_valid
    intrinsics = torch.tensor([[focal, focal, (width - 1) / 2, (height - 1) / 2]]).expand(batch, 4)
    return color, depth, is_valid, intrinsics


def masks_of(is_valid, ratios=(0.5, 0.5), **options):
    return Masks.random(ratios, torch.arange(is_valid.shape[0]), 0, is_valid, 16, **options)


def test_patchify_round_trip_and_order():
    picture = torch.rand(2, 3, 32, 48)
    patches = patchify(picture, 16)
    assert patches.shape == (2, 6, 768)
    assert torch.equal(unpatchify(patches, (2, 3), 16), picture)
    assert torch.equal(patches[0, 4].view(3, 16, 16), picture[0, :, 16:32, 16:32])
    with pytest.raises(ValueError, match="multiple of 16"):
        patchify(picture[..., :40], 16)


def test_gather_and_scatter_are_inverse_on_the_visible():
    tokens, ids = torch.rand(2, 6, 4), torch.tensor([[0, 3, 5], [1, 2, 4]])
    grid = scatter_to_grid(gather_visible(tokens, ids), ids, 6)
    assert torch.equal(gather_visible(grid, ids), gather_visible(tokens, ids))
    assert grid[0, [1, 2, 4]].abs().sum() == 0


def test_positions_tell_rows_and_columns_apart_on_any_grid():
    codes = sincos_positions((3, 7), 16)
    assert codes.shape == (21, 16)
    assert torch.cdist(codes, codes).add(torch.eye(21) * 9).min() > 0.1


def test_encoder_agrees_with_timm_when_nothing_is_hidden():
    for options in ({}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 4, "no_embed_class": True},
                    {"pre_norm": True}):
        vit = VisionTransformer(img_size=(48, 64), embed_dim=32, depth=2, num_heads=2, num_classes=0, **options).eval()
        picture = torch.rand(2, 3, 48, 64)
        ids = torch.arange(12).expand(2, -1)
        torch.testing.assert_close(encode_visible(vit, picture, ids), vit.forward_features(picture))


def test_only_the_plain_vision_transformer_is_accepted():
    import timm

    with pytest.raises(ConfigError, match="SwinTransformer"):
        check_plain(timm.create_model("swin_tiny_patch4_window7_224"), "swin_tiny_patch4_window7_224")
    with pytest.raises(ConfigError, match="no_such_model"):
        build_vit(EncoderConfig(timm="no_such_model"), (48, 64), 16, 3)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_predicts_its_targets_and_trains_all_it_has(control, fusion):
    model = small(fusion=fusion, **CONTROLS[control])
    color, depth, is_valid, intrinsics = scene()
    output = model(color, depth, is_valid, intrinsics, masks_of(is_valid))
    loss = torch.zeros(())
    if "depth" in model.config.targets:
        assert output.depth.shape == depth.shape and (output.depth > 0).all()
        loss = loss + output.value.square().mean()
    else:
        assert output.depth is None
    if "rgb" in model.config.targets:
        assert output.rgb.shape == (2, 12, 768)
        loss = loss + output.rgb.square().mean()
    loss.backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    # class tokens reach the result through attention; only what no target reads may stay without a gradient
    assert not [n for n in unused if not n.endswith("_code") and n != "mask_token"], unused


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("normalisation", ["metric", "standardised"])
@pytest.mark.parametrize("representation", ["linear", "log", "inverse"])
@pytest.mark.parametrize("anchor", ["none", "spline"])
def test_the_hidden_stays_hidden(fusion, normalisation, representation, anchor):
    """Changing every hidden value, and every value in a hole, leaves the prediction bit-identical."""
    model = small(fusion=fusion, target=DepthTarget(normalisation, representation, 60.0), anchor=anchor)
    color, depth, is_valid, intrinsics = scene()
    masks = masks_of(is_valid, (0.6, 0.6))
    hidden_rgb, hidden_depth = (to_pixels(m, (3, 4), 16) for m in (masks.rgb, masks.depth))
    other_depth = torch.where(hidden_depth | ~is_valid, 7.0 + torch.rand_like(depth), depth)
    other_color = torch.where(hidden_rgb[:, None], torch.rand_like(color), color)
    first = model(color, depth, is_valid, intrinsics, masks)
    second = model(other_color, other_depth, is_valid, intrinsics, masks)
    assert torch.equal(first.depth, second.depth)
    seen = torch.where(is_valid & ~hidden_depth, depth + 1.0, depth)
    assert not torch.equal(first.depth, model(color, seen, is_valid, intrinsics, masks).depth)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_frames_of_a_batch_do_not_touch_each_other(fusion):
    """Padding in one frame (fewer patches hold depth) changes nothing in it or its neighbour."""
    model = small(fusion=fusion)
    color, depth, is_valid, intrinsics = scene()
    is_valid[1, :, :40] = False
    both = model(color, depth, is_valid, intrinsics, masks_of(is_valid))
    for row in (0, 1):
        one = slice(row, row + 1)
        alone = Masks.random((0.5, 0.5), torch.tensor([row]), 0, is_valid[one], 16)
        alone = model(color[one], depth[one], is_valid[one], intrinsics[one], alone)
        torch.testing.assert_close(alone.depth, both.depth[one], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratios", [(0.0, 1.0), (1.0, 0.0), (0.8, 1.0), (1.0, 0.8), (0.0, 0.0)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_modality_may_be_wholly_hidden(ratios, fusion):
    model = small(fusion=fusion, target=DepthTarget("standardised", "log", 60.0))
    color, depth, is_valid, intrinsics = scene()
    output = model(color, depth, is_valid, intrinsics, masks_of(is_valid, ratios))
    assert torch.isfinite(output.depth).all()
    assert output.space.is_scale_assumed.all() == (ratios[1] == 1.0)


def test_nothing_visible_at_all_is_an_error():
    color, depth, is_valid, intrinsics = scene()
    with pytest.raises(ConfigError, match="at least one visible"):
        small()(color, depth, is_valid, intrinsics, masks_of(is_valid, (1.0, 1.0)))


def test_a_frame_without_depth_gives_a_finite_prediction():
    color, depth, is_valid, intrinsics = scene()
    is_valid[0], depth = False, depth * 0 + 1.5
    output = small(target=DepthTarget("standardised"))(color, depth * is_valid, is_valid, intrinsics, masks_of(is_valid))
    assert torch.isfinite(output.depth).all()
    assert output.space.is_scale_assumed.tolist() == [True, False]


@pytest.mark.parametrize("representation", ["linear", "log", "inverse"])
def test_metres_across_cameras(representation):
    """Twice the focal length and twice the distance is the same picture: depth follows the camera exactly."""
    model = small(target=DepthTarget("metric", representation, 60.0))
    color, depth, is_valid, _ = scene()
    depth = depth * 0.5
    near = scene(focal=60.0)[3]
    far = near * torch.tensor([2.0, 2.0, 1.0, 1.0])
    masks = masks_of(is_valid)
    first = model(color, depth, is_valid, near, masks).depth
    second = model(color, depth * 2, is_valid, far, masks).depth
    inside = (first > 0.06) & (second < 90) & (first < 45)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(second[inside], 2 * first[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("representation", ["linear", "log", "inverse"])
def test_the_depth_space_is_invertible(representation):
    _, depth, is_valid, intrinsics = scene()
    space = depth_space(DepthTarget("standardised", representation, 60.0), depth, is_valid, intrinsics,
                        torch.tensor(0.4), torch.tensor(0.3))
    torch.testing.assert_close(space.decode(space.encode(depth))[is_valid], depth[is_valid], rtol=1e-4, atol=1e-4)


def test_trimmed_statistics_ignore_outliers_and_what_is_not_counted():
    value = torch.full((1, 64, 64), 2.0)
    value[:, ::4] += 0.001
    is_counted = torch.ones_like(value, dtype=torch.bool)
    value[0, 2, 2] = 1e6  # an outlier on the sampled lattice
    value[0, 32:] = float("nan")
    is_counted[0, 32:] = False
    mean, variance, count = trimmed_statistics(value, is_counted)
    assert abs(mean.item() - 2.0) < 0.01 and variance.item() < 1e-3 and count.item() == 8 * 16


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (48, 128)])
def test_any_grid_works(size):
    model = small()
    color, depth, is_valid, intrinsics = scene(2, *size)
    assert model(color, depth, is_valid, intrinsics, masks_of(is_valid)).depth.shape == (2, *size)
    with pytest.raises(ConfigError, match="multiples of 16"):
        model(color[..., :-8], depth[..., :-8], is_valid[..., :-8], intrinsics, masks_of(is_valid))


def test_the_anchor_continues_a_plane_and_is_the_data_s_mean_where_nothing_is_known():
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    value = (0.5 + 0.01 * rows - 0.004 * columns).expand(2, 96, 128).clone()
    is_visible = torch.zeros_like(value, dtype=torch.bool)
    is_visible[0, ::32, :] = is_visible[0, 20:40, 10:60] = is_visible[0, 80:, 100:] = True
    surface = spline_anchor(value.masked_fill(~is_visible, float("nan")).nan_to_num(99.0), is_visible, 16)
    assert surface[1].abs().max() == 0
    assert torch.equal(surface[is_visible], value[is_visible])
    assert (surface[0] - value[0])[16:80, 16:112].abs().max() < 0.15, "within a patch's step of the plane"


def test_the_anchor_stays_within_what_was_visible_and_follows_any_cell():
    generator = torch.Generator().manual_seed(3)
    value = torch.randn(3, 48, 64, generator=generator)
    is_visible = torch.rand(3, 48, 64, generator=generator) < 0.1
    for cells in (4, 8, 16):
        surface = spline_anchor(value, is_visible, 16, cells)
        for one, shown, target in zip(surface, is_visible, value):
            assert one.min() >= target[shown].min() and one.max() <= target[shown].max()
            assert torch.equal(one[shown], target[shown])


def test_what_the_decoder_sees_of_the_anchor():
    anchor = torch.full((1, 48, 64), 0.5)
    anchor[:, 16:32, 16:32] += torch.linspace(-0.02, 0.02, 16)[None, :, None]
    anchor[:, :, 32:] += 4.0
    is_visible = torch.zeros(1, 48, 64, dtype=torch.bool)
    is_visible[:, :16, 16:32] = True
    found = anchor_features(anchor, is_visible, 16)
    assert found.shape == (1, 12, feature_count(16))
    middle = found[0, 5]  # row 1, column 1 of 4
    assert middle[0] == pytest.approx(0.5, abs=1e-6)
    own = middle[1:257].view(16, 16)
    torch.testing.assert_close(own.sinh() / 8, anchor[0, 16:32, 16:32] - 0.5, atol=1e-5, rtol=1e-4)
    around, shown = middle[257:].view(2, 12, 12)
    torch.testing.assert_close(around[:, 8:], torch.full((12, 4), 32.0).asinh(), atol=1e-4, rtol=1e-4)
    expected = torch.zeros(12, 12)
    expected[:4, 4:8] = 1
    assert torch.equal(shown, expected)
    assert middle[1:].abs().max() < 6, "a step of metres stays within a few units"


def test_a_model_with_an_anchor_starts_from_it():
    torch.manual_seed(0)
    model = Mask3D(dataclasses.replace(SMALL, anchor="spline")).eval()
    color, depth, is_valid, intrinsics = scene()
    masks = masks_of(is_valid)
    output = model(color, depth, is_valid, intrinsics, masks)
    assert torch.equal(output.value, output.anchor)
    visible = is_valid & ~to_pixels(masks.depth, (3, 4), 16)
    torch.testing.assert_close(output.depth[visible], depth[visible])
    assert Mask3D(SMALL)(color, depth, is_valid, intrinsics, masks).anchor is None


def test_visible_pixels_that_the_statistics_do_not_sample_leave_the_scale_assumed():
    color, depth, is_valid, intrinsics = scene()
    is_valid = is_valid & False
    is_valid[0, 17, 17] = True  # off the sampled lattice
    depth = torch.where(is_valid, 2.0, 0.0)
    space = depth_space(DepthTarget("standardised"), depth, is_valid, intrinsics, torch.tensor(2.5), torch.tensor(0.5))
    assert space.is_scale_assumed.all() and (space.mean == 2.5).all()


def test_fused_andplain_attention_agree_on_padded_frames():
    """Whatever timm does with a mask, hidden and missing patches are not attended to."""
    color, depth, is_valid, intrinsics = scene()
    is_valid[1, :, :40] = False
    outputs = []
    for fused in (True, False):
        model = small(fusion="concat_tokens")
        for module in model.modules():
            if isinstance(getattr(module, "fused_attn", None), bool):
                module.fused_attn = fused
        outputs.append(model(color, depth, is_valid, intrinsics, masks_of(is_valid)).depth)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_pasted_output_says_so():
    color, depth, is_valid, intrinsics = scene()
    masks = masks_of(is_valid)
    visible = is_valid & ~to_pixels(masks.depth, (3, 4), 16)
    output = small()(color, depth, is_valid, intrinsics, masks)
    pasted = output.pasted(depth, visible)
    assert pasted.is_pasted and not output.is_pasted
    assert torch.equal(pasted.depth[visible], depth[visible])
    assert torch.equal(pasted.depth[~visible], output.depth[~visible])


def test_presets_are_what_they_say():
    tiny = Mask3D(PRESETS["tiny"])
    assert 6e6 < sum(p.numel() for p in tiny.parameters()) < 9e6
    base = preset("base")
    assert (base.image_size, base.grid, base.decoder_width, base.decoder_depth) == ((240, 320), (15, 20), 512, 8)
    with pytest.raises(ConfigError, match="preset must be one of"):
        preset("huge")
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(SMALL, fusion="sum", image_size=(50, 64), targets=("normals",)).validate()
    assert len(caught.value.problems) == 3


COMPILES = """
import sys; sys.path[:0] = ["tests", "."]
import torch
from test_model import FUSIONS, masks_of, scene, small
for fusion in FUSIONS:
    model = small(fusion=fusion)
    color, depth, is_valid, intrinsics = scene()
    masks = masks_of(is_valid)
    eager = model(color, depth, is_valid, intrinsics, masks)
    compiled = torch.compile(model, fullgraph=True, backend="eager")(color, depth, is_valid, intrinsics, masks)
    torch.testing.assert_close(compiled.depth, eager.depth)
print("compiled")
"""


def test_the_model_compiles_without_graph_breaks():
    # in a process of its own: the shape checks of the test run cannot be traced
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", COMPILES], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip().endswith("compiled"), done.stderr[-2000:]

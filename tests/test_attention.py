"""Attention agrees with the slow way, for any timm VisionTransformer; influence is what taking away really does."""

import dataclasses

import pytest
import timm
import torch
from test_model import SMALL, masks_of, scene, small
from torch import nn

from mask3d_core.attention import KNOWN, combine, entropy, record_attention, recorded, rollout
from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.influence import measure_influence
from mask3d_core.masking import Masks
from mask3d_core.models.patches import patchify


def one_frame():
    color, depth, is_valid, intrinsics = scene(1)
    return Batch(color, depth, is_valid, intrinsics, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3_qkvb", "deit_tiny_patch16_224",
                                  "vit_base_patch16_clip_quickgelu_224", "vit_small_patch14_reg4_dinov2"])
def test_attention_of_any_plain_vit_agrees_with_the_slow_way(name):
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    side = 28 if "patch14" in name else 32
    vit = timm.create_model(name, pretrained=False, img_size=side, num_classes=0).eval()
    picture = torch.rand(2, 3, side, side)
    if not any(type(m).__name__ == "Attention" for m in vit.modules()):
        with pytest.raises(ConfigError, match="Attention"), recorded(vit):
            pass
        return
    with recorded(vit) as fused, torch.no_grad():
        expected = vit(picture)
    slow = []
    for module in vit.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = False
            module.attn_drop.register_forward_pre_hook(lambda _, inputs: slow.append(inputs[0]))
    with torch.no_grad():
        torch.testing.assert_close(vit(picture), expected, rtol=1e-4, atol=1e-4)
    assert len(fused) == len(vit.blocks) == len(slow)
    for quick, sure in zip(fused, slow):
        torch.testing.assert_close(quick, sure, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(quick.sum(-1), torch.ones_like(quick[..., 0]))
    assert not any(m._forward_pre_hooks for m in vit.modules() if type(m).__name__ == "Attention"), "no hook stays"


def test_what_has_no_attention_is_refused():
    with pytest.raises(ConfigError, match="Linear"), recorded(nn.Linear(2, 2)):
        pass


def test_combinations_of_heads_and_layers():
    layers = [torch.rand(1, 3, 4, 4).softmax(-1) for _ in range(2)]
    assert torch.equal(combine(layers, -1, 2), layers[1][:, 2])
    torch.testing.assert_close(combine(layers, 0, "mean"), layers[0].mean(1))
    assert (combine(layers, 0, "max") >= combine(layers, 0, "mean")).all()
    flow = combine(layers, 0, "rollout")
    torch.testing.assert_close(flow.sum(-1), torch.ones(1, 4))
    first, second = (0.5 * w.mean(1) + 0.5 * torch.eye(4) for w in layers)
    torch.testing.assert_close(flow, second @ first)
    same = torch.eye(4).expand(1, 1, 4, 4)
    torch.testing.assert_close(rollout([same, same])[0], torch.eye(4))
    for layer, head in ((2, "mean"), (0, 3), (0, "median")):
        with pytest.raises(ConfigError, match="layer must|head must"):
            combine(layers, layer, head)


def test_entropy_is_0_for_one_key_and_1_for_all_alike():
    weights = torch.stack([torch.eye(5), torch.full((5, 5), 0.2)])[None]
    torch.testing.assert_close(entropy(weights), torch.tensor([[0.0, 1.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["add", "concat_channels", "concat_tokens"])
def test_a_model_s_attention_by_part(fusion):
    model, batch = small(fusion=fusion, anchor="spline"), one_frame()
    masks = masks_of(batch.is_valid, (0.5, 0.5))
    found = record_attention(model, batch, masks)
    visible = (~masks.rgb[0]).nonzero()[:, 0]
    assert len(found.rgb.layers) == 2 and len(found.decoder) == 2 and torch.equal(found.rgb.ids, visible)
    asked, prefix = found.rgb.of(int(visible[0]), layer=0, head=1)
    assert prefix.shape == (1,) and asked.isnan().sum() == masks.rgb.sum()
    assert asked.nansum() + prefix.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="hidden from this encoder"):
        found.rgb.of(int(masks.rgb[0].nonzero()[0, 0]))
    assert found.depth.entropies().shape == (2, 2)
    mass = found.decoder_mass(3)
    assert set(mass) == set(KNOWN) and sum(mass.values()) == pytest.approx(1, abs=1e-5)
    both = int((~masks.rgb[0] & ~masks.depth[0]).sum())
    assert int((found.known == KNOWN.index("both")).sum()) == both
    names = set(found.decoder_of(3))
    assert names == ({"depth", "rgb"} if fusion == "concat_tokens" else {"grid"})


def test_the_decoder_s_mass_on_rgb_and_on_depth_tokens():
    batch = one_frame()
    masks = masks_of(batch.is_valid, (0.5, 0.5))
    for targets in (("depth",), ("rgb", "depth")):
        found = record_attention(small(fusion="concat_tokens", targets=targets), batch, masks)
        mass = found.token_mass(3, layer=0, head=1)
        assert sum(sum(parts.values()) for parts in mass.values()) == pytest.approx(1, abs=1e-5)
        assert set(mass["depth"]) == {"seen", "hidden"}
        assert set(mass["rgb"]) == ({"seen", "hidden"} if "rgb" in targets else {"seen"}), "an input alone has no hidden tokens"
        row = found.decoder_of(3, layer=0, head=1)["depth"]
        assert mass["depth"]["seen"] == pytest.approx(float(row[~masks.depth[0]].sum()), abs=1e-6)
        assert torch.equal(found.is_seen("rgb"), ~masks.rgb[0]) and torch.equal(found.is_seen("depth"), ~masks.depth[0])
    assert record_attention(small(), batch, masks).token_mass(3) == {}, "one token a patch for both"


def test_entropies_of_all_parts():
    batch = one_frame()
    found = record_attention(small(), batch, masks_of(batch.is_valid, (0.5, 0.5))).entropies()
    assert {name: tuple(values.shape) for name, values in found.items()} == {"rgb": (2, 2), "depth": (2, 2), "decoder": (2, 2)}
    assert all(((values >= 0) & (values <= 1)).all() for values in found.values())
    blind = record_attention(small(), batch, masks_of(batch.is_valid, (0.5, 1.0))).entropies()
    assert set(blind) == {"rgb", "decoder"}


def test_padded_patches_are_left_out_of_the_record():
    model, batch = small(), one_frame()
    masks = masks_of(batch.is_valid, (0.5, 0.5))
    masks = dataclasses.replace(masks, rgb_count=masks.rgb_count + 2, rgb_may_pad=True)
    found = record_attention(model, batch, masks)
    assert len(found.rgb.ids) == int((~masks.rgb).sum())
    torch.testing.assert_close(found.rgb.layers[0].sum(-1), torch.ones_like(found.rgb.layers[0][..., 0]))


def test_one_modality_alone():
    model, batch = small(), one_frame()
    found = record_attention(model, batch, masks_of(batch.is_valid, (0.5, 1.0)))
    assert found.depth is None and found.decoder_mass(0)["depth"] == 0


@pytest.mark.parametrize("anchor", ["none", "spline"])
def test_influence_is_what_taking_a_patch_away_does(anchor):
    model, batch = small(anchor=anchor), one_frame()
    masks = masks_of(batch.is_valid, (0.5, 0.6))
    calls = []
    found = measure_influence(model, batch, masks, chunk=3, progress=lambda done, total: calls.append((done, total)))
    visible = {"rgb": ~masks.rgb[0], "depth": ~masks.depth[0]}
    for name, moves in (("rgb", found.rgb_moves), ("depth", found.depth_moves)):
        assert torch.equal(moves.isnan().all(0), ~visible[name]), "one column per visible patch"
        taken = int(visible[name].nonzero()[0, 0])
        hidden = getattr(masks, name).clone()
        hidden[0, taken] = True
        fewer = Masks.painted(**{"rgb": masks.rgb, "depth": masks.depth, name: hidden}, is_valid=batch.is_valid, patch=16)
        with torch.no_grad():
            without, whole = (patchify(model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, m)
                                       .depth[:, None], 16).mean(-1)[0] for m in (fewer, masks))
        torch.testing.assert_close(moves[:, taken], without - whole, rtol=1e-3, atol=1e-4)
    total = int(visible["rgb"].sum() + visible["depth"].sum())
    assert calls[-1] == (total, total)
    shares, top = found.shares(5), found.top(5, 3)
    assert sum(shares.values()) == pytest.approx(1) and len(top) == 3
    assert abs(top[0][2]) >= abs(top[1][2]) >= abs(top[2][2])
    assert abs(top[0][2]) == pytest.approx(float(torch.cat([found.rgb_moves[5], found.depth_moves[5]]).abs().nan_to_num().max()))


@pytest.mark.parametrize(("fusion", "anchor"), [("add", "none"), ("add", "spline"), ("concat_channels", "none"),
                                                ("concat_tokens", "spline")])
def test_encoding_once_what_stays_gives_what_the_whole_model_gives_for_every_variant(fusion, anchor):
    model, batch = small(fusion=fusion, anchor=anchor), one_frame()
    masks = masks_of(batch.is_valid, (0.5, 0.6))
    calls = {"_encode_rgb": [], "_encode_depth": []}
    for name, sizes in calls.items():
        plain = getattr(model, name)
        setattr(model, name, lambda *given, plain=plain, sizes=sizes: (sizes.append(len(given[-1].rgb)), plain(*given))[1])
    found = measure_influence(model, batch, masks, chunk=4)
    visible = {"rgb": ~masks.rgb[0], "depth": ~masks.depth[0]}
    assert {n: sum(sizes) for n, sizes in calls.items()} == {f"_encode_{n}": 1 + int(v.sum()) for n, v in visible.items()}
    with torch.no_grad():
        def means(m):
            return patchify(model(batch.color, batch.depth, batch.is_valid, batch.intrinsics, m).depth[:, None], 16).mean(-1)[0]

        whole = means(masks)
        for name, moves in (("rgb", found.rgb_moves), ("depth", found.depth_moves)):
            for taken in visible[name].nonzero()[:, 0].tolist():
                hidden = getattr(masks, name).clone()
                hidden[0, taken] = True
                fewer = dataclasses.replace(masks, **{name: hidden, "rgb_may_pad": True, "depth_may_pad": True})
                torch.testing.assert_close(moves[:, taken], means(fewer) - whole, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.base, whole, rtol=1e-5, atol=1e-5)


def test_influence_needs_something_to_take_away():
    model, batch = small(), one_frame()
    only = torch.ones(1, 12, dtype=torch.bool)
    rgb = only.clone()
    rgb[0, 2] = False
    with pytest.raises(ConfigError, match="only one patch"):
        measure_influence(model, batch, Masks.painted(rgb, only, batch.is_valid, 16))
    with pytest.raises(ConfigError, match="one frame"):
        measure_influence(small(inputs=("rgb",), targets=("rgb",)), batch, Masks.painted(rgb, only, batch.is_valid, 16))
    rgb[0, 3] = False
    found = measure_influence(model, batch, Masks.painted(rgb, only, batch.is_valid, 16))
    assert found.shares(0)["depth"] == 0 and SMALL.anchor == "none"

"""One encoder per modality: a timm VisionTransformer, composed and never subclassed, that sees only visible patches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.hub import no_long_wait
from mask3d_core.models.patches import gather_visible, patchify, sincos_positions
from mask3d_core.shapes import Float, Int


def build_vit(config: EncoderConfig, image_size: tuple[int, int], patch: int, channels: int,
              pretrained: bool = False, drop_path: float = 0.0) -> VisionTransformer:
    """A timm VisionTransformer for this image size and number of channels.

    Position embeddings of our own sizes start from sine-cosine codes (learned ones need more frames than a small run
    has); a named timm model keeps its own start. ``drop_path`` is the chance that the last block is left out of a
    training step, rising linearly from 0 at the first (stochastic depth, Huang et al. 2016).

    Raises:
        ConfigError: unknown name, weights out of reach, or an architecture that is not a plain VisionTransformer.
    """
    if config.timm:
        try:
            with no_long_wait() if pretrained else nullcontext():
                vit = timm.create_model(config.timm, pretrained=pretrained, img_size=image_size, in_chans=channels,
                                        num_classes=0, drop_path_rate=drop_path)
        except Exception as problem:  # timm raises RuntimeError, TypeError, network errors of several libraries
            reason = str(problem).strip().splitlines()[0][:160] if str(problem).strip() else type(problem).__name__
            what = "its weights could not be fetched (is there a network?)" if pretrained else "it cannot be built here"
            raise ConfigError(f"timm model {config.timm!r}: {what}: {reason}") from problem
        check_plain(vit, config.timm)
    else:
        vit = VisionTransformer(img_size=image_size, patch_size=patch, in_chans=channels, num_classes=0,
                                global_pool="token", embed_dim=config.width, depth=config.depth, num_heads=config.heads,
                                drop_path_rate=drop_path)
        with torch.no_grad():
            vit.pos_embed[:, vit.num_prefix_tokens:] = 0.1 * sincos_positions(vit.patch_embed.grid_size, config.width)
    if vit.patch_embed.patch_size != (patch, patch):
        raise ConfigError(f"timm model {config.timm!r} has patches of {vit.patch_embed.patch_size}; "
                          f"model.patch is {patch}")
    return vit


def check_plain(vit: nn.Module, name: str) -> None:
    """Refuse everything but the plain VisionTransformer.

    Raises:
        ConfigError: in one line, with the class that came.
    """
    if type(vit) is not VisionTransformer or type(vit.patch_embed) is not PatchEmbed:
        raise ConfigError(f"timm model {name!r} is a {type(vit).__name__}; only timm's plain VisionTransformer "
                          "(vit_*, deit_*_patch16_224, *.dino, *.mae, *.augreg, ...) can see visible patches only")


def positions(vit: VisionTransformer, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
    """Position codes of the prefix tokens (or None) and of the patches of any grid (interpolated where it differs)."""
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    code = vit.pos_embed
    if tuple(vit.patch_embed.grid_size) != tuple(grid):
        code = resample_abs_pos_embed(code, list(grid), list(vit.patch_embed.grid_size), num_prefix_tokens=prefix)
    return (code[:, :prefix] if prefix else None), code[:, prefix:]


def attention_mask(may_attend: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, 1, 1, n) to be added to the scores: 0 where a key may be attended to, -inf elsewhere.

    Added, not boolean: timm before 1.0.26 adds whatever it gets where its attention is not fused.
    """
    mask = torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device)
    return mask.masked_fill(~may_attend, float("-inf"))[:, None, None, :]


def encode_visible(vit: VisionTransformer, picture: Float[Tensor, "b c h w"], ids_keep: Int[Tensor, "b k"],
                   is_padding: Tensor | None = None) -> Float[Tensor, "b p d"]:
    """Run the transformer on the visible patches alone.

    Args:
        picture: normalised as the encoder expects it.
        ids_keep: visible patches of each frame.
        is_padding: Bool (b, k), entries nobody may attend to; None where there are none.

    Returns:
        (b, prefix + k, d): class and register tokens first, then the visible patches in the order of ``ids_keep``.
    """
    tokens, mask = embed_visible(vit, picture, ids_keep, is_padding)
    for block in vit.blocks:
        tokens = block(tokens) if mask is None else block(tokens, attn_mask=mask)
    return vit.norm(tokens)


def encode_levels(vit: VisionTransformer, picture: Float[Tensor, "b c h w"], layers: Sequence[int]) -> list[Tensor]:
    """The patches of whole pictures after several layers, as maps; nothing is hidden.

    Args:
        picture: normalised as the encoder expects it; height and width multiples of the patch.
        layers: ascending, 0 the first; the transformer's final norm is applied to each, so that they differ in content
            and not in scale.

    Returns:
        One Float (b, d, rows, columns) per layer.
    """
    patch = vit.patch_embed.patch_size[0]
    grid = (picture.shape[-2] // patch, picture.shape[-1] // patch)
    ids = torch.arange(grid[0] * grid[1], device=picture.device).expand(len(picture), -1)
    tokens, _ = embed_visible(vit, picture, ids)
    found = []
    for number, block in enumerate(vit.blocks[:max(layers) + 1]):
        tokens = block(tokens)
        if number in layers:
            kept = vit.norm(tokens)[:, vit.num_prefix_tokens:]
            found.append(kept.transpose(1, 2).reshape(len(picture), -1, *grid))
    return found


def embed_visible(vit: VisionTransformer, picture: Float[Tensor, "b c h w"], ids_keep: Int[Tensor, "b k"],
                  is_padding: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """What the first block gets: prefix tokens and visible patches with their position codes, and whom they may attend to."""
    patch = vit.patch_embed.patch_size[0]
    grid = (picture.shape[-2] // patch, picture.shape[-1] // patch)
    projection = vit.patch_embed.proj
    tokens = gather_visible(patchify(picture, patch), ids_keep)
    tokens = vit.patch_embed.norm(F.linear(tokens, projection.weight.flatten(1), projection.bias))
    prefix_code, patch_code = positions(vit, grid)
    tokens = tokens + patch_code[0][ids_keep]
    prefix = [token for token in (vit.cls_token, vit.reg_token) if token is not None]
    if prefix:
        prefix = torch.cat(prefix, dim=1)
        prefix = prefix if prefix_code is None else prefix + prefix_code
        tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)
    mask = None
    if is_padding is not None:
        mask = attention_mask(F.pad(~is_padding, (vit.num_prefix_tokens, 0), value=True), tokens.dtype)
    return vit.norm_pre(vit.pos_drop(tokens)), mask

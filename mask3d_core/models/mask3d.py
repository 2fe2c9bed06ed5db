"""Mask3D: masked colour and depth patches in, dense depth out; only the RGB encoder is kept afterwards.

Read top to bottom: what goes in and out, the two encoders, the fusion on the full grid, the decoder, the heads.
Architecture after Hou et al., CVPR 2023 (arXiv 2302.14746); what the paper leaves open is ours and a config key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.masking import Masks, keep_ids, to_pixels
from mask3d_core.models.anchor import anchor_features, feature_count, spline_anchor
from mask3d_core.models.config import EncoderConfig, ModelConfig
from mask3d_core.models.encoders import attention_mask, build_vit, encode_visible
from mask3d_core.models.patches import patchify, scatter_to_grid, sincos_positions, unpatchify
from mask3d_core.models.targets import DepthSpace, depth_space
from mask3d_core.shapes import Bool, Float


@dataclass(frozen=True)
class Prediction:
    """What one forward pass gives.

    Args:
        depth: Float (b, h, w) metres, dense, also over holes and visible patches; None without a depth target.
        value: Float (b, h, w), the same in the model's space; None without a depth target.
        space: the map between the two; None without a depth target.
        rgb: Float (b, n, 3 * patch * patch), normalised-pixel prediction; None without an RGB target.
        is_pasted: True when measured depth was pasted in where it was visible.
        anchor: Float (b, h, w), the surface that the prediction starts from, in the model's space; None without one.
    """

    depth: Tensor | None
    value: Tensor | None
    space: DepthSpace | None
    rgb: Tensor | None
    is_pasted: bool = False
    anchor: Tensor | None = None

    def pasted(self, depth: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"]) -> Prediction:
        """With the measured depth put in wherever it was visible to the model; says so."""
        if self.depth is None:
            raise ConfigError("this model predicts no depth (model.targets has no depth), so none can be pasted")
        return replace(self, depth=torch.where(is_visible, depth, self.depth), is_pasted=True)


class Mask3D(nn.Module):
    """The model and, through its config, every control.

    Buffers: ``color_mean``, ``color_std`` (of the RGB encoder); ``depth_mean``, ``depth_std`` (scalars, of the training
    data in the target space; set by :meth:`set_depth_statistics` and kept in the checkpoint).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config.validate()
        width = config.decoder_width
        self.register_buffer("color_mean", torch.tensor(config.color_mean).view(1, 3, 1, 1))
        self.register_buffer("color_std", torch.tensor(config.color_std).view(1, 3, 1, 1))
        self.register_buffer("depth_mean", torch.zeros(()))
        self.register_buffer("depth_std", torch.ones(()))
        if "rgb" in config.inputs:
            self.rgb_encoder = build_vit(config.rgb, config.image_size, config.patch, 3)
            self.rgb_projection = nn.Linear(self.rgb_encoder.embed_dim, width)
            self.rgb_code = nn.Parameter(torch.zeros(width))
        if "depth" in config.inputs:
            self.depth_encoder = build_vit(config.depth, config.image_size, config.patch, 2)
            self.depth_projection = nn.Linear(self.depth_encoder.embed_dim, width)
            self.depth_code = nn.Parameter(torch.zeros(width))
        self.mask_token = nn.Parameter(torch.zeros(width))
        if config.fusion == "concat_channels":
            self.fuse = nn.Linear(2 * width, width)
        self.decoder = nn.Sequential(*[
            Block(width, config.decoder_heads, qkv_bias=True) for _ in range(config.decoder_depth)])
        self.decoder_norm = nn.LayerNorm(width)
        if "depth" in config.targets:
            self.depth_head = nn.Linear(width, config.patch ** 2)
            if config.anchor == "spline":
                self.anchor_embedding = nn.Linear(feature_count(config.patch), width)
        if "rgb" in config.targets:
            self.rgb_head = nn.Linear(width, 3 * config.patch ** 2)
        self._start_small()
        self._positions: dict[tuple, Tensor] = {}

    def _start_small(self) -> None:
        """Xavier for what is ours, small heads, so that step 0 predicts the data's mean, or the anchor."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith(("rgb_encoder", "depth_encoder")):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for parameter in (self.mask_token, getattr(self, "rgb_code", None), getattr(self, "depth_code", None)):
            if parameter is not None:
                nn.init.normal_(parameter, std=0.02)
        for head in ("depth_head", "rgb_head"):
            if hasattr(self, head):
                nn.init.trunc_normal_(getattr(self, head).weight, std=1e-3)
        if hasattr(self, "anchor_embedding"):
            nn.init.zeros_(self.depth_head.weight)  # even 1e-3 would roughen the surface by a per cent

    def set_depth_statistics(self, mean: float, std: float) -> None:
        """Keep the training data's mean and spread in the target space (see ``training.statistics``)."""
        self.depth_mean.fill_(mean)
        self.depth_std.fill_(std)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """The decoder's position codes for any grid, computed once per grid and device."""
        key = (grid, self.mask_token.device)
        if key not in self._positions:
            with torch.inference_mode(False):  # cached: training must be able to use it
                self._positions[key] = sincos_positions(grid, self.config.decoder_width).to(self.mask_token.device)
        return self._positions[key]

    def forward(self, color: Float[Tensor, "b 3 h w"], depth: Float[Tensor, "b h w"], is_valid: Bool[Tensor, "b h w"],
                intrinsics: Float[Tensor, "b 4"], masks: Masks) -> Prediction:
        """Predict.

        Args:
            color: 0..1, RGB.
            depth: metres; 0 in holes. Values in hidden patches and holes cannot change the result.
            is_valid: where depth was measured.
            intrinsics: fx fy cx cy in pixels of this image.
            masks: which patches are hidden.

        Raises:
            ConfigError: a size that is no multiple of the patch, or no visible token of any input.
        """
        is_visible, space = self.seen(depth, is_valid, intrinsics, masks)
        encoded = self.encode(color, depth, is_visible, space, masks)
        if not encoded:
            raise ConfigError("at least one visible token of some input is needed; both ratios hide everything")
        return self.predict(encoded, space, self.start(depth, is_visible, space), color.shape[-2:])

    def seen(self, depth: Float[Tensor, "b h w"], is_valid: Bool[Tensor, "b h w"], intrinsics: Float[Tensor, "b 4"],
             masks: Masks) -> tuple[Tensor, DepthSpace]:
        """Which depth the model sees, Bool (b, h, w), and the frame's map between metres and the model's space.

        Raises:
            ConfigError: a size that is no multiple of the patch.
        """
        is_visible = is_valid & ~to_pixels(masks.depth, self._grid(is_valid.shape[-2:]), self.config.patch)
        if "depth" not in self.config.inputs:
            is_visible = torch.zeros_like(is_visible)
        return is_visible, depth_space(self.config.target, depth, is_visible, intrinsics, self.depth_mean, self.depth_std)

    def encode(self, color: Float[Tensor, "b 3 h w"], depth: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"],
               space: DepthSpace, masks: Masks, names: tuple[str, ...] = ("rgb", "depth")) -> dict[str, tuple]:
        """The visible tokens of each input, as :meth:`decode` takes them; those of which none can be visible are left out.

        Args:
            color, depth, masks: as in :meth:`forward`. is_visible, space: of :meth:`seen`.
            names: which inputs.
        """
        encoded = []
        if "rgb" in names and "rgb" in self.config.inputs and masks.rgb_count:
            encoded.append(self._encode_rgb(color, masks))
        if "depth" in names and "depth" in self.config.inputs and masks.depth_count:
            encoded.append(self._encode_depth(depth, is_visible, space, masks))
        return dict(encoded)

    def start(self, depth: Float[Tensor, "b h w"], is_visible: Bool[Tensor, "b h w"], space: DepthSpace
              ) -> tuple[Tensor | None, Tensor | None]:
        """The surface that the prediction starts from, and what the decoder is told of it; (None, None) without one."""
        if self.config.anchor != "spline" or "depth" not in self.config.targets:
            return None, None
        anchor = spline_anchor(space.encode(depth), is_visible, self.config.patch, self.config.anchor_cells)
        return anchor, anchor_features(anchor, is_visible, self.config.patch)

    def predict(self, encoded: dict[str, tuple], space: DepthSpace, start: tuple[Tensor | None, Tensor | None],
                size: tuple[int, int]) -> Prediction:
        """What :meth:`encode`, :meth:`seen` and :meth:`start` gave, fused, decoded and brought back to metres.

        Args:
            encoded: of all inputs, with the same number of frames; ``space`` and ``start`` may be of one frame for all.
            size: (height, width) in pixels.
        """
        config, grid, (anchor, features) = self.config, self._grid(size), start
        decoded = self.decode(encoded, grid, features)
        value = prediction = None
        if "depth" in config.targets:
            with torch.autocast(self.mask_token.device.type, enabled=False):  # bf16 would round depth to steps of centimetres
                value = self.depth_head(decoded["depth"].float())
            value = unpatchify(value, grid, config.patch)[:, 0]
            value = value if anchor is None else value + anchor
            prediction = space.decode(value)
        rgb = self.rgb_head(decoded["rgb"]).float() if "rgb" in config.targets else None
        return Prediction(prediction, value, space if value is not None else None, rgb, anchor=anchor)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches of a picture (height, width).

        Raises:
            ConfigError: no multiple of the patch.
        """
        (height, width), patch = size, self.config.patch
        if height % patch or width % patch:
            raise ConfigError(f"frames must be multiples of {patch} pixels; got {height}x{width}")
        return height // patch, width // patch

    def _encode_rgb(self, color: Tensor, masks: Masks) -> tuple[str, tuple]:
        ids, padding = keep_ids(masks.rgb, masks.rgb_count)
        padding = padding if masks.rgb_may_pad else None
        tokens = encode_visible(self.rgb_encoder, (color - self.color_mean) / self.color_std, ids, padding)
        tokens = self.rgb_projection(tokens[:, self.rgb_encoder.num_prefix_tokens:]) + self.rgb_code
        return "rgb", (tokens, ids, padding)

    def _encode_depth(self, depth: Tensor, is_visible: Tensor, space: DepthSpace, masks: Masks) -> tuple[str, tuple]:
        ids, padding = keep_ids(masks.depth, masks.depth_count)
        padding = padding if masks.depth_may_pad else None
        value = space.encode(depth).masked_fill(~is_visible, 0.0)  # holes at 0 *after* normalising
        picture = torch.stack([value, is_visible.to(value.dtype)], dim=1)
        tokens = encode_visible(self.depth_encoder, picture, ids, padding)
        tokens = self.depth_projection(tokens[:, self.depth_encoder.num_prefix_tokens:]) + self.depth_code
        return "depth", (tokens, ids, padding)

    def decode(self, encoded: dict[str, tuple], grid: tuple[int, int], around: Tensor | None = None
               ) -> dict[str, Tensor]:
        """Fuse the visible tokens on the full grid and decode.

        Args:
            encoded: per modality (tokens (b, k, d), ids_keep (b, k), is_padding or None).
            grid: (rows, columns).
            around: Float (b, n, d), what the decoder is told of the surface that the depth head's output is added to
                (``anchor.anchor_features``); None without one.

        Returns:
            Per target the decoded tokens (b, n, d), row by row of the grid.
        """
        count = grid[0] * grid[1]
        places = self.positions(grid)
        if around is not None:
            places = places + self.anchor_embedding(around)
        if self.config.fusion == "concat_tokens":
            return self._decode_sequence(encoded, grid, places)
        parts, shown = {}, {}
        for name, (tokens, ids, padding) in encoded.items():
            parts[name] = scatter_to_grid(tokens, ids, count, padding)
            shown[name] = scatter_to_grid(torch.ones_like(tokens[..., :1]), ids, count, padding)
        if self.config.fusion == "concat_channels":
            example = next(iter(parts.values()))
            both = [parts[name] + (1 - shown[name]) * self.mask_token if name in parts
                    else self.mask_token.to(example.dtype).expand_as(example) for name in ("rgb", "depth")]
            fused = self.fuse(torch.cat(both, dim=-1))
        else:
            nothing = 1 - torch.stack(list(shown.values())).amax(dim=0)
            fused = sum(parts.values()) + nothing * self.mask_token
        decoded = self.decoder_norm(self.decoder(fused + places))
        return {name: decoded for name in self.config.targets}

    def _decode_sequence(self, encoded: dict[str, tuple], grid: tuple[int, int], places: Tensor) -> dict[str, Tensor]:
        """concat_tokens: a full grid of tokens per target, and the visible tokens of inputs that are no target."""
        sequence, spans, start, may_attend, count = [], {}, 0, [], grid[0] * grid[1]
        example = next(iter(encoded.values()))[0]
        for name in sorted(set(encoded) | set(self.config.targets)):
            if name in self.config.targets:
                spans[name] = slice(start, start + count)
                part = (self.mask_token + getattr(self, f"{name}_code", 0.0)).to(example.dtype)
                part = part.expand(example.shape[0], count, -1)
                if name in encoded:
                    tokens, ids, padding = encoded[name]
                    shown = scatter_to_grid(torch.ones_like(tokens[..., :1]), ids, count, padding)
                    part = scatter_to_grid(tokens, ids, count, padding) + (1 - shown) * part
                part = part + (places if name == "depth" else self.positions(grid))
                may_attend.append(part.new_ones(part.shape[:2], dtype=torch.bool))
            else:
                tokens, ids, padding = encoded[name]
                part = tokens + self.positions(grid)[ids]
                may_attend.append(torch.ones_like(ids, dtype=torch.bool) if padding is None else ~padding)
            sequence.append(part)
            start += part.shape[1]
        tokens = torch.cat(sequence, dim=1)
        mask = None
        if any(padding is not None for _, _, padding in encoded.values()):
            mask = attention_mask(torch.cat(may_attend, dim=1), tokens.dtype)
        for block in self.decoder:
            tokens = block(tokens) if mask is None else block(tokens, attn_mask=mask)
        tokens = self.decoder_norm(tokens)
        return {name: tokens[:, span] for name, span in spans.items()}


def rgb_target(color: Float[Tensor, "b 3 h w"], patch: int) -> Float[Tensor, "b n d"]:
    """MAE's normalised pixels: each patch minus its mean, over its spread (He et al., CVPR 2022).

    Args:
        color: 0..1.
    """
    patches = patchify(color, patch)
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


__all__ = ["EncoderConfig", "Mask3D", "Prediction", "parameter_count", "rgb_target"]

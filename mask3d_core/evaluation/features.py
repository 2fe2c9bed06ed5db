"""What an RGB encoder alone gives for whole pictures, patch by patch: of our checkpoints and of any plain timm transformer.

Nothing is hidden and no depth is fed: this is what is left when the depth encoder and the decoder are thrown away.
Features of patches come row by row of the grid; class and register tokens are kept apart from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.models.encoders import check_plain, encode_visible
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.models.patches import patchify
from mask3d_core.shapes import Float

FeatureFunction = Callable[[Tensor], Tensor]
"""From colour Float (b, 3, h, w) in 0..1 to one feature vector per patch, Float (b, n, d)."""


@dataclass(frozen=True)
class RGBEncoder:
    """A frozen RGB encoder with the colours that it was trained on.

    Args:
        vit: a plain timm VisionTransformer; put into evaluation mode.
        color_mean, color_std: what its input is normalised with, red green blue.
        name: how tables call it.

    Raises:
        ConfigError: another architecture.
    """

    vit: nn.Module
    color_mean: tuple[float, float, float]
    color_std: tuple[float, float, float]
    name: str = ""

    def __post_init__(self) -> None:
        check_plain(self.vit, self.name or "(unnamed)")
        self.vit.eval()

    @staticmethod
    def of(model: Mask3D, name: str = "") -> RGBEncoder:
        """The RGB encoder of one of our models.

        Raises:
            ConfigError: it has none.
        """
        if "rgb" not in model.config.inputs:
            raise ConfigError("this model has no RGB encoder (model.inputs has no rgb), so colour alone leaves nothing")
        return RGBEncoder(model.rgb_encoder, tuple(model.config.color_mean), tuple(model.config.color_std), name)

    @staticmethod
    def of_timm(vit: nn.Module, name: str = "") -> RGBEncoder:
        """A timm model, with the colour mean and std of its own pre-training.

        Raises:
            ConfigError: another architecture than the plain VisionTransformer.
        """
        from timm.data import resolve_model_data_config

        data = resolve_model_data_config(vit)
        return RGBEncoder(vit, tuple(data["mean"]), tuple(data["std"]), name)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.vit.patch_embed.patch_size[0]

    @property
    def depth(self) -> int:
        """How many layers."""
        return len(self.vit.blocks)

    def fitted(self, color: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hh ww"]:
        """Pictures resized (bilinear) to the nearest multiples of the patch, where they are none."""
        size = tuple(max(1, round(side / self.patch)) * self.patch for side in color.shape[-2:])
        if size == tuple(color.shape[-2:]):
            return color
        return F.interpolate(color, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)

    def layer_number(self, layer: int) -> int:
        """A layer counted from the first, 0..depth - 1.

        Raises:
            ConfigError: there is no such layer.
        """
        if not -self.depth <= layer < self.depth:
            raise ConfigError(f"layer must be {-self.depth}..{self.depth - 1}; got {layer}")
        return layer % self.depth


@dataclass(frozen=True)
class PatchFeatures:
    """Features of whole pictures after one layer.

    Args:
        patches: Float (b, n, d), row by row of the grid.
        prefix: Float (b, p, d), class and register tokens, p may be 0.
        grid: (rows, columns) of patches.
    """

    patches: Tensor
    prefix: Tensor
    grid: tuple[int, int]


@torch.inference_mode()
def layer_features(encoder: RGBEncoder, color: Float[Tensor, "b 3 h w"], layers: Sequence[int] = (-1,), batch_size: int = 8,
                   progress: Callable[[int, int], None] | None = None) -> list[PatchFeatures]:
    """Features of whole pictures after several layers, from one forward pass.

    Every layer's tokens go through the transformer's final norm, as is usual for features of inner layers, so that
    layers differ in content and not in scale. The last layer is what the transformer itself gives.

    Args:
        color: 0..1; height and width multiples of the patch (:meth:`RGBEncoder.fitted`).
        layers: which, 0 the first, negative from the last.
        batch_size: pictures at a time.
        progress: called with (done, total) pictures.

    Returns:
        One per layer asked for, on the encoder's device.

    Raises:
        ConfigError: no such layer, or a size that is no multiple of the patch.
    """
    numbers, patch, vit = [encoder.layer_number(layer) for layer in layers], encoder.patch, encoder.vit
    height, width = color.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ConfigError(f"pictures must be multiples of {patch} pixels; got {height}x{width} (encoder.fitted(color) "
                          "resizes them)")
    grid, place = (height // patch, width // patch), vit.patch_embed.proj.weight.device
    mean, std = (torch.tensor(v, device=place).view(1, 3, 1, 1) for v in (encoder.color_mean, encoder.color_std))
    ids = torch.arange(grid[0] * grid[1], device=place)
    found: list[list[Tensor]] = [[] for _ in numbers]
    seen: dict[int, Tensor] = {}
    keep = lambda number: lambda block, inputs, output: seen.__setitem__(number, output)  # noqa: E731
    handles = [vit.blocks[number].register_forward_hook(keep(number)) for number in set(numbers)]
    try:
        for start in range(0, len(color), batch_size):
            part = color[start:start + batch_size].to(place)
            encode_visible(vit, (part - mean) / std, ids.expand(len(part), -1))
            for number, kept in zip(numbers, found):
                kept.append(vit.norm(seen[number]))
            if progress:
                progress(min(start + batch_size, len(color)), len(color))
    finally:
        for handle in handles:
            handle.remove()
    first = vit.num_prefix_tokens
    tokens = [torch.cat(kept) for kept in found]
    return [PatchFeatures(t[:, first:], t[:, :first], grid) for t in tokens]


def patch_features(encoder: RGBEncoder, color: Float[Tensor, "b 3 h w"], layer: int = -1, batch_size: int = 8,
                   progress: Callable[[int, int], None] | None = None) -> PatchFeatures:
    """Features of whole pictures after one layer; see :func:`layer_features`."""
    return layer_features(encoder, color, (layer,), batch_size, progress)[0]


def feature_function(encoder: RGBEncoder, layer: int = -1) -> FeatureFunction:
    """The encoder as a function from pictures to patch features, as the probes want it."""
    encoder.layer_number(layer)
    return lambda color: patch_features(encoder, color, layer, batch_size=len(color)).patches


def raw_patches(color: Float[Tensor, "b 3 h w"], patch: int) -> Float[Tensor, "b n d"]:
    """The trivial opponent of every encoder: the patch's own pixels, 0..1, as its feature."""
    return patchify(color, patch)

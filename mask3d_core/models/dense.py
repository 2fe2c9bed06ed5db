"""A fine-tuned model for one value or class per pixel: an RGB encoder with a head. Colour in, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mask3d_core.errors import ConfigError
from mask3d_core.models.config import EncoderConfig, ModelConfig
from mask3d_core.models.encoders import build_vit, encode_levels
from mask3d_core.models.heads import HeadConfig, build_head, enlarge
from mask3d_core.shapes import Float


@dataclass(frozen=True)
class DenseConfig:
    """What a dense model is.

    Args:
        encoder: the RGB encoder.
        image_size: (height, width) of training; other multiples of the patch work too.
        patch: side of a patch in pixels.
        color_mean, color_std: belong to the encoder.
        outputs: values per pixel (classes, or 1 for depth).
        head: what is put on the encoder.
        drop_path: see ``build_vit``.
        reference_focal: a depth model predicts camera-independent depth (z * reference_focal / fx); 0: no depth model.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    image_size: tuple[int, int] = (240, 320)
    patch: int = 16
    color_mean: tuple[float, float, float] = ModelConfig.color_mean
    color_std: tuple[float, float, float] = ModelConfig.color_std
    outputs: int = 2
    head: HeadConfig = field(default_factory=HeadConfig)
    drop_path: float = 0.0
    reference_focal: float = 0.0

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = self.head.problems()
        if self.outputs < 1:
            found.append(f"outputs must be at least 1; got {self.outputs}")
        if any(side < 1 or side % self.patch for side in self.image_size):
            found.append(f"image_size must be multiples of the patch ({self.patch}); got {self.image_size}")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path is a chance in 0..1; got {self.drop_path}")
        return found


class DenseModel(nn.Module):
    """Encoder and head.

    Buffers: colour mean and std; ``depth_mean`` and ``depth_std`` (of the logarithm of the training data's
    camera-independent depth), which a depth model's output is measured in.

    Raises:
        ConfigError: an impossible configuration.
    """

    kind = "finetuned"

    def __init__(self, config: DenseConfig):
        super().__init__()
        problems = config.problems()
        if problems:
            raise ConfigError(problems, "DenseConfig")
        self.config = config
        self.register_buffer("color_mean", torch.tensor(config.color_mean).view(1, 3, 1, 1))
        self.register_buffer("color_std", torch.tensor(config.color_std).view(1, 3, 1, 1))
        self.register_buffer("depth_mean", torch.zeros(()))
        self.register_buffer("depth_std", torch.ones(()))
        self.encoder = build_vit(config.encoder, config.image_size, config.patch, 3, drop_path=config.drop_path)
        depth = len(self.encoder.blocks)
        self.layers = config.head.layers_of(depth)
        if max(self.layers) >= depth:
            raise ConfigError(f"head.layers must be below the encoder's {depth} layers; got {self.layers}")
        self.head = build_head(config.head, self.encoder.embed_dim, depth, config.outputs)

    def forward(self, color: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Values per pixel at the picture's own resolution, float32.

        Args:
            color: 0..1, RGB; height and width multiples of the patch.

        Raises:
            ConfigError: another size.
        """
        patch, size = self.config.patch, tuple(color.shape[-2:])
        if size[0] % patch or size[1] % patch:
            raise ConfigError(f"pictures must be multiples of {patch} pixels; got {size[0]}x{size[1]}")
        levels = encode_levels(self.encoder, (color - self.color_mean) / self.color_std, self.layers)
        return enlarge(self.head(levels), size)

    def metres(self, value: Float[Tensor, "b 1 h w"], intrinsics: Float[Tensor, "b 4"]) -> Float[Tensor, "b h w"]:
        """A depth model's output in metres of *this* camera.

        Args:
            value: as :meth:`forward` gave it, standardised log of camera-independent depth.
            intrinsics: fx fy cx cy in pixels of this picture.
        """
        log_depth = (value[:, 0].float() * self.depth_std + self.depth_mean).clamp(-5.0, 7.0)
        return log_depth.exp() * (intrinsics[:, 0] / self.config.reference_focal)[:, None, None]

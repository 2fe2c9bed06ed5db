"""What a model is, as frozen dataclasses; presets; everything that is wrong with one, all at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mask3d_core.errors import ConfigError


def split_name(name: str) -> tuple[str, str]:
    """"NAME@FILE" as (NAME, FILE), "NAME" as (NAME, "")."""
    model, _, file = name.partition("@")
    return model, file


@dataclass(frozen=True)
class EncoderConfig:
    """A plain vision transformer.

    Args:
        timm: name of a timm VisionTransformer whose architecture (and, with ``--init``, weights) is used; empty: the
            three numbers below.
        width, depth, heads: size of the transformer.
    """

    timm: str = ""
    width: int = 192
    depth: int = 12
    heads: int = 3

    def problems(self, name: str) -> list[str]:
        """Everything that is wrong, one line each; ``name`` is the key that it stands under."""
        if self.timm:
            return []
        if min(self.width, self.depth, self.heads) < 1:
            return [f"{name}.width, depth and heads must be at least 1; got {self.width}, {self.depth}, {self.heads}"]
        if self.width % 4 or self.width % self.heads:
            return [f"{name}.width must be a multiple of 4 and of its heads ({self.heads}); got {self.width}"]
        return []


@dataclass(frozen=True)
class DepthTarget:
    """The space in which depth is fed and predicted.

    A metric depth z is first made camera-independent (z * f_ref / f, f of *this* image), then represented, then
    normalised. The decoder predicts in that space; outputs are metres again.

    Args:
        normalisation: "metric": with the training data's mean and spread, kept in the checkpoint;
            "standardised": with each frame's own, over valid *visible* pixels with 10 % trimmed at each end (paper
            value not known). With nothing visible the training data's are used and the output says so.
        representation: "linear" (z), "log" (log z) or "inverse" (1/z, in which a plane is linear in the picture).
            Paper value not known.
        reference_focal: f_ref in pixels at the training size.
    """

    normalisation: str = "metric"
    representation: str = "linear"
    reference_focal: float = 260.0


@dataclass(frozen=True)
class ModelConfig:
    """One Mask3D and all its controls.

    Args:
        inputs: modalities fed, of "rgb" and "depth".
        targets: modalities predicted, of "depth" (dense metres) and "rgb" (normalised pixels, as MAE).
        image_size: (height, width) of training; other multiples of the patch work too.
        patch: side of a patch in pixels.
        rgb, depth: the two encoders; the depth encoder is smaller (ours, paper value not known).
        fusion: "add", "concat_channels" or "concat_tokens" (paper: "fused into a bottleneck", no detail known).
        decoder_width, decoder_depth, decoder_heads: the ViT decoder (MAE's 512 x 8 in the faithful preset).
        target: the space of the depth target.
        anchor: "none": the decoder predicts depth itself (the faithful presets); "spline": it predicts the difference
            from a smooth surface through the visible depth (ours; a small run on a CPU needs it to beat interpolation).
        anchor_cells: of that surface, per side of a patch.
        color_mean, color_std: belong to the RGB encoder; timm's models differ.
    """

    inputs: tuple[str, ...] = ("rgb", "depth")
    targets: tuple[str, ...] = ("depth",)
    image_size: tuple[int, int] = (240, 320)
    patch: int = 16
    rgb: EncoderConfig = field(default_factory=EncoderConfig)
    depth: EncoderConfig = field(default_factory=lambda: EncoderConfig(width=128, depth=4, heads=4))
    fusion: str = "add"
    decoder_width: int = 192
    decoder_depth: int = 3
    decoder_heads: int = 6
    target: DepthTarget = field(default_factory=DepthTarget)
    anchor: str = "none"
    anchor_cells: int = 8
    color_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    color_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches at the training size."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = []

        def need(ok: bool, text: str) -> None:
            if not ok:
                found.append(text)

        known = {"rgb", "depth"}
        need(bool(self.inputs) and set(self.inputs) <= known, f"model.inputs must name rgb and/or depth; got {self.inputs}")
        need(bool(self.targets) and set(self.targets) <= known,
             f"model.targets must name depth and/or rgb; got {self.targets}")
        need("rgb" in self.inputs or "rgb" not in self.targets, "model.targets has rgb but model.inputs has not")
        need(self.fusion in ("add", "concat_channels", "concat_tokens"),
             f"model.fusion must be add, concat_channels or concat_tokens; got {self.fusion!r}")
        need(self.target.normalisation in ("metric", "standardised"),
             f"model.target.normalisation must be metric or standardised; got {self.target.normalisation!r}")
        need(self.target.representation in ("linear", "log", "inverse"),
             f"model.target.representation must be linear, log or inverse; got {self.target.representation!r}")
        need(self.anchor_cells > 0 and self.patch % self.anchor_cells == 0,
             f"model.anchor_cells must divide the patch ({self.patch}); got {self.anchor_cells}")
        need(self.anchor in ("none", "spline"), f"model.anchor must be none or spline; got {self.anchor!r}")
        need(self.target.reference_focal > 0, "model.target.reference_focal must be positive")
        for side in self.image_size:
            need(side > 0 and side % self.patch == 0,
                 f"model.image_size must be multiples of the patch ({self.patch}); got {self.image_size}")
        for name, encoder in (("rgb", self.rgb), ("depth", self.depth)):
            found += encoder.problems(f"model.{name}")
        need(self.decoder_width % 4 == 0 and self.decoder_width % self.decoder_heads == 0,
             f"model.decoder_width must be a multiple of 4 and of its heads; got {self.decoder_width}")
        return found

    def validate(self) -> ModelConfig:
        """Itself, or a ConfigError that lists all problems."""
        found = self.problems()
        if found:
            raise ConfigError(found)
        return self


PRESETS: dict[str, ModelConfig] = {
    "micro": ModelConfig(image_size=(96, 128), patch=8, rgb=EncoderConfig(width=96, depth=6, heads=3),
                         depth=EncoderConfig(width=64, depth=3, heads=2), decoder_width=96, decoder_depth=2, decoder_heads=3,
                         target=DepthTarget(representation="log", reference_focal=104.0)),
    "tiny": ModelConfig(target=DepthTarget(representation="log"), anchor="spline"),
    "small": ModelConfig(rgb=EncoderConfig(width=384, depth=12, heads=6), depth=EncoderConfig(width=192, depth=6, heads=3),
                         decoder_width=256, decoder_depth=4, decoder_heads=8),
    "base": ModelConfig(rgb=EncoderConfig(timm="vit_base_patch16_224"), depth=EncoderConfig(width=384, depth=6, heads=6),
                        decoder_width=512, decoder_depth=8, decoder_heads=16),
    "base-fast": ModelConfig(rgb=EncoderConfig(timm="vit_base_patch16_224"),
                             depth=EncoderConfig(width=384, depth=6, heads=6),
                             decoder_width=256, decoder_depth=2, decoder_heads=8),
    "large": ModelConfig(rgb=EncoderConfig(timm="vit_large_patch16_224"),
                         depth=EncoderConfig(width=512, depth=8, heads=8),
                         decoder_width=512, decoder_depth=8, decoder_heads=16),
}

CONTROLS: dict[str, dict[str, Any]] = {
    "mask3d": {},
    "mae": {"inputs": ("rgb",), "targets": ("rgb",)},
    "multimae": {"targets": ("rgb", "depth")},
    "rgb-to-depth": {"inputs": ("rgb",), "targets": ("depth",)},
    "depth-only": {"inputs": ("depth",), "targets": ("depth",)},
}
"""Controls are configs of the one model. The ratios that belong to them stand in ``training.config``."""


def preset(name: str, control: str = "mask3d", **changes: Any) -> ModelConfig:
    """A preset, turned into one of the controls, with changes.

    Raises:
        ConfigError: unknown preset or control, or the result is impossible.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    if control not in CONTROLS:
        raise ConfigError(f"control must be one of {', '.join(CONTROLS)}; got {control!r}")
    return replace(PRESETS[name], **CONTROLS[control], **changes).validate()

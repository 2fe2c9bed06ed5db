"""Patches, encoders, fusion, decoder: one Mask3D; its config and presets; export to and from timm."""

from mask3d_core.models.config import CONTROLS, PRESETS, DepthTarget, EncoderConfig, ModelConfig, preset
from mask3d_core.models.mask3d import Mask3D, Prediction, parameter_count, rgb_target

__all__ = ["CONTROLS", "PRESETS", "DepthTarget", "EncoderConfig", "Mask3D", "ModelConfig", "Prediction",
           "parameter_count", "preset", "rgb_target"]

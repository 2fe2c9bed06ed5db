"""Which precision a device can really do. The choice is printed and saved."""

from __future__ import annotations

import contextlib

import torch

from mask3d_core.errors import ConfigError


def cpu_has_bf16() -> bool:
    """True where the CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX, or Arm's bf16)."""
    try:
        import torch.cpu as cpu

        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(cpu, name)() for name in checks if hasattr(cpu, name)):
            return True
    except (ImportError, RuntimeError):
        pass
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
        return any(flag in flags for flag in (" avx512_bf16", " amx_bf16", " bf16 "))
    except OSError:
        return False


def choose_precision(wanted: str, device: torch.device) -> str:
    """"bf16" or "float32": what ``wanted`` ("auto", "bf16", "float32") means on this device."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "float32"


def autocast(precision: str, device: torch.device):
    """The context in which a forward pass runs."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def parse_device(text: str | torch.device | None) -> torch.device:
    """A device from its name; None: the GPU if there is one.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if text is None:
        return default_device()
    try:
        device = torch.device(text)
    except RuntimeError as problem:
        raise ConfigError(f"device must be cpu, cuda or cuda:N; got {text!r}") from problem
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {text} was asked for, but torch finds no GPU here; leave --device out")
    return device


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

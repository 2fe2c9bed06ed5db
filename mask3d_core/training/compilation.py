"""torch.compile for models whose shapes are few but not one, and its failures in one line."""

from __future__ import annotations

import torch
from torch import nn

from mask3d_core.errors import Mask3DError

SHAPES = 64  # graphs kept per piece of code: each pair of ratios has its own numbers of tokens


def compiled(model: nn.Module) -> nn.Module:
    """The compiled model. Past the limit (8 by default) dynamo would silently run without compiling."""
    import torch._dynamo.config as dynamo

    for name in ("recompile_limit", "cache_size_limit"):  # the name changed in torch 2.7
        if hasattr(dynamo, name):
            setattr(dynamo, name, max(SHAPES, getattr(dynamo, name)))
            break
    return torch.compile(model)


def explain_failure(problem: Exception, is_compiled: bool) -> None:
    """Raise a Mask3DError if ``problem`` is torch.compile's; otherwise do nothing.

    Raises:
        Mask3DError: names the missing compiler and the way without.
    """
    if not is_compiled or not type(problem).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return
    reason = next(iter(str(problem).strip().splitlines()), type(problem).__name__)[:160]
    raise Mask3DError("a working torch.compile", reason, "Install a C++ compiler and Python's headers (g++ "
                      "python3-dev), or set fit.compile=false.", "fit.compile") from problem

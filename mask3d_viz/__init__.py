"""Seeing Mask3D: pure functions that draw, and live views of a session for JupyterLab.

    from mask3d_viz import explore, open_session

    explore(open_session())

The names below are imported when they are first asked for, so that drawing needs no widgets and widgets no Open3D.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "mask3d_viz.lab": ("open_session",),
    "mask3d_viz.session": ("Session",),
    "mask3d_viz.explorers.explore": ("explore",),
    "mask3d_viz.explorers.masks": ("explore_masks",),
    "mask3d_viz.explorers.depth": ("explore_depth", "open_in_open3d"),
    "mask3d_viz.explorers.attention": ("explore_attention",),
    "mask3d_viz.explorers.ratios": ("explore_ratios",),
    "mask3d_viz.explorers.features": ("explore_features",),
    "mask3d_viz.explorers.guess": ("guess_depth",),
    "mask3d_viz.explorers.ask": ("ask",),
    "mask3d_viz.explorers.watch": ("watch",),
    "mask3d_viz.explorers.finetuning": ("explore_finetuning",),
    "mask3d_viz.runs": ("start_run",),
    "mask3d_viz.following": ("follow_run",),
    "mask3d_viz.living_page": ("report",),
    "mask3d_viz.model_map": ("architecture",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mask3d_viz' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

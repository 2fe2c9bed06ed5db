"""Live views of a session: one line each, ``explore_masks(session)`` and so on; :data:`EXPLORERS` names them all."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

EXPLORERS = {"explore": "explore", "explore_masks": "masks", "explore_depth": "depth", "explore_attention": "attention",
             "explore_ratios": "ratios", "explore_features": "features", "guess_depth": "guess"}
"""Function to module of this package; all take a session first."""


def explorer(name: str) -> Callable:
    """The function of an explorer by its name, imported when it is asked for."""
    return getattr(import_module(f"{__name__}.{EXPLORERS[name]}"), name)


__all__ = ["EXPLORERS", "explorer"]

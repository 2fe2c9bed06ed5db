"""What all views of one analysis share, as plain values: one frozen dataclass, checked on its own, and kept pictures of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from mask3d_viz import style

SHOWN, HIDDEN = 2, 1  # a patch painted by hand
COLOR_SOURCES = ("own", "grey", "another frame", "shuffled")
VIEWS = ("camera", "three-quarter", "front", "top")
HEADS = ("mean", "max", "rollout")  # or a head's number
COLOR_MODES = ("provenance", "rgb", "depth", "error")
LAYOUTS = ("side", "wipe", "blink")
BESIDE = ("truth", "checkpoint B")
PASSING = frozenset({"hover"})  # neither undone nor saved


@dataclass(frozen=True)
class SessionState:
    """Everything that is linked.

    Args:
        frame: number of the frame.
        rgb_ratio, depth_ratio: shares of patches hidden, 0..1.
        seed: of the masks.
        painted_rgb, painted_depth: patches painted by hand, (patch, 1 = hidden or 2 = visible), in order; they go before
            the ratios.
        selection: selected patches. hover: the patch under the hand, or -1.
        depth_range: (near, far) metres of every depth picture and cloud; None: the frame's own.
        colormap: of depth.
        camera: the clouds' camera as the widget has it, or None: ``view``.
        view: preset view of the clouds. color_mode: what the clouds' colours say.
        edge_limit: flying pixels beyond this, in degrees 0..90, are left out of both clouds; 90 keeps all.
        layout: of the two clouds, one of ``LAYOUTS``: side by side, under a curtain, or blinking.
        curtain: where the curtain hangs, 0 = left .. 1 = right.
        is_native: the true cloud at the frame's own resolution.
        layer: of the attention; negative: from the last. head: a number as text, or "mean", "max", "rollout".
        checkpoint: name of the model shown, A. compare: a second one beside it, B, or "".
        beside: what stands beside A's prediction in space, one of ``BESIDE``.
        color_source: whose colour the model sees, one of ``COLOR_SOURCES``.
        is_pasted: show measured depth where it was visible.
    """

    frame: int = 0
    rgb_ratio: float = 0.8
    depth_ratio: float = 0.8
    seed: int = 0
    painted_rgb: tuple[tuple[int, int], ...] = ()
    painted_depth: tuple[tuple[int, int], ...] = ()
    selection: tuple[int, ...] = ()
    hover: int = -1
    depth_range: tuple[float, float] | None = None
    colormap: str = "inferno_r"
    camera: dict[str, Any] | None = None
    view: str = "three-quarter"
    color_mode: str = "provenance"
    edge_limit: float = 80.0
    layout: str = "side"
    curtain: float = 0.5
    is_native: bool = False
    layer: int = -1
    head: str = "mean"
    checkpoint: str = "shipped"
    compare: str = ""
    beside: str = "truth"
    color_source: str = "own"
    is_pasted: bool = False

    def _wrong_kinds(self) -> list[str]:
        """Values of another kind than they should be: a file may hold anything."""
        number = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)  # noqa: E731
        pairs = lambda v: isinstance(v, tuple) and all(isinstance(p, tuple) and len(p) == 2 and all(  # noqa: E731
            isinstance(x, int) for x in p) for p in v)
        kinds = {
            "a whole number": (("frame", "seed", "hover", "layer"), lambda v: isinstance(v, int) and not isinstance(v, bool)),
            "a number": (("rgb_ratio", "depth_ratio", "edge_limit", "curtain"), number),
            "text": (("colormap", "view", "color_mode", "head", "checkpoint", "compare", "beside", "color_source",
                      "layout"), lambda v: isinstance(v, str)),
            "pairs of whole numbers": (("painted_rgb", "painted_depth"), pairs),
            "whole numbers": (("selection",), lambda v: isinstance(v, tuple) and all(isinstance(x, int) for x in v)),
            "(near, far) in metres or nothing": (("depth_range",), lambda v: v is None or (
                isinstance(v, tuple) and len(v) == 2 and all(map(number, v)))),
            "a camera or nothing": (("camera",), lambda v: v is None or isinstance(v, dict)),
            "true or false": (("is_pasted", "is_native"), lambda v: isinstance(v, bool))}
        return [f"{name} must be {kind}; got {getattr(self, name)!r}" for kind, (names, fits) in kinds.items()
                for name in names if not fits(getattr(self, name))]

    def problems(self) -> list[str]:
        """Everything that is wrong on its own, one line each."""
        found = self._wrong_kinds()
        if found:
            return found
        found = [f"{name} must lie in 0..1 (the share hidden); got {getattr(self, name)}"
                 for name in ("rgb_ratio", "depth_ratio") if not 0 <= getattr(self, name) <= 1]
        if self.head not in HEADS and not self.head.isdigit():
            found.append(f"head must be {', '.join(HEADS)} or a number; got {self.head!r}")
        for name, allowed in (("colormap", style.DEPTH_COLORMAPS), ("view", VIEWS), ("color_mode", COLOR_MODES),
                              ("color_source", COLOR_SOURCES), ("layout", LAYOUTS), ("beside", BESIDE)):
            if getattr(self, name) not in allowed:
                found.append(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        found += [f"{name} must lie in 0..{end}; got {getattr(self, name)}"
                  for name, end in (("edge_limit", 90), ("curtain", 1)) if not 0 <= getattr(self, name) <= end]
        if self.depth_range is not None and not 0 <= self.depth_range[0] < self.depth_range[1]:
            found.append(f"depth_range must be (near, far) metres with near below far; got {self.depth_range}")
        for name in ("painted_rgb", "painted_depth"):
            if any(value not in (SHOWN, HIDDEN) for _, value in getattr(self, name)):
                found.append(f"{name} holds (patch, {HIDDEN} = hidden or {SHOWN} = visible); got {getattr(self, name)}")
        return found


@dataclass(frozen=True)
class Scene:
    """A state to come back to.

    Args:
        name: what it is called.
        state: all of it.
        words: what was seen there, in a line.
        picture: a small PNG of it, or b"".
    """

    name: str
    state: SessionState
    words: str = ""
    picture: bytes = field(default=b"", compare=False, repr=False)


def state_as_json(state: SessionState) -> dict[str, Any]:
    """The state as plain values, without what passes."""
    return {name: value for name, value in dataclasses.asdict(state).items() if name not in PASSING}


def plain_tuple(value: Any) -> Any:
    """Lists, as JSON has them, become tuples all the way down; numpy numbers become Python's."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(plain_tuple(v) for v in (sorted(value) if isinstance(value, (set, frozenset)) else value))
    return value.item() if hasattr(value, "item") and not isinstance(value, torch.nn.Module) else value


__all__ = ["BESIDE", "COLOR_MODES", "COLOR_SOURCES", "HIDDEN", "LAYOUTS", "PASSING", "SHOWN", "VIEWS", "Scene", "SessionState",
           "plain_tuple", "state_as_json"]

"""One session: what all views of one analysis share. Its state, the history of it, and who wants to know of changes.

The state is one frozen dataclass of plain values: any change makes a new one, the old one goes to the history, and
everybody who asked is told what changed. So undo works for everything, a session is a small JSON file, and any view can
be driven from Python. Frames, models and predictions are looked up by what the state names, and cached.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.files import write_json
from mask3d_core.frames import RGBDFrame
from mask3d_core.masking import NEVER, Masks, mask_from_ranks, patch_ranks, patches_with_valid
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.training.checkpoint import load_model
from mask3d_viz import style
from mask3d_viz.images import depth_range

FORMAT = 1
HISTORY = 200  # changes that can be undone
SHOWN, HIDDEN = 2, 1  # a patch painted by hand
COLOR_SOURCES = ("own", "grey", "another frame", "shuffled")
VIEWS = ("camera", "three-quarter", "front", "top")
HEADS = ("mean", "max", "rollout")  # or a head's number
COLOR_MODES = ("provenance", "rgb", "depth", "error")
LAYOUTS = ("side", "wipe", "blink")
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
        checkpoint: name of the model shown. compare: a second one beside it, or "".
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
            "text": (("colormap", "view", "color_mode", "head", "checkpoint", "compare", "color_source", "layout"),
                     lambda v: isinstance(v, str)),
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
                              ("color_source", COLOR_SOURCES), ("layout", LAYOUTS)):
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


class FrameList:
    """Frames by number with a name each: a source, a store, or a list in memory.

    Args:
        frames: a ``Source`` (or store), or a sequence of RGBDFrames.
        limit: at most this many, evenly spread; 0 = all.
    """

    def __init__(self, frames: Any, limit: int = 0):
        count = len(frames)
        if not count:
            raise ConfigError("a session needs at least one frame")
        self._frames = frames
        self.places = np.arange(count) if not limit or count <= limit else np.linspace(0, count - 1, limit).round().astype(int)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> RGBDFrame:
        place = int(self.places[number])
        return self._frames.read(place) if hasattr(self._frames, "read") else self._frames[place]

    def name(self, number: int) -> str:
        """Sequence and name, without reading the frame where the source knows it."""
        place = int(self.places[number])
        if hasattr(self._frames, "frame_name"):
            return f"{self._frames.sequence(place)}/{self._frames.frame_name(place)}"
        return str(self._frames[place].origin or place)


class Session:
    """Frames, models and the state that views share.

    Args:
        frames: a ``Source``, a store, or a list of RGBDFrames.
        checkpoints: name to a path, or to a model; the first one is shown.
        limit: use at most this many frames.
        state: values of :class:`SessionState` to begin with.

    Raises:
        ConfigError: no frame or no checkpoint, or an impossible state.
    """

    def __init__(self, frames: Any, checkpoints: dict[str, str | Path | Mask3D], limit: int = 0, **state: Any):
        if not checkpoints:
            raise ConfigError("a session needs at least one checkpoint")
        self.frames = frames if isinstance(frames, FrameList) else FrameList(frames, limit)
        self.checkpoints = dict(checkpoints)
        self.lock = threading.RLock()
        self._models: dict[str, tuple[Mask3D, dict[str, Any]]] = {}
        self._batches: dict[int, Batch] = {}
        self._listeners: list[tuple[Callable, frozenset[str] | None]] = []
        self._undo: list[tuple[SessionState, str]] = []
        self._redo: list[SessionState] = []
        self.scenes: list[Scene] = []
        self.views: dict[tuple[str, str], Any] = {}  # the live one of each (cell, function), see explorers.base
        self.state = self._checked(dataclasses.replace(SessionState(checkpoint=next(iter(checkpoints))), **state))

    # ---- the state ----------------------------------------------------------------------------------------------

    def change(self, gesture: str = "", **values: Any) -> SessionState:
        """Change values of the state.

        Args:
            gesture: changes in a row with the same name here are undone together (a slider on its way); ``""``: each
                on its own.
            values: of :class:`SessionState`.

        Raises:
            ConfigError: unknown names or impossible values, all at once; nothing has changed then.
        """
        with self.lock:
            return self._become(self._made(values), gesture)

    def _become(self, state: SessionState, gesture: str) -> SessionState:
        changed = frozenset(f.name for f in dataclasses.fields(state)
                            if getattr(state, f.name) != getattr(self.state, f.name))
        if not changed:
            return self.state
        if changed - PASSING:
            if not (gesture and self._undo and self._undo[-1][1] == gesture):
                self._undo = [*self._undo[1 - HISTORY:], (self.state, gesture)]
            self._redo.clear()
        self.state = state
        self._tell(changed)
        return state

    def end_gesture(self) -> None:
        """The hand has let go: the next change is undone on its own."""
        with self.lock:
            if self._undo:
                self._undo[-1] = (self._undo[-1][0], "")

    def undo(self) -> bool:
        """Take the last change back; False when there is none."""
        with self.lock:
            return bool(self._undo) and self._step(self._undo.pop()[0], self._redo)

    def redo(self) -> bool:
        """Do the last undone change again; False when there is none."""
        with self.lock:
            return bool(self._redo) and self._step(self._redo.pop(), self._undo)

    def _step(self, state: SessionState, other: list) -> bool:
        other.append((self.state, "") if other is self._undo else self.state)
        before, self.state = self.state, dataclasses.replace(state, hover=self.state.hover)
        self._tell(frozenset(f.name for f in dataclasses.fields(state)
                             if getattr(self.state, f.name) != getattr(before, f.name)))
        return True

    def on(self, callback: Callable[[frozenset[str]], None], *names: str) -> Callable[[], None]:
        """Be told of changes: ``callback(names that changed)``.

        Args:
            names: only when one of these changed; none: always.

        Returns:
            Call it to be told no more.
        """
        entry = (callback, frozenset(names) or None)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def _tell(self, changed: frozenset[str]) -> None:
        for callback, names in list(self._listeners):
            if names is None or names & changed:
                callback(changed)

    def _checked(self, state: SessionState) -> SessionState:
        problems = state.problems()
        if not 0 <= state.frame < len(self.frames):
            problems.append(f"frame must be 0..{len(self.frames) - 1}; got {state.frame}")
        for name in ("checkpoint", "compare"):
            value = getattr(state, name)
            if value not in self.checkpoints and (value or name == "checkpoint"):
                problems.append(f"{name} must be one of {', '.join(self.checkpoints)}; got {value!r}")
        if not problems:
            first, config = self.model(next(iter(self.checkpoints)))[0].config, self.model(state.checkpoint)[0].config
            if (config.image_size, config.patch) != (first.image_size, first.patch):
                raise ConfigError(f"{state.checkpoint} sees {config.image_size[0]}x{config.image_size[1]} pixels in patches of "
                                  f"{config.patch}, this session's first checkpoint {first.image_size[0]}x"
                                  f"{first.image_size[1]} in patches of {first.patch}; open a session on it alone")
            rows, columns = config.grid
            patches = [*state.selection, *(p for p, _ in (*state.painted_rgb, *state.painted_depth))]
            wrong = [p for p in patches if not 0 <= p < rows * columns]
            if wrong or not -1 <= state.hover < rows * columns:
                problems.append(f"patches must be 0..{rows * columns - 1}; got {wrong or state.hover}")
        if problems:
            raise ConfigError(problems)
        return state

    # ---- scenes --------------------------------------------------------------------------------------------------

    def keep(self, name: str = "", words: str = "", picture: bytes = b"") -> Scene:
        """Keep the state as it is as a scene; without a name it gets a number's."""
        with self.lock:
            scene = Scene(name or f"scene {len(self.scenes) + 1}", dataclasses.replace(self.state, hover=-1),
                          words or self.words(), picture)
            self.scenes.append(scene)
            self._tell(frozenset({"scenes"}))
            return scene

    def forget(self, number: int) -> None:
        """Drop a scene.

        Raises:
            ConfigError: there is no such scene.
        """
        with self.lock:
            self._scene(number)
            del self.scenes[number]
            self._tell(frozenset({"scenes"}))

    def show_scene(self, number: int) -> SessionState:
        """Go back to a scene, counted from 0; one change that can be undone.

        Raises:
            ConfigError: there is no such scene, or it does not fit these frames or checkpoints.
        """
        with self.lock:
            state = dataclasses.replace(self._scene(number).state, hover=self.state.hover)
            return self._become(self._checked(state), "")

    @property
    def scene(self) -> int:
        """The scene whose state is shown, or -1."""
        now = dataclasses.replace(self.state, hover=-1)
        return next((number for number, scene in enumerate(self.scenes) if scene.state == now), -1)

    def _scene(self, number: int) -> Scene:
        if not 0 <= number < len(self.scenes):
            raise ConfigError(f"scene must be 0..{len(self.scenes) - 1}; got {number}" if self.scenes
                              else "no scene was kept yet: session.keep()")
        return self.scenes[number]

    # ---- painting and counterfactuals -----------------------------------------------------------------------------

    def paint(self, modality: str, patches: Iterable[int], value: int) -> None:
        """Paint patches of one modality.

        Args:
            modality: "rgb" or "depth".
            patches: numbers, row by row.
            value: 1 = hidden, 2 = visible, 0 = as the ratio says again.
        """
        name = f"painted_{modality}"
        if name not in ("painted_rgb", "painted_depth"):
            raise ConfigError(f"modality must be rgb or depth; got {modality!r}")
        with self.lock:
            painted = dict(getattr(self.state, name))
            for patch in patches:
                painted.pop(int(patch), None)
                if value:
                    painted[int(patch)] = value
            self.change(**{name: tuple(sorted(painted.items()))})

    def hide_object(self, patch: int) -> list[int]:
        """Hide the depth of the object that covers most of a patch, and show all colour: does colour bring it back?

        Returns:
            The depth patches that were hidden: all that the object touches.

        Raises:
            ConfigError: the frame has no instance labels, or nothing is labelled there.
        """
        rows, columns = self.grid
        thing = self.object_at(patch)
        touched = thing.reshape(rows, self.patch, columns, self.patch).any((1, 3)).ravel().nonzero()[0].tolist()
        painted = {**dict(self.state.painted_depth), **dict.fromkeys(touched, HIDDEN)}
        self.change(rgb_ratio=0.0, painted_depth=tuple(sorted(painted.items())), selection=tuple(touched))
        return touched

    def object_at(self, patch: int) -> np.ndarray:
        """The pixels of the labelled object that covers most of a patch, bool (H, W) at the model's size.

        Raises:
            ConfigError: the frame has no instance labels, or nothing is labelled there.
        """
        batch = self.batch()
        if batch.instance is None:
            raise ConfigError("this frame has no instance labels; hide an object in a frame that has (rooms, mosd_learn)")
        labels, (row, column), side = batch.instance[0].numpy(), divmod(patch, self.grid[1]), self.patch
        cell = labels[row * side:(row + 1) * side, column * side:(column + 1) * side]
        ids, counts = np.unique(cell[cell > 0], return_counts=True)
        if not len(ids):
            raise ConfigError(f"no labelled object in patch {patch}; choose a patch on one")
        return labels == ids[counts.argmax()]

    # ---- what the state names --------------------------------------------------------------------------------------

    def model(self, name: str | None = None) -> tuple[Mask3D, dict[str, Any]]:
        """A checkpoint's model and record, loaded once."""
        name = self.state.checkpoint if name is None else name
        with self.lock:
            if name not in self._models:
                found = self.checkpoints[name]
                self._models[name] = (found.eval(), {}) if isinstance(found, Mask3D) else load_model(found)
            return self._models[name]

    def loaded(self) -> list[tuple[Mask3D, dict[str, Any]]]:
        """The models that were loaded so far, with their records."""
        with self.lock:
            return list(self._models.values())

    def refresh(self, name: str, loaded: tuple[Mask3D, dict[str, Any]] | None = None) -> None:
        """Forget a loaded model: its file has changed (a run that goes on).

        Args:
            name: of the checkpoint.
            loaded: its newer model and record, where they were read already.
        """
        with self.lock:
            self._models.pop(name, None)
            if loaded is not None:
                self._models[name] = loaded[0].eval(), loaded[1]
        self._tell(frozenset({"checkpoint"}))

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.model()[0].config.grid

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.model()[0].config.patch

    def batch(self, number: int | None = None) -> Batch:
        """A frame fitted to the model's size, as a batch of one."""
        number = self.state.frame if number is None else number
        with self.lock:
            if number not in self._batches:
                while len(self._batches) >= 8:
                    self._batches.pop(next(iter(self._batches)))
                config = self.model()[0].config
                self._batches[number] = from_frames([self.frames[number]], config.image_size, [number])
            return self._batches[number]

    def limits(self) -> tuple[float, float]:
        """(near, far) metres of all depth pictures and clouds: locked by the reader, or the frame's own."""
        batch = self.batch()
        if self.state.depth_range is not None:
            return self.state.depth_range
        return depth_range(batch.depth[0], batch.is_valid[0]) if batch.is_valid.any() else (0.5, 4.0)

    def ranks(self, modality: str) -> np.ndarray:
        """Each patch's place in the seeded permutation, int64 (n,): 0 is shown first; ``NEVER`` holds nothing measured."""
        batch = self.batch()
        showable = patches_with_valid(batch.is_valid, self.patch) if modality == "depth" else None
        return patch_ranks(self.state.seed, batch.frame_ids, batch.epochs, modality, self.grid, 1, showable)[0].numpy()

    def is_masked(self, modality: str) -> np.ndarray:
        """bool (n,), True = hidden: by the ratio, then by hand. Depth patches with nothing measured are hidden."""
        ratio = self.state.rgb_ratio if modality == "rgb" else self.state.depth_ratio
        ranks = self.ranks(modality)
        hidden = mask_from_ranks(torch.from_numpy(ranks)[None], ratio)[0].numpy().copy()
        for patch, value in self.state.painted_rgb if modality == "rgb" else self.state.painted_depth:
            hidden[patch] = value == HIDDEN
        return hidden | (ranks == NEVER)

    def masks(self) -> Masks:
        """Both masks, as the model wants them."""
        rgb, depth = (torch.from_numpy(self.is_masked(m))[None] for m in ("rgb", "depth"))
        return Masks.painted(rgb, depth, self.batch().is_valid, self.patch)

    def words(self) -> str:
        """ "60 of 300 RGB patches and 52 of 261 depth patches visible": what the sliders mean."""
        said = []
        for modality, name in (("rgb", "RGB"), ("depth", "depth")):
            if modality in self.model()[0].config.inputs:  # what a model never sees is neither visible nor hidden
                hidden, count = self.is_masked(modality), int((self.ranks(modality) < NEVER).sum())
                said.append(f"{int((~hidden).sum())} of {count} {name} patches")
        return f"{' and '.join(said)} visible"

    # ---- to and from a file ----------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write state and scenes (without their pictures) as JSON."""
        path = Path(path)
        write_json(path, self.as_json())
        return path

    def as_json(self) -> dict[str, Any]:
        """State and scenes as plain values."""
        scenes = [{"name": scene.name, "words": scene.words, "state": _as_json(scene.state)} for scene in self.scenes]
        return {"kind": "mask3d-session", "format": FORMAT, "frame_name": self.frames.name(self.state.frame),
                "state": _as_json(self.state), "scenes": scenes}

    def load(self, path: str | Path) -> SessionState:
        """Take over a saved state, one change that can be undone, and its scenes in place of those that were here.

        Raises:
            Mask3DError: no such file, or no session; ConfigError: it does not fit these frames or checkpoints; nothing
                has changed then.
        """
        path = Path(path)
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError) as problem:
            raise Mask3DError("a saved session", str(problem), "Check the path.", path) from problem
        if (not isinstance(saved, dict) or saved.get("kind") != "mask3d-session" or not isinstance(saved.get("state"), dict)
                or not isinstance(saved.get("format"), int) or saved["format"] > FORMAT):
            raise Mask3DError(f"a session of format {FORMAT} or older", f"{str(saved)[:80]}",
                              "It was written by something else, or by a newer mask3d-lab.", path)
        with self.lock:
            try:
                scenes = [Scene(str(scene["name"]), self._made(scene["state"]), str(scene.get("words", "")))
                          for scene in saved.get("scenes", [])]
            except (KeyError, TypeError, AttributeError) as problem:
                raise Mask3DError("scenes with a name and a state each", f"{type(problem).__name__}: {problem}",
                                  "The file was changed by hand; mend it or take the scenes out.", path) from problem
            self._made(saved["state"])
            name, there = saved.get("frame_name"), int(saved["state"].get("frame", 0))
            if name and self.frames.name(there) != name:
                raise Mask3DError(f"a session on these frames, whose number {there} is {self.frames.name(there)}",
                                  f"one on {name}", "Open the session on the recording that it was saved on.", path)
            state = self.change(**saved["state"])
            self.scenes = scenes
            self._tell(frozenset({"scenes"}))
            return state

    def _made(self, values: dict[str, Any]) -> SessionState:
        """A state from saved values, checked."""
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(SessionState)})
        if unknown:
            raise ConfigError([f"a session has no {name}" for name in unknown])
        return self._checked(dataclasses.replace(self.state, **{k: _plain_tuple(v) for k, v in values.items()}))


def _as_json(state: SessionState) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(state).items() if name not in PASSING}


def _plain_tuple(value: Any) -> Any:
    """Lists, as JSON has them, become tuples all the way down; numpy numbers become Python's."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_plain_tuple(v) for v in (sorted(value) if isinstance(value, (set, frozenset)) else value))
    return value.item() if hasattr(value, "item") and not isinstance(value, torch.nn.Module) else value


__all__: Sequence[str] = ("COLOR_SOURCES", "HIDDEN", "SHOWN", "FrameList", "Scene", "Session", "SessionState")

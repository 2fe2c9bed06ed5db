"""One session: what all views of one analysis share. Its state, the history of it, and who wants to know of changes.

The state is one frozen dataclass of plain values: any change makes a new one, the old one goes to the history, and
everybody who asked is told what changed. So undo works for everything, a session is a small JSON file, and any view can
be driven from Python. Frames, models and predictions are looked up by what the state names, and cached.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask3d_core.batches import Batch, from_frames
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.files import write_json
from mask3d_core.masking import NEVER, Masks, mask_from_ranks, patch_ranks, patches_with_valid
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.training.checkpoint import load_model
from mask3d_viz.images import depth_range
from mask3d_viz.pixels import cut_patches, patch_words
from mask3d_viz.session_frames import FrameList, is_alike
from mask3d_viz.session_history import History
from mask3d_viz.session_state import (BESIDE, COLOR_MODES, COLOR_SOURCES, HIDDEN, LAYOUTS, SHOWN, VIEWS, Scene, SessionState,
                                     plain_tuple, state_as_json)

FORMAT = 1


class Session(History):
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
        self._models: dict[str, tuple[Mask3D, dict[str, Any]]] = {}
        self._batches: dict[int, Batch] = {}
        self.views: dict[tuple[str, str], Any] = {}  # the live one of each (cell, function), see explorers.base
        super().__init__(SessionState(checkpoint=next(iter(checkpoints))))
        self.state = self._checked(dataclasses.replace(self.state, **state))

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

    def _made(self, values: dict[str, Any]) -> SessionState:
        """A state from saved values, checked."""
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(SessionState)})
        if unknown:
            raise ConfigError([f"a session has no {name}" for name in unknown])
        return self._checked(dataclasses.replace(self.state, **{k: plain_tuple(v) for k, v in values.items()}))

    # ---- painting and counterfactuals -----------------------------------------------------------------------------

    def paint(self, modality: str, patches: Iterable[int], value: int) -> None:
        """Paint patches of one modality.

        Args:
            modality: "rgb" or "depth".
            patches: numbers, row by row.
            value: 1 = hidden, 2 = visible, 0 = as the ratio says again.
        """
        name = _painted(modality)
        with self.lock:
            painted = dict(getattr(self.state, name))
            for patch in patches:
                painted.pop(int(patch), None)
                if value:
                    painted[int(patch)] = value
            self.change(**{name: tuple(sorted(painted.items()))})

    def undo_stroke(self, modality: str) -> bool:
        """Take the last change of one modality's painting back: camera, selection and the other modality stay.

        Args:
            modality: "rgb" or "depth".

        Returns:
            False where there is none.

        Raises:
            ConfigError: another modality.
        """
        return self.step_back(_painted(modality))

    def hide_object(self, patch: int) -> list[int]:
        """Hide the depth of the object that covers most of a patch, and show all colour: does colour bring it back?

        One object at a time: the one that was hidden before is shown as the ratio says again. Nothing stays selected; the
        object is what :meth:`hidden_object` finds.

        Returns:
            The depth patches that were hidden: all that the object touches.

        Raises:
            ConfigError: the frame has no instance labels, or nothing is labelled there.
        """
        touched, before = patches_of(self.object_at(patch), self.grid), self.hidden_object()
        old = set() if before is None else set(patches_of(before, self.grid))
        painted = {p: value for p, value in self.state.painted_depth if p not in old} | dict.fromkeys(touched, HIDDEN)
        self.change(rgb_ratio=0.0, painted_depth=tuple(sorted(painted.items())), selection=())
        return touched

    def hidden_object(self) -> np.ndarray | None:
        """The pixels of the labelled object whose depth is hidden by hand, all of it, bool (H, W) at the model's size.

        The largest, where several are: one that stands before it is hidden with it. None where there is none.
        """
        by_hand = {patch for patch, value in self.state.painted_depth if value == HIDDEN}
        instance = self.batch().instance if by_hand else None
        if instance is None:
            return None
        labels = instance[0].numpy()
        cells, is_by_hand = cut_patches(labels, self.grid), np.zeros(self.grid, bool)
        is_by_hand.ravel()[list(by_hand)] = True
        ids, counts = np.unique(cells[is_by_hand], return_counts=True)
        is_whole = (ids > 0) & ~np.isin(ids, cells[~is_by_hand])
        return labels == ids[is_whole][counts[is_whole].argmax()] if is_whole.any() else None

    def object_at(self, patch: int) -> np.ndarray:
        """The pixels of the labelled object that covers most of a patch, bool (H, W) at the model's size.

        Raises:
            ConfigError: the frame has no instance labels, or nothing is labelled there.
        """
        batch = self.batch()
        if batch.instance is None:
            raise ConfigError(self.object_problem())
        labels, (row, column), side = batch.instance[0].numpy(), divmod(patch, self.grid[1]), self.patch
        cell = labels[row * side:(row + 1) * side, column * side:(column + 1) * side]
        ids, counts = np.unique(cell[cell > 0], return_counts=True)
        if not len(ids):
            raise ConfigError(f"no labelled object in {patch_words(patch, self.grid)}; choose a patch on one")
        return labels == ids[counts.argmax()]

    def object_problem(self) -> str:
        """Why no object of this frame can be hidden, in a line; "" where one can."""
        instance = self.batch().instance
        if instance is None or not (instance > 0).any():
            return "this frame has no instance labels; hide an object in a frame that has (rooms, mosd_learn)"
        return ""

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
        scenes = [{"name": scene.name, "words": scene.words, "state": state_as_json(scene.state)} for scene in self.scenes]
        return {"kind": "mask3d-session", "format": FORMAT, "frame_name": self.frames.name(self.state.frame),
                "frame_look": self.frames.look(self.state.frame), "state": state_as_json(self.state), "scenes": scenes}

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
            look = saved.get("frame_look")  # files from before it was kept have none
            if look is not None and not is_alike(look, self.frames.look(there)):
                raise Mask3DError(f"a session on these frames, whose number {there} is {self.frames.name(there)}",
                                  "one on another recording, whose frame of that name looks different",
                                  "Open the session on the recording that it was saved on.", path)
            state = self.change(**saved["state"])
            self.scenes = scenes
            self._tell(frozenset({"scenes"}))
            return state


def _painted(modality: str) -> str:
    """The state's value that holds a modality's painting."""
    if modality not in ("rgb", "depth"):
        raise ConfigError(f"modality must be rgb or depth; got {modality!r}")
    return f"painted_{modality}"


def patches_of(pixels: np.ndarray, grid: tuple[int, int]) -> list[int]:
    """Numbers of the patches that some pixels touch; pixels bool (H, W), grid (rows, columns) that divides it."""
    return cut_patches(pixels, grid).any(-1).ravel().nonzero()[0].tolist()


__all__: Sequence[str] = ("BESIDE", "COLOR_MODES", "COLOR_SOURCES", "HIDDEN", "LAYOUTS", "SHOWN", "VIEWS", "FrameList", "Scene",
                          "Session", "SessionState")

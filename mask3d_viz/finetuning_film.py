"""The fixed validation frames of fine-tuning runs as a film: colour, each run's answer step by step, the truth."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.store import read_header
from mask3d_core.training.checkpoint import read_json
from mask3d_viz import style
from mask3d_viz.downstream_view import greyed_out, mistakes
from mask3d_viz.drawing import blank, paste, text_block
from mask3d_viz.film import LONGEST, TILE, FilmPictures, thinned
from mask3d_viz.images import depth_image, depth_range, error_image, label_image
from mask3d_viz.objects_view import SHOWN, caption, name_of, objects_image
from mask3d_viz.pixels import resize_nearest, resize_smooth
from mask3d_viz.widgets.film_strip import film_picture

Previews = Sequence[tuple[int, Path]]
ANSWER, MISTAKES = "answer", "mistakes"  # what the changing tiles show


@dataclass(frozen=True)
class Frame:
    """One frame of a preview file.

    Args:
        color, truth: uint8 (h, w, 3), as they are drawn.
        tile: (height, width) of a tile.
        count: fixed frames in the file.
        present: class ids that the truth holds.
        is_training: it is learned from: no frame validates.
    """

    color: np.ndarray
    truth: np.ndarray
    tile: tuple[int, int]
    count: int
    present: tuple[int, ...] = ()
    is_training: bool = False


def class_names_of(run: Path) -> tuple[str, ...]:
    """The classes that a run tells apart: its store's, or where that is not here those of its newest weights; () without both."""
    with suppress(Mask3DError):
        return tuple(read_header(Path(read_json(Path(run) / "config.json").get("data", ""))).class_names)
    with suppress(Mask3DError):
        return tuple(read_json(Path(run) / "latest.json").get("class_names", ()))
    return ()


class FinetuningFilm:
    """Makes films of the preview files of fine-tuning runs; each file is read once per frame and way of looking.

    Args:
        class_names: says them when they are wanted.
        limit: pictures at most.
    """

    def __init__(self, class_names: Callable[[], Sequence[str]] = tuple, limit: int = LONGEST):
        self.class_names, self.limit = class_names, limit
        self._names: tuple[str, ...] = ()  # as they were when the last film was made
        self._tiles: dict[tuple, tuple[np.ndarray, str]] = {}
        self._frames: dict[tuple, Frame] = {}

    def make(self, previews: Previews, frame: int = 0) -> FilmPictures | None:
        """The film of one run, as ``FilmMaker.make`` gives it of a pre-training."""
        return self.beside({"Prediction": previews}, frame)

    def beside(self, runs: Mapping[str, Previews], frame: int = 0, look: str = ANSWER) -> FilmPictures | None:
        """The film of one fixed frame with the answers of several runs side by side.

        At each step of any run, every run shows its newest answer up to there.

        Args:
            runs: name to its previews, oldest first.
            frame: which of the fixed frames.
            look: "answer", or "mistakes": what is wrong in red (segment), or the error in metres (depth).

        Returns:
            None while there is no picture.
        """
        self._names = tuple(self.class_names())
        steps = thinned(sorted({step for previews in runs.values() for step, _ in previews}), self.limit)
        first = next((found for previews in runs.values() for _, path in previews if (found := self._frame(path, frame))), None)
        if first is None:
            return None
        shown, pictures, captions = [], [], []
        for step in steps:
            tiles, words = [], []
            for name, previews in runs.items():
                tile, said = self._newest(name, [p for p in previews if p[0] <= step], frame, look, first.tile)
                tiles.append(tile)
                words.append(said)
            shown.append(step)
            pictures.append(film_picture(tiles))
            captions.append(f"Step {step}{', a training frame (none validates)' if first.is_training else ''}: {', '.join(words)}")
        fixed = film_picture([resize_smooth(first.color, first.tile), resize_nearest(first.truth, first.tile)])
        return FilmPictures(tuple(shown), tuple(pictures), tuple(captions), fixed, ("RGB", *runs, "Truth"),
                            (False, *(True for _ in runs), False), first.tile, first.count)

    def present(self, runs: Mapping[str, Previews], frame: int = 0) -> tuple[int, ...]:
        """Class ids in the truth of a fixed frame, for the legend."""
        found = next((f for previews in runs.values() for _, path in previews if (f := self._frame(path, frame))), None)
        return found.present if found is not None else ()

    def _newest(self, name: str, previews: Previews, frame: int, look: str, size: tuple[int, int]) -> tuple[np.ndarray, str]:
        """A run's tile and words; of the file before where the newest cannot be read."""
        for _, path in reversed(previews):
            with suppress(OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
                key = (str(path), path.stat().st_mtime_ns, frame, look, self._names)
                if key not in self._tiles:
                    with np.load(path) as arrays:
                        picture, words = self._draw(dict(arrays), frame, look)
                    shrink = resize_smooth if look == ANSWER and picture.shape[1] > size[1] else resize_nearest
                    self._tiles[key] = shrink(picture, size), words
                tile, words = self._tiles[key]
                return tile, f"{name} {words}"
        tile = blank(size)
        paste(tile, text_block("not there yet", size[1] - 24, 16, role="muted"), size[0] // 2 - 12, 12)
        return tile, f"{name} not there yet"

    def _frame(self, path: Path, frame: int) -> Frame | None:
        """What stays through the film; None where the file cannot be read, or has no such frame."""
        try:
            key = (str(path), path.stat().st_mtime_ns, frame, self._names)
            if key not in self._frames:
                with np.load(path) as arrays:
                    self._frames[key] = replace(self._still(dict(arrays), frame), is_training="is_training" in arrays)
            return self._frames[key]
        except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
            return None

    def _still(self, arrays: dict[str, np.ndarray], frame: int) -> Frame:
        color = np.moveaxis(arrays["color"][frame], 0, -1)
        tile = (round(TILE * color.shape[0] / color.shape[1]), TILE)
        count = len(arrays["color"])
        if "semantic_prediction" in arrays:
            truth = arrays["semantic"][frame]
            present = tuple(int(k) for k in np.unique(truth) if k != IGNORE_LABEL)
            return Frame(color, label_image(truth, color, colors=self._colors(arrays)), tile, count, present)
        if "object_ids" in arrays:
            there = arrays["truth_labels"][frame] >= 0
            words = [name_of(self._names, k) for k in arrays["truth_labels"][frame][there].tolist()]
            return Frame(color, objects_image(color, arrays["truth_ids"][frame], arrays["truth_boxes"][frame][there], words,
                                              is_ignored=arrays["is_ignored"][frame]), tile, count)
        depth, is_valid = arrays["depth"][frame].astype(np.float32), arrays["is_valid"][frame]
        return Frame(color, depth_image(depth, is_valid, _limits(depth, is_valid)), tile, count)

    def _draw(self, arrays: dict[str, np.ndarray], frame: int, look: str) -> tuple[np.ndarray, str]:
        """The answer to one frame as a picture, and how good it is in words."""
        color = np.moveaxis(arrays["color"][frame], 0, -1)
        if "semantic_prediction" in arrays:
            truth, made = arrays["semantic"][frame], arrays["semantic_prediction"][frame]
            counted = truth != IGNORE_LABEL
            words = f"{(made == truth)[counted].mean():.0%} of pixels right" if counted.any() else "nothing to score"
            if look == MISTAKES:
                return mistakes(color, truth, made), words
            return greyed_out(label_image(made, color, colors=self._colors(arrays)), counted), words
        if "object_ids" in arrays:
            there = arrays["object_labels"][frame] >= 0
            kept = there & (arrays["object_scores"][frame] >= SHOWN)
            ids = np.where(arrays["object_ids"][frame] <= kept.sum(), arrays["object_ids"][frame], 0)
            words = [f"{name_of(self._names, k)} {score:.2f}" for k, score in
                     zip(arrays["object_labels"][frame][kept].tolist(), arrays["object_scores"][frame][kept].tolist())]
            return (objects_image(color, ids, arrays["object_boxes"][frame][kept], words),
                    caption(int(kept.sum()), int(there.sum() - kept.sum()), SHOWN))
        depth, is_valid = arrays["depth"][frame].astype(np.float32), arrays["is_valid"][frame]
        made = arrays["depth_prediction"][frame].astype(np.float32)
        error = np.abs(made - depth)[is_valid] / depth[is_valid]
        words = f"AbsRel {error.mean():.3f}" if error.size else "nothing measured"
        if look == MISTAKES:
            return error_image(made, depth, is_valid, 1.0), words + ", error on a scale of 1 m"
        return depth_image(made, None, _limits(depth, is_valid)), words

    def _colors(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        most = max(int(np.where(arrays[name] == IGNORE_LABEL, 0, arrays[name]).max())
                   for name in ("semantic", "semantic_prediction"))
        return style.label_colors(max(13, most + 1, len(self._names)))


def _limits(depth: np.ndarray, is_valid: np.ndarray) -> tuple[float, float]:
    return depth_range(depth, is_valid) if is_valid.any() else (0.5, 4.0)


__all__ = ["ANSWER", "MISTAKES", "FinetuningFilm", "class_names_of"]
